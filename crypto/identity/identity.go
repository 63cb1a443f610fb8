// Package identity implements identities, the keys they vouch for and the credentials they issue (docs/protocol/02).
//
// An identity is a history of changes, each naming a primary key and signed by it; later ones also by the key before. Its
// identifier is the hash of the first change and never changes. Signed objects are kept as the bytes that were signed.
package identity

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"sallyport/crypto/vault"
)

// Errors of this package; they are local and never cross the wire (docs/protocol/02 §9).
var (
	ErrEncoding         = errors.New("identity: malformed encoding")
	ErrIdentifier       = errors.New("identity: not an identifier")
	ErrVerification     = errors.New("identity: change history does not verify")
	ErrVersion          = errors.New("identity: unknown version")
	ErrDataType         = errors.New("identity: wrong type of data")
	ErrAttestation      = errors.New("identity: purpose key attestation does not verify")
	ErrKeyType          = errors.New("identity: attested key is of the wrong type")
	ErrKeyData          = errors.New("identity: attested key is not the one used")
	ErrCredential       = errors.New("identity: credential does not verify")
	ErrUnknownAuthority = errors.New("identity: credential is not from an accepted authority")
	ErrExpired          = errors.New("expired")
	ErrConsistency      = errors.New("identity: change history conflicts with the one known")
	ErrNotFound         = errors.New("identity: not known")
	ErrWrongSecretKey   = errors.New("identity: vault does not hold the identity's key")
)

// Limits on what is read from others.
const (
	maxHistory    = 64 << 10
	maxChanges    = 1000
	maxCredential = 64 << 10
	maxAttributes = 1000
)

// Types of signed data (docs/protocol/02 §2.1).
const (
	typeChange      = 1
	typeAttestation = 2
	typeCredential  = 3
	version         = 1
)

// Identifier names an identity: SHA-256 of its first change.
type Identifier [32]byte

// ParseIdentifier reads `I` and 64 hex digits; white space around is ignored.
func ParseIdentifier(text string) (Identifier, error) {
	var id Identifier
	text = strings.TrimSpace(text)
	digits, ok := strings.CutPrefix(text, "I")
	if !ok || len(digits) != 64 {
		return id, fmt.Errorf("%w: %.80q must be I and 64 hex digits", ErrIdentifier, text)
	}
	if _, err := hex.Decode(id[:], []byte(digits)); err != nil {
		return id, fmt.Errorf("%w: %q must be I and 64 hex digits", ErrIdentifier, text)
	}
	return id, nil
}

func (id Identifier) String() string { return "I" + hex.EncodeToString(id[:]) }

// MarshalText implements encoding.TextMarshaler.
func (id Identifier) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *Identifier) UnmarshalText(text []byte) (err error) {
	*id, err = ParseIdentifier(string(text))
	return err
}

// MarshalCBOR implements cbor.Marshaler: a byte string.
func (id Identifier) MarshalCBOR() ([]byte, error) { return appendBytes(nil, id[:]), nil }

// UnmarshalCBOR implements cbor.Unmarshaler.
func (id *Identifier) UnmarshalCBOR(b []byte) error {
	r := reader{b: b}
	copy(id[:], r.bytes(32))
	return r.err
}

// Timestamp is Unix seconds.
type Timestamp uint64

// Change is one verified change of an identity.
type Change struct {
	// Hash is SHA-256 of the signed data.
	Hash [32]byte
	// Key is the primary key from this change on.
	Key vault.VerifyingKey
	// RevokeAll is carried and displayed; nothing depends on it (docs/protocol/02 §2.5).
	RevokeAll bool
	// ValidFrom and ValidUntil bound the purpose keys that Key may attest.
	ValidFrom, ValidUntil Timestamp
}

// Identity is a verified change history.
type Identity struct {
	id      Identifier
	raw     []byte
	changes []Change
}

// Identifier returns the identity's name.
func (i *Identity) Identifier() Identifier { return i.id }

// History returns the encoded change history; it is not to be changed.
func (i *Identity) History() []byte { return i.raw }

// Hex returns the history as text.
func (i *Identity) Hex() string { return hex.EncodeToString(i.raw) }

// Changes returns the changes, oldest first; the slice is not to be changed.
func (i *Identity) Changes() []Change { return i.changes }

// Latest returns the last change.
func (i *Identity) Latest() *Change { return &i.changes[len(i.changes)-1] }

// ImportHex is Import for the text form.
func ImportHex(text string, expected *Identifier) (*Identity, error) {
	raw, err := hex.DecodeString(strings.TrimSpace(text))
	if err != nil {
		return nil, fmt.Errorf("%w: a change history is hex: %w", ErrEncoding, err)
	}
	return Import(raw, expected)
}

// Import verifies a change history (docs/protocol/02 §2.4). expected, if not nil, is the identifier it must have. raw is copied.
func Import(raw []byte, expected *Identifier) (*Identity, error) {
	if len(raw) > maxHistory {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrVerification, len(raw), maxHistory)
	}
	in := &Identity{}
	r := &reader{b: raw}
	var failed error
	r.array(func(i int) {
		if i >= maxChanges {
			r.fail("more than %d changes", maxChanges)
			return
		}
		if failed == nil {
			failed = in.add(r)
		} else {
			r.skip()
		}
	})
	if r.err != nil {
		return nil, fmt.Errorf("%w: %w", ErrVerification, r.err)
	}
	if failed != nil {
		return nil, failed
	}
	if len(in.changes) == 0 {
		return nil, fmt.Errorf("%w: it is empty", ErrVerification)
	}
	in.raw = append([]byte(nil), raw[:r.at]...)
	in.id = in.changes[0].Hash
	if expected != nil && *expected != in.id {
		return nil, fmt.Errorf("%w: it is of %s, not of %s", ErrVerification, in.id, *expected)
	}
	return in, nil
}

// add reads and verifies the next change: [data, signature] for the first, [data, signature, previous signature] for later
// ones.
func (i *Identity) add(r *reader) error {
	var data []byte
	var sig vault.Signature
	var previousSig *vault.Signature
	count := r.array(func(k int) {
		switch k {
		case 0:
			data = r.bytes(-1)
		case 1:
			sig = readSignature(r)
		case 2:
			if !r.null() {
				s := readSignature(r)
				previousSig = &s
			}
		default:
			r.skip()
		}
	})
	if r.err != nil {
		return fmt.Errorf("%w: %w", ErrVerification, r.err)
	}
	if count < 2 {
		return fmt.Errorf("%w: change %d has no signature", ErrVerification, len(i.changes)+1)
	}
	return i.verify(data, sig, previousSig)
}

func readSignature(r *reader) (s vault.Signature) {
	r.fields(2, func(k int) {
		if k == 0 {
			s.Algorithm = vault.KeyAlgorithm(r.uint(1))
			return
		}
		r.fields(1, func(int) { copy(s.Bytes[:], r.bytes(64)) })
	})
	return s
}

func appendSignature(b []byte, s vault.Signature) []byte {
	b = appendArray(b, 2)
	b = appendUint(b, uint64(s.Algorithm))
	return appendBytes(appendArray(b, 1), s.Bytes[:])
}

func readKey(r *reader) (k vault.VerifyingKey) {
	r.fields(2, func(i int) {
		if i == 0 {
			k.Algorithm = vault.KeyAlgorithm(r.uint(1))
			return
		}
		size := 32
		if k.Algorithm == vault.P256 {
			size = 65
		}
		r.fields(1, func(int) { k.Bytes = append([]byte(nil), r.bytes(size)...) })
	})
	return k
}

func appendKey(b []byte, k vault.VerifyingKey) []byte {
	b = appendArray(b, 2)
	b = appendUint(b, uint64(k.Algorithm))
	return appendBytes(appendArray(b, 1), k.Bytes)
}

// versioned reads [version, type, data] and checks the first two.
func versioned(b []byte, want uint64) ([]byte, error) {
	var v, kind uint64
	var data []byte
	r := &reader{b: b}
	r.fields(3, func(i int) {
		switch i {
		case 0:
			v = r.uint(255)
		case 1:
			kind = r.uint(255)
		case 2:
			data = r.bytes(-1)
		}
	})
	switch {
	case r.err != nil:
		return nil, r.err
	case v != version:
		return nil, fmt.Errorf("%w: %d, only %d is known", ErrVersion, v, version)
	case kind != want:
		return nil, fmt.Errorf("%w: %d instead of %d", ErrDataType, kind, want)
	}
	return data, nil
}

func appendVersioned(b []byte, kind uint64, data []byte) []byte {
	b = appendArray(b, 3)
	b = appendUint(appendUint(b, version), kind)
	return appendBytes(b, data)
}

// verify checks a change against those before it and adds it.
func (i *Identity) verify(data []byte, sig vault.Signature, previousSig *vault.Signature) error {
	content, err := versioned(data, typeChange)
	if err != nil {
		return fmt.Errorf("%w: change %d: %w", ErrVerification, len(i.changes)+1, err)
	}
	c := Change{Hash: sha256.Sum256(data)}
	var previous []byte
	r := &reader{b: content}
	r.fields(5, func(k int) {
		switch k {
		case 0:
			if !r.null() {
				previous = r.bytes(32)
			}
		case 1:
			c.Key = readKey(r)
		case 2:
			c.RevokeAll = r.bool()
		case 3:
			c.ValidFrom = Timestamp(r.uint(1<<64 - 1))
		case 4:
			c.ValidUntil = Timestamp(r.uint(1<<64 - 1))
		}
	})
	fail := func(format string, args ...any) error {
		return fmt.Errorf("%w: change %d: %s", ErrVerification, len(i.changes)+1, fmt.Sprintf(format, args...))
	}
	if r.err != nil {
		return fail("%v", r.err)
	}
	if len(i.changes) == 0 {
		if previous != nil {
			return fail("the first change names one before it")
		}
	} else {
		before := i.Latest()
		switch {
		case previous == nil || [32]byte(previous) != before.Hash:
			return fail("it does not follow the change before it")
		case c.ValidFrom < before.ValidFrom:
			return fail("its validity begins before that of the change before it")
		case previousSig == nil:
			return fail("it is not signed by the key before it")
		}
		if err := vault.Verify(before.Key, c.Hash[:], *previousSig); err != nil {
			return fail("signature of the key before it: %v", err)
		}
	}
	if err := vault.Verify(c.Key, c.Hash[:], sig); err != nil {
		return fail("signature: %v", err)
	}
	i.changes = append(i.changes, c)
	return nil
}

// Comparison is how a received history relates to a known one.
type Comparison uint8

// Comparisons.
const (
	Equal Comparison = iota
	Newer
	Older
	Conflict
)

// Compare compares a received history with the known one (docs/protocol/02 §2.5).
func Compare(known, received *Identity) Comparison {
	for k := range min(len(known.changes), len(received.changes)) {
		if known.changes[k].Hash != received.changes[k].Hash {
			return Conflict
		}
	}
	switch {
	case len(received.changes) > len(known.changes):
		return Newer
	case len(received.changes) < len(known.changes):
		return Older
	}
	return Equal
}
