package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// maxRecord bounds a record's file, in bytes.
const maxRecord = 16 << 10

// Record is what is known of a key that is in a machine of its own. It holds no secret that is of use without that machine.
type Record struct {
	Algorithm KeyAlgorithm `json:"algorithm"`
	Public    []byte       `json:"public"`
	// Name is the key's name there, Blob what the machine has to be given to use it.
	Name string `json:"name,omitempty"`
	Blob []byte `json:"blob,omitempty"`
}

// Key returns the public key.
func (r Record) Key() VerifyingKey { return VerifyingKey{Algorithm: r.Algorithm, Bytes: r.Public} }

// Records keeps records in the files of a directory, one each.
type Records string

// OpenRecords uses a directory that nobody else has access to, and creates it.
func OpenRecords(dir string) (Records, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("vault: %w", err)
	}
	return Records(dir), private(dir)
}

func (r Records) path(h Handle) string { return filepath.Join(string(r), "key-"+string(h)+".json") }

// Get returns the record of a key; ErrNotFound if there is none, ErrKey if it is not of this key.
func (r Records) Get(h Handle) (rec Record, err error) {
	if !h.valid() {
		return rec, fmt.Errorf("%w: %q is no handle", ErrNotFound, string(h))
	}
	b, err := files(r).read(r.path(h), maxRecord)
	if errors.Is(err, fs.ErrNotExist) {
		return rec, fmt.Errorf("%w: %s", ErrNotFound, h)
	}
	if err == nil {
		err = json.Unmarshal(b, &rec)
	}
	if err == nil && (rec.Algorithm > P256 || len(rec.Public) != rec.Algorithm.publicSize() || HandleOf(rec.Public) != h) {
		err = errors.New("it is of another key")
	}
	if err != nil {
		return Record{}, fmt.Errorf("%w: %s: %w", ErrKey, r.path(h), err)
	}
	return rec, nil
}

// VerifyingKey implements the method of Vault with what is stored: the machine that has the key is not asked.
func (r Records) VerifyingKey(_ context.Context, h Handle) (VerifyingKey, error) {
	rec, err := r.Get(h)
	return rec.Key(), err
}

// Drop has the machine that has a key delete it, and forgets the record then. It is no error if either is not there.
func (r Records) Drop(h Handle, remove func(Record) error) error {
	rec, err := r.Get(h)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := remove(rec); err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	return r.Delete(h)
}

// Put stores the record of a key, and returns the key's handle.
func (r Records) Put(rec Record) (Handle, error) {
	b, err := json.Marshal(rec)
	if err != nil {
		return "", err
	}
	h := HandleOf(rec.Public)
	return h, files(r).write(r.path(h), b)
}

// Delete forgets a record; it is no error if there is none.
func (r Records) Delete(h Handle) error {
	if !h.valid() {
		return nil
	}
	if err := os.Remove(r.path(h)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("vault: %w", err)
	}
	return syncDir(string(r))
}
