package main

import (
	"encoding/xml"
	"fmt"
	"math"
	"strings"
)

// The plot is a grid of small bar charts, one for each metric, with one bar for each path.
// It brings its own background, light or dark as the viewer prefers, so that
// it can be read on any page.
const (
	svgColumns   = 2
	svgPanelW    = 470
	svgGap       = 18
	svgMargin    = 24
	svgHead      = 74
	svgTitleH    = 46
	svgBarH      = 15
	svgBarStep   = 21
	svgLabelW    = 138
	svgNumberW   = 74
	svgPanelPad  = 14
	svgBarLength = svgPanelW - 2*svgPanelPad - svgLabelW - svgNumberW
)

const svgStyle = `
text { font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #24292f }
.h { font-size: 18px; font-weight: 600 } .t { font-size: 13px; font-weight: 600 } .d { fill: #59636e; font-size: 11px }
.bg { fill: #f6f8fa } .panel { fill: #ffffff; stroke: #d1d9e0 } .limit { stroke: #cf222e; stroke-width: 1.5; stroke-dasharray: 3 2 }
.other { fill: #9aa4b0 } .ref { fill: #d4853a } .ours { fill: #2f7ed8 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .d { fill: #9198a1 } .bg { fill: #0d1117 } .panel { fill: #151b23; stroke: #3d444d }
.limit { stroke: #ff7b72 } .other { fill: #6b7683 }
}
`

// svg draws the medians. The dashed line is the limit of ours' goal.
func (r *result) svg() string {
	var shown []metric
	for _, m := range metrics {
		if len(r.Medians[m.key]) > 0 {
			shown = append(shown, m)
		}
	}
	panelH := svgTitleH + len(r.Paths)*svgBarStep + 8
	rows := (len(shown) + svgColumns - 1) / svgColumns
	width := 2*svgMargin + svgColumns*svgPanelW + (svgColumns-1)*svgGap
	height := svgHead + rows*(panelH+svgGap) + svgMargin - svgGap

	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img">`+"\n",
		width, height, width, height)
	fmt.Fprintf(&b, "<title>Comparison of paths</title>\n<style>%s</style>\n", svgStyle)
	fmt.Fprintf(&b, `<rect class="bg" width="%d" height="%d" rx="8"/>`+"\n", width, height)
	svgText(&b, svgMargin, 34, "h", "", "client - inlet - relay - outlet - server, medians")
	svgText(&b, svgMargin, 54, "d", "", r.Machine+", "+r.When.Format("2006-01-02")+"; dashed: limit of the goal")
	for n, m := range shown {
		x := svgMargin + n%svgColumns*(svgPanelW+svgGap)
		y := svgHead + n/svgColumns*(panelH+svgGap)
		r.svgPanel(&b, m, x, y, panelH)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func (r *result) svgPanel(b *strings.Builder, m metric, x, y, h int) {
	limit, _ := r.figures().judge(m, pathOurs)
	most := 0.0
	for _, p := range r.Paths {
		if v := r.figures().get(m.key, p); v > most {
			most = v
		}
	}
	// A limit far outside would squeeze the bars; it is then left out.
	drawLimit := !math.IsNaN(limit) && limit <= 2*most
	if drawLimit {
		most = max(most, limit)
	}
	better := "less is better"
	if m.higher {
		better = "more is better"
	}
	fmt.Fprintf(b, `<rect class="panel" x="%d" y="%d" width="%d" height="%d" rx="6"/>`+"\n", x, y, svgPanelW, h)
	svgText(b, x+svgPanelPad, y+20, "t", "", m.title)
	note := better
	if g := m.goalText(); g != "" {
		note += ", goal " + g
	}
	svgText(b, x+svgPanelPad, y+36, "d", "", m.unit+", "+note)
	left := x + svgPanelPad + svgLabelW
	for n, p := range r.Paths {
		top := y + svgTitleH + n*svgBarStep
		svgText(b, left-8, top+12, "", "end", p)
		v := r.figures().get(m.key, p)
		if v > 0 && most > 0 {
			length := v / most * svgBarLength
			fmt.Fprintf(b, `<rect class="%s" x="%d" y="%d" width="%.1f" height="%d" rx="2"/>`+"\n",
				barClass(p), left, top, length, svgBarH)
		}
		// In a column of their own, where the limit's line does not cross them.
		svgText(b, x+svgPanelW-svgPanelPad, top+12, "", "end", number(v))
	}
	if drawLimit && most > 0 {
		at := float64(left) + limit/most*svgBarLength
		fmt.Fprintf(b, `<line class="limit" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/>`+"\n",
			at, y+svgTitleH-4, at, y+svgTitleH+len(r.Paths)*svgBarStep)
	}
}

func barClass(path string) string {
	switch {
	case strings.HasPrefix(path, pathOurs):
		return "ours"
	case strings.HasPrefix(path, pathRef):
		return "ref"
	}
	return "other"
}

func svgText(b *strings.Builder, x, y int, class, anchor, text string) {
	fmt.Fprintf(b, `<text x="%d" y="%d"`, x, y)
	if class != "" {
		fmt.Fprintf(b, ` class="%s"`, class)
	}
	if anchor != "" {
		fmt.Fprintf(b, ` text-anchor="%s"`, anchor)
	}
	b.WriteByte('>')
	_ = xml.EscapeText(b, []byte(text)) // a strings.Builder does not fail
	b.WriteString("</text>\n")
}
