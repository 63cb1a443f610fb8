package identity

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"
)

// maxStatement bounds what VerifyStatement reads, in bytes.
const maxStatement = 16 << 10

// SignStatement signs what an issuer says in its own name, beside credentials and with the key that signs those. A verifier reads it with
// VerifyStatement, until the time given or the end of the issuer's primary key. Only nodes of ours know statements: their type is one that the
// reference has not.
func (m *Manager) SignStatement(ctx context.Context, issuer Identifier, content []byte, until time.Time) ([]byte, error) {
	key, err := m.purposeKey(ctx, issuer, CredentialSigning, nil, max(0, until.Sub(m.now())))
	if err != nil {
		return nil, err
	}
	data := appendVersioned(nil, typeStatement, content)
	digest := sha256.Sum256(data)
	sig, err := m.keys.Sign(ctx, key.Handle, digest[:])
	if err != nil {
		return nil, err
	}
	raw := appendList(nil, [][]byte{appendSigned(data, sig), key.Attestation})
	if len(raw) > maxStatement {
		return nil, fmt.Errorf("%w: a statement of %d bytes, at most %d", ErrEncoding, len(raw), maxStatement)
	}
	return raw, nil
}

// VerifyStatement returns what one of the issuers, whose histories must be known, said. The error matches ErrAttestation,
// ErrUnknownAuthority, ErrKeyType, ErrEncoding or vault.ErrSignature.
func (m *Manager) VerifyStatement(ctx context.Context, raw []byte, issuers []Identifier) ([]byte, error) {
	if len(raw) > maxStatement {
		return nil, fmt.Errorf("%w: a statement of %d bytes, at most %d", ErrEncoding, len(raw), maxStatement)
	}
	parts, err := splitCredential(raw) // of the same form
	if err != nil {
		return nil, err
	}
	a, err := m.VerifyAttestation(ctx, parts.attestation, nil)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(issuers, a.Subject) {
		return nil, fmt.Errorf("%w: the statement is from %s", ErrUnknownAuthority, a.Subject)
	}
	if a.Purpose != CredentialSigning {
		return nil, fmt.Errorf("%w: %s", ErrKeyType, a.Purpose)
	}
	digest := sha256.Sum256(parts.data)
	if err := m.proofs.verify(a.Key, digest[:], parts.signature); err != nil {
		return nil, err
	}
	return versioned(parts.data, typeStatement)
}
