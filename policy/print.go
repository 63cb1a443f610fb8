package policy

import (
	"math"
	"strconv"
	"strings"
	"unicode"
)

// String is the canonical text of e in the full language: single blanks, quoted strings, floats with a decimal point
// or an exponent (docs/protocol/02 §7.1). If e is an operation, [ParseFull] of the text gives an expression [Equal]
// to e. A nil e prints as "()".
func (e *Expr) String() string {
	if e == nil {
		return "()"
	}
	return string(e.appendText(nil))
}

// MarshalText is [Expr.String]: in JSON and YAML an expression is its text.
func (e *Expr) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

func (e *Expr) appendText(b []byte) []byte {
	switch e.kind {
	case KindString:
		return appendQuoted(b, e.s)
	case KindIdentifier:
		return append(b, e.s...)
	case KindInt:
		return strconv.AppendInt(b, e.i, 10)
	case KindFloat:
		return appendFloat(b, e.f)
	case KindBool:
		return strconv.AppendBool(b, e.b)
	case KindSequence:
		return append(appendItems(append(b, '['), e.items), ']')
	case KindList:
		return append(appendItems(append(b, '('), e.items), ')')
	}
	return b
}

func appendItems(b []byte, items []*Expr) []byte {
	for i, item := range items {
		if i > 0 {
			b = append(b, ' ')
		}
		b = item.appendText(b)
	}
	return b
}

// appendFloat prints f so that it reads back as a float, never as an integer: with a point, or with an exponent when
// the number is very large or very small (the thresholds are the reference's).
func appendFloat(b []byte, f float64) []byte {
	switch {
	case math.IsNaN(f):
		return append(b, "nan"...)
	case math.IsInf(f, 1):
		return append(b, "+inf"...)
	case math.IsInf(f, -1):
		return append(b, "-inf"...)
	}
	if abs := math.Abs(f); abs != 0 && (abs < 1e-4 || abs >= 1e16) {
		mantissa, exp, _ := strings.Cut(strconv.FormatFloat(f, 'e', -1, 64), "e")
		b = append(append(b, mantissa...), 'e')
		if exp[0] == '-' {
			b = append(b, '-')
		}
		return append(b, strings.TrimLeft(exp[1:], "0")...) // the exponent is not zero here
	}
	start := len(b)
	b = strconv.AppendFloat(b, f, 'f', -1, 64)
	if !strings.Contains(string(b[start:]), ".") {
		b = append(b, ".0"...)
	}
	return b
}

// appendQuoted prints s as a quoted string. What does not print, and what combines with the character before it, is
// escaped: the text of a policy must look like what it says.
func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\t':
			b = append(b, `\t`...)
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\r':
			b = append(b, `\r`...)
		case unicode.IsPrint(r) && !unicode.In(r, unicode.Mn, unicode.Me):
			b = append(b, string(r)...)
		default:
			b = append(b, `\u{`...)
			b = strconv.AppendInt(b, int64(r), 16)
			b = append(b, '}')
		}
	}
	return append(b, '"')
}
