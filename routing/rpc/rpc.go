// Package rpc is the request and response framing that services of nodes and authorities speak (docs/protocol/01 §6.2-§6.3,
// docs/protocol/02 §5.2): a message payload is a BARE length, a CBOR header, and the body's bytes up to the end.
//
// It does no I/O. Whoever sends a request finds its answer by the temporary address it was sent from, not by the numbers in the
// headers; the reference does not compare them either.
package rpc

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"

	"sallyport/crypto/identity"
	"sallyport/internal/cborhead"
	"sallyport/routing/bare"
)

// Method says what a request wants done with its path. The zero Method is GET.
type Method uint8

// The methods and their numbers on the wire. NoMethod stands for a header without one, or with an unknown one.
const (
	Get      Method = 0
	Post     Method = 1
	Put      Method = 2
	Delete   Method = 3
	Patch    Method = 4
	NoMethod Method = 0xff
)

// String returns the method's name, such as GET.
func (m Method) String() string {
	switch m {
	case Get:
		return "GET"
	case Post:
		return "POST"
	case Put:
		return "PUT"
	case Delete:
		return "DELETE"
	case Patch:
		return "PATCH"
	case NoMethod:
		return "-"
	}
	return strconv.Itoa(int(m))
}

// methodFrom returns the method with a number; an unknown or absent one is NoMethod.
func methodFrom(n *uint64) Method {
	if n == nil || *n > uint64(Patch) {
		return NoMethod
	}
	return Method(*n)
}

// Status is the outcome of a request. The zero Status stands for a header without one.
type Status uint16

// The statuses of the reference.
const (
	OK                  Status = 200
	BadRequest          Status = 400
	Unauthorized        Status = 401
	Forbidden           Status = 403
	NotFound            Status = 404
	MethodNotAllowed    Status = 405
	Timeout             Status = 408
	Conflict            Status = 409
	InternalServerError Status = 500
	NotImplemented      Status = 501
)

// String returns the reference's name of the status, such as BadRequest, or the number if it has none.
func (s Status) String() string {
	switch s {
	case OK:
		return "Ok"
	case BadRequest:
		return "BadRequest"
	case Unauthorized:
		return "Unauthorized"
	case Forbidden:
		return "Forbidden"
	case NotFound:
		return "NotFound"
	case MethodNotAllowed:
		return "MethodNotAllowed"
	case Timeout:
		return "Timeout"
	case Conflict:
		return "Conflict"
	case InternalServerError:
		return "InternalServerError"
	case NotImplemented:
		return "NotImplemented"
	}
	return strconv.Itoa(int(s))
}

// Server answers the requests of one service.
//
// Serve runs off the event loops and may block; it may be called from several goroutines at once. caller is the authenticated peer
// of the secure channel that the request came through, nil if there was none. req and its body are the callee's until it
// returns. A nil response means that nothing is answered.
type Server interface {
	Serve(ctx context.Context, caller *identity.Identifier, req *Request) *Response
}

// ErrMalformed reports a payload that is no request or response.
var ErrMalformed = errors.New("rpc: malformed")

// Request is one request.
type Request struct {
	ID      uint32 // random, not 0
	Path    string
	Method  Method
	HasBody bool
	Body    []byte // what follows the header, in whatever encoding the endpoint wants; may be empty although HasBody is set
}

// Response is one answer.
type Response struct {
	ID      uint32 // random, not 0
	Re      uint32 // the request's ID, 0 if it is not known
	Status  Status
	HasBody bool
	Body    []byte

	// Delay is how long whoever answers waits before the answer goes out; Done, if not nil, is called then. Neither is sent.
	Delay time.Duration
	Done  func()
	// Later, if not nil, gives the answer in place of what is here, whenever that is: it calls send once, on any goroutine, and does not block itself.
	Later func(send func(*Response))
}

// NewRequest makes a request with a fresh ID. A nil body means none, an empty one means the unit body. body is kept.
func NewRequest(method Method, path string, body []byte) *Request {
	return &Request{ID: newID(), Path: path, Method: method, HasBody: body != nil, Body: body}
}

// NewResponse makes an answer to req, which may be nil, with a fresh ID. A nil body means none. body is kept.
func NewResponse(req *Request, status Status, body []byte) *Response {
	res := &Response{ID: newID(), Status: status, HasBody: body != nil, Body: body}
	if req != nil {
		res.Re = req.ID
	}
	return res
}

// ErrorResponse makes a refusal of req that repeats its path and method. Without a request it carries only the message.
func ErrorResponse(req *Request, status Status, message string) *Response {
	e := Error{Method: NoMethod, Message: message}
	if req != nil {
		e.Path, e.Method = req.Path, req.Method
	}
	return NewResponse(req, status, e.Encode())
}

// newID returns a random number that is not 0.
func newID() uint32 {
	var b [4]byte
	for {
		_, _ = rand.Read(b[:]) // never fails: it ends the program instead
		if id := binary.NativeEndian.Uint32(b[:]); id != 0 {
			return id
		}
	}
}

// Encode returns the message payload.
func (r *Request) Encode() []byte {
	h := make([]byte, 0, 32+len(r.Path))
	fields := uint64(4)
	if r.Method == NoMethod {
		fields--
	}
	h = cborhead.Append(h, cborhead.Map, fields)
	h = cborhead.Append(append(h, 1), cborhead.Uint, uint64(r.ID))
	h = appendText(append(h, 2), r.Path)
	if r.Method != NoMethod {
		h = cborhead.Append(append(h, 3), cborhead.Uint, uint64(r.Method))
	}
	return envelope(appendBool(append(h, 4), r.HasBody), r.Body)
}

// Encode returns the message payload.
func (r *Response) Encode() []byte {
	h := make([]byte, 0, 24)
	fields := uint64(4)
	if r.Status == 0 {
		fields--
	}
	h = cborhead.Append(h, cborhead.Map, fields)
	h = cborhead.Append(append(h, 1), cborhead.Uint, uint64(r.ID))
	h = cborhead.Append(append(h, 2), cborhead.Uint, uint64(r.Re))
	if r.Status != 0 {
		h = cborhead.Append(append(h, 3), cborhead.Uint, uint64(r.Status))
	}
	return envelope(appendBool(append(h, 4), r.HasBody), r.Body)
}

// envelope puts the length of header and body in front of them.
func envelope(header, body []byte) []byte {
	size := len(header) + len(body)
	b := make([]byte, 0, bare.UvarintSize(uint64(size))+size)
	b = bare.AppendUvarint(b, uint64(size))
	return append(append(b, header...), body...)
}

// DecodeRequest reads a request from a message payload. Body aliases payload. Unknown header fields, among them the type tags of
// older peers, are skipped.
func DecodeRequest(payload []byte) (*Request, error) {
	var h struct {
		ID      *uint32 `cbor:"1,keyasint"`
		Path    *string `cbor:"2,keyasint"`
		Method  *uint64 `cbor:"3,keyasint"`
		HasBody *bool   `cbor:"4,keyasint"`
	}
	body, err := open(payload, &h)
	if err != nil {
		return nil, fmt.Errorf("%w request: %w", ErrMalformed, err)
	}
	if h.ID == nil || h.Path == nil || h.HasBody == nil {
		return nil, fmt.Errorf("%w request: a header field is missing", ErrMalformed)
	}
	return &Request{ID: *h.ID, Path: *h.Path, Method: methodFrom(h.Method), HasBody: *h.HasBody, Body: body}, nil
}

// DecodeResponse reads a response from a message payload. Body aliases payload.
func DecodeResponse(payload []byte) (*Response, error) {
	var h struct {
		ID      *uint32 `cbor:"1,keyasint"`
		Re      *uint32 `cbor:"2,keyasint"`
		Status  *uint16 `cbor:"3,keyasint"`
		HasBody *bool   `cbor:"4,keyasint"`
	}
	body, err := open(payload, &h)
	if err != nil {
		return nil, fmt.Errorf("%w response: %w", ErrMalformed, err)
	}
	if h.ID == nil || h.Re == nil || h.HasBody == nil {
		return nil, fmt.Errorf("%w response: a header field is missing", ErrMalformed)
	}
	r := &Response{ID: *h.ID, Re: *h.Re, HasBody: *h.HasBody, Body: body}
	if h.Status != nil {
		r.Status = Status(*h.Status)
	}
	return r, nil
}

// open reads the envelope and the header and returns the body.
func open(payload []byte, header any) (body []byte, err error) {
	content, _, err := bare.Bytes(payload)
	if err != nil {
		return nil, err
	}
	if len(content) == 0 || content[0]&0xe0 != cborhead.Map {
		return nil, errors.New("the header is not a map")
	}
	return cbor.UnmarshalFirst(content, header)
}

// DecodeBody reads a CBOR body into v. As in the reference, what follows the first item is ignored (docs/protocol/01 §1.1).
func DecodeBody(body []byte, v any) error {
	_, err := cbor.UnmarshalFirst(body, v)
	return err
}

// Segments splits a path into at most n parts: all leading slashes are removed, and the last part keeps what remains. "/" has one
// empty part (docs/protocol/02 §5.2).
func Segments(path string, n int) []string {
	return strings.SplitN(strings.TrimLeft(path, "/"), "/", n)
}
