package vault

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"syscall"
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

// TestWhatIsRead: a file is read up to the length that it may have, and what is no file is not.
func TestWhatIsRead(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	must(t, os.WriteFile(path, []byte("12345"), 0o600))
	for size, want := range map[int]error{4: ErrKey, 5: nil, 6: nil} {
		if b, err := files(dir).read(path, size); !errors.Is(err, want) || (string(b) == "12345") != (want == nil) {
			t.Errorf("at most %d bytes: %q, %v", size, b, err)
		}
	}
	sub := filepath.Join(dir, "directory")
	must(t, os.Mkdir(sub, 0o700))
	pipe := filepath.Join(dir, "pipe")
	must(t, syscall.Mkfifo(pipe, 0o600))
	for _, path := range []string{sub, pipe} {
		if b, err := files(dir).read(path, 1<<20); !errors.Is(err, ErrKey) {
			t.Errorf("%s: %q, %v", path, b, err)
		}
	}
}

// TestCheckPublic: a public key is of the length of its algorithm, and one of P-256 is a point.
func TestCheckPublic(t *testing.T) {
	v := NewMemory()
	for _, a := range []KeyAlgorithm{Ed25519, P256} {
		_, key, err := v.GenerateSigningKey(t.Context(), a)
		must(t, err)
		must(t, CheckPublic(key))
		wantIs(t, "another algorithm's", CheckPublic(VerifyingKey{Algorithm: 1 - a, Bytes: key.Bytes}), ErrKey)
		wantIs(t, "a byte too few", CheckPublic(VerifyingKey{Algorithm: a, Bytes: key.Bytes[1:]}), ErrKey)
		wantIs(t, "a byte too many", CheckPublic(VerifyingKey{Algorithm: a, Bytes: append(bytes.Clone(key.Bytes), 0)}), ErrKey)
		wantIs(t, "none", CheckPublic(VerifyingKey{Algorithm: a}), ErrKey)
		wantIs(t, "unknown algorithm", CheckPublic(VerifyingKey{Algorithm: P256 + 1, Bytes: key.Bytes}), ErrAlgorithm)

		// Its record, in another machine's place, comes back.
		r, err := OpenRecords(filepath.Join(t.TempDir(), "records"))
		must(t, err)
		h, err := r.Put(Record{Algorithm: a, Public: key.Bytes})
		must(t, err)
		if got, err := r.Get(h); err != nil || got.Algorithm != a || !bytes.Equal(got.Public, key.Bytes) {
			t.Errorf("%s: %+v, %v", a, got, err)
		}
	}
	wantIs(t, "no point", CheckPublic(VerifyingKey{Algorithm: P256, Bytes: make([]byte, P256.publicSize())}), ErrKey)
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
