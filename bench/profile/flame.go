package profile

import (
	"fmt"
	"html"
	"slices"
	"strings"
)

// Sizes of a flame graph.
const (
	flameW   = 1200
	flameRow = 17
	flameTop = 46
	// least is the width below which a frame is left out.
	least = 0.6
)

// node is a function with what it called.
type node struct {
	Frame
	samples  int
	children []*node
}

func (n *node) child(f Frame) *node {
	for _, c := range n.children {
		if c.Frame == f {
			return c
		}
	}
	c := &node{Frame: f}
	n.children = append(n.children, c)
	return c
}

func (n *node) depth() int {
	d := 0
	for _, c := range n.children {
		d = max(d, c.depth())
	}
	return d + 1
}

// Flame draws the samples as a flame graph: a row for each depth of the stacks, the outermost at the bottom, each function as wide as its share of the samples.
// Kernel functions have another colour than those of the program, AES-GCM a third one. Each shows its name and share where the pointer is.
func Flame(title string, all []Stack) []byte {
	root := &node{}
	for _, s := range all {
		root.samples++
		at := root
		for _, f := range slices.Backward(s) {
			at = at.child(f)
			at.samples++
		}
	}
	depth := root.depth() - 1
	height := flameTop + depth*flameRow + 12
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img">`+"\n", flameW, height, flameW, height)
	b.WriteString("<style>text { font: 11px \"DejaVu Sans Mono\", ui-monospace, monospace; fill: #1f2328 } .h { font: 600 15px system-ui, sans-serif } .n { font: 12px system-ui, sans-serif }\n" +
		".bg { fill: #fff } .k { fill: #f2b38b } .p { fill: #9cc7f0 } .c { fill: #b7dfb0 } .r { fill: #d8c7ee }\n" +
		"@media (prefers-color-scheme: dark) { .bg { fill: #0d1117 } .h, .n { fill: #e6edf3 } }</style>\n")
	fmt.Fprintf(&b, `<rect class="bg" width="%d" height="%d"/>`+"\n", flameW, height)
	fmt.Fprintf(&b, `<text class="h" x="8" y="20">%s</text>`+"\n", html.EscapeString(title))
	fmt.Fprintf(&b, `<text class="n" x="8" y="38">%d samples of processor time. Blue: Sallyport, green: AES-GCM, violet: Go's runtime, orange: kernel.</text>`+"\n", root.samples)
	if root.samples > 0 {
		draw(&b, root, 0, float64(flameW)/float64(root.samples), depth, root.samples)
	}
	b.WriteString("</svg>\n")
	return []byte(b.String())
}

// draw draws what n called, beginning at x, each sample so wide, in the row that is level from the top.
func draw(b *strings.Builder, n *node, x, each float64, level, total int) {
	slices.SortFunc(n.children, func(a, c *node) int { return strings.Compare(a.Name, c.Name) })
	for _, c := range n.children {
		w := float64(c.samples) * each
		if w >= least {
			y := flameTop + (level-1)*flameRow
			name := strings.TrimPrefix(c.Name, "sallyport/")
			fmt.Fprintf(b, `<g><title>%s: %.1f %%</title><rect class="%s" x="%.1f" y="%d" width="%.1f" height="%d"/>`, html.EscapeString(c.Name), 100*float64(c.samples)/float64(total),
				class(c.Frame), x, y, max(w-0.5, 0.3), flameRow-1)
			if room := int(w/6.7) - 1; room >= 3 {
				if r := []rune(name); len(r) > room {
					name = string(r[:room-1]) + "…"
				}
				fmt.Fprintf(b, `<text x="%.1f" y="%d">%s</text>`, x+3, y+12, html.EscapeString(name))
			}
			b.WriteString("</g>\n")
			draw(b, c, x, each, level-1, total)
		}
		x += w
	}
}

func class(f Frame) string {
	switch {
	case f.Kernel:
		return "k"
	case strings.HasPrefix(f.Name, "sallyport/crypto/aead."):
		return "c"
	case strings.HasPrefix(f.Name, "runtime."):
		return "r"
	}
	return "p"
}
