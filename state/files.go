package state

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"sallyport/internal/wholefile"
)

// maxFile bounds what is read into memory. The largest file, resources.json of a node with ten thousand portals, has a few MB.
const maxFile = 64 << 20

// fileVersion is the version of the JSON files that this program reads and writes.
const fileVersion = 1

// writeFile replaces path by data, or creates it. After a crash the file has its old or its new content. The caller holds the lock,
// so the name of the temporary file can be fixed, and what a crash leaves is overwritten the next time.
func writeFile(path string, data []byte) error {
	if err := mkdir(filepath.Dir(path)); err != nil {
		return err
	}
	tmp := tempName(path)
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return wholefile.SyncDir(filepath.Dir(path))
}

func tempName(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".tmp")
}

// removeFile deletes path for good; it is no error if it is not there.
func removeFile(path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return wholefile.SyncDir(filepath.Dir(path))
}

// mkdir creates a directory and its parents with mode 0700, durably.
func mkdir(path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	return wholefile.SyncDir(filepath.Dir(path))
}

// readFile returns fs.ErrNotExist if there is no file. What is no regular file is an error: a pipe would hold up whoever reads it.
func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s: larger than %d bytes", path, maxFile)
	}
	return data, err
}

// readJSON reads a file into v, which stays as it is if there is no file.
func (d *Dir) readJSON(path string, v any) error { return d.readVersion(path, fileVersion, v) }

// readVersion is readJSON for a file whose newest version is another one than that of most files.
func (d *Dir) readVersion(path string, newest int, v any) error {
	data, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var head struct {
		Version int `json:"version"`
	}
	if err = json.Unmarshal(data, &head); err == nil {
		switch {
		case head.Version > newest:
			return fmt.Errorf("%s: %w of this program (version %d, this one knows %d)", path, ErrNewer, head.Version, newest)
		case head.Version < 1:
			err = errors.New("it has no version")
		default:
			err = json.Unmarshal(data, v)
		}
	}
	if err != nil {
		return &BrokenFileError{Path: path, Copy: keepCopy(path, data), Err: err}
	}
	return nil
}

// writeJSON writes v, whose version field must be set.
func (d *Dir) writeJSON(path string, v any) error {
	b, err := encodeJSON(path, v)
	if err != nil {
		return err
	}
	return writeFile(path, b)
}

// encodeJSON returns the content of a file; name is for the error.
func encodeJSON(name string, v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", " ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return b.Bytes(), nil
}

// keepCopy saves the content of a broken file next to it, once per content, and returns the copy's path.
func keepCopy(path string, data []byte) string {
	sum := sha256.Sum256(data)
	name := path + ".broken-" + hex.EncodeToString(sum[:4])
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return name
	}
	if err != nil {
		return ""
	}
	_, err = f.Write(data)
	if errors.Join(err, f.Sync(), f.Close()) != nil {
		_ = os.Remove(name)
		return ""
	}
	return name
}

// entries returns the names of the entries of a directory that do not start with a dot; none if it does not exist.
func entries(path string) ([]string, error) {
	list, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range list {
		if !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// copyTree copies regular files and directories, durably. to must not exist.
func copyTree(from, to string) error {
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	list, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range list {
		src, dst := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		switch {
		case e.IsDir():
			err = copyTree(src, dst)
		case e.Type().IsRegular():
			err = copyFile(src, dst)
		}
		if err != nil {
			return err
		}
	}
	return wholefile.SyncDir(to)
}

func copyFile(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Sync(), dst.Close())
}
