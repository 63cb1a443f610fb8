package config

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func env(kv map[string]string) func(string) (string, bool) {
	return func(k string) (string, bool) { v, ok := kv[k]; return v, ok }
}

func mustLoad(t *testing.T, mode Mode, text string, opt Options) *Plan {
	t.Helper()
	p, err := Load(mode, []byte(text), opt)
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	return p
}

// lines renders invocations compactly: the line, then the arguments; arguments with blanks are quoted.
func lines(p *Plan) []string {
	var out []string
	for _, inv := range p.Invocations {
		args := slices.Clone(inv.Args)
		for i, a := range args {
			if a == "" || strings.ContainsAny(a, " \n") {
				args[i] = fmt.Sprintf("%q", a)
			}
		}
		out = append(out, fmt.Sprintf("%d: %s", inv.Line, strings.Join(args, " ")))
	}
	return out
}
