package policy

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// Parse reads a policy expression: the boolean variant is tried first, then the full language (docs/protocol/02
// §7.1, §7.2). The error is a [*ParseError] of the notation that got further into the text.
func Parse(text string) (*Expr, error) {
	p, err := ParsePolicyExpression(text)
	if err != nil {
		return nil, err
	}
	return p.Expr(), nil
}

// ParseFull reads an expression of the full language only (docs/protocol/02 §7.1). The error is a [*ParseError].
func ParseFull(text string) (*Expr, error) {
	e, err := parseFull(text)
	if err != nil { // a nil *ParseError must not become a non-nil error
		return nil, err
	}
	return e, nil
}

func parseFull(text string) (*Expr, *ParseError) {
	if err := checkText(text); err != nil {
		return nil, err
	}
	// Characters that change the direction of writing can make a policy look like another one. The reference's lexer
	// refuses them too. Inside a string they can be written as an escape.
	if i := strings.IndexFunc(text, isDirectionControl); i >= 0 {
		return nil, problemAt(text, i, "invisible direction control character, write it as \\u{…} in a string")
	}
	p := &fullParser{lexer{text: text}}
	items, _, err := p.items(tokenEnd, 0, 0)
	if err != nil {
		return nil, err
	}
	var e *Expr
	switch len(items) {
	case 0:
		return nil, errorAt(text, len(text), "an expression")
	case 1:
		e = items[0]
	default:
		e = list(items...)
	}
	if !e.isOperation() {
		_ = p.rewind()
		return nil, errorAt(text, p.pos, "an operator ("+strings.Join(operators[:], " ")+") as the first element")
	}
	if err := checkPrinted(text, e); err != nil {
		return nil, err
	}
	return e, nil
}

type fullParser struct{ lexer }

// rewind moves to the first element, behind leading opening brackets.
func (p *fullParser) rewind() *ParseError {
	p.pos = 0
	for {
		if err := p.skip(); err != nil || p.at(p.pos) != '(' {
			return err
		}
		p.pos++
	}
}

// items reads expressions up to the closing token, which it consumes. start is where the opening bracket stands.
func (p *fullParser) items(closing tokenKind, start, depth int) (items []*Expr, positions []int, err *ParseError) {
	if depth > MaxDepth {
		return nil, nil, depthError(p.text, start)
	}
	for {
		t, err := p.next()
		if err != nil {
			return nil, nil, err
		}
		var e *Expr
		switch t.kind {
		case closing:
			return items, positions, nil
		case tokenValue:
			e = t.value
		case tokenOpen:
			inner, _, err := p.items(tokenClose, t.pos, depth+1)
			if err != nil {
				return nil, nil, err
			}
			e = list(inner...)
		case tokenSeqOpen:
			inner, at, err := p.items(tokenSeqClose, t.pos, depth+1)
			if err != nil {
				return nil, nil, err
			}
			if i := firstMixed(inner); i > 0 {
				return nil, nil, problemAt(p.text, at[i], "element "+strconv.Itoa(i+1)+
					" of the sequence has another type than the one before it")
			}
			e = Seq(inner...)
		case tokenEnd:
			return nil, nil, problemAt(p.text, start, "bracket is never closed")
		default:
			return nil, nil, problemAt(p.text, t.pos, "closing bracket without its opening one")
		}
		items = append(items, e)
		positions = append(positions, t.pos)
	}
}

// firstMixed returns the index of the first element that cannot be compared with the one before it, 0 if there is
// none.
func firstMixed(items []*Expr) int {
	for i := 1; i < len(items); i++ {
		if _, err := equals(items[i-1], items[i]); err != nil {
			return i
		}
	}
	return 0
}

// checkText refuses what neither notation accepts.
func checkText(text string) *ParseError {
	if len(text) > MaxText {
		return limitAt(text, 0, "the text is longer than "+strconv.Itoa(MaxText)+" bytes")
	}
	if !utf8.ValidString(text) {
		i := 0
		for {
			r, n := utf8.DecodeRuneInString(text[i:])
			if r == utf8.RuneError && n == 1 {
				return problemAt(text, i, "the text is not UTF-8")
			}
			i += n
		}
	}
	return nil
}

// checkPrinted makes sure that the canonical text of e, which is what gets stored, can be parsed again.
func checkPrinted(text string, e *Expr) *ParseError {
	if !e.depthWithin(MaxDepth) {
		return depthError(text, 0)
	}
	if len(e.appendText(nil)) > MaxText {
		return limitAt(text, 0, "the expanded expression is longer than "+strconv.Itoa(MaxText)+" bytes")
	}
	return nil
}

func depthError(text string, pos int) *ParseError {
	return limitAt(text, pos, "nested deeper than "+strconv.Itoa(MaxDepth)+
		` levels (long chains of "and" or "or" are flat in the full language: (or a b c …))`)
}

func isDirectionControl(r rune) bool {
	return 0x202a <= r && r <= 0x202e || 0x2066 <= r && r <= 0x206f
}
