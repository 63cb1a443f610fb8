package portal

import (
	"fmt"

	"sallyport/routing/bare"
)

// resumeMessage is a Resume, or the Resumed that answers it (docs/protocol/04).
type resumeMessage struct {
	kind       byte
	id, secret token // Resume only
	attempt    uint64
	received   uint64 // what has come from the other end; its Finish counts as one byte more
	allowed    uint64 // bytes that the other end may send in all
}

// parseResume reads a Resume or a Resumed. Errors match ErrMessage.
func parseResume(b []byte) (m resumeMessage, err error) {
	if len(b) == 0 || (b[0] != kindResume && b[0] != kindResumed) {
		return m, fmt.Errorf("%w: no resume", ErrMessage)
	}
	m.kind, b = b[0], b[1:]
	if m.kind == kindResume {
		for _, t := range []*token{&m.id, &m.secret} {
			if len(b) < len(t) {
				return m, fmt.Errorf("%w: resume without its id and secret", ErrMessage)
			}
			b = b[copy(t[:], b):]
		}
	}
	for _, v := range []*uint64{&m.attempt, &m.received, &m.allowed} {
		n := 0
		if *v, n, err = bare.Uvarint(b); err != nil {
			return m, fmt.Errorf("%w: resume: %w", ErrMessage, err)
		}
		b = b[n:]
	}
	_, err = parseFields(b)
	return m, err
}

// append appends the message.
func (m *resumeMessage) append(b []byte) []byte {
	b = append(b, m.kind)
	if m.kind == kindResume {
		b = append(append(b, m.id[:]...), m.secret[:]...)
	}
	b = bare.AppendUvarint(b, m.attempt)
	b = bare.AppendUvarint(b, m.received)
	return bare.AppendUvarint(b, m.allowed)
}
