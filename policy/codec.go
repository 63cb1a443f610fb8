package policy

import (
	"encoding/binary"
	"fmt"
	"math"

	"sallyport/internal/cborhead"
)

// The CBOR forms are enums with payload (docs/protocol/02 §1, §7.1, §7.2). Decoders ignore bytes after the item.
// A general CBOR decoder that calls UnmarshalCBOR must allow a nesting of 4·MaxDepth.

// AppendCBOR appends the encoding of e to b. e must not be nil.
func (e *Expr) AppendCBOR(b []byte) []byte {
	b = append(b, cborhead.Array|2, byte(e.kind), cborhead.Array|1)
	switch e.kind {
	case KindString, KindIdentifier:
		return appendText(b, e.s)
	case KindInt:
		if e.i < 0 {
			return cborhead.Append(b, cborhead.Negative, uint64(^e.i))
		}
		return cborhead.Append(b, cborhead.Uint, uint64(e.i))
	case KindFloat:
		return binary.BigEndian.AppendUint64(append(b, cborhead.Simple|27), math.Float64bits(e.f))
	case KindBool:
		if e.b {
			return append(b, 0xf5)
		}
		return append(b, 0xf4)
	}
	b = cborhead.Append(b, cborhead.Array, uint64(len(e.items)))
	for _, item := range e.items {
		b = item.AppendCBOR(b)
	}
	return b
}

// MarshalCBOR is [Expr.AppendCBOR] into a new slice. It never fails.
func (e *Expr) MarshalCBOR() ([]byte, error) { return e.AppendCBOR(nil), nil }

// UnmarshalCBOR is [DecodeExpr] without the rest.
func (e *Expr) UnmarshalCBOR(b []byte) error {
	decoded, _, err := DecodeExpr(b)
	if err != nil {
		return err
	}
	*e = *decoded
	return nil
}

// DecodeExpr decodes an expression and returns the bytes that follow it. The result does not alias b. It need not be
// an operation, but everything in it has a text form within the limits. Errors wrap [ErrMalformed] or [ErrLimit].
func DecodeExpr(b []byte) (e *Expr, rest []byte, err error) {
	r := &reader{b: b}
	e = r.expr(0)
	if err := r.finish(e); err != nil {
		return nil, nil, err
	}
	return e, r.b, nil
}

// finish returns the error of the decoding, or that of an expression whose text is too long.
func (r *reader) finish(e *Expr) error {
	if r.err == nil && len(e.appendText(nil)) > MaxText {
		r.err = fmt.Errorf("%w: the text of the expression is longer than %d bytes", ErrLimit, MaxText)
	}
	return r.err
}

func (r *reader) tooDeep() {
	if r.err == nil {
		r.err = fmt.Errorf("%w: expression nested deeper than %d levels", ErrLimit, MaxDepth)
	}
	r.b = nil
}

func (r *reader) expr(depth int) *Expr {
	e := &Expr{}
	var number uint64
	n := r.variant("expression", &number, func(i int) {
		if i > 0 {
			r.skip(0)
			return
		}
		e.kind = Kind(number)
		switch {
		case number > uint64(KindList):
			r.fail("unknown expression variant %d", number)
		case e.kind == KindString:
			e.s = r.text()
		case e.kind == KindIdentifier:
			if e.s = r.text(); r.err == nil && !validIdentifier(e.s) {
				r.fail("invalid identifier")
			}
		case e.kind == KindInt:
			e.i = r.int()
		case e.kind == KindFloat:
			e.f = r.float()
		case e.kind == KindBool:
			e.b = r.bool()
		case e.kind == KindSequence || e.kind == KindList:
			e.items = r.exprs(depth)
			if e.kind == KindSequence && r.err == nil && firstMixed(e.items) > 0 {
				r.fail("sequence of mixed types")
			}
		default:
			r.fail("unknown expression variant %d", number)
		}
	})
	if r.err == nil && n == 0 {
		r.fail("expression without payload")
	}
	return e
}

func (r *reader) exprs(depth int) (items []*Expr) {
	if depth == MaxDepth {
		r.tooDeep()
		return nil
	}
	r.array("list of expressions", func(int) { items = append(items, r.expr(depth+1)) })
	return items
}

func (r *reader) int() int64 {
	major, _, n, indefinite := r.head()
	switch {
	case r.err != nil:
	case indefinite || major > cborhead.Negative:
		r.fail("expected an integer")
	case n > math.MaxInt64:
		r.fail("integer out of the range of 64 bits")
	case major == cborhead.Negative:
		return ^int64(n)
	}
	return int64(n & math.MaxInt64)
}

func (r *reader) bool() bool {
	major, info, _, _ := r.head()
	if r.err == nil && (major != cborhead.Simple || info != 20 && info != 21) {
		r.fail("expected a boolean")
	}
	return info == 21
}

func (r *reader) float() float64 {
	major, info, n, _ := r.head()
	if r.err == nil && major == cborhead.Simple {
		switch info {
		case 25:
			return halfFloat(uint16(n))
		case 26:
			return float64(math.Float32frombits(uint32(n)))
		case 27:
			return math.Float64frombits(n)
		}
	}
	r.fail("expected a float")
	return 0
}

// halfFloat converts an IEEE 754 binary16 number (RFC 8949 appendix D).
func halfFloat(h uint16) float64 {
	exp, mantissa := int(h>>10&0x1f), float64(h&0x3ff)
	var f float64
	switch {
	case exp == 0:
		f = math.Ldexp(mantissa, -24)
	case exp < 31:
		f = math.Ldexp(mantissa+1024, exp-25)
	case mantissa == 0:
		f = math.Inf(1)
	default:
		return math.NaN()
	}
	if h&0x8000 != 0 {
		return -f
	}
	return f
}

// Variants of a policy expression.
const (
	variantFull    = 0
	variantBoolean = 1
)

// AppendCBOR appends the encoding of p to b.
func (p PolicyExpression) AppendCBOR(b []byte) []byte {
	if p.bool != nil {
		return p.bool.appendCBOR(append(b, cborhead.Array|2, variantBoolean, cborhead.Array|1))
	}
	return p.Expr().AppendCBOR(append(b, cborhead.Array|2, variantFull, cborhead.Array|1))
}

// MarshalCBOR is [PolicyExpression.AppendCBOR] into a new slice. It never fails.
func (p PolicyExpression) MarshalCBOR() ([]byte, error) { return p.AppendCBOR(nil), nil }

// UnmarshalCBOR is [DecodePolicyExpression] without the rest.
func (p *PolicyExpression) UnmarshalCBOR(b []byte) error {
	decoded, _, err := DecodePolicyExpression(b)
	if err != nil {
		return err
	}
	*p = decoded
	return nil
}

// DecodePolicyExpression decodes an expression in either notation and returns the bytes that follow it. Errors wrap
// [ErrMalformed] or [ErrLimit].
func DecodePolicyExpression(b []byte) (p PolicyExpression, rest []byte, err error) {
	r := &reader{b: b}
	var number uint64
	n := r.variant("policy expression", &number, func(i int) {
		switch {
		case i > 0:
			r.skip(0)
		case number == variantFull:
			p.full = r.expr(0)
		case number == variantBoolean:
			p.bool = r.boolean(0)
		default:
			r.fail("unknown policy expression variant %d", number)
		}
	})
	if r.err == nil && n == 0 {
		r.fail("policy expression without payload")
	}
	if r.err != nil {
		return PolicyExpression{}, nil, r.err
	}
	if err := r.finish(p.Expr()); err != nil {
		return PolicyExpression{}, nil, err
	}
	return p, r.b, nil
}

func (b *boolean) appendCBOR(out []byte) []byte {
	out = append(out, cborhead.Array|2, byte(b.op))
	switch b.op {
	case booleanName, booleanIdentifier:
		return appendText(append(out, cborhead.Array|1), b.name)
	case booleanNameValue:
		return appendText(appendText(append(out, cborhead.Array|2), b.name), b.value)
	case booleanOr, booleanAnd:
		return b.right.appendCBOR(b.left.appendCBOR(append(out, cborhead.Array|2)))
	case booleanNot:
		return b.left.appendCBOR(append(out, cborhead.Array|1))
	}
	return append(out, cborhead.Array)
}

func (r *reader) boolean(depth int) *boolean {
	if depth == MaxDepth {
		r.tooDeep()
		return &boolean{}
	}
	b := &boolean{}
	var number uint64
	n := r.variant("boolean expression", &number, func(i int) {
		b.op = booleanOp(min(number, 0xff))
		switch {
		case i > 1 || b.op == booleanEmpty || i > 0 && b.fields() == 1:
			r.skip(0)
		case b.op > booleanEmpty:
			r.fail("unknown boolean expression variant %d", number)
		case b.op >= booleanOr && i == 0:
			b.left = r.boolean(depth + 1)
		case b.op >= booleanOr:
			b.right = r.boolean(depth + 1)
		case i == 0:
			b.name = r.text()
		default:
			b.value = r.text()
		}
	})
	b.op = booleanOp(min(number, 0xff))
	if r.err == nil {
		r.checkBoolean(b, n)
	}
	return b
}

// checkBoolean makes sure that b has a text form in the full language.
func (r *reader) checkBoolean(b *boolean, fields int) {
	switch {
	case b.op > booleanEmpty:
		r.fail("unknown boolean expression variant %d", b.op)
	case fields < b.fields():
		r.fail("boolean expression with too few fields")
	case b.op <= booleanNameValue && !isName(b.name), b.op == booleanIdentifier && !isPeerIdentifier(b.name):
		r.fail("invalid name in a boolean expression")
	}
}

// fields is the number of fields of the variant.
func (b *boolean) fields() int {
	switch b.op {
	case booleanNameValue, booleanOr, booleanAnd:
		return 2
	case booleanEmpty:
		return 0
	}
	return 1
}
