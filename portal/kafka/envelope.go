package kafka

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"

	"sallyport/internal/cborhead"
)

// ErrEnvelope reports a value that was not encrypted by a portal.
var ErrEnvelope = errors.New("kafka: value is not encrypted by a portal")

// CBOR heads of the envelope (RFC 8949 §3.1).
const (
	cborUint8   = 0x18
	cborPair    = 0x82
	cborTriple  = 0x83
	cborEndless = 0x9f
	maxAddress  = 1 << 10 // bytes in an address
)

// appendEnvelope appends what stands for an encrypted value: [[0, address], ciphertext], the address as bytes and the ciphertext as an
// array of its bytes' values (docs/protocol/03 §5.3).
func appendEnvelope(b []byte, address string, ciphertext []byte) []byte {
	b = slices.Grow(b, envelopeSize(address, ciphertext))
	b = append(b, cborPair, cborPair, 0)
	b = cborhead.Append(b, cborhead.Bytes, uint64(len(address)))
	b = append(b, address...)
	b = cborhead.Append(b, cborhead.Array, uint64(len(ciphertext)))
	for _, c := range ciphertext {
		if c >= 24 {
			b = append(b, cborUint8)
		}
		b = append(b, c)
	}
	return b
}

// envelopeSize is how many bytes appendEnvelope appends, or a few more.
func envelopeSize(address string, ciphertext []byte) int {
	size := 3 + 5 + len(address) + 5 + len(ciphertext)
	for _, c := range ciphertext {
		if c >= 24 {
			size++
		}
	}
	return size
}

// envelope is an envelope's content. bound is set when the ciphertext belongs to one place only, see binding.
type envelope struct {
	address    string
	ciphertext []byte
	bound      bool
}

// parseEnvelope takes an envelope apart. Errors match ErrEnvelope.
func parseEnvelope(b []byte) (e envelope, err error) {
	if len(b) < 3 || b[0] != cborPair && b[0] != cborTriple || b[1] != cborPair || b[2] != 0 {
		return envelope{}, ErrEnvelope
	}
	e.bound = b[0] == cborTriple
	n, b, ok := cborHead(b[3:], cborhead.Bytes)
	if !ok || n > maxAddress || n > len(b) {
		return envelope{}, ErrEnvelope
	}
	e.address, b = string(b[:n]), b[n:]
	if e.bound {
		e.ciphertext, err = boundCiphertext(b)
	} else {
		e.ciphertext, err = plainCiphertext(b)
	}
	if err != nil {
		return envelope{}, err
	}
	return e, nil
}

// boundCiphertext reads the rest of a bound value's envelope: bytes, and the form of the binding.
func boundCiphertext(b []byte) ([]byte, error) {
	n, b, ok := cborHead(b, cborhead.Bytes)
	if !ok || n != len(b)-1 || b[n] != bindingForm {
		return nil, ErrEnvelope
	}
	return bytes.Clone(b[:n]), nil
}

// plainCiphertext reads the rest of another envelope: an array of the bytes' values.
func plainCiphertext(b []byte) ([]byte, error) {
	n, ok := 0, false
	if len(b) > 0 && b[0] == cborEndless {
		if n = -1; b[len(b)-1] != cborhead.Break {
			return nil, ErrEnvelope
		}
		b = b[1 : len(b)-1]
	} else if n, b, ok = cborHead(b, cborhead.Array); !ok || n > len(b) {
		return nil, ErrEnvelope
	}
	ciphertext := make([]byte, 0, max(n, len(b)/2))
	for len(b) > 0 {
		switch {
		case b[0] < 24:
			ciphertext, b = append(ciphertext, b[0]), b[1:]
		case b[0] == cborUint8 && len(b) > 1:
			ciphertext, b = append(ciphertext, b[1]), b[2:]
		default:
			return nil, ErrEnvelope
		}
	}
	if n >= 0 && len(ciphertext) != n {
		return nil, ErrEnvelope
	}
	return ciphertext, nil
}

// cborHead reads a definite head of a major type, of something that could be in memory.
func cborHead(b []byte, major byte) (n int, rest []byte, ok bool) {
	argument, rest, ok := cborhead.Definite(b, major)
	return int(argument), rest, ok && argument <= math.MaxInt32
}

// rewriteFields gives the named fields of a JSON object to field, as JSON, and puts the JSON that it returns in their place. Fields that
// are not there are left out.
func rewriteFields(value []byte, names []string, field func(name string, content json.RawMessage) (json.RawMessage, error)) ([]byte, error) {
	if trimmed := bytes.TrimLeft(value, " \t\r\n"); len(trimmed) == 0 || trimmed[0] != '{' {
		return nil, coded(codeInvalidRecord, "%w: fields can be encrypted in JSON objects only", ErrRefused)
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(value, &object); err != nil {
		return nil, coded(codeInvalidRecord, "%w: JSON object: %w", ErrRefused, err)
	}
	for _, name := range names {
		old, there := object[name]
		if !there {
			continue
		}
		with, err := field(name, old)
		if err != nil {
			return nil, fmt.Errorf("field %q: %w", name, err)
		}
		object[name] = with
	}
	return encodeJSON(object)
}

// encodeJSON encodes without changing characters that only matter in HTML.
func encodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// encryptField gives one field to seal: the envelope that it returns goes into a JSON text, as hex.
func encryptField(seal func([]byte) ([]byte, error), field json.RawMessage) (json.RawMessage, error) {
	var compact bytes.Buffer
	if err := json.Compact(&compact, field); err != nil {
		return nil, err
	}
	sealed, err := seal(compact.Bytes())
	if err != nil {
		return nil, err
	}
	return encodeJSON(hex.EncodeToString(sealed))
}

// decryptField is the reverse of encryptField.
func decryptField(open func([]byte) ([]byte, error), field json.RawMessage) (json.RawMessage, error) {
	var text string
	if err := json.Unmarshal(field, &text); err != nil {
		return nil, ErrEnvelope
	}
	sealed, err := hex.DecodeString(text)
	if err != nil {
		return nil, ErrEnvelope
	}
	plain, err := open(sealed)
	if err != nil {
		return nil, err
	}
	if !json.Valid(plain) {
		return nil, fmt.Errorf("%w: what was encrypted is no JSON", ErrRefused)
	}
	return plain, nil
}
