package vault

import (
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// Keys and signatures are written as [algorithm, [bytes]] (docs/protocol/01 §8).

// AppendCBOR appends [algorithm, [bytes of the key]] to b.
func (k VerifyingKey) AppendCBOR(b []byte) []byte { return appendVariant(b, k.Algorithm, k.Bytes) }

// MarshalCBOR implements cbor.Marshaler.
func (k VerifyingKey) MarshalCBOR() ([]byte, error) { return k.AppendCBOR(nil), nil }

// UnmarshalCBOR implements cbor.Unmarshaler. It copies the key and checks its length, not that it is a point of the curve: Verify
// does. Errors match ErrAlgorithm if the algorithm is unknown, else ErrKey.
func (k *VerifyingKey) UnmarshalCBOR(raw []byte) error {
	a, b, err := readVariant(raw)
	switch {
	case errors.Is(err, ErrAlgorithm):
		return err
	case err != nil:
		return fmt.Errorf("%w: %w", ErrKey, err)
	case len(b) != a.publicSize():
		return fmt.Errorf("%w: %s key of %d bytes, must be %d", ErrKey, a, len(b), a.publicSize())
	}
	*k = VerifyingKey{Algorithm: a, Bytes: b}
	return nil
}

// AppendCBOR appends [algorithm, [64 bytes]] to b.
func (s Signature) AppendCBOR(b []byte) []byte { return appendVariant(b, s.Algorithm, s.Bytes[:]) }

// MarshalCBOR implements cbor.Marshaler.
func (s Signature) MarshalCBOR() ([]byte, error) { return s.AppendCBOR(nil), nil }

// UnmarshalCBOR implements cbor.Unmarshaler. Errors match ErrAlgorithm if the algorithm is unknown, else ErrSignature.
func (s *Signature) UnmarshalCBOR(raw []byte) error {
	a, b, err := readVariant(raw)
	switch {
	case errors.Is(err, ErrAlgorithm):
		return err
	case err != nil:
		return fmt.Errorf("%w: %w", ErrSignature, err)
	case len(b) != len(s.Bytes):
		return fmt.Errorf("%w: it has %d bytes, must have %d", ErrSignature, len(b), len(s.Bytes))
	}
	*s = Signature{Algorithm: a, Bytes: [64]byte(b)}
	return nil
}

func (a KeyAlgorithm) publicSize() int {
	if a == P256 {
		return 65
	}
	return 32
}

// appendVariant is for byte strings of less than 256 bytes, as all here are.
func appendVariant(b []byte, a KeyAlgorithm, data []byte) []byte {
	b = append(b, 0x82, byte(a), 0x81, 0x58, byte(len(data)))
	return append(b, data...)
}

// readVariant takes [algorithm, [bytes]] apart: the outer array is definite and has two elements, the inner one may be longer and
// indefinite, the byte string is definite (docs/protocol/01 §1.1).
func readVariant(raw []byte) (a KeyAlgorithm, data []byte, err error) {
	var outer, fields []cbor.RawMessage
	if err := cbor.Unmarshal(raw, &outer); err != nil {
		return 0, nil, err
	}
	if len(outer) != 2 || raw[0] == 0x9f {
		return 0, nil, errors.New("not a definite array of two elements")
	}
	if outer[0][0]>>5 != 0 {
		return 0, nil, errors.New("the algorithm is not a number")
	}
	var variant uint64
	if err := cbor.Unmarshal(outer[0], &variant); err != nil {
		return 0, nil, err
	}
	if variant > uint64(P256) {
		return 0, nil, fmt.Errorf("%w: %d", ErrAlgorithm, variant)
	}
	if err := cbor.Unmarshal(outer[1], &fields); err != nil {
		return 0, nil, err
	}
	if len(fields) == 0 || fields[0][0]>>5 != 2 || fields[0][0] == 0x5f {
		return 0, nil, errors.New("the value is not a byte string")
	}
	err = cbor.Unmarshal(fields[0], &data)
	return KeyAlgorithm(variant), data, err
}
