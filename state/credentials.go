package state

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Credential is a cached credential of a member (docs/protocol/02 §4.5). Nothing in it is secret, and nothing is verified here.
type Credential struct {
	// Subject is who has the credential, Issuer the authority that gave it; identifiers as text.
	Subject string `json:"subject"`
	Issuer  string `json:"issuer"`
	// Scope says what it is for, such as project-member-ID.
	Scope string `json:"scope"`
	// Node is the node that it was stored for; empty if it is for any node that has the subject's identity.
	Node string `json:"node,omitempty"`
	// Raw is the credential with its purpose key attestation as received.
	Raw []byte `json:"credential"`
	// ExpiresAt is when it ends.
	ExpiresAt time.Time `json:"expires_at"`
}

type credentialFile struct {
	Version int `json:"version"`
	Credential
}

// credentialPath hashes the key, because scopes may contain anything. The parts are prefixed with their length, so that no two keys
// look the same.
func (d *Dir) credentialPath(subject, issuer, scope string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d:%s%d:%s%d:%s", len(subject), subject, len(issuer), issuer, len(scope), scope))
	return d.file("credentials", hex.EncodeToString(sum[:16])+".json")
}

// PutCredential stores a credential in place of the one with the same subject, issuer and scope.
func (d *Dir) PutCredential(ctx context.Context, c Credential) error {
	c.ExpiresAt = c.ExpiresAt.UTC()
	return d.locked(ctx, func() error {
		return d.writeJSON(d.credentialPath(c.Subject, c.Issuer, c.Scope), credentialFile{Version: fileVersion, Credential: c})
	})
}

// Credential returns a cached credential, even an expired one. The error is a NotFoundError if there is none.
func (d *Dir) Credential(subject, issuer, scope string) (Credential, error) {
	var f credentialFile
	err := d.readJSON(d.credentialPath(subject, issuer, scope), &f)
	if err == nil && f.Version == 0 {
		err = &NotFoundError{Kind: "credential", Name: scope}
	}
	return f.Credential, err
}

// DeleteCredential forgets a credential; it is no error if there is none.
func (d *Dir) DeleteCredential(ctx context.Context, subject, issuer, scope string) error {
	return d.locked(ctx, func() error { return removeFile(d.credentialPath(subject, issuer, scope)) })
}

// Credentials returns all cached credentials, in no particular order. With an error it returns those that could be read.
func (d *Dir) Credentials() ([]Credential, error) {
	names, err := entries(d.file("credentials"))
	if err != nil {
		return nil, err
	}
	var list []Credential
	var errs []error
	for _, name := range names {
		if !strings.HasSuffix(name, ".json") {
			continue
		}
		var f credentialFile
		err := d.readJSON(d.file("credentials", name), &f)
		switch {
		case err != nil:
			errs = append(errs, err)
		case f.Version != 0:
			list = append(list, f.Credential)
		}
	}
	return list, errors.Join(errs...)
}
