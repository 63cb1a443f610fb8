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
)

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
