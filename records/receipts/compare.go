package receipts

import (
	"fmt"
	"time"
)

// Difference is something on which two ends do not agree.
type Difference struct {
	ID string `json:"id"`
	// What is said: "missing in A", "bytes_to_target: 10 at the inlet, 12 at the outlet", and so on.
	What string `json:"what"`
}

// Comparison is what two files say of the connections between their nodes.
type Comparison struct {
	// Agreed is how many connections both describe alike, CutShort how many of them ended before all had arrived, so that one end carried more.
	Agreed   int `json:"agreed"`
	CutShort int `json:"cut_short"`
	// Others is how many records are of connections with somebody else, or of none.
	Others      int          `json:"others"`
	Differences []Difference `json:"differences"`
}

// Skew is by how much the times of two ends may differ, for clocks and for what is under way.
const Skew = 2 * time.Minute

// Compare compares what two ends say. Records of a time that the other file does not cover are left out, and so are connections with somebody else than the
// other file's identity.
func Compare(a, b *File) Comparison {
	c := Comparison{Differences: []Difference{}}
	there := map[string]*Record{}
	for i := range b.Records {
		if r := &b.Records[i]; r.between(b, a) {
			there[r.ID] = r
		} else {
			c.Others++
		}
	}
	for i := range a.Records {
		r := &a.Records[i]
		if !r.between(a, b) {
			c.Others++
			continue
		}
		o := there[r.ID]
		delete(there, r.ID)
		switch {
		case o != nil:
			c.pair(r, o)
		case r.covered(b):
			c.differ(r.ID, "%s has it, the other end does not", a.Identity)
		default:
			c.Others++
		}
	}
	for _, r := range there {
		if r.covered(a) {
			c.differ(r.ID, "%s has it, the other end does not", b.Identity)
		} else {
			c.Others++
		}
	}
	return c
}

// between reports whether the record of file f is of a connection that was open with the node of file o.
func (r *Record) between(f, o *File) bool {
	return r.ID != "" && r.Setup != nil && (r.Peer == o.Identity || o.Identity == "")
}

// covered reports whether file f is of a time in which it must have the record too.
func (r *Record) covered(f *File) bool {
	return r.Time.Add(-Skew).After(f.First) && r.Time.Add(Skew).Before(f.Last)
}

func (c *Comparison) differ(id, format string, args ...any) {
	c.Differences = append(c.Differences, Difference{ID: id, What: fmt.Sprintf(format, args...)})
}

// pair compares two records of one connection.
func (c *Comparison) pair(r, o *Record) {
	if r.End == "outlet" {
		r, o = o, r
	}
	before := len(c.Differences)
	if r.End != "inlet" || o.End != "outlet" {
		c.differ(r.ID, "both say that they were the %s", r.End)
		return
	}
	whole := r.Outcome == "closed" && o.Outcome == "closed"
	cut := false
	for _, d := range []struct {
		name           string
		sent, received uint64
		from, to       string
	}{{"bytes_to_target", r.ToTarget, o.ToTarget, "inlet", "outlet"}, {"bytes_to_client", o.ToClient, r.ToClient, "outlet", "inlet"}} {
		switch {
		case d.sent == d.received:
		case d.sent > d.received && !whole:
			cut = true
		default:
			c.differ(r.ID, "%s: %d sent by the %s, %d received by the %s", d.name, d.sent, d.from, d.received, d.to)
		}
	}
	for _, d := range []struct {
		name string
		a, b time.Time
	}{{"began", r.Began, o.Began}, {"ended", r.Time, o.Time}} {
		if gap := d.a.Sub(d.b).Abs(); gap > Skew {
			c.differ(r.ID, "%s: %v apart", d.name, gap.Round(time.Second))
		}
	}
	if len(c.Differences) > before {
		return
	}
	c.Agreed++
	if cut {
		c.CutShort++
	}
}
