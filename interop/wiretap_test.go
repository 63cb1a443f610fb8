package main

import (
	"encoding/hex"
	"testing"
)

func TestReadRoutingMessage(t *testing.T) {
	// The example of docs/protocol/01 §2.3, without its length.
	const example = "84818200446563686f818200582030303131323233333434353536363737383839396161626263636464656566664605" + "68656c6c6f" + "627b7d"
	for _, c := range []struct {
		name, frame string
		good        bool
		elements    int
		tracing     string
	}{
		{"example", example, true, 4, "{}"},
		{"three elements", "83808040", true, 3, ""},
		{"behind it", example + "00", false, 4, ""},
		{"fifth element", "85808040627b7df6", false, 5, ""},
		{"typed address", "83818201446563686f8040", false, 3, ""},
		{"payload text", "83808060", false, 3, ""},
		{"tracing number", "8480804000", false, 4, ""},
		{"no array", "a0", false, 0, ""},
		{"empty", "", false, 0, ""},
	} {
		frame, err := hex.DecodeString(c.frame)
		if err != nil {
			t.Fatal(c.name, err)
		}
		elements, tracing, err := readRoutingMessage(frame)
		if (err == nil) != c.good || elements != c.elements || err == nil && tracing != c.tracing {
			t.Errorf("%s: %d elements, %q, %v", c.name, elements, tracing, err)
		}
	}
}

func FuzzReadRoutingMessage(f *testing.F) {
	f.Add([]byte("\x83\x80\x80\x40"))
	f.Add([]byte("\x84\x81\x82\x00\x44echo\x80\x40\x62{}"))
	f.Fuzz(func(t *testing.T, frame []byte) {
		elements, _, err := readRoutingMessage(frame)
		if err == nil && elements != 3 && elements != 4 {
			t.Errorf("%d elements without an error", elements)
		}
	})
}
