package policy

import (
	"slices"
	"strings"
)

// PolicyExpression is an expression in the notation it was written in, as the policy API carries it
// (docs/protocol/02 §7.2). The zero value stands for the empty list, which denies.
type PolicyExpression struct {
	full *Expr
	bool *boolean
}

// NewPolicyExpression wraps an expression of the full language. e must not be nil.
func NewPolicyExpression(e *Expr) PolicyExpression { return PolicyExpression{full: e} }

// ParsePolicyExpression is [Parse], but remembers the notation.
func ParsePolicyExpression(text string) (PolicyExpression, error) {
	b, boolErr := parseBoolean(text)
	if boolErr == nil {
		if err := checkPrinted(text, b.expr()); err != nil {
			return PolicyExpression{}, err
		}
		return PolicyExpression{bool: b}, nil
	}
	e, fullErr := parseFull(text)
	if fullErr == nil {
		return PolicyExpression{full: e}, nil
	}
	if boolErr.limit || !fullErr.limit && !fullWasMeant(text, boolErr, fullErr) {
		return PolicyExpression{}, boolErr
	}
	return PolicyExpression{}, fullErr
}

// fullWasMeant guesses which notation the author of a text that is neither had in mind: the full language if the text
// starts with an operator behind a bracket, else the notation that gets further into the text.
func fullWasMeant(text string, boolErr, fullErr *ParseError) bool {
	head := strings.TrimLeft(text, "( \t\r\n")
	if end := strings.IndexAny(head, "() \t\r\n"); end >= 0 {
		head = head[:end]
	}
	// "(not" starts an expression in both.
	if strings.HasPrefix(strings.TrimSpace(text), "(") && head != "not" && slices.Contains(operators[:], head) {
		return true
	}
	return fullErr.Line > boolErr.Line || fullErr.Line == boolErr.Line && fullErr.Column > boolErr.Column
}

// Expr is the expression in the full language.
func (p PolicyExpression) Expr() *Expr {
	switch {
	case p.full != nil:
		return p.full
	case p.bool != nil:
		return p.bool.expr()
	}
	return list()
}

// String is the expression in the notation it was written in. A boolean expression that was decoded and whose own
// text would mean something else (a name that starts with "not", say) is printed in the full language.
func (p PolicyExpression) String() string {
	e := p.Expr()
	if p.bool != nil {
		text := string(p.bool.appendText(nil))
		if b, err := parseBoolean(text); err == nil && Equal(b.expr(), e) {
			return text
		}
	}
	return e.String()
}

// MarshalText is [PolicyExpression.String]: in JSON and YAML a policy is its text.
func (p PolicyExpression) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText is [ParsePolicyExpression], with blanks around the text removed.
func (p *PolicyExpression) UnmarshalText(text []byte) error {
	parsed, err := ParsePolicyExpression(strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	*p = parsed
	return nil
}
