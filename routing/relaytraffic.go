package routing

import (
	"context"
	"maps"
	"slices"
)

// Traffic is what a Terminal has carried since it began; out is towards the other end.
type Traffic struct{ MessagesIn, MessagesOut, BytesIn, BytesOut uint64 }

// Carrier is a Terminal that counts what it carries. On its shard only.
type Carrier interface{ Carried() Traffic }

// How many relay names Traffic tells apart, and how many it looks at.
const (
	maxTraffic     = 128
	maxTrafficLook = 4096
)

// OtherNames is what Traffic calls the names together that it does not tell apart.
const OtherNames = "(other)"

// Traffic returns what the channels carried through which relay names are registered now: of 128 names, and of the next few thousand together. A node that
// has several names has one channel, which counts for each. Shards that do not answer before ctx ends are left out. Not on a shard.
func (rs *Relays) Traffic(ctx context.Context) map[string]Traffic {
	type asked struct {
		name string
		reg  *registration
	}
	byShard, sum := map[*Shard][]asked{}, map[string]Traffic{}
	rs.mu.Lock()
	names := slices.Sorted(maps.Keys(rs.named))
	for i, name := range names[:min(len(names), maxTrafficLook)] {
		label := name
		if of, ok := LaneOf(name); ok {
			label = of
		}
		if i >= maxTraffic {
			label = OtherNames
		}
		if _, known := sum[label]; !known {
			sum[label] = Traffic{}
		}
		for _, m := range rs.named[name].members {
			if g := m.current.Load(); g != nil && g.terminal != nil {
				byShard[g.shard] = append(byShard[g.shard], asked{label, g})
			}
		}
	}
	rs.mu.Unlock()
	for s, list := range byShard {
		carried := make([]Traffic, len(list))
		if s.Do(ctx, func() {
			for i, a := range list {
				if c, ok := a.reg.terminal.(Carrier); ok {
					carried[i] = c.Carried()
				}
			}
		}) != nil {
			continue
		}
		for i, a := range list {
			t, c := sum[a.name], carried[i]
			sum[a.name] = Traffic{t.MessagesIn + c.MessagesIn, t.MessagesOut + c.MessagesOut, t.BytesIn + c.BytesIn, t.BytesOut + c.BytesOut}
		}
	}
	return sum
}
