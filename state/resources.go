package state

import (
	"context"
	"encoding/json"
	"errors"

	"sallyport/node/resource"
)

// resourcesVersion is the version of resources.json that is written. Version 1 is read too.
const resourcesVersion = 2

// resourcesFile is the file since version 2.
type resourcesFile struct {
	Version   int               `json:"version"`
	Resources []resource.Stored `json:"resources"`
}

// Resources returns what a node has and opens again when it comes back; nil if nothing was stored. A file that cannot be understood
// is a BrokenFileError, and stays.
func (d *Dir) Resources(node string) ([]resource.Stored, error) {
	if err := CheckName("node", node); err != nil {
		return nil, err
	}
	var raw json.RawMessage
	path := d.file("nodes", node, "resources.json")
	if err := d.readVersion(path, resourcesVersion, &raw); err != nil || raw == nil {
		return nil, err
	}
	var f resourcesFile
	err := json.Unmarshal(raw, &f)
	if err == nil && f.Version == 1 {
		f.Resources, err = resourcesOfVersion1(raw)
	}
	if err != nil {
		return nil, &BrokenFileError{Path: path, Copy: keepCopy(path, raw), Err: err}
	}
	return f.Resources, nil
}

// UpdateResources changes the resources of a node, under the lock. It fails if the stored ones are broken, and leaves them alone.
func (d *Dir) UpdateResources(
	ctx context.Context, node string, change func([]resource.Stored) ([]resource.Stored, error),
) error {
	return d.locked(ctx, func() error {
		list, err := d.Resources(node)
		if err != nil {
			return err
		}
		if list, err = change(list); err != nil {
			return err
		}
		return d.writeResources(node, list)
	})
}

// SaveResources replaces the resources of a node. If the stored ones are broken, a copy of them is kept first.
func (d *Dir) SaveResources(ctx context.Context, node string, list []resource.Stored) error {
	return d.locked(ctx, func() error {
		var broken *BrokenFileError
		if _, err := d.Resources(node); err != nil && (!errors.As(err, &broken) || broken.Copy == "") {
			return err
		}
		return d.writeResources(node, list)
	})
}

func (d *Dir) writeResources(node string, list []resource.Stored) error {
	// A node that was deleted meanwhile must not get its directory back.
	if _, err := d.readNode(node); err != nil {
		return err
	}
	return d.writeJSON(d.file("nodes", node, "resources.json"), resourcesFile{Version: resourcesVersion, Resources: list})
}
