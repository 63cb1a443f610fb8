package main

import (
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// escapes are what a program writes to color a terminal.
var escapes = regexp.MustCompile("\x1b\\[[0-9;?]*[a-zA-Z]")

// drawTerminal writes a picture of a terminal in which a command has said text, as a drawing for light and dark pages.
func drawTerminal(t *testing.T, name, command, text string) {
	t.Helper()
	lines := strings.Split(strings.TrimRight(strings.ReplaceAll(escapes.ReplaceAllString(text, ""), "\r", ""), "\n"), "\n")
	lines = append([]string{"$ " + command}, lines...)
	columns := 0
	for _, line := range lines {
		columns = max(columns, utf8.RuneCountInString(line))
	}
	const wide, high, edge = 7.83, 18, 16 // of a letter of 13 pixels
	var b strings.Builder
	w, h := int(float64(columns)*wide)+2*edge, len(lines)*high+2*edge
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="%s">
<style>rect{fill:#fff;stroke:#d1d9e0}text{font:13px ui-monospace,"DejaVu Sans Mono",monospace;fill:#1f2328;white-space:pre}.c{fill:#59636e}.h{font-weight:600}.bad{fill:#cf222e}
@media (prefers-color-scheme:dark){rect{fill:#0d1117;stroke:#3d444d}text{fill:#f0f6fc}.c{fill:#9198a1}.bad{fill:#ff7b72}}</style>
<rect x=".5" y=".5" width="%d" height="%d" rx="8"/>
`, w, h, command, w-1, h-1)
	for i, line := range lines {
		class := ""
		switch {
		case i == 0:
			class = ` class="c"`
		case strings.Contains(line, " is down: ") || strings.Contains(line, "DOWN"):
			class = ` class="bad"`
		case strings.TrimSpace(line) != "" && strings.ToUpper(line) == line && !strings.ContainsAny(line, "0123456789:"):
			class = ` class="h"`
		}
		var escaped strings.Builder
		if err := xml.EscapeText(&escaped, []byte(line)); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "<text x=\"%d\" y=\"%d\" xml:space=\"preserve\"%s>%s</text>\n", edge, edge+high*i+13, class, escaped.String())
	}
	b.WriteString("</svg>\n")
	if err := os.WriteFile(filepath.Join("..", "..", "docs", name), []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}
