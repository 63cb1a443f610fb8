package policy

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The lexer is that of WebAssembly text (docs/protocol/02 §7.1): a run of identifier characters and strings without
// a blank in between is one token; brackets are tokens of their own.

type tokenKind uint8

const (
	tokenEnd tokenKind = iota
	tokenOpen
	tokenClose
	tokenSeqOpen
	tokenSeqClose
	tokenValue
)

type token struct {
	kind  tokenKind
	pos   int   // byte offset of the first byte
	value *Expr // of tokenValue: a string, number, boolean or identifier
}

type lexer struct {
	text string
	pos  int
}

func (l *lexer) at(i int) byte {
	if i < len(l.text) {
		return l.text[i]
	}
	return 0
}

// next returns the next token, skipping blanks and comments.
func (l *lexer) next() (token, *ParseError) {
	if err := l.skip(); err != nil {
		return token{}, err
	}
	start := l.pos
	if start == len(l.text) {
		return token{kind: tokenEnd, pos: start}, nil
	}
	single := tokenEnd
	switch c := l.text[start]; {
	case c == '(':
		single = tokenOpen
	case c == ')':
		single = tokenClose
	case c == '[':
		single = tokenSeqOpen
	case c == ']':
		single = tokenSeqClose
	case c == '"' || isIDChar(c):
		e, err := l.word()
		return token{kind: tokenValue, pos: start, value: e}, err
	default:
		return token{}, errorAt(l.text, start, "a value, a name or a bracket")
	}
	l.pos++
	return token{kind: single, pos: start}, nil
}

// skip moves past blanks and comments.
func (l *lexer) skip() *ParseError {
	for l.pos < len(l.text) {
		switch c := l.text[l.pos]; {
		case isBlank(c):
			l.pos++
		case c == ';' && l.at(l.pos+1) == ';':
			end := strings.IndexByte(l.text[l.pos:], '\n')
			if end < 0 {
				l.pos = len(l.text)
			} else {
				l.pos += end + 1
			}
		case c == '(' && l.at(l.pos+1) == ';':
			if err := l.skipBlockComment(); err != nil {
				return err
			}
		default:
			return nil
		}
	}
	return nil
}

// skipBlockComment moves past "(; … ;)". Such comments nest.
func (l *lexer) skipBlockComment() *ParseError {
	start, open := l.pos, 0
	for l.pos+1 < len(l.text) {
		switch l.text[l.pos : l.pos+2] {
		case "(;":
			open++
			l.pos += 2
		case ";)":
			open--
			l.pos += 2
			if open == 0 {
				return nil
			}
		default:
			l.pos++
		}
	}
	return problemAt(l.text, start, `comment "(;" without its end ";)"`)
}

// word reads a string, or a run of identifier characters and says what it means.
func (l *lexer) word() (*Expr, *ParseError) {
	start := l.pos
	if l.text[start] == '"' {
		s, err := l.quoted()
		if err != nil {
			return nil, err
		}
		if c := l.at(l.pos); c == '"' || isIDChar(c) {
			return nil, errorAt(l.text, l.pos, "a blank after the string")
		}
		return Str(s), nil
	}
	for l.pos < len(l.text) && isIDChar(l.text[l.pos]) {
		l.pos++
	}
	if l.at(l.pos) == '"' {
		return nil, errorAt(l.text, l.pos, "a blank before the string")
	}
	word := l.text[start:l.pos]
	switch word {
	case "true":
		return Bool(true), nil
	case "false":
		return Bool(false), nil
	}
	switch e, err := number(word); {
	case err != nil:
		return nil, problemAt(l.text, start, err.Error())
	case e != nil:
		return e, nil
	}
	name := word
	if len(word) > 1 && word[0] == '$' {
		name = word[1:] // "$" marks an identifier and is no part of it
	}
	if !validIdentifier(name) {
		return nil, errorAt(l.text, start, "a value or an identifier")
	}
	return ident(name), nil
}

// quoted reads a string with its quotes and resolves the escapes.
func (l *lexer) quoted() (string, *ParseError) {
	start := l.pos
	var b []byte
	for i := start + 1; i < len(l.text); {
		switch c := l.text[i]; {
		case c == '"':
			l.pos = i + 1
			if !utf8.Valid(b) {
				return "", problemAt(l.text, start, "the string is not UTF-8")
			}
			return string(b), nil
		case c == '\\':
			var n int
			if b, n = appendEscape(b, l.text[i:]); n == 0 {
				return "", errorAt(l.text, i, `an escape: \t \n \r \" \' \\ \u{hex} or two hex digits`)
			}
			i += n
		case c < 0x20 || c == 0x7f:
			return "", problemAt(l.text, i, "control character in a string")
		default:
			b = append(b, c)
			i++
		}
	}
	return "", problemAt(l.text, start, "string without its closing quote")
}

// appendEscape appends what the escape at the start of s means and returns its length, 0 if it is invalid.
func appendEscape(b []byte, s string) ([]byte, int) {
	if len(s) < 2 {
		return b, 0
	}
	switch s[1] {
	case 't':
		return append(b, '\t'), 2
	case 'n':
		return append(b, '\n'), 2
	case 'r':
		return append(b, '\r'), 2
	case '"', '\'', '\\':
		return append(b, s[1]), 2
	case 'u':
		end := strings.IndexByte(s, '}')
		if end < 0 || s[2] != '{' {
			return b, 0
		}
		digits := s[3:end]
		if n, _ := digitRun(digits, isHexDigit); n == 0 || n != len(digits) {
			return b, 0
		}
		r, err := strconv.ParseUint(strings.ReplaceAll(digits, "_", ""), 16, 32)
		if err != nil || r > utf8.MaxRune || !utf8.ValidRune(rune(r)) {
			return b, 0
		}
		return utf8.AppendRune(b, rune(r)), end + 1
	}
	if len(s) < 3 || !isHexDigit(s[1]) || !isHexDigit(s[2]) {
		return b, 0
	}
	v, _ := strconv.ParseUint(s[1:3], 16, 8)
	return append(b, byte(v)), 3
}

// number reads word as a number; nil if it is none. An integer out of range, or a form of float that the reference
// refuses (hexadecimal, or with separators), is an error.
func number(word string) (*Expr, error) {
	digits, negative := word, false
	if word[0] == '+' || word[0] == '-' {
		digits, negative = word[1:], word[0] == '-'
	}
	switch {
	case digits == "inf" && negative:
		return Float(math.Inf(-1)), nil
	case digits == "inf":
		return Float(math.Inf(1)), nil
	case digits == "nan":
		return Float(math.NaN()), nil
	case strings.HasPrefix(digits, "nan:0x"):
		if n, _ := digitRun(digits[6:], isHexDigit); n == 0 || 6+n != len(digits) {
			return nil, nil
		}
		return Float(math.NaN()), nil
	}
	base, isDigit := 10, isDecimalDigit
	if strings.HasPrefix(digits, "0x") {
		base, isDigit, digits = 16, isHexDigit, digits[2:]
	}
	n, separated := digitRun(digits, isDigit)
	if n == 0 {
		return nil, nil
	}
	if n == len(digits) {
		text := strings.ReplaceAll(digits, "_", "")
		if negative {
			text = "-" + text
		}
		i, err := strconv.ParseInt(text, base, 64)
		if err != nil {
			return nil, errors.New("integer out of the range of 64 bits")
		}
		return Int(i), nil
	}
	ok, fractionSeparated := floatTail(digits[n:], base == 16, isDigit)
	switch {
	case !ok:
		return nil, nil
	case base == 16:
		return nil, errors.New("hexadecimal floats are not supported")
	case separated || fractionSeparated:
		return nil, errors.New(`"_" in a float is not supported`)
	}
	f, err := strconv.ParseFloat(word, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) { // out of range is ±inf
		return nil, err
	}
	return Float(f), nil
}

// floatTail reports whether s is what may follow the integer part of a float: [.[digits]][exponent].
func floatTail(s string, hex bool, isDigit func(byte) bool) (ok, separated bool) {
	if s[0] == '.' {
		s = s[1:]
		if s != "" && isDigit(s[0]) {
			n, sep := digitRun(s, isDigit)
			if n == 0 {
				return false, false
			}
			s, separated = s[n:], sep
		}
	}
	if s == "" {
		return true, separated
	}
	mark := s[0] | 0x20
	if hex && mark != 'p' || !hex && mark != 'e' {
		return false, false
	}
	s = s[1:]
	if s != "" && (s[0] == '+' || s[0] == '-') {
		s = s[1:]
	}
	n, sep := digitRun(s, isDecimalDigit)
	return n > 0 && n == len(s), separated || sep
}

// digitRun is the length of the digits at the start of s, with single "_" between them; 0 if there is none or if the
// run ends in "_".
func digitRun(s string, isDigit func(byte) bool) (n int, separated bool) {
	for n < len(s) {
		switch {
		case isDigit(s[n]):
		case s[n] == '_' && n > 0 && s[n-1] != '_':
			separated = true
		default:
			if n > 0 && s[n-1] == '_' {
				return 0, separated
			}
			return n, separated
		}
		n++
	}
	if n > 0 && s[n-1] == '_' {
		return 0, separated
	}
	return n, separated
}

// validIdentifier reports whether s, standing alone, reads as the identifier s.
func validIdentifier(s string) bool {
	if s == "" || s == "true" || s == "false" || len(s) > 1 && s[0] == '$' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case isLetter(c) || strings.IndexByte("!$%&*/<=>?~_^", c) >= 0:
		case i > 0 && '+' <= c && c <= '@' && c != ',' && c != ';': // the range of the notes, less what ends a token
		default:
			return false
		}
	}
	e, err := number(s)
	return e == nil && err == nil
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

func isDecimalDigit(c byte) bool { return '0' <= c && c <= '9' }

func isHexDigit(c byte) bool { return isDecimalDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'f' }

// isIDChar reports whether c is an identifier character of WebAssembly text.
func isIDChar(c byte) bool {
	return isLetter(c) || isDecimalDigit(c) || strings.IndexByte("!#$%&'*+-./:<=>?@\\^_`|~", c) >= 0
}
