package state

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"

	"sallyport/project"
)

// StoredProject is a project with its place in the state.
type StoredProject struct {
	IsDefault bool             `json:"is_default"`
	Project   *project.Project `json:"project"`
}

type projectsFile struct {
	Version int `json:"version"`
	// Projects are in the order in which they were stored, the latest last.
	Projects []StoredProject `json:"projects"`
}

func (f *projectsFile) find(id string) int {
	return slices.IndexFunc(f.Projects, func(s StoredProject) bool { return s.Project.ID == id })
}

func (d *Dir) readProjects() (f projectsFile, err error) {
	err = d.readJSON(d.file("projects.json"), &f)
	// `"project": null` is valid JSON.
	f.Projects = slices.DeleteFunc(f.Projects, func(s StoredProject) bool { return s.Project == nil })
	return f, err
}

func (d *Dir) changeProjects(ctx context.Context, change func(*projectsFile) error) error {
	return d.locked(ctx, func() error {
		f, err := d.readProjects()
		if err != nil {
			return err
		}
		if err := change(&f); err != nil {
			return err
		}
		f.Version = fileVersion
		return d.writeJSON(d.file("projects.json"), f)
	})
}

// PutProject verifies and stores a project. One with the same id is replaced. The first becomes the default.
func (d *Dir) PutProject(ctx context.Context, p *project.Project) error {
	c := *p
	if err := c.Verify(); err != nil {
		return err
	}
	return d.changeProjects(ctx, func(f *projectsFile) error {
		s := StoredProject{Project: &c, IsDefault: len(f.Projects) == 0}
		if i := f.find(c.ID); i >= 0 {
			s.IsDefault = f.Projects[i].IsDefault
			f.Projects = slices.Delete(f.Projects, i, i+1)
		}
		f.Projects = append(f.Projects, s)
		return nil
	})
}

// Project returns a project by name or id; the empty text means the default. Names need not be unique, ids are: of several projects
// with the name the default is taken, else the one stored last; an id is preferred to a name. The error is a NotFoundError if there
// is none.
func (d *Dir) Project(nameOrID string) (StoredProject, error) {
	f, err := d.readProjects()
	if err != nil {
		return StoredProject{}, err
	}
	if i := f.lookup(nameOrID); i >= 0 {
		return f.Projects[i], nil
	}
	return StoredProject{}, &NotFoundError{Kind: "project", Name: nameOrID}
}

// ProjectsFile returns the file of all projects as it is, empty if there is none: while it is the same, so are they.
func (d *Dir) ProjectsFile() ([]byte, error) {
	raw, err := readFile(d.file("projects.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return raw, err
}

func (f *projectsFile) lookup(nameOrID string) int {
	found := -1
	for i, s := range f.Projects {
		switch {
		case nameOrID == "":
			if s.IsDefault {
				return i
			}
		case s.Project.ID == nameOrID:
			return i
		case s.Project.Name == nameOrID && (found < 0 || !f.Projects[found].IsDefault):
			found = i
		}
	}
	return found
}

// Projects returns all projects, sorted by name and id.
func (d *Dir) Projects() ([]StoredProject, error) {
	f, err := d.readProjects()
	slices.SortFunc(f.Projects, func(a, b StoredProject) int {
		if c := strings.Compare(a.Project.Name, b.Project.Name); c != 0 {
			return c
		}
		return strings.Compare(a.Project.ID, b.Project.ID)
	})
	return f.Projects, err
}

// SetDefaultProject makes a project, given by name or id, the default.
func (d *Dir) SetDefaultProject(ctx context.Context, nameOrID string) error {
	return d.changeProjects(ctx, func(f *projectsFile) error {
		i := f.lookup(nameOrID)
		if i < 0 {
			return &NotFoundError{Kind: "project", Name: nameOrID}
		}
		for j := range f.Projects {
			f.Projects[j].IsDefault = j == i
		}
		return nil
	})
}

// DeleteProject forgets a project, given by name or id.
func (d *Dir) DeleteProject(ctx context.Context, nameOrID string) error {
	return d.changeProjects(ctx, func(f *projectsFile) error {
		i := f.lookup(nameOrID)
		if i < 0 {
			return &NotFoundError{Kind: "project", Name: nameOrID}
		}
		f.Projects = slices.Delete(f.Projects, i, i+1)
		if len(f.Projects) == 1 {
			f.Projects[0].IsDefault = true
		}
		return nil
	})
}
