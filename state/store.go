package state

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"

	"sallyport/crypto/identity"
	"sallyport/project"
)

// Store is the directory as an identity.Store: change histories and purpose key attestations of all identities, own and foreign.
type Store struct {
	d      *Dir
	proofs identity.Proofs // a file that has not changed costs no public-key work
}

var _ identity.Store = (*Store)(nil)

// Store returns the directory's identities in the form that package crypto/identity works with.
func (d *Dir) Store() *Store { return &Store{d: d} }

func (d *Dir) historyPath(identifier string) string { return d.file("histories", identifier) }

// ChangeHistory returns the stored change history of an identity, CBOR and not verified, for an identifier as text. The error
// matches ErrNotFound if there is none.
func (d *Dir) ChangeHistory(identifier string) ([]byte, error) {
	// Nothing but an identifier may become the name of a file.
	if id, err := identity.ParseIdentifier(identifier); err != nil || id.String() != identifier {
		return nil, &NotFoundError{Kind: "change history", Name: identifier}
	}
	raw, err := readFile(d.historyPath(identifier))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &NotFoundError{Kind: "change history", Name: identifier}
	}
	return raw, err
}

// Identity implements identity.Store. The history is verified again, as the file may have been changed. The error matches both
// identity.ErrNotFound and ErrNotFound if there is none, and is a BrokenFileError if it does not verify.
func (s *Store) Identity(_ context.Context, id identity.Identifier) (*identity.Identity, error) {
	raw, err := s.d.ChangeHistory(id.String())
	if errors.Is(err, ErrNotFound) {
		return nil, fmt.Errorf("%w: %w", identity.ErrNotFound, err)
	}
	if err != nil {
		return nil, err
	}
	i, err := s.proofs.Import(raw, &id)
	if err != nil {
		path := s.d.historyPath(id.String())
		return nil, &BrokenFileError{Path: path, Copy: keepCopy(path, raw), Err: err}
	}
	return i, nil
}

// PutIdentity implements identity.Store: it stores a history that is new, or newer than the known one, atomically among all
// processes. An older or conflicting one is identity.ErrConsistency.
func (s *Store) PutIdentity(ctx context.Context, i *identity.Identity) error {
	return s.put(ctx, i, identity.CheckUpdate)
}

// ImportProject is PutProject for a project from a file or ticket: it also stores the histories of the project and its authority.
// An older history is ignored if a newer one is known; a conflicting one is identity.ErrConsistency (docs/protocol/02 §2.5, §6.3).
func (d *Dir) ImportProject(ctx context.Context, p *project.Project) error {
	ignoreOlder := func(known, received *identity.Identity) (bool, error) {
		if known != nil && identity.Compare(known, received) == identity.Older {
			return false, nil
		}
		return identity.CheckUpdate(known, received)
	}
	for _, h := range []string{p.ChangeHistory, p.AuthorityChangeHistory} {
		if h == "" {
			continue
		}
		i, err := identity.ImportHex(h, nil)
		if err != nil {
			return fmt.Errorf("project %q: %w", p.Name, err)
		}
		if err := d.Store().put(ctx, i, ignoreOlder); err != nil {
			return fmt.Errorf("project %q: %w", p.Name, err)
		}
	}
	return d.PutProject(ctx, p)
}

func (s *Store) put(ctx context.Context, i *identity.Identity, decide func(known, received *identity.Identity) (bool, error)) error {
	path := s.d.historyPath(i.Identifier().String())
	// A peer that is known already, the usual case in a handshake, needs no lock.
	if raw, err := readFile(path); err == nil && bytes.Equal(raw, i.History()) {
		return nil
	}
	return s.d.locked(ctx, func() error {
		known, err := s.Identity(ctx, i.Identifier())
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		if store, err := decide(known, i); err != nil || !store {
			return err
		}
		return writeFile(path, i.History())
	})
}

// purposeFiles are the endings of the files with attestations, named as in the reference's database (docs/protocol/02 §8.2).
var purposeFiles = map[identity.Purpose]string{identity.SecureChannel: "SC_PK", identity.CredentialSigning: "C_PK"}

func (d *Dir) purposeKeyPath(identifier string, p identity.Purpose) (string, error) {
	name, ok := purposeFiles[p]
	if !ok {
		return "", fmt.Errorf("purpose key: unknown purpose %d", uint8(p))
	}
	return d.file("purpose_keys", identifier+"-"+name), nil
}

// RetirePurposeKeys hands each stored attestation of an identity's purpose keys to wipe, which deletes the key, and removes it. Nothing
// stores any now: keys are in memory alone.
func (d *Dir) RetirePurposeKeys(identifier string, wipe func(attestation []byte) error) error {
	for p := range purposeFiles {
		path, err := d.purposeKeyPath(identifier, p)
		if err != nil {
			return err
		}
		raw, err := readFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = wipe(raw)
		}
		if err == nil {
			err = removeFile(path)
		}
		if err != nil {
			return fmt.Errorf("stored %s key of %s: %w", p, identifier, err)
		}
	}
	return nil
}

func (d *Dir) deletePurposeKeys(identifier string) error {
	for p := range purposeFiles {
		path, err := d.purposeKeyPath(identifier, p)
		if err == nil {
			err = removeFile(path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
