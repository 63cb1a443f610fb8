package identity

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"sort"
	"time"

	"sallyport/crypto/vault"
	"sallyport/internal/cborhead"
)

// Attributes are what a credential says of its subject. Keys and values are arbitrary bytes, not only text.
type Attributes map[string]string

// Credential is a verified credential.
type Credential struct {
	Subject Identifier
	Issuer  Identifier
	// Schema says how attributes are meant; 1 is a project's member. Verification does not depend on it.
	Schema     uint64
	Attributes Attributes
	// Both times are included.
	CreatedAt, ExpiresAt Timestamp
}

// memberSchema is the schema of a project member's attributes.
const memberSchema = 1

// credentialParts is [credential, attestation], taken apart: what the credential says is read when its signature was verified.
type credentialParts struct {
	data        []byte
	signature   vault.Signature
	attestation []byte
}

func splitCredential(raw []byte) (c credentialParts, err error) {
	if len(raw) > maxCredential {
		return c, fmt.Errorf("%w: %d bytes, at most %d", ErrEncoding, len(raw), maxCredential)
	}
	var inner []byte
	r := &reader{b: raw}
	r.fields(2, func(i int) {
		if i == 0 {
			inner = r.raw()
		} else {
			c.attestation = r.raw()
		}
	})
	if r.err != nil {
		return c, r.err
	}
	c.data, c.signature, err = signed(inner)
	return c, err
}

// readCredential reads what an issuer signed. The issuer is not part of it.
func readCredential(data []byte) (*Credential, error) {
	content, err := versioned(data, typeCredential)
	if err != nil {
		return nil, err
	}
	c := &Credential{}
	r := &reader{b: content}
	r.fields(5, func(i int) {
		switch i {
		case 0:
			if r.null() {
				r.fail("it has no subject")
			}
			copy(c.Subject[:], r.bytes(32))
		case 1:
			if !r.null() {
				r.bytes(32) // the subject's latest change, which nothing depends on
			}
		case 2:
			c.readAttributes(r)
		case 3:
			c.CreatedAt = Timestamp(r.uint(1<<64 - 1))
		case 4:
			c.ExpiresAt = Timestamp(r.uint(1<<64 - 1))
		}
	})
	return c, r.err
}

func (c *Credential) readAttributes(r *reader) {
	c.Attributes = Attributes{}
	r.fields(2, func(i int) {
		if i == 0 {
			c.Schema = r.uint(1<<64 - 1)
			return
		}
		major, n, indefinite := r.head()
		if r.err == nil && (major != cborhead.Map || (!indefinite && n > maxAttributes)) {
			r.fail("attributes are not a map of at most %d entries", maxAttributes)
		}
		for k := uint64(0); r.err == nil && (indefinite || k < n); k++ {
			if indefinite && r.at < len(r.b) && r.b[r.at] == cborhead.Break {
				r.at++
				return
			}
			if k >= maxAttributes {
				r.fail("more than %d attributes", maxAttributes)
				return
			}
			key := string(r.bytes(-1))
			c.Attributes[key] = string(r.bytes(-1))
		}
	})
}

// encodeCredential encodes what an issuer signs.
func encodeCredential(subject Identifier, changeHash [32]byte, attributes Attributes, created, expires Timestamp) []byte {
	b := appendArray(nil, 5)
	b = appendBytes(b, subject[:])
	b = appendBytes(b, changeHash[:])
	b = appendUint(appendArray(b, 2), memberSchema)
	b = cborhead.Append(b, cborhead.Map, uint64(len(attributes)))
	keys := make([]string, 0, len(attributes))
	for k := range attributes {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		b = appendBytes(appendBytes(b, []byte(k)), []byte(attributes[k]))
	}
	b = appendUint(appendUint(b, uint64(created)), uint64(expires))
	return appendVersioned(nil, typeCredential, b)
}

// IssueCredential makes a credential with the attestation of the key that signs it (docs/protocol/02 §4.2). The subject's history
// must be known. ttl is at least a second and counts whole seconds; an end beyond that of the issuer's key, which every verifier
// would refuse, is brought forward to it.
func (m *Manager) IssueCredential(ctx context.Context, issuer, subject Identifier, attributes Attributes, ttl time.Duration) ([]byte, error) {
	if ttl < time.Second {
		return nil, fmt.Errorf("%w: a lifetime of %v is less than a second", ErrCredential, ttl)
	}
	if len(attributes) > maxAttributes {
		return nil, fmt.Errorf("%w: %d attributes, at most %d", ErrCredential, len(attributes), maxAttributes)
	}
	i, err := m.store.Identity(ctx, subject)
	if err != nil {
		return nil, fmt.Errorf("subject %s: %w", subject, err)
	}
	key, err := m.purposeKey(ctx, issuer, CredentialSigning, nil, ttl)
	if err != nil {
		return nil, err
	}
	// A clock that was set back does not make a credential older than the key that signs it.
	created := max(m.seconds(), key.CreatedAt)
	expires := min(created+Timestamp(ttl/time.Second), key.ExpiresAt)
	data := encodeCredential(subject, i.Latest().Hash, attributes, created, expires)
	digest := sha256.Sum256(data)
	sig, err := m.keys.Sign(ctx, key.Handle, digest[:])
	if err != nil {
		return nil, err
	}
	raw := appendList(nil, [][]byte{appendSigned(data, sig), key.Attestation})
	if len(raw) > maxCredential {
		return nil, fmt.Errorf("%w: its attributes make it %d bytes long, at most %d", ErrCredential, len(raw), maxCredential)
	}
	return raw, nil
}

// VerifyCredential verifies a credential (docs/protocol/02 §4.3). subject, if not nil, is whom it must be for; issuers are who
// may have issued it, and their histories must be known. The error matches ErrAttestation, ErrUnknownAuthority, ErrKeyType or
// ErrCredential, and where it applies ErrExpired, ErrNotFound, ErrVersion, ErrDataType or ErrEncoding.
func (m *Manager) VerifyCredential(ctx context.Context, raw []byte, subject *Identifier, issuers []Identifier) (*Credential, error) {
	parts, err := splitCredential(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCredential, err)
	}
	a, err := m.VerifyAttestation(ctx, parts.attestation, nil)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(issuers, a.Subject) {
		return nil, fmt.Errorf("%w: it is from %s", ErrUnknownAuthority, a.Subject)
	}
	if a.Purpose != CredentialSigning {
		return nil, fmt.Errorf("%w: %s", ErrKeyType, a.Purpose)
	}
	digest := sha256.Sum256(parts.data)
	if err := m.proofs.verify(a.Key, digest[:], parts.signature); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCredential, err)
	}
	c, err := readCredential(parts.data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCredential, err)
	}
	c.Issuer = a.Subject
	switch {
	case subject != nil && *subject != c.Subject:
		return nil, fmt.Errorf("%w: it is for %s, not for %s", ErrCredential, c.Subject, *subject)
	case c.CreatedAt < a.CreatedAt:
		return nil, fmt.Errorf("%w: it is older than its issuer's key", ErrCredential)
	case c.ExpiresAt > a.ExpiresAt:
		return nil, fmt.Errorf("%w: it outlives its issuer's key", ErrCredential)
	}
	if err := current(c.CreatedAt, c.ExpiresAt, m.seconds()); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCredential, err)
	}
	return c, nil
}

// CredentialIssuer returns who says to have issued a credential. It verifies nothing.
func CredentialIssuer(raw []byte) (Identifier, error) {
	c, err := splitCredential(raw)
	if err != nil {
		return Identifier{}, err
	}
	a, err := decodeAttestation(c.attestation)
	if err != nil {
		return Identifier{}, err
	}
	return a.Subject, nil
}
