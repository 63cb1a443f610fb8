package wholefile

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// TestWrite: a file is made and replaced with its mode; when it cannot be written whole, it is what it was, and nothing is left beside it.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	broken := errors.New("broken")
	for _, c := range []struct {
		text string
		mode os.FileMode
		err  error
		want string
	}{
		{"one", 0o600, broken, ""},
		{"one", 0o600, nil, "one"},
		{"another", 0o644, nil, "another"},
		{"half", 0o600, broken, "another"},
	} {
		err := Write(path, ".file-*", c.mode, func(w io.Writer) error {
			if _, err := io.WriteString(w, c.text); err != nil {
				return err
			}
			if b, _ := os.ReadFile(path); string(b) == c.text {
				t.Errorf("%s: there before it is whole", c.text)
			}
			return c.err
		})
		if !errors.Is(err, c.err) {
			t.Errorf("%s: %v", c.text, err)
		}
		got, _ := os.ReadFile(path)
		if string(got) != c.want {
			t.Errorf("%s: the file has %q, not %q", c.text, got, c.want)
		}
		if info, err := os.Stat(path); c.err == nil && (err != nil || info.Mode().Perm() != c.mode) {
			t.Errorf("%s: mode %v, %v", c.text, info.Mode(), err)
		}
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) > 1 {
			t.Errorf("%s: %d entries beside it, %v", c.text, len(entries), err)
		}
	}
	if err := Write(filepath.Join(dir, "none", "file"), "*", 0o600, func(io.Writer) error { return nil }); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("in a directory that is not there: %v", err)
	}
}
