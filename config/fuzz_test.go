//go:build !small

package config

import (
	"bytes"
	"errors"
	"os"
	"testing"
)

// FuzzLoad checks that any text gives a plan or a positioned error, and that the plan holds only arguments a process can take.
func FuzzLoad(f *testing.F) {
	sample, err := os.ReadFile("testdata/sample.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sample, false)
	for _, bad := range badTexts {
		f.Add([]byte(bad.text), bad.mode == Run)
	}
	f.Add([]byte("a: &a {b: 1}\nrelay: {r: {<<: [*a, *a]}}\n? x\n: y\n"), true)
	f.Fuzz(func(t *testing.T, text []byte, run bool) {
		mode := NodeCreate
		if run {
			mode = Run
		}
		opt := badOptions()
		opt.NodeName = "n"
		p, err := Load(mode, text, opt)
		if err != nil {
			var e *Error
			if p != nil || !errors.As(err, &e) || e.Line < 1 || e.Column < 1 || e.Line > bytes.Count(text, []byte("\n"))+bytes.Count(text, []byte("\r"))+1 {
				t.Fatalf("plan %v, error %#v", p, err)
			}
			return
		}
		for _, inv := range p.Invocations {
			if len(inv.Args) < 2 || inv.Line < 1 || inv.What == "" {
				t.Fatalf("invocation %+v", inv)
			}
			for _, a := range inv.Args {
				if bytes.IndexByte([]byte(a), 0) >= 0 {
					t.Fatalf("zero byte in %q", inv.Args)
				}
			}
		}
	})
}
