package report

import (
	"fmt"
	"html"
	"strings"
)

// Sizes of a drawing of several charts.
const (
	columns = 3
	gap     = 18
	legendH = 30
)

// drawingStyle is what a drawing needs of the report's style.
const drawingStyle = `<style>
svg { --ink: #1f2328; --soft: #59636e; --panel: #f6f8fa; --grid: #d8dee4; --c-ours: #0b66c3; --c-0: #b0246a; --c-1: #00868b; --c-2: #9a6700; --c-3: #5a32a3; --c-4: #a40e26; font: 12px system-ui, "DejaVu Sans", sans-serif }
@media (prefers-color-scheme: dark) { svg { --ink: #e6edf3; --soft: #9198a1; --panel: #151b23; --grid: #3d444d; --c-ours: #58a6ff; --c-0: #f778ba; --c-1: #39c5cf; --c-2: #d29922; --c-3: #d2a8ff; --c-4: #ff7b72 } }
text { fill: var(--ink) } .ct { font-size: 15px; font-weight: 600 } .cn, .tick { fill: var(--soft) } .panel { fill: var(--panel) }
.grid { stroke: var(--grid) } .axis { stroke: var(--soft) } .line { fill: none; stroke: var(--c); stroke-width: 2.5 } .spread { stroke: var(--c) } .dot, .mark { fill: var(--c) }
.p-ours { --c: var(--c-ours) } .p-0 { --c: var(--c-0) } .p-1 { --c: var(--c-1) } .p-2 { --c: var(--c-2) } .p-3 { --c: var(--c-3) } .p-4 { --c: var(--c-4) }
</style>`

// Paths returns the paths of a section's points, in the order in which they were added.
func (s *Section) Paths() []string { return s.paths() }

// Set is Add in place of what was there.
func (s *Section) Set(path string, x float64, values map[string]float64) {
	clear(s.point(path, x).Values)
	s.Add(path, x, values)
}

// SVG draws all that a section measured as one picture, which stands by itself.
func (s *Section) SVG() []byte {
	paths := s.paths()
	var panels strings.Builder
	count := 0
	for _, m := range s.Y {
		chart := string(s.chart(m, paths))
		if chart == "" {
			continue
		}
		x, y := gap+count%columns*(chartW+gap), gap+legendH+count/columns*(chartH+gap)
		fmt.Fprintf(&panels, "<rect class=\"panel\" x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"8\"/>\n", x-6, y-6, chartW+12, chartH+12)
		fmt.Fprintf(&panels, "<svg x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\"%s\n", x, y, chartW, chartH, strings.TrimPrefix(chart, "<svg"))
		count++
	}
	var b strings.Builder
	rows := (count + columns - 1) / columns
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"%s\">\n%s\n",
		gap+min(columns, max(count, 1))*(chartW+gap), gap+legendH+rows*(chartH+gap), html.EscapeString(s.Title), drawingStyle)
	x := gap
	for _, path := range paths {
		fmt.Fprintf(&b, "<rect class=\"mark %s\" x=\"%d\" y=\"%d\" width=\"22\" height=\"5\" rx=\"2\"/>", pathClass(path, paths), x, legendH/2)
		text(&b, float64(x+30), legendH/2+7, "", "start", path)
		x += 60 + 7*len(path)
	}
	b.WriteString(panels.String() + "</svg>\n")
	return []byte(b.String())
}
