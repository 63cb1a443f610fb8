package state

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sallyport/internal/wholefile"
)

// A restore writes everything into a directory beside the state, syncs it, and renames it to readyName: from then on it is done, whatever happens.
// What is left to do, moving what was there before aside and the new files to their places, is done by whoever opens the state directory next, should
// the process end in between. All is within the state directory, since its owner may not write to the directory above, and it may be a mount point.
const (
	stagingName  = ".restore.tmp"
	readyName    = "restored"        // complete; what was there before is still in its place, or some of it
	movingName   = "restored-moving" // what was there before has gone aside
	replacedName = "replaced-"       // and a time: what was there before
	replacedTime = "20060102-150405.000000000"
)

// ErrNotEmpty reports that a state directory has something already.
var ErrNotEmpty = errors.New("there is state already")

// Staging is a state directory that is being restored.
type Staging struct {
	d    *Dir
	path string
}

// Restore replaces the state by what fill puts into a Staging, all of it or nothing. It refuses while nodes run (InUseError), and unless replace is
// set where there is state already (ErrNotEmpty); what was there is then moved to the directory whose path is returned.
func (d *Dir) Restore(ctx context.Context, replace bool, fill func(*Staging) error) (replaced string, err error) {
	err = d.locked(ctx, func() error {
		nodes, err := d.Nodes()
		if err != nil && !replace { // with it, what is broken goes aside like all else
			return err
		}
		var running []string
		for _, n := range nodes {
			if n.Status() == Running {
				running = append(running, fmt.Sprintf("running node %q", n.Name))
			}
		}
		if len(running) > 0 {
			return &InUseError{Kind: "state directory", Name: d.path, By: running}
		}
		old, err := d.replaceable()
		if err != nil {
			return err
		}
		if len(old) > 0 && !replace {
			return fmt.Errorf("%w in %s: %s", ErrNotEmpty, d.path, strings.Join(old, ", "))
		}
		s := &Staging{d: d, path: d.file(stagingName)}
		if err := os.RemoveAll(s.path); err != nil {
			return err
		}
		defer os.RemoveAll(s.path) // it is not there any more if all went well
		if err := os.Mkdir(s.path, 0o700); err != nil {
			return err
		}
		if err := fill(s); err != nil {
			return err
		}
		if err := s.complete(); err != nil {
			return err
		}
		if err := os.Rename(s.path, d.file(readyName)); err != nil {
			return err
		}
		if replaced, err = d.finishRestore(); err != nil {
			return fmt.Errorf("the state is restored, but not all of it is in its place; the next command goes on: %w", err)
		}
		return nil
	})
	return replaced, err
}

// Create makes a file of the state that is restored; the name is one that Copy gave, else an error. The caller closes it.
func (s *Staging) Create(name string) (io.WriteCloser, error) {
	if !mayRestore(name) {
		return nil, fmt.Errorf("%q is no file of a state directory", name)
	}
	path := filepath.Join(s.path, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return &synced{f}, nil
}

// synced is a file that is on the disk when it is closed.
type synced struct{ *os.File }

func (f *synced) Close() error { return errors.Join(f.Sync(), f.File.Close()) }

// Stores returns the paths of the authorities' stores that are there.
func (s *Staging) Stores() ([]string, error) {
	return filepath.Glob(filepath.Join(s.path, "authority-*.db"))
}

// complete puts in order what depends on where the state is, and reads all records, so that a state that could not be used is not put in place.
func (s *Staging) complete() error {
	there := &Dir{path: s.path}
	var vaults vaultsFile
	if err := there.readJSON(there.file("vaults.json"), &vaults); err != nil {
		return err
	}
	for i := range vaults.Vaults {
		v := &vaults.Vaults[i]
		if err := CheckName("vault", v.Name); err != nil {
			return err
		}
		v.Path = s.d.file(vaultsDir, v.Name)
		if err := mkdir(there.file(vaultsDir, v.Name)); err != nil { // one without keys has no file
			return err
		}
	}
	if err := there.writeVaults(&vaults); err != nil {
		return err
	}
	if _, err := there.Identities(); err != nil {
		return err
	}
	nodes, err := there.Nodes()
	if err != nil {
		return err
	}
	for _, n := range nodes {
		if _, err := there.Resources(n.Name); err != nil {
			return err
		}
		n.Process, n.AdminSocket = Process{}, ""
		if err := there.writeNode(n); err != nil {
			return err
		}
	}
	if _, err := there.Projects(); err != nil {
		return err
	}
	stores, err := s.Stores()
	if err != nil {
		return err
	}
	for _, path := range stores {
		if err := writeFile(path+".made", nil); err != nil { // that there was a store
			return err
		}
	}
	return filepath.WalkDir(s.path, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			err = wholefile.SyncDir(path)
		}
		return err
	})
}

// replaceable returns the names of what is there and makes a state.
func (d *Dir) replaceable() (names []string, err error) {
	list, err := os.ReadDir(d.path)
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		name := e.Name()
		lock, _ := filepath.Match("first-use-*.lock", name)
		if lock || name == lockName || name == reserveName || name == readyName || name == movingName || strings.HasPrefix(name, ".") ||
			strings.HasPrefix(name, replacedName) || !isOwn(name) {
			continue
		}
		names = append(names, name)
	}
	return names, nil
}

// finishRestore does what is left to do of a restore, under the lock; nothing if there was none. It returns where it put what was there before.
func (d *Dir) finishRestore() (replaced string, err error) {
	if info, err := os.Lstat(d.file(readyName)); err == nil {
		old, err := d.replaceable()
		if err != nil {
			return "", err
		}
		// The name comes from the restore, so that one that is gone on with uses it too.
		aside := d.file(replacedName + info.ModTime().UTC().Format(replacedTime))
		if len(old) > 0 {
			if err := mkdir(aside); err != nil {
				return "", err
			}
		}
		for _, name := range old {
			if err := os.Rename(d.file(name), filepath.Join(aside, name)); err != nil {
				return "", err
			}
		}
		if _, err := os.Lstat(aside); err == nil {
			replaced = aside
			if err := wholefile.SyncDir(aside); err != nil {
				return "", err
			}
		}
		if err := wholefile.SyncDir(d.path); err != nil {
			return "", err
		}
		if err := os.Rename(d.file(readyName), d.file(movingName)); err != nil {
			return "", err
		}
	}
	list, err := os.ReadDir(d.file(movingName))
	if errors.Is(err, fs.ErrNotExist) {
		return replaced, nil
	}
	if err != nil {
		return "", err
	}
	for _, e := range list {
		// What a command wrote that began before the restore, and went on while it was interrupted, is not worth keeping from the end.
		if _, err := os.Lstat(d.file(e.Name())); err == nil {
			late := d.file(replacedName + time.Now().UTC().Format(replacedTime))
			if err := errors.Join(mkdir(late), os.Rename(d.file(e.Name()), filepath.Join(late, e.Name()))); err != nil {
				return "", err
			}
		}
		if err := os.Rename(d.file(movingName, e.Name()), d.file(e.Name())); err != nil {
			return "", err
		}
	}
	return replaced, errors.Join(os.Remove(d.file(movingName)), wholefile.SyncDir(d.path))
}

// resume goes on with a restore whose process ended before all was in its place.
func (d *Dir) resume() error {
	for _, name := range []string{readyName, movingName} {
		if _, err := os.Lstat(d.file(name)); err == nil {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			if err := d.locked(ctx, func() error { _, err := d.finishRestore(); return err }); err != nil {
				return fmt.Errorf("a restore that was interrupted cannot be finished: %w", err)
			}
		}
	}
	return nil
}
