package project

import (
	"errors"
	"fmt"
)

// Reasons that callers may want to tell apart; an *Error wraps one of them.
var (
	// ErrMissing: a required field is absent.
	ErrMissing = errors.New("missing")
	// ErrInvalid: a field, or the whole input, has the wrong form.
	ErrInvalid = errors.New("invalid")
	// ErrTooLarge: the input is longer than MaxSize.
	ErrTooLarge = errors.New("too large")
	// ErrMismatch: an identifier does not belong to the change history given with it.
	ErrMismatch = errors.New("does not match")
)

// Error says which field of a ticket or of a project is wrong, and what would be right. Its text never contains a one-time code.
type Error struct {
	// Input is "ticket" or "project".
	Input string
	// Field is the JSON name of the field, or empty if the input as a whole is wrong.
	Field string
	// Problem says what is wrong and what is expected.
	Problem string
	// Reason is one of the errors above.
	Reason error
	// Err is what found the problem, or nil.
	Err error
}

func (e *Error) Error() string {
	s := e.Input + ": "
	if e.Field != "" {
		s += e.Field + ": "
	}
	s += e.Problem
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the reason and, if there is one, the error below.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Reason}
	}
	return []error{e.Reason, e.Err}
}

func tooLarge(input string, n int) error {
	return &Error{Input: input, Reason: ErrTooLarge, Problem: fmt.Sprintf("%d bytes, at most %d are allowed", n, MaxSize)}
}
