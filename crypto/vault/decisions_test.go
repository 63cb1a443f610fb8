package vault

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestRecords: a record is given back for its own key only, and goes when the machine that has the key has deleted it, or does not know it any more.
func TestRecords(t *testing.T) {
	r, err := OpenRecords(filepath.Join(t.TempDir(), "records"))
	if err != nil {
		t.Fatal(err)
	}
	rec := Record{Algorithm: Ed25519, Public: bytes.Repeat([]byte{7}, Ed25519.publicSize()), Name: "a"}
	put := func() Handle {
		t.Helper()
		h, err := r.Put(rec)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	h := put()
	if got, err := r.Get(h); err != nil || got.Name != "a" || got.Algorithm != Ed25519 || !bytes.Equal(got.Public, rec.Public) {
		t.Errorf("%+v, %v", got, err)
	}
	if key, err := r.VerifyingKey(t.Context(), h); err != nil || !bytes.Equal(key.Bytes, rec.Public) {
		t.Errorf("%+v, %v", key, err)
	}
	for name, text := range map[string]string{
		"another key's":          `{"algorithm":` + string(mustJSON(t, rec.Algorithm)) + `,"public":` + string(mustJSON(t, bytes.Repeat([]byte{8}, len(rec.Public)))) + `}`,
		"an unknown algorithm's": `{"algorithm":` + string(mustJSON(t, P256+1)) + `,"public":` + string(mustJSON(t, rec.Public)) + `}`,
		"one of another length":  `{"algorithm":` + string(mustJSON(t, P256)) + `,"public":` + string(mustJSON(t, rec.Public)) + `}`,
		"no record":              "{",
	} {
		if err := os.WriteFile(r.path(h), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := r.Get(h); !errors.Is(err, ErrKey) || got.Public != nil {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if err := r.Drop(h, func(Record) error { t.Error("a machine was asked to delete", name); return nil }); !errors.Is(err, ErrKey) {
			t.Errorf("%s, dropped: %v", name, err)
		}
	}
	broken := errors.New("the machine does not answer")
	for name, c := range map[string]struct{ says, want error }{
		"deleted": {nil, nil}, "not there": {ErrNotFound, nil}, "not deleted": {broken, broken},
	} {
		put()
		if err := r.Drop(h, func(got Record) error {
			if got.Name != "a" {
				t.Errorf("asked to delete %+v", got)
			}
			return c.says
		}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := r.Get(h); errors.Is(err, ErrNotFound) != (c.want == nil) {
			t.Errorf("%s: then %v", name, err)
		}
	}
	if err := r.Delete(h); err != nil {
		t.Error(err)
	}
	if err := r.Delete(h); err != nil {
		t.Errorf("deleted again: %v", err)
	}
	if err := r.Drop(h, func(Record) error { t.Error("asked to delete what has no record"); return nil }); err != nil {
		t.Errorf("dropped without a record: %v", err)
	}
}

// TestWhatCrashesLeft: old files of keys that were being written or deleted are removed, and nothing else.
func TestWhatCrashesLeft(t *testing.T) {
	dir := t.TempDir()
	long := time.Now().Add(-2 * leftover)
	for name, goes := range map[string]bool{newFile + "a": true, oldFile + "a": true, "key-a": false, newFile + "young": false, newFile + "dir": false} {
		path := filepath.Join(dir, name)
		if name == newFile+"dir" {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(path, []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
		if name != newFile+"young" {
			if err := os.Chtimes(path, long, long); err != nil {
				t.Fatal(err)
			}
		}
		files(dir).tidy()
		if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) != goes {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := wipeFile(filepath.Join(dir, "gone")); err != nil {
		t.Errorf("what another process was faster with: %v", err)
	}
	if err := wipeFile(dir); err == nil { // it is not empty
		t.Error("what cannot be removed")
	}
}

// TestWorkOfALock: a lock asks for no more work than it may, to the last unit.
func TestWorkOfALock(t *testing.T) {
	good := lock{kdf: kdfArgon2id, time: 1, memory: 8 << 10, threads: 1}
	for name, c := range map[string]struct {
		change func(*lock)
		ok     bool
	}{
		"the least":       {func(*lock) {}, true},
		"the most":        {func(l *lock) { l.time, l.memory, l.threads = maxArgonTime, maxArgonMemory, maxArgonThreads }, true},
		"no time":         {func(l *lock) { l.time = 0 }, false},
		"more time":       {func(l *lock) { l.time = maxArgonTime + 1 }, false},
		"less memory":     {func(l *lock) { l.memory = 8<<10 - 1 }, false},
		"more memory":     {func(l *lock) { l.memory = maxArgonMemory + 1 }, false},
		"no threads":      {func(l *lock) { l.threads = 0 }, false},
		"more threads":    {func(l *lock) { l.threads = maxArgonThreads + 1 }, false},
		"another way":     {func(l *lock) { l.kdf = 77 }, false},
		"HKDF, of no use": {func(l *lock) { l.kdf, l.time = kdfHKDF, 0 }, true},
	} {
		l := good
		c.change(&l)
		if _, err := parseLock(append(l.head(), make([]byte, lockSize-lockHead)...)); (err == nil) != c.ok || err != nil && !errors.Is(err, ErrLock) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
