package policy

import "strings"

// booleanOp is the variant number of a boolean expression in CBOR (docs/protocol/02 §7.2).
type booleanOp uint8

const (
	booleanName       booleanOp = 0 // name is "true"
	booleanNameValue  booleanOp = 1 // name is value
	booleanIdentifier booleanOp = 2 // the peer is name
	booleanOr         booleanOp = 3
	booleanAnd        booleanOp = 4
	booleanNot        booleanOp = 5 // of left
	booleanEmpty      booleanOp = 6
)

// boolean is an expression of the boolean variant.
type boolean struct {
	op          booleanOp
	name, value string
	left, right *boolean
	depth       int // levels of lists in the expression it stands for
}

func newBoolean(op booleanOp, left, right *boolean) *boolean {
	b := &boolean{op: op, left: left, right: right, depth: 1}
	if left != nil {
		b.depth = 1 + left.depth
	}
	if right != nil {
		b.depth = max(b.depth, 1+right.depth)
	}
	return b
}

func newBooleanName(name string) *boolean {
	if isPeerIdentifier(name) {
		return &boolean{op: booleanIdentifier, name: name, depth: 1}
	}
	return &boolean{op: booleanName, name: name, depth: 1}
}

// expr is b in the full language.
func (b *boolean) expr() *Expr {
	switch b.op {
	case booleanName:
		return list(ident("="), ident(subjectPrefix+b.name), Str("true"))
	case booleanNameValue:
		return list(ident("="), ident(subjectPrefix+b.name), Str(b.value))
	case booleanIdentifier:
		// The hex digits of a bound identifier are lower case. Without this an upper-case one would never match, and
		// "not I…" would let the peer in that it names.
		return list(ident("="), ident(subjectIdentifier), Str("I"+strings.ToLower(b.name[1:])))
	case booleanOr:
		return list(ident("or"), b.left.expr(), b.right.expr())
	case booleanAnd:
		return list(ident("and"), b.left.expr(), b.right.expr())
	case booleanNot:
		return list(ident("not"), b.left.expr())
	}
	return list()
}

// appendText prints b; every operand that is an operation stands in parentheses.
func (b *boolean) appendText(out []byte) []byte {
	switch b.op {
	case booleanName, booleanIdentifier:
		return append(out, b.name...)
	case booleanNameValue:
		out = append(append(out, b.name...), '=')
		if nameRun(b.value) == len(b.value) {
			return append(out, b.value...)
		}
		return append(append(append(out, '"'), b.value...), '"')
	case booleanOr:
		return b.right.appendOperand(append(b.left.appendOperand(out), " or "...))
	case booleanAnd:
		return b.right.appendOperand(append(b.left.appendOperand(out), " and "...))
	case booleanNot:
		return b.left.appendOperand(append(out, "not "...))
	}
	return out
}

func (b *boolean) appendOperand(out []byte) []byte {
	if b.op < booleanOr {
		return b.appendText(out)
	}
	return append(b.appendText(append(out, '(')), ')')
}

// parseBoolean reads the whole text as a boolean expression. The grammar is read with ordered choice: a word "not"
// that is followed by nothing negatable is a name.
func parseBoolean(text string) (*boolean, *ParseError) {
	if err := checkText(text); err != nil {
		return nil, err
	}
	p := &booleanParser{text: text}
	b := p.chain(booleanOr)
	if p.fatal != nil {
		return nil, p.fatal
	}
	if b == nil || p.pos < len(text) {
		p.fail(p.pos, `"and", "or" or the end`)
		return nil, errorAt(text, p.farthest, p.expected)
	}
	return b, nil
}

type booleanParser struct {
	text     string
	pos      int
	nesting  int         // open parentheses and negations
	fatal    *ParseError // a limit; ends the parse
	farthest int         // where the farthest failure was, for the message
	expected string
}

// fail notes a failed alternative. The farthest one, and there the first, is what the user gets to see.
func (p *booleanParser) fail(pos int, expected string) {
	if pos > p.farthest || p.expected == "" {
		p.farthest, p.expected = pos, expected
	}
}

// chain reads operands joined by op, left to right; nil if there is not even one.
func (p *booleanParser) chain(op booleanOp) *boolean {
	word, operand := "or", func() *boolean { return p.chain(booleanAnd) }
	if op == booleanAnd {
		word, operand = "and", p.negation
	}
	b := operand()
	for b != nil {
		before := p.pos
		if !p.word(word) {
			break
		}
		right := operand()
		if right == nil {
			p.pos = before // not an operator after all; what follows decides
			break
		}
		b = newBoolean(op, b, right)
		if !p.checkDepth(b.depth) {
			return nil
		}
	}
	if p.fatal != nil {
		return nil
	}
	return b
}

// negation reads a negation, an expression in parentheses or a name.
func (p *booleanParser) negation() *boolean {
	start := p.pos
	p.nesting++
	defer func() { p.nesting-- }()
	if !p.checkDepth(p.nesting) {
		return nil
	}
	if p.word("not") {
		if b := p.negation(); b != nil {
			b = newBoolean(booleanNot, b, nil)
			if !p.checkDepth(b.depth) {
				return nil
			}
			return b
		}
	} else if p.word("(") {
		if b := p.chain(booleanOr); b != nil {
			if p.word(")") {
				return b
			}
			p.fail(p.pos, `"and", "or" or ")"`)
		}
	}
	if p.fatal != nil {
		return nil
	}
	p.pos = start
	return p.name()
}

func (p *booleanParser) checkDepth(depth int) bool {
	if depth > MaxDepth && p.fatal == nil {
		p.fatal = depthError(p.text, p.pos)
	}
	return p.fatal == nil
}

// word moves past word and the blanks around it. No blank is required: "notify" is "not ify".
func (p *booleanParser) word(word string) bool {
	i := p.pos + blanks(p.text[p.pos:])
	if !strings.HasPrefix(p.text[i:], word) {
		return false
	}
	i += len(word)
	p.pos = i + blanks(p.text[i:])
	return true
}

func (p *booleanParser) name() *boolean {
	rest := p.text[p.pos:]
	n := nameRun(rest)
	if n == 0 || !isNameStart(rest[0]) {
		p.fail(p.pos, `a name (letters, digits, "." "_" "-", not starting with a digit or "."), "not" or "("`)
		return nil
	}
	name := rest[:n]
	p.pos += n
	if rest = rest[n:]; rest == "" || rest[0] != '=' {
		return newBooleanName(name)
	}
	rest = rest[1:]
	value, length := rest[:nameRun(rest)], nameRun(rest)
	if strings.HasPrefix(rest, `"`) {
		end := strings.IndexByte(rest[1:], '"')
		if end < 0 {
			end = 0 // an unfinished string is no value, like an empty one
		}
		value, length = rest[1:1+end], end+2
	}
	if value == "" {
		p.fail(p.pos+1, `a value: letters, digits, "." "_" "-", or a non-empty quoted string`)
		return newBooleanName(name) // leaves the "=" to whoever comes next, which refuses it
	}
	p.pos += 1 + length
	return &boolean{op: booleanNameValue, name: name, value: value, depth: 1}
}

func blanks(s string) int {
	n := 0
	for n < len(s) && isBlank(s[n]) {
		n++
	}
	return n
}

func isNameStart(c byte) bool { return isLetter(c) || c == '_' || c == '-' }

// nameRun is the length of the name characters at the start of s.
func nameRun(s string) int {
	n := 0
	for n < len(s) && (isNameStart(s[n]) || isDecimalDigit(s[n]) || s[n] == '.') {
		n++
	}
	return n
}

func isName(s string) bool { return s != "" && isNameStart(s[0]) && nameRun(s) == len(s) }

// isPeerIdentifier reports whether s is the text form of an identifier (docs/protocol/02 §2.2).
func isPeerIdentifier(s string) bool {
	if len(s) != 65 || s[0] != 'I' {
		return false
	}
	for i := 1; i < len(s); i++ {
		if !isHexDigit(s[i]) {
			return false
		}
	}
	return true
}
