package policy

import "testing"

// TestPrecedence: not binds closer than and, and that closer than or, for every combination of three attributes.
func TestPrecedence(t *testing.T) {
	for text, want := range map[string]func(a, b, c bool) bool{
		"not a and b":              func(a, b, _ bool) bool { return !a && b },
		"not a or b":               func(a, b, _ bool) bool { return !a || b },
		"a and not b":              func(a, b, _ bool) bool { return a && !b },
		"not (a and b)":            func(a, b, _ bool) bool { return !(a && b) },
		"not (a or b)":             func(a, b, _ bool) bool { return !(a || b) },
		"not not a and b":          func(a, b, _ bool) bool { return a && b },
		"a or b and c":             func(a, b, c bool) bool { return a || b && c },
		"a and b or c":             func(a, b, c bool) bool { return a && b || c },
		"(a or b) and c":           func(a, b, c bool) bool { return (a || b) && c },
		"not a and not b and c":    func(a, b, c bool) bool { return !a && !b && c },
		"not a or not b and not c": func(a, b, c bool) bool { return !a || !b && !c },
	} {
		e, err := ParsePolicyExpression(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		expr := e.Expr()
		for bits := range 8 {
			values := map[string]string{}
			in := [3]bool{}
			for i, name := range []string{"a", "b", "c"} {
				if in[i] = bits&(1<<i) != 0; in[i] {
					values[name] = "true"
				} else {
					values[name] = "false"
				}
			}
			env := NewEnv("r", HandleMessage.String())
			env.SetSubject("I", true, true, values)
			if got := expr.Allows(env); got != want(in[0], in[1], in[2]) {
				t.Errorf("%s with %v: %v", text, values, got)
			}
		}
	}
}
