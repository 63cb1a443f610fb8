package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestParseErrors(t *testing.T) {
	for _, c := range []struct {
		text         string
		line, column int
		expected     string
	}{
		{"", 1, 1, "expected a name"},
		{"a and", 1, 6, "expected a name"},
		{"a b", 1, 2, `expected "and", "or" or the end`},
		{"(a or b", 1, 8, `expected "and", "or" or ")"`},
		{"a=", 1, 3, "expected a value"},
		{`city="Zürich" or ü`, 1, 18, "expected a name"},
		{"(and true", 1, 1, "bracket is never closed"},
		{"(= 1 1))", 1, 8, "closing bracket without"},
		{"(foo 1)", 1, 5, `expected "and", "or" or ")"`},
		{"(foo \"1\" #)", 1, 10, "expected a value or an identifier"},
		{"(not a", 1, 7, `expected "and", "or" or ")"`},
		{"(; x ;) (foo 1 2)", 1, 10, "expected an operator"},
		{"(= 1\n  [1 2.0 3])", 2, 6, "element 2 of the sequence"},
		{`(= "x 1)`, 1, 4, "string without"},
		{`(= "\q" 1)`, 1, 5, "expected an escape"},
		{`(= "a"b 1)`, 1, 7, "expected a blank after"},
		{`(= b"a" 1)`, 1, 5, "expected a blank before"},
		{"(= 99999999999999999999 1)", 1, 4, "integer out of the range"},
		{"(= + 1)", 1, 4, "expected a value or an identifier"},
		{"(= - 1)", 1, 4, "expected a value or an identifier"},
		{"(= {1} 1)", 1, 4, "expected a value, a name or a bracket"},
		{"(= 1_0.5 1)", 1, 4, `"_" in a float`},
		{"(and true) (; no end", 1, 12, "comment"},
		{"(= \"\u202e\" 1)", 1, 5, "invisible direction control"},
		{"(= \"\xff\" 1)", 1, 5, "not UTF-8"},
	} {
		_, err := Parse(c.text)
		var pe *ParseError
		if !errors.As(err, &pe) {
			t.Errorf("%q: error %v", c.text, err)
			continue
		}
		if pe.Line != c.line || pe.Column != c.column || !strings.Contains(pe.Error(), c.expected) {
			t.Errorf("%q: %v (line %d, column %d), want line %d, column %d, %s", c.text, err, pe.Line, pe.Column,
				c.line, c.column, c.expected)
		}
		if errors.Is(err, ErrLimit) {
			t.Errorf("%q counts as a limit", c.text)
		}
	}
	if _, err := ParseFull("a or b"); err == nil ||
		!strings.HasPrefix(err.Error(), "policy: column 1: expected an operator") || !strings.HasSuffix(err.Error(), `found "a"`) {
		t.Errorf("message %v", err)
	}
}

func TestLimits(t *testing.T) {
	nest := func(open, inner, end string, n int) string {
		return strings.Repeat(open, n) + inner + strings.Repeat(end, n)
	}
	for _, c := range []struct {
		name string
		text string
		ok   bool
	}{
		{"lists", nest("(and ", "true", ")", MaxDepth), true},
		{"one list too many", nest("(and ", "true", ")", MaxDepth+1), false},
		{"implicit list", "and " + nest("(and ", "true", ")", MaxDepth-1), true},
		{"implicit list too many", "and " + nest("(and ", "true", ")", MaxDepth), false},
		{"sequences", "= 1 " + nest("[", "", "]", MaxDepth-1), true},
		{"many open sequences", strings.Repeat("[", MaxText), false},
		{"many open lists", strings.Repeat("(", MaxText), false},
		{"many open lists of operators", strings.Repeat("(and ", MaxText/5), false},
		{"many not", strings.Repeat("not ", MaxText/4), false},
		{"not", strings.Repeat("not ", MaxDepth-1) + "a", true},
		{"parentheses", nest("(", "a or b", ")", MaxDepth-2), true},
		{"parentheses too deep", nest("(", "a or b", ")", MaxDepth+1), false},
		{"many parentheses", nest("(", "a or b", ")", MaxText/4), false},
		{"chain", "a" + strings.Repeat(" or a", MaxDepth-1), true},
		{"chain too long", "a" + strings.Repeat(" or a", MaxDepth), false},
		{"longest chain", "a" + strings.Repeat(" and a", (MaxText-1)/6), false},
		{"longest text", "(and true)" + strings.Repeat(" ", MaxText-10), true},
		{"text too long", "(and true)" + strings.Repeat(" ", MaxText-9), false},
		{"grows when printed", `(= "` + strings.Repeat("\u00a0", MaxText/4) + `" "")`, false},
		{"comments", strings.Repeat("(;", 10000) + strings.Repeat(";)", 10000) + "(and true)", true},
	} {
		start := time.Now()
		e, err := Parse(c.text)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, ErrLimit) {
			t.Errorf("%s: %v", c.name, err)
		}
		if err == nil {
			if back, err := ParseFull(e.String()); err != nil || !Equal(back, e) {
				t.Errorf("%s: does not read back: %v", c.name, err)
			}
			if back, _, err := DecodeExpr(e.AppendCBOR(nil)); err != nil || !Equal(back, e) {
				t.Errorf("%s: not the same after CBOR: %v", c.name, err)
			}
		}
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("%s: took %v", c.name, d)
		}
	}
}

func TestPrint(t *testing.T) {
	for _, c := range []struct {
		e    *Expr
		want string
	}{
		{Float(1), "1.0"}, {Float(-0.5), "-0.5"}, {Float(math.Copysign(0, -1)), "-0.0"}, {Float(1e16), "1e16"},
		{Float(1e15), "1000000000000000.0"}, {Float(1.5e300), "1.5e300"}, {Float(1e-4), "0.0001"}, {Float(2.5e-5), "2.5e-5"},
		{Float(math.Inf(1)), "+inf"}, {Float(math.Inf(-1)), "-inf"}, {Float(-math.NaN()), "nan"},
		{Int(math.MinInt64), "-9223372036854775808"},
		{Str("a\"\\\t\r\n'"), `"a\"\\\t\r\n'"`}, {Str("Zürich 日本"), `"Zürich 日本"`},
		{Str("\x00\x7f\u202e\u00a0e\u0301"), `"\u{0}\u{7f}\u{202e}\u{a0}e\u{301}"`},
		{Seq(), "[]"}, {list(), "()"}, {list(ident("="), Seq(Int(1), Int(2)), Bool(true)), "(= [1 2] true)"},
	} {
		if got := c.e.String(); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
	for text, want := range map[string]string{
		"  and  true\t(= 0x10 +1_0)": "(and true (= 16 10))",
		"($and $x)":                  "(and x)",
		"(= 1. 1E2 nan:0xf -inf)":    "(= 1.0 100.0 nan -inf)",
		"and":                        "and",
		"(= $ $a+b)":                 "(= $ a+b)",
	} {
		if got := mustFull(t, text).String(); got != want {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
}

func TestPolicyExpressionText(t *testing.T) {
	for text, want := range map[string]string{
		"a or b and not c":            "a or (b and (not c))",
		`a="b c"`:                     `a="b c"`,
		`a="b"`:                       "a=b",
		"not (not a)":                 "not (not a)",
		"(  and true)":                "(and true)",
		`= subject.a "1"`:             `(= subject.a "1")`,
		"notify":                      "not ify",
		"\n (a)  \n":                  "a",
		"I" + strings.Repeat("A", 64): "I" + strings.Repeat("A", 64),
	} {
		var p PolicyExpression
		if err := p.UnmarshalText([]byte(text)); err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if p.String() != want {
			t.Errorf("%q: printed %s, want %s", text, p, want)
		}
		b, err := json.Marshal(p)
		var back PolicyExpression
		if err != nil || json.Unmarshal(b, &back) != nil || !Equal(back.Expr(), p.Expr()) {
			t.Errorf("%q: JSON %s does not read back", text, b)
		}
	}
	// A name that cannot be written in the boolean variant can still arrive as CBOR.
	b := &boolean{op: booleanName, name: "notify", depth: 1}
	p := PolicyExpression{bool: b}
	if got := p.String(); got != `(= subject.notify "true")` {
		t.Errorf("printed %s", got)
	}
	if got := (PolicyExpression{}).String(); got != "()" || (PolicyExpression{}).Expr().Allows(Env{}) {
		t.Errorf("zero value is %s", got)
	}
	var zero PolicyExpression
	if err := zero.UnmarshalText([]byte("a b")); err == nil {
		t.Error("accepted")
	}
	upper, _ := Parse("I" + strings.Repeat("A", 64))
	if want := `(= subject.identifier "I` + strings.Repeat("a", 64) + `")`; upper.String() != want {
		t.Errorf("identifier in upper case is %s", upper)
	}
}

// drawExpr makes any expression whose parts have a text form.
func drawExpr(t *rapid.T, depth int) *Expr {
	kind := rapid.IntRange(1, 5+2*min(depth, 1)).Draw(t, "kind")
	switch Kind(kind) {
	case KindString:
		return Str(strings.ToValidUTF8(rapid.String().Draw(t, "string"), "?"))
	case KindInt:
		return Int(rapid.Int64().Draw(t, "int"))
	case KindFloat:
		return Float(rapid.Float64().Draw(t, "float"))
	case KindBool:
		return Bool(rapid.Bool().Draw(t, "bool"))
	case KindIdentifier:
		name := rapid.StringMatching(`[a-zA-Z!$%&*/<=>?~_^][a-zA-Z0-9!$%&*/<=>?~_^.+:@-]{0,8}`)
		return ident(name.Filter(validIdentifier).Draw(t, "name"))
	case KindSequence:
		items := rapid.SliceOfN(rapid.Just(0), 0, 4).Draw(t, "sequence")
		var seq []*Expr
		for range items {
			if e := drawExpr(t, depth-1); firstMixed(append(seq, e)) == 0 {
				seq = append(seq, e)
			}
		}
		return Seq(seq...)
	}
	items := make([]*Expr, rapid.IntRange(0, 4).Draw(t, "list"))
	for i := range items {
		items[i] = drawExpr(t, depth-1)
	}
	return list(items...)
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		op := rapid.SampledFrom(operators[:]).Draw(t, "operator")
		e := list(ident(op), drawExpr(t, 4), drawExpr(t, 3))
		back, err := ParseFull(e.String())
		if err != nil || !Equal(back, e) {
			t.Fatalf("%s reads back as %v, %v", e, back, err)
		}
		encoded := e.AppendCBOR(nil)
		back, rest, err := DecodeExpr(encoded)
		if err != nil || len(rest) != 0 || !Equal(back, e) {
			t.Fatalf("%s decodes as %v, %v", e, back, err)
		}
		if again := back.AppendCBOR(nil); !bytes.Equal(again, encoded) && !strings.Contains(e.String(), "nan") {
			t.Fatalf("%s: encoded %x then %x", e, encoded, again)
		}
		if v, err := e.Evaluate(Env{}); (err == nil) == (v == nil) {
			t.Fatalf("%s: value %v, error %v", e, v, err)
		}
	})
}

// seeds returns every text of the tables.
func seeds(t testing.TB) (texts []string) {
	v := loadVectors(t)
	for _, c := range v.Boolean {
		texts = append(texts, c.Input, c.Expression)
	}
	for _, c := range v.BooleanErrors {
		texts = append(texts, c.Input)
	}
	for _, c := range v.Eval {
		texts = append(texts, c.Expr)
	}
	b, err := os.ReadFile("testdata/agreement.json")
	if err != nil {
		t.Fatal(err)
	}
	var table agreement
	if err := json.Unmarshal(b, &table); err != nil {
		t.Fatal(err)
	}
	for _, row := range table.Rows {
		texts = append(texts, row.Expression)
	}
	return texts
}

func FuzzParse(f *testing.F) {
	for _, text := range seeds(f) {
		f.Add(text)
	}
	env := NewEnv("r", "a")
	env.SetSubject("I00", true, true, map[string]string{"a": "true"})
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePolicyExpression(text)
		if err != nil {
			var pe *ParseError
			if !errors.As(err, &pe) || pe.Line < 1 || pe.Column < 1 {
				t.Fatalf("error %#v", err)
			}
			_ = err.Error()
			return
		}
		e := p.Expr()
		back, err := ParseFull(e.String())
		if err != nil || !Equal(back, e) || back.String() != e.String() {
			t.Fatalf("%q: %s does not read back: %v", text, e, err)
		}
		again, err := ParsePolicyExpression(p.String())
		if err != nil || p.bool != nil && !Equal(again.Expr(), e) {
			t.Fatalf("%q: %s means something else: %v", text, p, err)
		}
		decoded, rest, err := DecodePolicyExpression(p.AppendCBOR(nil))
		if err != nil || len(rest) != 0 || !Equal(decoded.Expr(), e) {
			t.Fatalf("%q: not the same after CBOR: %v", text, err)
		}
		v, err := e.Evaluate(env)
		if (err == nil) == (v == nil) {
			t.Fatalf("%q: value %v, error %v", text, v, err)
		}
		if e.Allows(env) && !e.isOperation() {
			t.Fatalf("%q: a constant allows", text)
		}
	})
}

func FuzzDecodeCBOR(f *testing.F) {
	v := loadVectors(f)
	for _, c := range v.ExprCBOR {
		f.Add(unhex(f, c.Hex))
	}
	for _, text := range seeds(f) {
		if p, err := ParsePolicyExpression(text); err == nil {
			f.Add(p.AppendCBOR(nil))
			f.Add(p.Expr().AppendCBOR(nil))
		}
	}
	f.Add(ByName("db").AppendCBOR(nil))
	f.Add(ByType(Relay).AppendCBOR(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, _, err := DecodeExpr(b); err == nil {
			checkDecoded(t, e)
		}
		if p, _, err := DecodePolicyExpression(b); err == nil {
			checkDecoded(t, p.Expr())
			again, rest, err := DecodePolicyExpression(p.AppendCBOR(nil))
			if err != nil || len(rest) != 0 || !Equal(again.Expr(), p.Expr()) {
				t.Fatalf("%s: not the same after CBOR: %v", p, err)
			}
			if shown, err := Parse(p.String()); p.bool != nil && p.Expr().isOperation() && (err != nil || !Equal(shown, p.Expr())) {
				t.Fatalf("%s does not mean %s: %v", p, p.Expr(), err)
			}
		}
		if r, _, err := DecodeResource(b); err == nil {
			if again, _, err := DecodeResource(r.AppendCBOR(nil)); err != nil || again != r {
				t.Fatalf("%v: not the same after CBOR: %v", r, err)
			}
		}
	})
}

// checkDecoded makes sure that a decoded expression, stored as text, stays what it is.
func checkDecoded(t *testing.T, e *Expr) {
	wrapped := list(ident("and"), e)
	if text := wrapped.String(); len(text) <= MaxText && wrapped.depthWithin(MaxDepth) {
		if back, err := ParseFull(text); err != nil || !Equal(back, wrapped) {
			t.Fatalf("%s does not read back: %v", text, err)
		}
	}
	again, rest, err := DecodeExpr(e.AppendCBOR(nil))
	if err != nil || len(rest) != 0 || !Equal(again, e) {
		t.Fatalf("%s: not the same after CBOR: %v", e, err)
	}
	e.Allows(Env{})
}

// TestWhatMisleadsTheEye: a policy is read by people, so what turns the direction of text is refused wherever it stands, and its neighbours are not.
func TestWhatMisleadsTheEye(t *testing.T) {
	for r := rune(0x2020); r <= 0x2080; r++ {
		refused := r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x206f
		if _, err := Parse(`(= subject.name "` + string(r) + `")`); (err != nil) != refused {
			t.Errorf("%U: %v", r, err)
		}
	}
}

// TestNameThatLooksLikeAnIdentifier: only I and 64 hexadecimal digits are somebody; whatever else is written is an attribute's name.
func TestNameThatLooksLikeAnIdentifier(t *testing.T) {
	digits := strings.Repeat("0123456789abcdef", 4)
	for name, want := range map[string]bool{
		"I" + digits: true, "I" + strings.ToUpper(digits): true, "I" + digits[1:]: false, "I" + digits + "0": false, "J" + digits: false,
		"I" + digits[:63] + "g": false, "Ig" + digits[1:]: false, "I": false,
	} {
		if got := newBooleanName(name).op == booleanIdentifier; got != want {
			t.Errorf("%s: an identifier is %v", name, got)
		}
	}
}
