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
	sent       uint64 // what the sender of this message has sent, its Finish counted, and one more; 0 if it does not say
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
	f, err := parseFields(b)
	m.sent = f.sent
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
	return (&fields{sent: m.sent}).append(bare.AppendUvarint(b, m.allowed))
}
