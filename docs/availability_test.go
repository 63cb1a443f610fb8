package docs

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the pictures of high-availability.md")

// box is a machine, or a part of one, in a picture; arrow is a connection that the first begins.
type box struct {
	name, text string
	x, y       int // in units of a box
	weak       bool
}

type arrow struct{ from, to string }

// draw returns a picture for light and dark pages.
func draw(label string, boxes []box, arrows []arrow) string {
	const wide, high, gapX, gapY, edge = 150, 44, 60, 34, 12
	at := map[string][2]int{}
	w, h := 0, 0
	for _, b := range boxes {
		x, y := edge+b.x*(wide+gapX), edge+b.y*(high+gapY)
		at[b.name] = [2]int{x, y}
		w, h = max(w, x+wide+edge), max(h, y+high+edge)
	}
	var s strings.Builder
	fmt.Fprintf(&s, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="%s">
<style>rect{fill:#f6f8fa;stroke:#59636e}.w{stroke-dasharray:4 3}text{font:13px ui-sans-serif,sans-serif;fill:#1f2328;text-anchor:middle}.t{fill:#59636e;font-size:11px}line{stroke:#0969da;stroke-width:1.5}
@media (prefers-color-scheme:dark){rect{fill:#151b23;stroke:#9198a1}text{fill:#f0f6fc}.t{fill:#9198a1}line{stroke:#4493f8}}</style>
`, w, h, label)
	for _, a := range arrows {
		from, to := at[a.from], at[a.to]
		x1, x2 := from[0]+wide, to[0]
		if from[0] > to[0] {
			x1, x2 = from[0], to[0]+wide
		} else if from[0] == to[0] {
			x1, x2 = from[0]+wide/2, to[0]+wide/2
		}
		y1, y2 := from[1]+high/2, to[1]+high/2
		if from[0] == to[0] {
			y1, y2 = min(from[1], to[1])+high, max(from[1], to[1])
		}
		fmt.Fprintf(&s, "<line x1=\"%d\" y1=\"%d\" x2=\"%d\" y2=\"%d\"/>\n", x1, y1, x2, y2)
	}
	for _, b := range boxes {
		p, class := at[b.name], ""
		if b.weak {
			class = ` class="w"`
		}
		fmt.Fprintf(&s, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"6\"%s/>\n<text x=\"%d\" y=\"%d\">%s</text>\n<text x=\"%d\" y=\"%d\" class=\"t\">%s</text>\n",
			p[0], p[1], wide, high, class, p[0]+wide/2, p[1]+19, b.name, p[0]+wide/2, p[1]+35, b.text)
	}
	return s.String() + "</svg>\n"
}

// TestHighAvailabilityPictures draws what high-availability.md shows: one box, two relays, three sites. With -update the files are written.
func TestHighAvailabilityPictures(t *testing.T) {
	page, err := os.ReadFile("high-availability.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, picture := range map[string]string{
		"ha-one-box.svg": draw("one machine has authority and relay",
			[]box{{"client", "inlet", 0, 0, false}, {"one box", "authority and relay", 1, 0, true}, {"server", "outlet", 2, 0, false}},
			[]arrow{{"client", "one box"}, {"server", "one box"}}),
		"ha-two-relays.svg": draw("two relays, and the authority on a machine of its own",
			[]box{{"client", "inlet", 0, 1, false}, {"relay 1", "keeper of the key", 1, 0, false}, {"relay 2", "attested for 24 h", 1, 1, false}, {"authority", "members", 1, 2, true}, {"server", "outlet", 2, 1, false}},
			[]arrow{{"client", "relay 1"}, {"client", "relay 2"}, {"client", "authority"}, {"server", "relay 1"}, {"server", "relay 2"}, {"server", "authority"}}),
		"ha-three-sites.svg": draw("three sites, each with a relay and an authority, and PostgreSQL",
			[]box{{"client", "inlet", 0, 1, false}, {"site 1", "relay and authority, keepers", 1, 0, false}, {"site 2", "relay and authority", 1, 1, false}, {"site 3", "relay and authority", 1, 2, false},
				{"PostgreSQL", "members", 1, 3, false}, {"server 1", "outlet", 2, 0, false}, {"server 2", "outlet", 2, 2, false}},
			[]arrow{{"client", "site 1"}, {"client", "site 2"}, {"client", "site 3"}, {"server 1", "site 1"}, {"server 1", "site 2"}, {"server 2", "site 2"}, {"server 2", "site 3"}, {"site 3", "PostgreSQL"}}),
	} {
		if *update {
			if err := os.WriteFile(name, []byte(picture), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if old, err := os.ReadFile(name); err != nil || string(old) != picture {
			t.Errorf("%s is not what is drawn: go test ./docs -run Pictures -update", name)
		}
		if !strings.Contains(string(page), "]("+name+")") {
			t.Errorf("high-availability.md does not show %s", name)
		}
	}
}
