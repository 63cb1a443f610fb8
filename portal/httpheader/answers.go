package httpheader

import (
	"bytes"
	"strconv"
)

// kind is what matters of a request for its answer.
type kind byte

const (
	plain   kind = iota
	noBody       // HEAD: the answer has no body
	upgrade      // 101 ends HTTP
	connect      // 200 without a body ends HTTP
)

func kindOf(method string, asksUpgrade bool) kind {
	switch {
	case method == "CONNECT":
		return connect
	case asksUpgrade:
		return upgrade
	case method == "HEAD":
		return noBody
	}
	return plain
}

// answers follows what the server sends just so far as to know which answer belongs to an upgrade. As soon as anything is
// unclear it is lost, and no upgrade can succeed any more.
type answers struct {
	queue    []kind // requests without a whole answer
	state    state  // inHead, inBody, inChunkSize, inChunkEnd, inTrailer
	chunked  bool
	left     int64
	lines    lineBuffer
	lost     bool
	accepted bool // an upgrade: the rest is not HTTP
	refused  bool // an upgrade; reset by whoever reads it
}

func (a *answers) waiting() int {
	if a.lost {
		return 0
	}
	return len(a.queue)
}

// idle reports whether the client waits for nothing and is in the middle of nothing.
func (a *answers) idle() bool {
	return !a.lost && !a.accepted && len(a.queue) == 0 && a.state == inHead && len(a.lines.buf) == 0
}

func (a *answers) expect(k kind) {
	if !a.lost {
		a.queue = append(a.queue, k)
	}
}

// read takes what the server sends.
func (a *answers) read(b []byte) {
	for len(b) > 0 && !a.lost && !a.accepted {
		n, done := 0, false
		switch a.state {
		case inBody, inChunkEnd:
			n = int(min(a.left, int64(len(b))))
			if a.left -= int64(n); a.left == 0 {
				a.partEnds()
			}
		case inChunkSize:
			if n, done = a.lines.line(b); done {
				size, ok := chunkSize(a.lines.take())
				if a.state, a.left, a.lost = inBody, size, !ok; size == 0 {
					a.state = inTrailer
				}
			}
		case inTrailer:
			if n, done = a.lines.section(b, false); done {
				a.lines.take()
				a.answered()
			}
		default:
			if n, done = a.lines.section(b, false); done {
				a.head(splitLines(a.lines.take()))
			}
		}
		a.lost = a.lost || len(a.lines.buf) > MaxHead
		b = b[n:]
	}
	if a.lost {
		*a = answers{lost: true}
	}
}

func (a *answers) partEnds() {
	switch {
	case a.state == inChunkEnd:
		a.state = inChunkSize
	case a.chunked:
		a.state, a.left = inChunkEnd, 2
	default:
		a.answered()
	}
}

// answered is called after the last byte of an answer.
func (a *answers) answered() {
	a.queue = a.queue[1:]
	a.state, a.chunked = inHead, false
}

// head handles the head of an answer (RFC 9112 §6.3).
func (a *answers) head(lines [][]byte) {
	a.lost = true // until all is clear
	if len(lines) == 0 || len(a.queue) == 0 {
		return
	}
	version, rest, _ := bytes.Cut(lines[0], []byte{' '})
	code, _, _ := bytes.Cut(rest, []byte{' '})
	status, err := strconv.Atoi(string(code))
	if err != nil || len(code) != 3 || status < 100 || (string(version) != "HTTP/1.1" && string(version) != "HTTP/1.0") {
		return
	}
	fields, err := parseFields(lines[1:])
	if err != nil {
		return
	}
	body, err := bodyOf(fields)
	if err != nil {
		return
	}
	k := a.queue[0]
	// A server that does not know CONNECT may answer it as any request, and go on in HTTP. A tunnel has no length (RFC 9110 §9.3.6), and an answer
	// after which HTTP goes on has one.
	if (k == upgrade && status == 101) || (k == connect && status == 200 && !body.chunked && body.length < 0) {
		a.lost, a.accepted = false, true
		return
	}
	if status == 101 {
		return
	}
	if status < 200 { // interim: the answer is still to come
		a.lost = false
		return
	}
	a.refused = a.refused || k == upgrade || k == connect
	switch {
	case k == noBody || status == 204 || status == 304 || body.length == 0:
		a.answered()
	case body.chunked:
		a.state, a.chunked = inChunkSize, true
	case body.length > 0:
		a.state, a.left = inBody, body.length
	default:
		return // up to the end of the connection: no other answer follows
	}
	a.lost = false
}
