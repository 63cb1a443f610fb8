package main

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// svg draws throughput over distance, a panel for each load.
func (t *table) svg() string {
	const width, height, left, top, gap = 300, 180, 60, 40, 70
	loads := []string{"1 down", "1 up", "8 down", "8 up"}
	colours := map[string]string{pathTCP: "#999999", pathPlain: "#377eb8", pathRef: "#e6a000", pathOurs: "#d62728", pathDirect: "#984ea3", pathNebula: "#4daf4a", pathOneLane: "#ff9896"}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="11">`+"\n",
		left+2*(width+gap), top+2*(height+gap)+20)
	b.WriteString(`<rect width="100%" height="100%" fill="white"/>` + "\n")
	for k, l := range loads {
		x, y := left+(k%2)*(width+gap), top+(k/2)*(height+gap)
		fmt.Fprintf(&b, `<text x="%d" y="%d" font-weight="bold">%s, Mbit/s over the round trip</text>`+"\n", x, y-8, l)
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%d" height="%d" fill="none" stroke="#cccccc"/>`+"\n", x, y, width, height)
		for _, v := range []float64{1, 10, 100, 1000} {
			at := y + height - int(math.Log10(v)/3*height)
			fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%g</text><line x1="%d" x2="%d" y1="%d" y2="%d" stroke="#eeeeee"/>`+"\n", x-4, at+4, v, x, x+width, at, at)
		}
		points := map[string][]string{}
		for _, sc := range scenarios() {
			if sc.loss > 0 || sc.near > 0 || sc.jitter > 0 || sc.reorder > 0 || sc.rate < gbit {
				continue
			}
			at := x + int(math.Log10(float64(sc.trip)/float64(time.Millisecond))/math.Log10(300)*width)
			fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">%s</text>`+"\n", at, y+height+14, sc.name)
			for _, r := range t.Rows {
				if r.Scenario != sc.name || r.Load != l || !strings.HasSuffix(l, r.Metric) {
					continue
				}
				for p := range r.Values {
					v := min(max(median(r.Values[p]), 1), 1000)
					points[p] = append(points[p], fmt.Sprintf("%d,%d", at, y+height-int(math.Log10(v)/3*height)))
				}
			}
		}
		for _, p := range t.Paths {
			fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", strings.Join(points[p], " "), colours[p])
		}
	}
	for k, p := range t.Paths {
		fmt.Fprintf(&b, `<text x="%d" y="%d" fill="%s" font-weight="bold">%s</text>`+"\n", left+k*90, top+2*(height+gap)+5, colours[p], p)
	}
	b.WriteString("</svg>\n")
	return b.String()
}
