package kafka

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
)

// ErrEnvelope reports a value that was not encrypted by a portal.
var ErrEnvelope = errors.New("kafka: value is not encrypted by a portal")

// CBOR heads of the envelope (RFC 8949 §3.1).
const (
	cborUint8    = 0x18
	cborBytes    = 0x40
	cborArray    = 0x80
	cborPair     = 0x82
	cborEndless  = 0x9f
	cborEnd      = 0xff
	maxEnvelopes = 1 << 10 // bytes in an address
)

// appendEnvelope appends what stands for an encrypted value: [[0, address], ciphertext], the address as bytes and the ciphertext as an
// array of its bytes' values (docs/protocol/03 §5.3).
func appendEnvelope(b []byte, address string, ciphertext []byte) []byte {
	b = append(b, cborPair, cborPair, 0)
	b = appendCBORHead(b, cborBytes, len(address))
	b = append(b, address...)
	b = appendCBORHead(b, cborArray, len(ciphertext))
	for _, c := range ciphertext {
		if c >= 24 {
			b = append(b, cborUint8)
		}
		b = append(b, c)
	}
	return b
}

func appendCBORHead(b []byte, major byte, n int) []byte {
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n < 1<<8:
		return append(b, major|24, byte(n))
	case n < 1<<16:
		return append(b, major|25, byte(n>>8), byte(n))
	}
	return append(b, major|26, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}

// parseEnvelope takes an envelope apart. Errors match ErrEnvelope.
func parseEnvelope(b []byte) (address string, ciphertext []byte, err error) {
	if len(b) < 3 || b[0] != cborPair || b[1] != cborPair || b[2] != 0 {
		return "", nil, ErrEnvelope
	}
	n, b, ok := cborHead(b[3:], cborBytes)
	if !ok || n > maxEnvelopes || n > len(b) {
		return "", nil, ErrEnvelope
	}
	address, b = string(b[:n]), b[n:]
	if len(b) > 0 && b[0] == cborEndless {
		if n = -1; b[len(b)-1] != cborEnd {
			return "", nil, ErrEnvelope
		}
		b = b[1 : len(b)-1]
	} else if n, b, ok = cborHead(b, cborArray); !ok || n > len(b) {
		return "", nil, ErrEnvelope
	}
	ciphertext = make([]byte, 0, max(n, len(b)/2))
	for len(b) > 0 {
		switch {
		case b[0] < 24:
			ciphertext, b = append(ciphertext, b[0]), b[1:]
		case b[0] == cborUint8 && len(b) > 1:
			ciphertext, b = append(ciphertext, b[1]), b[2:]
		default:
			return "", nil, ErrEnvelope
		}
	}
	if n >= 0 && len(ciphertext) != n {
		return "", nil, ErrEnvelope
	}
	return address, ciphertext, nil
}

// cborHead reads a head of a major type.
func cborHead(b []byte, major byte) (n int, rest []byte, ok bool) {
	if len(b) == 0 || b[0]&0xe0 != major {
		return 0, nil, false
	}
	info := b[0] & 0x1f
	if info < 24 {
		return int(info), b[1:], true
	}
	size := 1 << (info - 24)
	if info > 26 || len(b) < 1+size {
		return 0, nil, false
	}
	for _, c := range b[1 : 1+size] {
		n = n<<8 | int(c)
	}
	return n, b[1+size:], true
}

// rewriteFields gives the named fields of a JSON object to field, as JSON, and puts the JSON that it returns in their place. Fields that
// are not there are left out.
func rewriteFields(value []byte, names []string, field func(json.RawMessage) (json.RawMessage, error)) ([]byte, error) {
	if trimmed := bytes.TrimLeft(value, " \t\r\n"); len(trimmed) == 0 || trimmed[0] != '{' {
		return nil, fmt.Errorf("%w: fields can be encrypted in JSON objects only", ErrRefused)
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(value, &object); err != nil {
		return nil, fmt.Errorf("%w: JSON object: %w", ErrRefused, err)
	}
	for _, name := range names {
		old, there := object[name]
		if !there {
			continue
		}
		with, err := field(old)
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

// encryptField seals one field: its envelope as hex, in a JSON text.
func encryptField(seal Seal, field json.RawMessage) (json.RawMessage, error) {
	var compact bytes.Buffer
	if err := json.Compact(&compact, field); err != nil {
		return nil, err
	}
	address, ciphertext, err := seal(compact.Bytes())
	if err != nil {
		return nil, err
	}
	return encodeJSON(hex.EncodeToString(appendEnvelope(nil, address, ciphertext)))
}

// decryptField is the reverse of encryptField.
func decryptField(open func(address string, ciphertext []byte) ([]byte, error), field json.RawMessage) (json.RawMessage, error) {
	var text string
	if err := json.Unmarshal(field, &text); err != nil {
		return nil, ErrEnvelope
	}
	envelope, err := hex.DecodeString(text)
	if err != nil {
		return nil, ErrEnvelope
	}
	address, ciphertext, err := parseEnvelope(envelope)
	if err != nil {
		return nil, err
	}
	plain, err := open(address, ciphertext)
	if err != nil {
		return nil, err
	}
	if !json.Valid(plain) {
		return nil, fmt.Errorf("%w: what was encrypted is no JSON", ErrRefused)
	}
	return plain, nil
}
