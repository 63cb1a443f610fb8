package identity

import (
	"crypto/sha256"
	"fmt"
	"sort"

	"sallyport/crypto/vault"
)

// Purpose is what a purpose key is for; its number is the variant on the wire.
type Purpose uint8

// Purposes.
const (
	SecureChannel     Purpose = 0
	CredentialSigning Purpose = 1
)

func (p Purpose) String() string {
	if p == SecureChannel {
		return "secure channel"
	}
	return "credential signing"
}

// Attestation is a primary key's statement that a purpose key is the identity's (docs/protocol/02 §3).
type Attestation struct {
	Subject    Identifier
	ChangeHash [32]byte
	Purpose    Purpose
	// X25519 is the key of SecureChannel, Key that of CredentialSigning.
	X25519    [32]byte
	Key       vault.VerifyingKey
	CreatedAt Timestamp
	ExpiresAt Timestamp

	digest    [32]byte
	signature vault.Signature
}

// signed is [data, signature], taken apart.
func signed(raw []byte) (data []byte, sig vault.Signature, err error) {
	r := &reader{b: raw}
	r.fields(2, func(i int) {
		if i == 0 {
			data = r.bytes(-1)
		} else {
			sig = readSignature(r)
		}
	})
	return data, sig, r.err
}

func appendSigned(data []byte, sig vault.Signature) []byte {
	return appendSignature(appendBytes(appendArray(nil, 2), data), sig)
}

// decodeAttestation reads an attestation without verifying it.
func decodeAttestation(raw []byte) (*Attestation, error) {
	data, sig, err := signed(raw)
	if err != nil {
		return nil, err
	}
	content, err := versioned(data, typeAttestation)
	if err != nil {
		return nil, err
	}
	a := &Attestation{digest: sha256.Sum256(data), signature: sig}
	r := &reader{b: content}
	r.fields(5, func(i int) {
		switch i {
		case 0:
			copy(a.Subject[:], r.bytes(32))
		case 1:
			copy(a.ChangeHash[:], r.bytes(32))
		case 2:
			a.readKey(r)
		case 3:
			a.CreatedAt = Timestamp(r.uint(1<<64 - 1))
		case 4:
			a.ExpiresAt = Timestamp(r.uint(1<<64 - 1))
		}
	})
	return a, r.err
}

func (a *Attestation) readKey(r *reader) {
	r.fields(2, func(i int) {
		if i == 0 {
			a.Purpose = Purpose(r.uint(1))
			return
		}
		r.fields(1, func(int) {
			if a.Purpose == SecureChannel {
				copy(a.X25519[:], r.bytes(32))
			} else {
				a.Key = readKey(r)
			}
		})
	})
}

// data encodes what is signed.
func (a *Attestation) data() []byte {
	b := appendArray(nil, 5)
	b = appendBytes(b, a.Subject[:])
	b = appendBytes(b, a.ChangeHash[:])
	b = appendArray(b, 2)
	b = appendUint(b, uint64(a.Purpose))
	b = appendArray(b, 1)
	if a.Purpose == SecureChannel {
		b = appendBytes(b, a.X25519[:])
	} else {
		b = appendKey(b, a.Key)
	}
	b = appendUint(appendUint(b, uint64(a.CreatedAt)), uint64(a.ExpiresAt))
	return appendVersioned(nil, typeAttestation, b)
}

// Attributes are what a credential says of its subject. Keys and values are arbitrary bytes.
type Attributes map[string]string

// Credential is a verified credential.
type Credential struct {
	Subject    Identifier
	Issuer     Identifier
	Schema     uint64
	Attributes Attributes
	CreatedAt  Timestamp
	ExpiresAt  Timestamp
}

// memberSchema is the schema of a project member's attributes.
const memberSchema = 1

// credentialData is a credential as read, before it is verified.
type credentialData struct {
	Credential
	hasSubject  bool
	digest      [32]byte
	signature   vault.Signature
	attestation []byte
}

// decodeCredential reads [credential, attestation]. The issuer is not part of it.
func decodeCredential(raw []byte) (*credentialData, error) {
	if len(raw) > maxCredential {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrCredential, len(raw), maxCredential)
	}
	c := &credentialData{}
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
		return nil, r.err
	}
	data, sig, err := signed(inner)
	if err != nil {
		return nil, err
	}
	c.digest, c.signature = sha256.Sum256(data), sig
	content, err := versioned(data, typeCredential)
	if err != nil {
		return nil, err
	}
	r = &reader{b: content}
	r.fields(5, func(i int) {
		switch i {
		case 0:
			if !r.null() {
				c.hasSubject = true
				copy(c.Subject[:], r.bytes(32))
			}
		case 1:
			if !r.null() {
				r.bytes(32)
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

func (c *credentialData) readAttributes(r *reader) {
	c.Attributes = Attributes{}
	r.fields(2, func(i int) {
		if i == 0 {
			c.Schema = r.uint(1<<64 - 1)
			return
		}
		major, n, indefinite := r.head()
		if r.err == nil && (major != 5 || (!indefinite && n > maxAttributes)) {
			r.fail("attributes are not a map of at most %d entries", maxAttributes)
		}
		for k := uint64(0); r.err == nil && (indefinite || k < n); k++ {
			if indefinite && r.at < len(r.b) && r.b[r.at] == 0xff {
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

// encodeCredentialData encodes what an issuer signs.
func encodeCredentialData(subject Identifier, changeHash [32]byte, attributes Attributes, created, expires Timestamp) []byte {
	b := appendArray(nil, 5)
	b = appendBytes(b, subject[:])
	b = appendBytes(b, changeHash[:])
	b = appendUint(appendArray(b, 2), memberSchema)
	b = appendHead(b, 5, uint64(len(attributes)))
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

// Payload is what one side of a handshake says of itself (docs/protocol/01 §7.4). Its parts are raw.
type Payload struct {
	History     []byte
	Attestation []byte
	Credentials [][]byte
}

// maxPayloadCredentials bounds the credentials in one payload; senders put one or none.
const maxPayloadCredentials = 8

// EncodePayload encodes a handshake's identity payload.
func EncodePayload(p Payload) []byte {
	b := append(appendArray(nil, 3), p.History...)
	b = append(b, p.Attestation...)
	return appendList(b, p.Credentials)
}

func appendList(b []byte, items [][]byte) []byte {
	b = appendArray(b, len(items))
	for _, item := range items {
		b = append(b, item...)
	}
	return b
}

// DecodePayload takes a handshake's identity payload apart; the parts are slices of raw.
func DecodePayload(raw []byte) (Payload, error) {
	var p Payload
	r := &reader{b: raw}
	r.fields(3, func(i int) {
		switch i {
		case 0:
			p.History = r.raw()
		case 1:
			p.Attestation = r.raw()
		case 2:
			p.Credentials = readList(r)
		}
	})
	return p, r.err
}

func readList(r *reader) (list [][]byte) {
	r.array(func(i int) {
		if i >= maxPayloadCredentials {
			r.fail("more than %d credentials", maxPayloadCredentials)
			return
		}
		list = append(list, r.raw())
	})
	return list
}

// EncodeRefresh encodes what a channel's RefreshCredentials carries: [history, [credentials]].
func EncodeRefresh(history []byte, credentials [][]byte) []byte {
	return appendList(append(appendArray(nil, 2), history...), credentials)
}

// DecodeRefresh takes it apart; the parts are slices of raw.
func DecodeRefresh(raw []byte) (history []byte, credentials [][]byte, err error) {
	r := &reader{b: raw}
	r.fields(2, func(i int) {
		if i == 0 {
			history = r.raw()
		} else {
			credentials = readList(r)
		}
	})
	return history, credentials, r.err
}

// CredentialIssuer returns who says to have issued a credential. It verifies nothing.
func CredentialIssuer(raw []byte) (Identifier, error) {
	c, err := decodeCredential(raw)
	if err != nil {
		return Identifier{}, err
	}
	a, err := decodeAttestation(c.attestation)
	if err != nil {
		return Identifier{}, err
	}
	return a.Subject, nil
}
