package state

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// maxSocketPath is the longest path of a Unix socket: sun_path has 108 bytes, the last one is zero.
const maxSocketPath = 107

// SocketPath returns where the admin socket of a node belongs: nodes/NAME/admin.sock, or, if that is too long for the kernel, a short
// name derived from it in $XDG_RUNTIME_DIR/sallyport or /tmp/sallyport-UID. That directory is created if needed, and refused if it
// is not ours alone (ErrUnsafe).
func (d *Dir) SocketPath(node string) (string, error) {
	if err := CheckName("node", node); err != nil {
		return "", err
	}
	path := d.file("nodes", node, "admin.sock")
	if len(path) <= maxSocketPath {
		return path, nil
	}
	sum := sha256.Sum256([]byte(path))
	name := hex.EncodeToString(sum[:8]) + ".sock"
	short := filepath.Join("/tmp", "sallyport-"+strconv.Itoa(os.Geteuid()))
	if run := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(run) && len(filepath.Join(run, "sallyport", name)) <= maxSocketPath {
		short = filepath.Join(run, "sallyport")
	}
	if err := privateDir(short); err != nil {
		return "", fmt.Errorf("admin socket of node %q: %w", node, err)
	}
	return filepath.Join(short, name), nil
}

// privateDir creates a directory, or makes sure that the one that is there was not put there by somebody else: /tmp belongs to all.
func privateDir(path string) error {
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(path) // a symbolic link is not a directory
	if err != nil {
		return err
	}
	return checkOwned(path, info, 0o077)
}
