package authority

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestBrokenStore: a file that was cut or overwritten is an error that names it, not the end of the process.
func TestBrokenStore(t *testing.T) {
	dir := t.TempDir()
	whole := filepath.Join(dir, "whole.db")
	store, err := OpenStore(whole)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 400 {
		m := Member{ID: some(byte(i)), Attributes: Attributes{"padding": strings.Repeat("x", 500)}, AddedAt: time.Unix(1, 0)}
		m.ID[0] = byte(i >> 8)
		if err := store.PutMember(t.Context(), m, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	if store, err = OpenStore(whole); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(b []byte) []byte{
		"cut in the middle":  func(b []byte) []byte { return b[:len(b)/2] },
		"cut to three pages": func(b []byte) []byte { return b[:3*page] },
		"cut to one byte":    func(b []byte) []byte { return b[:1] },
		"both metas overwritten": func(b []byte) []byte {
			rand.Read(b[:2*page])
			return b
		},
		"all but the metas overwritten": func(b []byte) []byte {
			rand.Read(b[2*page:])
			return b
		},
		"zeros behind the metas": func(b []byte) []byte {
			clear(b[2*page:])
			return b
		},
	} {
		path := filepath.Join(dir, "broken.db")
		if err := os.WriteFile(path, spoil(append([]byte(nil), content...)), 0o600); err != nil {
			t.Fatal(err)
		}
		store, err := OpenStore(path)
		if err == nil {
			_ = store.Close()
			t.Errorf("%s: opened", name)
			continue
		}
		if !errors.Is(err, ErrStoreBroken) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}
