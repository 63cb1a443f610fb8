package channel

import (
	"errors"
	"fmt"

	"sallyport/internal/cborhead"
)

// Kind is the kind of a decrypted message: the variant on the wire (docs/protocol/01 §7.6).
type Kind uint8

// The kinds of messages.
const (
	KindPayload Kind = iota // a message from a worker to another
	KindRefresh             // the sender's new credential
	KindClose               // the end of the channel
)

const (
	// PayloadPrefix begins the plaintext of a message of KindPayload. The CBOR of [onward, return, bytes] follows, then
	// EmptyPadding.
	PayloadPrefix = "\x82\x82\x00\x81"
	// EmptyPadding ends every plaintext: an empty byte string.
	EmptyPadding = 0x40
)

// ErrPlaintext reports a decrypted message that is not well formed.
var ErrPlaintext = errors.New("channel: malformed plaintext")

// CloseMessage is the plaintext of Close. It is not to be changed.
var CloseMessage = []byte{0x82, 0x82, byte(KindClose), 0x80, EmptyPadding}

// AppendRefresh appends the plaintext of RefreshCredentials to b; content is the CBOR of [history, [credentials]].
func AppendRefresh(b, content []byte) []byte {
	b = append(b, 0x82, 0x82, byte(KindRefresh), 0x81)
	return append(append(b, content...), EmptyPadding)
}

// ParsePlaintext takes a decrypted message [[kind, [body]], padding] apart. body is a part of b: the CBOR item of a payload
// ([onward, return, bytes]) or of a refresh ([history, [credentials]]), unread, followed by whatever comes after it. Close has
// none. Padding, further fields and what follows are not looked at (docs/protocol/01 §1.1). It does not allocate, except for an
// error, which is ErrPlaintext.
func ParsePlaintext(b []byte) (kind Kind, body []byte, err error) {
	if len(b) > len(PayloadPrefix) && string(b[:len(PayloadPrefix)]) == PayloadPrefix { // what everybody sends
		return KindPayload, b[len(PayloadPrefix):], nil
	}
	return parsePlaintext(b)
}

// parsePlaintext reads all forms. A struct may be an array of any form; a variant is [number, fields], definite and of two.
func parsePlaintext(b []byte) (Kind, []byte, error) {
	n, indefinite, b, ok := arrayHead(b)
	if !ok || n < 2 && !indefinite {
		return 0, nil, fmt.Errorf("%w: not [message, padding]", ErrPlaintext)
	}
	n, indefinite, b, ok = arrayHead(b)
	if !ok || n != 2 || indefinite {
		return 0, nil, fmt.Errorf("%w: message is not [kind, fields]", ErrPlaintext)
	}
	number, b, ok := cborhead.Definite(b, cborhead.Uint)
	if !ok || number > uint64(KindClose) {
		return 0, nil, fmt.Errorf("%w: unknown kind of message", ErrPlaintext)
	}
	kind := Kind(number)
	if kind == KindClose && len(b) > 0 { // whatever its fields are
		return kind, nil, nil
	}
	n, indefinite, b, ok = arrayHead(b)
	if !ok || len(b) == 0 || indefinite && b[0] == cborhead.Break || !indefinite && n < 1 {
		return 0, nil, fmt.Errorf("%w: message without content", ErrPlaintext)
	}
	return kind, b, nil
}

// arrayHead reads the head of an array and returns how many items it has, unless it is indefinite, and the bytes after it.
func arrayHead(b []byte) (n uint64, indefinite bool, rest []byte, ok bool) {
	h, size, err := cborhead.Read(b)
	if err != nil || h.Major != cborhead.Array {
		return 0, false, nil, false
	}
	return h.N, h.Indefinite, b[size:], true
}
