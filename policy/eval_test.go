package policy

import (
	"errors"
	"math"
	"slices"
	"testing"
)

func mustFull(t testing.TB, text string) *Expr {
	t.Helper()
	e, err := ParseFull(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return e
}

func TestEvaluate(t *testing.T) {
	env := Env{"s": Str("x"), "i": Int(1), "yes": Bool(true), "alias": ident("s"), "q": Seq(Int(1), Int(2)), "gap": nil}
	for _, c := range []struct {
		text string
		want Value
		err  error
	}{
		{"(and)", Bool(true), nil},
		{"(or)", Bool(false), nil},
		{"(not true)", Bool(false), nil},
		{"(not (not true))", Bool(true), nil},
		{"(not false)", Bool(true), nil},
		{"(and true i)", Int(1), nil},
		{"(or false s)", Str("x"), nil},
		{"(and s)", Str("x"), nil},
		{"(and i true)", nil, ErrType},
		{"(or i true)", nil, ErrType},
		{"(and missing)", nil, ErrUnbound},
		{"(and gap)", nil, ErrUnbound},
		{"(and false (nonsense))", Bool(false), nil},
		{"(and true (nonsense))", nil, ErrOperator},
		{"(and (1 2) true)", nil, ErrOperator},
		{"((and))", nil, ErrOperator},
		{"(and ())", list(), nil},
		{"(not i)", nil, ErrType},
		{"(not)", nil, ErrArguments},
		{"(not true true)", nil, ErrArguments},
		{"(if yes i missing)", Int(1), nil},
		{"(if (not yes) missing s)", Str("x"), nil},
		{"(if i 1 2)", nil, ErrType},
		{"(if yes 1)", nil, ErrArguments},
		{"(= alias s \"x\")", Bool(true), nil},
		{"(= 1)", nil, ErrArguments},
		{"(<)", nil, ErrArguments},
		{"(> 1)", nil, ErrArguments},
		{"(!=)", Bool(false), nil},
		{"(!= 1)", Bool(false), nil},
		{"(!= 1 1 2)", Bool(true), nil},
		{"(!= 1 2 s)", Bool(true), nil},
		{"(!= 1 1 s)", nil, ErrType},
		{"(= 1 2 s)", Bool(false), nil},
		{"(= 1 2 missing)", nil, ErrUnbound},
		{"(= 1 1.0)", nil, ErrType},
		{"(< 1 2 3)", Bool(true), nil},
		{"(< 3 2 s)", Bool(false), nil},
		{"(> 3 2 2)", Bool(false), nil},
		{"(< nan 1.0)", Bool(false), nil},
		{"(= nan nan)", Bool(false), nil},
		{"(< [1.0 nan] [1.0 nan])", Bool(false), nil},
		{"(= nan:0xf 1.0)", Bool(false), nil},
		{"(= nan:0xfg 1.0)", nil, ErrUnbound}, // a name
		{"(= nan:0x 1.0)", nil, ErrUnbound},
		{"(= [nan 1.0] [nan 1.0])", Bool(false), nil},
		{"(< [nan 1.0] [nan 2.0])", Bool(false), nil},
		{"(< [1] [0 0])", Bool(true), nil},
		{"(< [1 2] [1 3])", Bool(true), nil},
		{"(= q [1 2])", Bool(true), nil},
		{"(member? 2 q)", Bool(true), nil},
		{"(member? 3 q)", Bool(false), nil},
		{"(member? s q)", nil, ErrType},
		{"(member? 1 i)", nil, ErrType},
		{"(member? 1)", nil, ErrArguments},
		{"(member? q [[1] [1 2]])", Bool(true), nil},
		{"(exists?)", Bool(true), nil},
		{"(exists? s i alias)", Bool(true), nil},
		{"(exists? s missing 1)", Bool(false), nil},
		{"(exists? s 1)", nil, ErrType},
		{"(and [i i])", Seq(Int(1), Int(1)), nil},
		{"(= (and [(and) (= s \"x\")]) [yes yes])", Bool(true), nil},
	} {
		e := mustFull(t, c.text)
		got, err := e.Evaluate(env)
		if !errors.Is(err, c.err) || !Equal(got, c.want) {
			t.Errorf("%s: got %v, %v; want %v, %v", c.text, got, err, c.want, c.err)
		}
		if want := err == nil && c.want.IsTrue(); e.Allows(env) != want {
			t.Errorf("%s: Allows is %v", c.text, !want)
		}
	}
}

func TestNilDenies(t *testing.T) {
	var e *Expr
	if e.Allows(NewEnv("a", "b")) {
		t.Error("nil allows")
	}
	if e.Identifiers() != nil || e.String() != "()" || e.IsTrue() {
		t.Error("nil is not empty")
	}
}

// An environment may refer to itself or blow up; the evaluation must end with an error.
func TestEvaluateBounded(t *testing.T) {
	cycle := Env{"a": ident("b"), "b": list(ident("and"), ident("a"))}
	if _, err := mustFull(t, "(and a)").Evaluate(cycle); !errors.Is(err, ErrLimit) {
		t.Errorf("cycle: %v", err)
	}
	bomb := Env{}
	for c := 'a'; c < 'z'; c++ {
		next := ident(string(c + 1))
		bomb[string(c)] = Seq(next, next, next, next)
	}
	bomb["z"] = Int(1)
	if _, err := mustFull(t, "(and a)").Evaluate(bomb); !errors.Is(err, ErrLimit) {
		t.Errorf("bomb: %v", err)
	}
	wide := make([]Value, 2000)
	for i := range wide {
		wide[i] = Int(7)
	}
	row := Seq(wide...)
	rows := make([]Value, 2000)
	for i := range rows {
		rows[i] = row // shared, so that building it is cheap
	}
	if _, err := mustFull(t, "(= m m)").Evaluate(Env{"m": Seq(rows...)}); !errors.Is(err, ErrLimit) {
		t.Errorf("large comparison: %v", err)
	}
}

func TestSetSubject(t *testing.T) {
	attrs := map[string]string{
		"component": "web", "identifier": "Iforged", "has_credential": "forged", "resource.id": "x", "subject.identifier": "y",
		"bad\xff": "v", "k": "bad\xff", "with blank": "v",
	}
	env := NewEnv("db", HandleMessage.String())
	env.SetSubject("Ireal", true, true, attrs)
	want := Env{
		"resource.id": Str("db"), "action.id": Str("handle_message"), "subject.identifier": Str("Ireal"),
		"subject.has_credential": Bool(true), "subject.component": Str("web"), "subject.with blank": Str("v"),
	}
	check := func(name string) {
		t.Helper()
		if len(env) != len(want) {
			t.Errorf("%s: %d bindings, want %d", name, len(env), len(want))
		}
		for k, v := range want {
			if !Equal(env[k], v) {
				t.Errorf("%s: %s is %v, want %v", name, k, env[k], v)
			}
		}
	}
	check("credential")

	env.SetSubject("Iother", true, false, attrs)
	want = Env{
		"resource.id": Str("db"), "action.id": Str("handle_message"), "subject.identifier": Str("Iother"),
		"subject.has_credential": Bool(false),
	}
	check("no credential")

	env.SetSubject("Ithird", false, true, attrs)
	want["subject.identifier"] = Str("Ithird")
	delete(want, "subject.has_credential")
	check("no authority")
}

func TestIdentifiers(t *testing.T) {
	e := mustFull(t, `(and (= subject.b "x") (exists? subject.a subject.b) (if (or) z [(= x y)]))`)
	want := []string{"subject.a", "subject.b", "x", "y", "z"}
	if got := e.Identifiers(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestEqual(t *testing.T) {
	different := []*Expr{
		nil, Str("a"), Str("b"), ident("a"), Int(0), Int(1), Float(0), Float(math.Copysign(0, -1)), Float(math.NaN()),
		Bool(true), Bool(false), Seq(), list(), Seq(Int(1)), list(Int(1)), list(Int(1), Int(1)), list(list()),
	}
	for i, a := range different {
		for j, b := range different {
			if Equal(a, b) != (i == j) {
				t.Errorf("Equal(%v, %v) is %v", a, b, i != j)
			}
		}
	}
	if !Equal(list(Str("a"), Seq(Float(math.NaN()))), list(Str("a"), Seq(Float(-math.NaN())))) {
		t.Error("equal trees are not")
	}
}

func BenchmarkAllows(b *testing.B) {
	e := mustFull(b, `(and (= subject.has_credential true) (= subject.component "web") (not (exists? subject.suspended)))`)
	env := NewEnv("db", HandleMessage.String())
	env.SetSubject("I00", true, true, map[string]string{"component": "web"})
	b.ReportAllocs()
	for b.Loop() {
		if !e.Allows(env) {
			b.Fatal("denied")
		}
	}
}
