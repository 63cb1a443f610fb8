package policy

import (
	"cmp"
	"fmt"
	"math"
)

// Bounds of one evaluation. An expression within the limits of this package read against string and boolean bindings
// stays far below them; they stop environments whose values refer to each other.
const (
	maxSteps     = 1 << 20
	maxEvalDepth = 4 * MaxDepth
)

// Evaluate computes the value of e (docs/protocol/02 §7.1). The result holds no operation: it is a constant, a
// sequence of them, or the empty list. Errors wrap [ErrUnbound], [ErrType], [ErrArguments], [ErrOperator] or
// [ErrLimit]; for access control every error means deny, see [Expr.Allows].
func (e *Expr) Evaluate(env Env) (Value, error) {
	if e == nil {
		return nil, fmt.Errorf("%w: no expression", ErrArguments)
	}
	return (&evaluation{env: env}).eval(e, 0)
}

// Allows reports whether e evaluates to the boolean true. Everything else denies: false, a value of another type, an
// error, and a nil e.
func (e *Expr) Allows(env Env) bool {
	v, err := e.Evaluate(env)
	return err == nil && v.IsTrue()
}

type evaluation struct {
	env   Env
	steps int
}

func (ev *evaluation) eval(e *Expr, depth int) (Value, error) {
	// An unset binding counts as no value.
	if e == nil {
		return nil, fmt.Errorf("%w: nil value", ErrUnbound)
	}
	if ev.steps++; ev.steps > maxSteps || depth > maxEvalDepth {
		return nil, fmt.Errorf("%w: evaluation", ErrLimit)
	}
	switch e.kind {
	case KindIdentifier:
		v, ok := ev.env[e.s]
		if !ok {
			return nil, fmt.Errorf("%w %s", ErrUnbound, e.s)
		}
		return ev.eval(v, depth+1)
	case KindSequence:
		items, err := ev.evalAll(e.items, depth)
		if err != nil {
			return nil, err
		}
		return Seq(items...), nil
	case KindList:
		if len(e.items) == 0 {
			return e, nil
		}
		if e.items[0].kind != KindIdentifier {
			return nil, fmt.Errorf("%w: a list starts with a %s", ErrOperator, e.items[0].kind)
		}
		return ev.apply(e.items[0].s, e.items[1:], depth)
	}
	return e, nil
}

func (ev *evaluation) evalAll(items []*Expr, depth int) ([]Value, error) {
	values := make([]Value, len(items))
	for i, item := range items {
		v, err := ev.eval(item, depth+1)
		if err != nil {
			return nil, err
		}
		values[i] = v
	}
	return values, nil
}

// apply evaluates an operation. The lazy operators come first; the others get their arguments evaluated.
func (ev *evaluation) apply(op string, args []*Expr, depth int) (Value, error) {
	switch op {
	case "and":
		return ev.shortCircuit(op, true, args, depth)
	case "or":
		return ev.shortCircuit(op, false, args, depth)
	case "if":
		if len(args) != 3 {
			return nil, arity(op, "3")
		}
		test, err := ev.evalBool(op, args[0], depth)
		if err != nil {
			return nil, err
		}
		if test {
			return ev.eval(args[1], depth+1)
		}
		return ev.eval(args[2], depth+1)
	case "exists?":
		for _, arg := range args {
			if arg.kind != KindIdentifier {
				return nil, fmt.Errorf("%w: exists? of a %s", ErrType, arg.kind)
			}
			if _, ok := ev.env[arg.s]; !ok {
				return Bool(false), nil
			}
		}
		return Bool(true), nil
	case "not":
		if len(args) != 1 {
			return nil, arity(op, "1")
		}
		b, err := ev.evalBool(op, args[0], depth)
		return result(!b, err)
	case "member?":
		if len(args) != 2 {
			return nil, arity(op, "2")
		}
	case "=", "<", ">":
		if len(args) < 2 {
			return nil, arity(op, "at least 2")
		}
	case "!=":
	default:
		return nil, fmt.Errorf("%w: %s", ErrOperator, op)
	}
	values, err := ev.evalAll(args, depth)
	if err != nil {
		return nil, err
	}
	switch op {
	case "<":
		return result(everyPair(values, func(a, b Value) (bool, error) {
			c, ordered, err := compare(a, b, ev)
			return ordered && c < 0, err
		}))
	case ">":
		return result(everyPair(values, func(a, b Value) (bool, error) {
			c, ordered, err := compare(a, b, ev)
			return ordered && c > 0, err
		}))
	case "member?":
		return ev.member(values[0], values[1])
	}
	equal, err := everyPair(values, func(a, b Value) (bool, error) { return equalValues(a, b, ev) })
	return result(equal == (op == "="), err)
}

// shortCircuit evaluates "and" (goOn true) and "or" (goOn false): arguments are evaluated until one is not goOn. Only
// an argument that others follow must be boolean; the last one is the result whatever it is.
func (ev *evaluation) shortCircuit(op string, goOn bool, args []*Expr, depth int) (Value, error) {
	if len(args) == 0 {
		return Bool(goOn), nil
	}
	last := len(args) - 1
	for _, arg := range args[:last] {
		b, err := ev.evalBool(op, arg, depth)
		if err != nil || b != goOn {
			return result(b, err)
		}
	}
	return ev.eval(args[last], depth+1)
}

func (ev *evaluation) evalBool(op string, e *Expr, depth int) (bool, error) {
	v, err := ev.eval(e, depth+1)
	if err != nil {
		return false, err
	}
	if v.kind != KindBool {
		return false, fmt.Errorf("%w: %s of a %s", ErrType, op, v.kind)
	}
	return v.b, nil
}

// everyPair reports whether holds is true for every adjacent pair. It stops at the first pair for which it is not, so
// a type error behind that pair stays unseen.
func everyPair(values []Value, holds func(a, b Value) (bool, error)) (bool, error) {
	for i := 1; i < len(values); i++ {
		if ok, err := holds(values[i-1], values[i]); err != nil || !ok {
			return false, err
		}
	}
	return true, nil
}

func (ev *evaluation) member(value, sequence Value) (Value, error) {
	if sequence.kind != KindSequence {
		return nil, fmt.Errorf("%w: member? in a %s", ErrType, sequence.kind)
	}
	for _, item := range sequence.items {
		if equal, err := equalValues(value, item, ev); err != nil || equal {
			return result(equal, err)
		}
	}
	return Bool(false), nil
}

func result(b bool, err error) (Value, error) {
	if err != nil {
		return nil, err
	}
	return Bool(b), nil
}

func arity(op, want string) error { return fmt.Errorf("%w: %s takes %s", ErrArguments, op, want) }

// equals is the operator "=" for one pair, without a bound on the work; it serves the parser and the decoder, whose
// input is bounded.
func equals(a, b *Expr) (bool, error) { return equalValues(a, b, nil) }

// equalValues is the operator "=" for one pair. Comparing stops at the first element that differs or has no order,
// which is where testing for equality stops too, so the order tells equality.
func equalValues(a, b *Expr, ev *evaluation) (bool, error) {
	c, ordered, err := compare(a, b, ev)
	return err == nil && ordered && c == 0, err
}

// compare orders two values of the same type; ev counts the steps and may be nil. ordered is false for a pair without order, which is a nan with any
// float. Sequences are compared by length, then element by element up to the first difference.
func compare(a, b *Expr, ev *evaluation) (c int, ordered bool, err error) {
	if ev != nil {
		if ev.steps++; ev.steps > maxSteps {
			return 0, false, fmt.Errorf("%w: evaluation", ErrLimit)
		}
	}
	if a.kind != b.kind {
		return 0, false, fmt.Errorf("%w: %s with %s", ErrType, a.kind, b.kind)
	}
	switch a.kind {
	case KindString, KindIdentifier:
		return cmp.Compare(a.s, b.s), true, nil
	case KindInt:
		return cmp.Compare(a.i, b.i), true, nil
	case KindFloat:
		if math.IsNaN(a.f) || math.IsNaN(b.f) {
			return 0, false, nil
		}
		return cmp.Compare(a.f, b.f), true, nil
	case KindBool:
		switch {
		case a.b == b.b:
			return 0, true, nil
		case b.b:
			return -1, true, nil
		}
		return 1, true, nil
	}
	if len(a.items) != len(b.items) {
		return cmp.Compare(len(a.items), len(b.items)), true, nil
	}
	for i := range a.items {
		if c, ordered, err = compare(a.items[i], b.items[i], ev); err != nil || !ordered || c != 0 {
			return c, ordered, err
		}
	}
	return 0, true, nil
}
