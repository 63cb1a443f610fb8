// Package identity implements identities, the keys they vouch for and the credentials they issue (docs/protocol/02).
//
// An identity is a history of changes, each naming a primary key and signed by it; later ones also by the key before. Its
// identifier is the hash of the first change and never changes. Signed objects are kept as the bytes that were signed.
package identity

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"sallyport/crypto/vault"
)

// Errors of this package, for errors.Is; one returned may match several. They are local and never cross the wire
// (docs/protocol/02 §9).
var (
	// ErrEncoding reports bytes or text that cannot be read.
	ErrEncoding = errors.New("identity: malformed encoding")
	// ErrIdentifier reports text that is no identifier.
	ErrIdentifier = errors.New("identity: not an identifier")
	// ErrVerification reports a change history that does not verify.
	ErrVerification = errors.New("identity: change history does not verify")
	// ErrVersion reports signed data of an unknown version, ErrDataType of another type than is expected in its place.
	ErrVersion  = errors.New("identity: unknown version")
	ErrDataType = errors.New("identity: wrong type of data")
	// ErrAttestation reports a purpose key attestation that does not verify.
	ErrAttestation = errors.New("identity: purpose key attestation does not verify")
	// ErrKeyType reports an attested key of the wrong purpose, ErrKeyData one that is not the key in use.
	ErrKeyType = errors.New("identity: attested key is of the wrong type")
	ErrKeyData = errors.New("identity: attested key is not the one used")
	// ErrCredential reports a credential that does not verify, or cannot be issued.
	ErrCredential = errors.New("identity: credential does not verify")
	// ErrUnknownAuthority reports a credential of an issuer that is not accepted.
	ErrUnknownAuthority = errors.New("identity: credential is not from an accepted authority")
	// ErrExpired reports an attestation, a credential or a primary key that was valid once. It comes within another message.
	ErrExpired = errors.New("expired")
	// ErrClock reports what was made in the future: the clock is wrong here, or where it was made. It comes within another message.
	ErrClock = errors.New("a clock is wrong")
	// ErrConsistency reports a history that is older than the known one or contradicts it.
	ErrConsistency = errors.New("identity: change history conflicts with the one known")
	// ErrNotFound reports an identity, or a purpose key, that a Store does not have.
	ErrNotFound = errors.New("identity: not known")
	// ErrWrongSecretKey reports that the vault does not hold the identity's primary key.
	ErrWrongSecretKey = errors.New("identity: vault does not hold the identity's key")
)

// Limits on what is read from others.
const (
	maxHistory     = 64 << 10 // bytes
	maxChanges     = 1000
	maxAttestation = 4 << 10  // bytes; one has about 200
	maxCredential  = 64 << 10 // bytes, with its attestation
	maxAttributes  = 1000
)

// Types of signed data (docs/protocol/02 §2.1).
const (
	typeChange      = 1
	typeAttestation = 2
	typeCredential  = 3
	typeStatement   = 200 // ours
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

// CheckUpdate decides whether a received history may replace the known one, nil if there is none: it is for PutIdentity of a
// Store (docs/protocol/02 §2.5).
func CheckUpdate(known, received *Identity) (store bool, err error) {
	if known == nil {
		return true, nil
	}
	switch Compare(known, received) {
	case Equal:
		return false, nil
	case Newer:
		return true, nil
	case Older:
		return false, fmt.Errorf("%w: the history of %s is older", ErrConsistency, received.id)
	}
	return false, fmt.Errorf("%w: %s", ErrConsistency, received.id)
}
