package policy

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
)

type vectorFile struct {
	Boolean []struct {
		Input, Expression string
		AST               []any
	}
	BooleanErrors   []struct{ Input string }           `json:"boolean_errors"`
	FullParseErrors []struct{ Input string }           `json:"full_parse_errors"`
	ExprCBOR        []struct{ Hex, Expression string } `json:"expr_cbor"`
	Eval            []struct {
		Expr   string
		Env    map[string]any
		Result any
	}
	API []struct {
		Name    string
		BodyHex string `json:"body_hex"`
	}
}

func loadVectors(t testing.TB) (v vectorFile) {
	t.Helper()
	b, err := os.ReadFile("testdata/02-policies.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Boolean) == 0 || len(v.BooleanErrors) == 0 || len(v.FullParseErrors) == 0 || len(v.ExprCBOR) == 0 ||
		len(v.Eval) == 0 || len(v.API) == 0 {
		t.Fatal("a section of the vectors is empty")
	}
	return v
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// tree turns a boolean expression into the form the vectors use.
func tree(b *boolean) []any {
	switch b.op {
	case booleanName:
		return []any{"Name", b.name}
	case booleanNameValue:
		return []any{"NameValue", b.name, b.value}
	case booleanIdentifier:
		return []any{"Identifier", b.name}
	case booleanOr:
		return []any{"Or", tree(b.left), tree(b.right)}
	case booleanAnd:
		return []any{"And", tree(b.left), tree(b.right)}
	case booleanNot:
		return []any{"Not", tree(b.left)}
	}
	return []any{"Empty"}
}

func toJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestVectorsBoolean(t *testing.T) {
	v := loadVectors(t)
	for _, c := range v.Boolean {
		p, err := ParsePolicyExpression(c.Input)
		if err != nil || p.bool == nil {
			t.Errorf("%q: %v", c.Input, err)
			continue
		}
		if got, want := toJSON(t, tree(p.bool)), toJSON(t, c.AST); got != want {
			t.Errorf("%q: tree %s, want %s", c.Input, got, want)
		}
		if got := p.Expr().String(); got != c.Expression {
			t.Errorf("%q: %s, want %s", c.Input, got, c.Expression)
		}
		if e, err := ParseFull(c.Expression); err != nil || !Equal(e, p.Expr()) {
			t.Errorf("%q: the expanded text does not read back: %v", c.Input, err)
		}
		again, rest, err := DecodePolicyExpression(p.AppendCBOR(nil))
		if err != nil || len(rest) != 0 || toJSON(t, tree(again.bool)) != toJSON(t, c.AST) {
			t.Errorf("%q: not the same after CBOR: %v", c.Input, err)
		}
	}
	for _, c := range v.BooleanErrors {
		if _, err := parseBoolean(c.Input); err == nil {
			t.Errorf("boolean %q accepted", c.Input)
		}
		if e, err := Parse(c.Input); err == nil {
			t.Errorf("%q accepted as %v", c.Input, e)
		}
	}
	for _, c := range v.FullParseErrors {
		if e, err := ParseFull(c.Input); err == nil {
			t.Errorf("full %q accepted as %v", c.Input, e)
		}
	}
}

func TestVectorsExprCBOR(t *testing.T) {
	for _, c := range loadVectors(t).ExprCBOR {
		b := unhex(t, c.Hex)
		e, rest, err := DecodeExpr(append(b, 1, 2))
		if err != nil || !bytes.Equal(rest, []byte{1, 2}) {
			t.Fatalf("%s: %v, rest %x", c.Expression, err, rest)
		}
		if e.String() != c.Expression {
			t.Errorf("decoded %s, want %s", e, c.Expression)
		}
		if got := e.AppendCBOR(nil); !bytes.Equal(got, b) {
			t.Errorf("%s: encoded %x", c.Expression, got)
		}
		for n := range b {
			if _, _, err := DecodeExpr(b[:n]); !errors.Is(err, ErrMalformed) {
				t.Errorf("%s cut to %d bytes: %v", c.Expression, n, err)
			}
		}
	}
}

func TestVectorsEval(t *testing.T) {
	for _, c := range loadVectors(t).Eval {
		e, err := ParseFull(c.Expr)
		if err != nil {
			t.Fatalf("%s: %v", c.Expr, err)
		}
		env := Env{}
		for name, v := range c.Env {
			switch v := v.(type) {
			case bool:
				env[name] = Bool(v)
			case float64:
				env[name] = Int(int64(v))
			case string:
				env[name] = Str(v)
			}
		}
		got, err := e.Evaluate(env)
		switch want := c.Result.(type) {
		case bool:
			if err != nil || !Equal(got, Bool(want)) || e.Allows(env) != want {
				t.Errorf("%s: %v %v, want %v", c.Expr, got, err, want)
			}
		case string:
			ok := false
			switch {
			case strings.HasPrefix(want, "error unbound"):
				ok = errors.Is(err, ErrUnbound)
			case strings.HasPrefix(want, "error type mismatch"):
				ok = errors.Is(err, ErrType)
			case strings.HasPrefix(want, "Int 1"):
				ok = err == nil && Equal(got, Int(1))
			}
			if !ok || e.Allows(env) {
				t.Errorf("%s: %v %v, want %s", c.Expr, got, err, want)
			}
		default:
			t.Errorf("%s: unknown kind of result %v", c.Expr, want)
		}
	}
}

func TestVectorsAPI(t *testing.T) {
	want := map[string]struct {
		resource Resource
		text     string
		full     string
	}{
		"set_policy_by_type_boolean": {ByType(TCPOutlet), "web", `(= subject.web "true")`},
		"set_policy_by_name_full":    {ByName("db-outlet"), `(= subject.component "web")`, `(= subject.component "web")`},
	}
	for _, c := range loadVectors(t).API {
		w, ok := want[c.Name]
		if !ok {
			t.Errorf("unknown vector %s", c.Name)
			continue
		}
		b := unhex(t, c.BodyHex)
		var m struct {
			Resource Resource         `cbor:"1,keyasint"`
			Expr     PolicyExpression `cbor:"2,keyasint"`
		}
		if err := cbor.Unmarshal(b, &m); err != nil {
			t.Fatalf("%s: %v", c.Name, err)
		}
		if m.Resource != w.resource || m.Expr.String() != w.text || m.Expr.Expr().String() != w.full {
			t.Errorf("%s: %v %v", c.Name, m.Resource, m.Expr)
		}
		again, err := cbor.Marshal(m)
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("%s: encoded %x, %v", c.Name, again, err)
		}
	}
}

// agreement is a table of decisions that is also meant for the reference.
type agreement struct {
	Resource, Action, Identifier string
	Rows                         []struct {
		Name, Expression, Expect string
		Attributes               map[string]string
		HasCredential            *bool `json:"has_credential"`
		Authority                *bool
		Parses                   *bool
	}
}

func TestAgreement(t *testing.T) {
	b, err := os.ReadFile("testdata/agreement.json")
	if err != nil {
		t.Fatal(err)
	}
	var table agreement
	if err := json.Unmarshal(b, &table); err != nil {
		t.Fatal(err)
	}
	if len(table.Rows) < 120 {
		t.Fatalf("only %d rows", len(table.Rows))
	}
	isTrue := func(b *bool) bool { return b == nil || *b }
	for _, row := range table.Rows {
		text := strings.ReplaceAll(row.Expression, "{identifier}", table.Identifier)
		e, err := Parse(text)
		if (err == nil) != isTrue(row.Parses) {
			t.Errorf("%s: %q: parse error %v", row.Name, text, err)
		}
		env := NewEnv(table.Resource, table.Action)
		env.SetSubject(table.Identifier, isTrue(row.Authority), isTrue(row.HasCredential), row.Attributes)
		v, evalErr := e.Evaluate(env)
		if got := e.Allows(env); got != (row.Expect == "allow") || row.Expect != "allow" && row.Expect != "deny" {
			t.Errorf("%s: %q as %s: got %v (%v, %v), want %s", row.Name, text, e, got, v, evalErr, row.Expect)
		}
		if err != nil {
			continue
		}
		// What is stored, and what is sent, decides the same.
		stored, err := ParseFull(e.String())
		if err != nil || !Equal(stored, e) {
			t.Errorf("%s: %s does not read back: %v", row.Name, e, err)
		}
		sent, _, err := DecodeExpr(e.AppendCBOR(nil))
		if err != nil || !Equal(sent, e) {
			t.Errorf("%s: %s is not the same after CBOR: %v", row.Name, e, err)
		}
	}
}
