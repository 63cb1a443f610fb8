package kafka

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"sallyport/portal/interceptor"
)

// DefaultMaxMessage is the longest message in bytes, without its length, that is rewritten unless an inlet says otherwise. Brokers refuse
// longer requests too, unless their socket.request.max.bytes was raised. What only passes may be as long as Kafka allows.
const DefaultMaxMessage = 100 << 20

// lengthSize is the length in front of a message: i32, big-endian.
const lengthSize = 4

// Where the parts of a header are, behind the length. A response begins with its correlation id.
const (
	versionAt     = 2
	correlationAt = 4
	requestHead   = 8
	responseHead  = 4
)

var (
	// ErrMessage reports bytes that are no Kafka message, or not in the form that their version has.
	ErrMessage = errors.New("kafka: malformed message")
	// ErrRefused reports a message that must not pass.
	ErrRefused = errors.New("kafka: message refused")
	// ErrTooLarge reports a message or records longer than may be.
	ErrTooLarge = errors.New("kafka: too large")
)

// frame looks at the front of b for one message. head is how many bytes of it decide finds enough. It returns the whole length, with
// the length field; 0 if more bytes must come first.
func frame(b []byte, head int) (whole int, err error) {
	if len(b) < lengthSize {
		return 0, nil
	}
	n := binary.BigEndian.Uint32(b)
	if n > math.MaxInt32-lengthSize {
		return 0, fmt.Errorf("%w: %d bytes", ErrMessage, n)
	}
	if int(n) < head {
		return 0, fmt.Errorf("%w: %d bytes are too short", ErrMessage, n)
	}
	if len(b) < lengthSize+head {
		return 0, nil
	}
	return lengthSize + int(n), nil
}

// step is Work for a whole message of at most limit bytes, Wait for one that is still coming.
func step(b []byte, whole, limit int) (interceptor.Step, int, error) {
	if whole-lengthSize > limit {
		return interceptor.Wait, 0, fmt.Errorf("%w: a message of %d bytes, at most %d can be looked at (--max-message-size)", ErrTooLarge, whole-lengthSize, limit)
	}
	if len(b) < whole {
		return interceptor.Wait, 0, nil
	}
	return interceptor.Work, whole, nil
}

// header is what is common to all requests.
type header struct {
	key, version int16
	correlation  int32
}

// readHeader reads from b, which is behind the length and at least requestHead long.
func readHeader(b []byte) header {
	return header{
		key: int16(binary.BigEndian.Uint16(b)), version: int16(binary.BigEndian.Uint16(b[versionAt:])),
		correlation: int32(binary.BigEndian.Uint32(b[correlationAt:])),
	}
}

// seal puts the length in front of a message whose first lengthSize bytes are kept free for it.
func seal(b []byte) ([]byte, error) {
	n := len(b) - lengthSize
	if n > math.MaxInt32-lengthSize {
		return nil, fmt.Errorf("%w: %d bytes after rewriting", ErrTooLarge, n)
	}
	binary.BigEndian.PutUint32(b, uint32(n))
	return b, nil
}
