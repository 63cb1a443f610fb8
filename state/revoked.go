package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	revokedFile = "revoked"
	pinsFile    = "pins.json"
	// fleetFile has the nodes that act as this one's identity, delegateFile who keeps the list that this node is on.
	fleetFile    = "fleet.json"
	delegateFile = "delegate.json"
)

// PutFleet keeps the list of the nodes that act as a node's identity, in whatever encoding.
func (d *Dir) PutFleet(node string, data []byte) error { return d.putOfNode(node, fleetFile, data) }

// Fleet returns what PutFleet kept, nil if nothing.
func (d *Dir) Fleet(node string) ([]byte, error) { return d.ofNode(node, fleetFile) }

// Delegate says as whom a node acts whose identity's primary key is elsewhere, with whom that is.
type Delegate struct {
	// Kind is relay or authority.
	Kind string `json:"kind"`
	// Identifier is of the identity, Keeper the route to who has its primary key.
	Identifier string `json:"identifier"`
	Keeper     string `json:"keeper"`
	// Route is where members reach this node.
	Route string `json:"route"`
}

// delegateVersion is a Delegate as it is stored.
type delegateVersion struct {
	Version int `json:"version"`
	Delegate
}

// PutDelegate keeps as whom a node acts.
func (d *Dir) PutDelegate(node string, v Delegate) error {
	dir, err := d.NodeDir(node)
	if err != nil {
		return err
	}
	return d.writeJSON(filepath.Join(dir, delegateFile), delegateVersion{fileVersion, v})
}

// Delegate returns what PutDelegate kept, nil if nothing: the node acts as an identity of its own.
func (d *Dir) Delegate(node string) (*Delegate, error) {
	dir, err := d.NodeDir(node)
	if err != nil {
		return nil, err
	}
	var v delegateVersion
	if err := d.readJSON(filepath.Join(dir, delegateFile), &v); err != nil || v.Identifier == "" {
		return nil, err
	}
	return &v.Delegate, nil
}

// PutRevoked keeps what a node knows of members whose credentials were taken back, in whatever encoding the node has for it.
func (d *Dir) PutRevoked(node string, data []byte) error { return d.putOfNode(node, revokedFile, data) }

// Revoked returns what PutRevoked kept, nil if nothing.
func (d *Dir) Revoked(node string) ([]byte, error) { return d.ofNode(node, revokedFile) }

// PutPins keeps who a node's inlets expect at the end of their routes, in whatever encoding the node has for it.
func (d *Dir) PutPins(node string, data []byte) error { return d.putOfNode(node, pinsFile, data) }

// Pins returns what PutPins kept, nil if nothing.
func (d *Dir) Pins(node string) ([]byte, error) { return d.ofNode(node, pinsFile) }

// PutCommandPins keeps who commands expect at the end of their routes, in whatever encoding.
func (d *Dir) PutCommandPins(data []byte) error { return writeFile(d.file(pinsFile), data) }

// CommandPins returns what PutCommandPins kept, nil if nothing.
func (d *Dir) CommandPins() ([]byte, error) {
	data, err := readFile(d.file(pinsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

func (d *Dir) putOfNode(node, name string, data []byte) error {
	dir, err := d.NodeDir(node)
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, name), data)
}

func (d *Dir) ofNode(node, name string) ([]byte, error) {
	dir, err := d.NodeDir(node)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}
