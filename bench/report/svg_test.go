package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

// TestSVG: a drawing is well-formed XML with a chart for each measure that has figures, and nothing but shapes and text, whatever the section says. Set replaces what Add wrote.
func TestSVG(t *testing.T) {
	s := sample().Sections[0]
	s.Add("other"+hostile, 64, map[string]float64{"p50": 3})
	s.Set("plain", 64, map[string]float64{"p50": 7})
	if v := s.values("plain", 64, "p50"); len(v) != 1 || v[0] != 7 {
		t.Errorf("after Set: %v", v)
	}
	if got := s.Paths(); len(got) != 3 || got[0] != "plain" || got[1] != "ours" {
		t.Errorf("paths %q", got)
	}
	count, text := map[string]int{}, strings.Builder{}
	allowed := map[string]bool{"svg": true, "style": true, "rect": true, "text": true, "line": true, "polyline": true, "circle": true, "title": true}
	for d := xml.NewDecoder(bytes.NewReader(s.SVG())); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch e := token.(type) {
		case xml.StartElement:
			if count[e.Name.Local]++; !allowed[e.Name.Local] {
				t.Errorf("it has %s", e.Name.Local)
			}
		case xml.CharData:
			text.Write(e)
		}
	}
	if count["svg"] != 2 || count["circle"] != 7 { // the drawing and its chart; three figures of two paths, and one
		t.Errorf("%v", count)
	}
	if !strings.Contains(text.String(), hostile) || strings.Contains(text.String(), "never measured") {
		t.Errorf("it says %q", text.String())
	}
}
