package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

const revokedFile = "revoked"

// PutRevoked keeps what a node knows of members whose credentials were taken back, in whatever encoding the node has for it.
func (d *Dir) PutRevoked(node string, data []byte) error {
	dir, err := d.NodeDir(node)
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, revokedFile), data)
}

// Revoked returns what PutRevoked kept, nil if nothing.
func (d *Dir) Revoked(node string) ([]byte, error) {
	dir, err := d.NodeDir(node)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(filepath.Join(dir, revokedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}
