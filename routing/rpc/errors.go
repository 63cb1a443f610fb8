package rpc

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"sallyport/internal/cborhead"
)

// Error is the body of an answer that is not OK. Empty text is left out on the wire, like NoMethod and a nil Cause.
type Error struct {
	Path    string
	Method  Method
	Message string
	Cause   *Error
}

// Encode returns the body.
func (e *Error) Encode() []byte { return e.append(make([]byte, 0, 16+len(e.Path)+len(e.Message))) }

func (e *Error) append(b []byte) []byte {
	fields := uint64(0)
	for _, present := range [...]bool{e.Path != "", e.Method != NoMethod, e.Message != "", e.Cause != nil} {
		if present {
			fields++
		}
	}
	b = cborhead.Append(b, cborhead.Map, fields)
	if e.Path != "" {
		b = appendText(append(b, 1), e.Path)
	}
	if e.Method != NoMethod {
		b = cborhead.Append(append(b, 2), cborhead.Uint, uint64(e.Method))
	}
	if e.Message != "" {
		b = appendText(append(b, 3), e.Message)
	}
	if e.Cause != nil {
		b = e.Cause.append(append(b, 4))
	}
	return b
}

// DecodeError reads the body of a refusal. Some peers send a bare text or a byte string with text in place of the map; that becomes
// the message. What cannot be read gives an empty error, as in the reference.
func DecodeError(body []byte) *Error {
	empty := &Error{Method: NoMethod}
	if len(body) == 0 {
		return empty
	}
	switch body[0] & 0xe0 {
	case cborhead.Text:
		var s string
		if DecodeBody(body, &s) == nil {
			return &Error{Method: NoMethod, Message: s}
		}
	case cborhead.Bytes:
		var b []byte
		if DecodeBody(body, &b) == nil && utf8.Valid(b) {
			return &Error{Method: NoMethod, Message: string(b)}
		}
	case cborhead.Map:
		var w wireError
		if DecodeBody(body, &w) == nil {
			return w.error()
		}
	}
	return empty
}

// wireError is the error map as it is read. The nesting is bounded by the CBOR decoder.
type wireError struct {
	Path    string     `cbor:"1,keyasint"`
	Method  *uint64    `cbor:"2,keyasint"`
	Message string     `cbor:"3,keyasint"`
	Cause   *wireError `cbor:"4,keyasint"`
}

func (w *wireError) error() *Error {
	e := &Error{Path: w.Path, Method: methodFrom(w.Method), Message: w.Message}
	if w.Cause != nil {
		e.Cause = w.Cause.error()
	}
	return e
}

// StatusError is a refusal by the other side, as an error.
type StatusError struct {
	Status Status // 0 if the answer had none
	Body   Error
}

// Err returns nil if the status is OK, and a *StatusError otherwise. The body of a refusal is read whatever HasBody says
// (docs/protocol/01 §6.3).
func (r *Response) Err() error {
	if r.Status == OK {
		return nil
	}
	return &StatusError{Status: r.Status, Body: *DecodeError(r.Body)}
}

// Error returns the status, the request and the messages from the outermost to the innermost cause. Control characters in what the
// other side sent are replaced, because this ends up on terminals and in logs.
func (e *StatusError) Error() string {
	var b strings.Builder
	if e.Status == 0 {
		b.WriteString("no status")
	} else {
		fmt.Fprintf(&b, "%d %s", uint16(e.Status), e.Status)
	}
	if e.Body.Path != "" {
		b.WriteString(" for ")
		if e.Body.Method != NoMethod {
			b.WriteString(e.Body.Method.String() + " ")
		}
		b.WriteString(printable(e.Body.Path))
	}
	for body := &e.Body; body != nil; body = body.Cause {
		if body.Message != "" {
			b.WriteString(": " + printable(body.Message))
		}
	}
	return b.String()
}

func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}
