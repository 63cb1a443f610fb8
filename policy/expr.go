package policy

import (
	"math"
	"slices"
)

// Limits of an expression.
const (
	// MaxText is the largest text of an expression in bytes, as written and as printed.
	MaxText = 64 << 10
	// MaxDepth is the deepest nesting of lists and sequences in an expression.
	MaxDepth = 128
)

// Kind tells what an [Expr] is. The numbers are those of the CBOR form (docs/protocol/02 §7.1).
type Kind uint8

// The kinds of expressions.
const (
	KindString     Kind = 1
	KindInt        Kind = 2
	KindFloat      Kind = 3
	KindBool       Kind = 4
	KindIdentifier Kind = 5
	KindSequence   Kind = 6
	KindList       Kind = 7
)

// String is the name of the kind as used in error messages.
func (k Kind) String() string {
	switch k {
	case KindString:
		return "string"
	case KindInt:
		return "integer"
	case KindFloat:
		return "float"
	case KindBool:
		return "boolean"
	case KindIdentifier:
		return "identifier"
	case KindSequence:
		return "sequence"
	case KindList:
		return "list"
	}
	return "invalid"
}

// Expr is a policy expression. It is immutable once made (by parsing, decoding or a constructor) and may be shared
// between goroutines; [Expr.UnmarshalCBOR] into a fresh Expr is the only method that writes.
type Expr struct {
	kind  Kind
	b     bool
	i     int64
	f     float64
	s     string  // string or identifier
	items []*Expr // sequence or list
}

// Value is the result of an evaluation, and what a name is bound to in an [Env]: an expression that holds no
// operation.
type Value = *Expr

// Str is a string value.
func Str(s string) Value { return &Expr{kind: KindString, s: s} }

// Bool is a boolean value.
func Bool(b bool) Value { return &Expr{kind: KindBool, b: b} }

// Int is an integer value.
func Int(i int64) Value { return &Expr{kind: KindInt, i: i} }

// Float is a floating point value.
func Float(f float64) Value { return &Expr{kind: KindFloat, f: f} }

// Seq is a sequence of values. The values are not copied and must not be nil.
func Seq(values ...Value) Value { return &Expr{kind: KindSequence, items: values} }

func ident(name string) *Expr { return &Expr{kind: KindIdentifier, s: name} }

func list(items ...*Expr) *Expr { return &Expr{kind: KindList, items: items} }

// Kind is the kind of e.
func (e *Expr) Kind() Kind { return e.kind }

// IsTrue reports whether e is the boolean constant true. A nil e is not.
func (e *Expr) IsTrue() bool { return e != nil && e.kind == KindBool && e.b }

// operators of the full language (docs/protocol/02 §7.1).
var operators = [...]string{"and", "or", "not", "if", "=", "!=", "<", ">", "member?", "exists?"}

// isOperation reports whether the first element of e, descending through leading lists, is an operator. Only such an
// expression is accepted as text.
func (e *Expr) isOperation() bool {
	for e != nil && e.kind == KindList && len(e.items) > 0 {
		e = e.items[0]
	}
	return e != nil && e.kind == KindIdentifier && slices.Contains(operators[:], e.s)
}

// Equal reports whether a and b are the same expression. Unlike the operator "=" it compares structure: different
// kinds are unequal, identifiers are compared by name, and a nan equals a nan. Two nil expressions are equal.
func Equal(a, b *Expr) bool {
	if a == b {
		return true
	}
	if a == nil || b == nil || a.kind != b.kind {
		return false
	}
	switch a.kind {
	case KindString, KindIdentifier:
		return a.s == b.s
	case KindInt:
		return a.i == b.i
	case KindFloat:
		// The sign of zero is printed, so it counts.
		return math.Float64bits(a.f) == math.Float64bits(b.f) || math.IsNaN(a.f) && math.IsNaN(b.f)
	case KindBool:
		return a.b == b.b
	}
	return slices.EqualFunc(a.items, b.items, Equal)
}

// Identifiers lists the names e reads from its environment, sorted, each once. It lists every name that any
// evaluation could read; a lazily skipped branch counts.
func (e *Expr) Identifiers() []string {
	var names []string
	e.collect(&names)
	slices.Sort(names)
	return slices.Compact(names)
}

func (e *Expr) collect(names *[]string) {
	if e == nil {
		return
	}
	if e.kind == KindIdentifier {
		*names = append(*names, e.s)
		return
	}
	for i, item := range e.items {
		if i == 0 && e.kind == KindList && item.kind == KindIdentifier {
			continue // the operator
		}
		item.collect(names)
	}
}

// depthWithin reports whether e nests at most limit lists and sequences.
func (e *Expr) depthWithin(limit int) bool {
	if e.kind != KindList && e.kind != KindSequence {
		return true
	}
	if limit == 0 {
		return false
	}
	for _, item := range e.items {
		if !item.depthWithin(limit - 1) {
			return false
		}
	}
	return true
}
