package httpheader

import (
	"bytes"
	"fmt"
)

const (
	// MaxHead is the most bytes of a request's head, and of a trailer section.
	MaxHead = 64 << 10
	// maxChunkLine is the most bytes of the line before a chunk.
	maxChunkLine = 4 << 10
	// maxOutput is about how much one call of Rewrite writes: requests can be smaller than the fields set in them.
	maxOutput = 64 << 10
	// maxOutstanding is how many requests may wait for their answers before more are held back.
	maxOutstanding = 16 << 10
)

// Error says why a stream was refused. Status is the HTTP status that fits.
type Error struct {
	Status int
	Reason string
}

func (e *Error) Error() string { return "HTTP request refused: " + e.Reason }

func refuse(status int, reason string) error { return &Error{Status: status, Reason: reason} }

// Options configure a Rewriter.
type Options struct {
	// Fields returns what is set in each request. None refuses the request with 503: the value is not known yet. It is called on
	// the goroutine of Rewrite and must not block.
	Fields func() []Field
	// NoUpgrade leaves Upgrade out of requests and refuses CONNECT. Then Answer need not be called.
	NoUpgrade bool
}

type state uint8

const (
	inHead      state = iota
	inBody            // left bytes of a body, or of a chunk's data
	inChunkSize       // the line before a chunk
	inChunkEnd        // the CRLF after a chunk's data, of which left bytes are to come
	inTrailer         // after the last chunk
	held              // until the server has answered an upgrade
	tunnel            // no longer HTTP
)

// Rewriter sets header fields in the requests of one connection. It is not safe for use by several goroutines.
type Rewriter struct {
	opts    Options
	state   state
	chunked bool
	left    int64
	lines   lineBuffer
	answers answers
	err     error
	upgrade bool // the request under way asks to leave HTTP
	began   bool // a request has gone to the server
}

// New makes a Rewriter.
func New(o Options) *Rewriter { return &Rewriter{opts: o} }

// Held reports whether nothing more is taken until Answer has seen how the server answers.
func (r *Rewriter) Held() bool {
	return r.state == held || (r.state == inHead && r.answers.waiting() >= maxOutstanding)
}

// Pass returns how many of the next bytes go through unchanged. Whoever passes them on without Rewrite calls Passed.
func (r *Rewriter) Pass() int64 {
	switch {
	case r.err != nil:
		return 0
	case r.state == tunnel:
		return 1 << 60
	case r.state == inBody:
		return r.left
	}
	return 0
}

// Passed says that n bytes, at most Pass, went through.
func (r *Rewriter) Passed(n int) {
	if r.state != tunnel {
		r.take(int64(n))
	}
}

// Rewrite appends to dst what goes to the server in place of src, and returns dst and how many bytes of src it used. It leaves the
// rest when it has written about 64 KiB, or when it is Held: the caller offers it again. After an error, an *Error, nothing more may be sent.
// src is not kept.
func (r *Rewriter) Rewrite(dst, src []byte) (out []byte, used int, err error) {
	begin := len(dst)
	for used < len(src) && r.err == nil && len(dst)-begin < maxOutput {
		rest := src[used:]
		switch r.state {
		case tunnel:
			return append(dst, rest...), len(src), nil
		case held:
			if !r.answers.lost {
				return dst, used, nil
			}
			r.err = refuse(502, "the answer to an upgrade was not understood")
		case inChunkEnd:
			if rest[0] != "\n\r"[r.left-1] {
				r.err = refuse(400, "a chunk is longer than its size")
				break
			}
			dst = append(dst, rest[0])
			used++
			r.take(1)
		case inBody:
			n := int(min(r.left, int64(len(rest))))
			dst = append(dst, rest[:n]...)
			used += n
			r.take(int64(n))
		case inChunkSize:
			n, done := r.lines.line(rest)
			used += n
			if len(r.lines.buf) > maxChunkLine {
				r.err = refuse(400, "the line before a chunk is too long")
			} else if done {
				dst, r.err = r.chunk(dst)
			}
		default: // inHead, inTrailer
			if r.Held() {
				return dst, used, nil
			}
			n, done := r.lines.section(rest, r.state == inHead)
			used += n
			if b := r.lines.buf; r.state == inHead && len(b) > 0 && b[0] != '\r' && !tokenChars[b[0]] {
				// Said at once: what a client of TLS sends may have no end of a line.
				r.err = refuse(400, "this is not HTTP (a client that speaks TLS needs an inlet without --http-header)")
			} else if len(r.lines.buf) > MaxHead {
				r.err = refuse(431, fmt.Sprintf("the header is longer than %d bytes", MaxHead))
			} else if done && r.state == inHead {
				dst, r.err = r.head(dst)
			} else if done {
				dst, r.err = r.trailer(dst)
			}
		}
	}
	return dst, used, r.err
}

// Answer shows what the server sends, before the client has it.
func (r *Rewriter) Answer(b []byte) {
	if r.opts.NoUpgrade {
		return
	}
	r.answers.read(b)
	if r.answers.refused {
		r.answers.refused, r.upgrade = false, false
		if r.state == held {
			r.state = inHead
		}
	}
	if r.answers.accepted && r.state == held {
		r.state = tunnel
	}
}

// Refusal is the HTTP answer to give the client after err, or nil if the client is in the middle of another answer.
func (r *Rewriter) Refusal(err error) []byte {
	e, ok := err.(*Error)
	if !ok || !r.answers.idle() || (r.opts.NoUpgrade && r.began) {
		return nil
	}
	text := map[int]string{400: "Bad Request", 431: "Request Header Fields Too Large", 501: "Not Implemented", 503: "Service Unavailable"}[e.Status]
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s\n", e.Status, text, len(e.Reason)+1, e.Reason)
}

// take counts n bytes of what is passed on unchanged.
func (r *Rewriter) take(n int64) {
	if r.left -= n; r.left > 0 {
		return
	}
	switch {
	case r.state == inChunkEnd:
		r.state = inChunkSize
	case r.chunked:
		r.state, r.left = inChunkEnd, 2
	default:
		r.end()
	}
}

// end is called after the last byte of a request.
func (r *Rewriter) end() {
	switch {
	case r.answers.accepted:
		r.state = tunnel
	case r.upgrade:
		r.state = held
	default:
		r.state = inHead
	}
}

// chunk handles the line before a chunk.
func (r *Rewriter) chunk(dst []byte) ([]byte, error) {
	l := r.lines.take()
	size, ok := chunkSize(l)
	if !ok {
		return dst, refuse(400, "a chunk has no size")
	}
	if r.state, r.left = inBody, size; size == 0 {
		r.state = inTrailer
	}
	return append(dst, l...), nil
}

// trailer handles the fields after the last chunk.
func (r *Rewriter) trailer(dst []byte) ([]byte, error) {
	fields, err := parseFields(splitLines(r.lines.take()))
	if err != nil {
		return dst, err
	}
	set := names(r.opts.Fields())
	for _, h := range fields {
		switch name := canonical(h.name); {
		case set[name]:
		case name == "content-length", name == "transfer-encoding", name == "host":
			return dst, refuse(400, "a trailer says where the request ends")
		default:
			dst = appendField(dst, h.name, h.value)
		}
	}
	r.end()
	return append(dst, "\r\n"...), nil
}

// lineBuffer gathers lines that come in pieces.
type lineBuffer struct {
	buf   []byte
	start int // of the last line in buf
}

// line takes the rest of a line from b; done says that buf ends in it.
func (l *lineBuffer) line(b []byte) (n int, done bool) {
	n = len(b)
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		n, done = i+1, true
	}
	// More than any bound makes no difference, and is not kept.
	l.buf = append(l.buf, b[:min(n, MaxHead+1)]...)
	return n, done
}

// section takes lines from b up to an empty one; done says that buf ends in it. With skip, empty lines at the beginning are
// left out (RFC 9112 §2.2).
func (l *lineBuffer) section(b []byte, skip bool) (n int, done bool) {
	for n < len(b) && len(l.buf) <= MaxHead {
		k, whole := l.line(b[n:])
		n += k
		if !whole {
			break
		}
		empty := len(bytes.TrimSuffix(l.buf[l.start:], []byte("\r\n"))) == 0 || len(l.buf)-l.start == 1
		if empty && l.start == 0 && skip {
			l.buf = l.buf[:0]
			continue
		}
		if empty {
			return n, true
		}
		l.start = len(l.buf)
	}
	return n, false
}

// take returns what was gathered and begins anew. The bytes are valid until more is gathered.
func (l *lineBuffer) take() []byte {
	b := l.buf
	l.buf, l.start = nil, 0
	if cap(b) <= 4<<10 {
		l.buf = b[:0]
	}
	return b
}
