package policy

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Errors of an evaluation. All of them mean deny. They are returned wrapped, with the operator or name concerned.
var (
	// ErrUnbound: the expression reads a name that the environment does not bind.
	ErrUnbound = errors.New("policy: unbound identifier")
	// ErrType: an operand has the wrong type, or two values of different types were compared.
	ErrType = errors.New("policy: type mismatch")
	// ErrArguments: an operator has the wrong number of arguments.
	ErrArguments = errors.New("policy: wrong number of arguments")
	// ErrOperator: a list does not start with an operator.
	ErrOperator = errors.New("policy: not an operator")
	// ErrLimit: the expression is too large or too deep, or its evaluation takes too many steps.
	ErrLimit = errors.New("policy: limit exceeded")
)

// Errors of decoding and of the policy set.
var (
	// ErrMalformed: bytes that are not a valid encoding.
	ErrMalformed = errors.New("policy: malformed encoding")
	// ErrNotPolicy: an expression that cannot be stored as a policy, because its text would not parse again.
	ErrNotPolicy = errors.New("policy: expression does not start with an operator")
	// ErrUnknown: a resource type or an action that does not exist.
	ErrUnknown = errors.New("policy: unknown")
)

// ParseError tells where and why a text is not a policy expression.
type ParseError struct {
	Line     int    // from 1
	Column   int    // from 1, in characters
	Expected string // what would have been accepted there, or what is wrong
	Found    string // what stands there, shortened; empty if Expected says it all
	limit    bool
}

// Error names the position, what was expected and what was found.
func (e *ParseError) Error() string {
	var b strings.Builder
	b.WriteString("policy: ")
	if e.Line > 1 {
		fmt.Fprintf(&b, "line %d, ", e.Line)
	}
	fmt.Fprintf(&b, "column %d: %s", e.Column, e.Expected)
	if e.Found != "" {
		fmt.Fprintf(&b, ", found %s", e.Found)
	}
	return b.String()
}

// Is makes errors.Is(err, ErrLimit) true for a text that is too large or too deep.
func (e *ParseError) Is(target error) bool { return e.limit && target == ErrLimit }

// errorAt makes the error for byte offset pos of text.
func errorAt(text string, pos int, expected string) *ParseError {
	line, column := position(text, pos)
	return &ParseError{Line: line, Column: column, Expected: "expected " + expected, Found: found(text, pos)}
}

// problemAt is errorAt for a message that does not read "expected …, found …".
func problemAt(text string, pos int, problem string) *ParseError {
	line, column := position(text, pos)
	return &ParseError{Line: line, Column: column, Expected: problem}
}

func limitAt(text string, pos int, problem string) *ParseError {
	e := problemAt(text, pos, problem)
	e.limit = true
	return e
}

func position(text string, pos int) (line, column int) {
	before := text[:pos]
	lineStart := strings.LastIndexByte(before, '\n') + 1
	return strings.Count(before, "\n") + 1, utf8.RuneCountInString(before[lineStart:]) + 1
}

// found quotes the word at pos.
func found(text string, pos int) string {
	const most = 24
	rest := text[pos:]
	if rest == "" {
		return "the end"
	}
	end, n := 0, 0
	for i, r := range rest {
		if n == most || i > 0 && strings.ContainsRune(" \t\r\n()[]", r) {
			break
		}
		end = i + utf8.RuneLen(r)
		n++
		if strings.ContainsRune(" \t\r\n()[]", r) {
			break
		}
	}
	return fmt.Sprintf("%q", rest[:end])
}
