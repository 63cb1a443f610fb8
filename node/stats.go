package node

import (
	"context"
	"time"

	"sallyport/node/admin"
	"sallyport/portal"
)

// Stats returns what the node counts.
func (n *Node) Stats(ctx context.Context) admin.Stats {
	ctx, cancel := context.WithTimeout(ctx, sampleTimeout)
	defer cancel()
	now := time.Now()
	s := admin.Stats{At: now.UTC(), Uptime: now.Sub(n.started).Seconds(), Portals: []admin.PortalStats{}, Paths: []admin.PathStats{}}
	for _, m := range n.portals.Meters() {
		p := admin.PortalStats{End: m.End(), Name: m.Name(), Open: m.Open.Load(), Opened: m.Opened.Load(), BytesIn: m.BytesIn.Load(), BytesOut: m.BytesOut.Load(),
			Setup50: m.Setup.Quantile(0.5).Seconds(), Setup99: m.Setup.Quantile(0.99).Seconds()}
		for i := range m.Refused {
			p.Refused += m.Refused[i].Load()
		}
		if m.End() == portal.EndOutlet {
			p.Dial99 = m.Dial.Quantile(0.99).Seconds()
		}
		s.Portals = append(s.Portals, p)
	}
	for _, m := range n.datagram.Meters() {
		p := admin.PortalStats{End: m.End(), Name: m.Name(), Open: m.Flows.Load(), Opened: m.Opened.Load(), BytesIn: m.BytesIn.Load(), BytesOut: m.BytesOut.Load()}
		for why := range m.Dropped {
			p.Refused += m.Dropped[why].Load()
		}
		s.Portals = append(s.Portals, p)
	}
	for i, k := range n.sessions() {
		if i == maxPaths {
			break
		}
		v := k.session.numbers()
		s.Paths = append(s.Paths, admin.PathStats{Kind: k.kind, Name: k.name, Up: v.up, RoundTrip: v.trip.Seconds(), Reconnects: v.reconnects, Failed: v.failedAttempts})
	}
	samples := n.group.Sample(ctx)
	for _, l := range samples {
		s.Loops = append(s.Loops, admin.LoopStats{Busy: l.Busy.Seconds(), Lag: l.Lag.Seconds(), Longest: l.LongestTurn.Seconds()})
	}
	s.Left = collector{n}.headroom(samples)
	if n.creds != nil {
		left := max(n.creds.left(), 0).Seconds()
		s.CredentialSeconds = &left
		s.CredentialAheadSeconds = n.creds.aheadOfUs().Seconds()
	}
	if n.records != nil {
		k := n.records.Counts()
		s.Records = &admin.RecordsCounts{Written: k.Written, Dropped: k.Dropped, LeftOut: k.LeftOut}
	}
	s.LogDropped = collector{n}.log().Dropped
	return s
}

// aheadOfUs returns by how much the authority's clock was ahead when it issued the node's credential, whose time has whole seconds; 0 where that is not
// known.
func (c *credentials) aheadOfUs() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.own.raw == nil || c.fetched.IsZero() || c.own.created.Before(c.node.started.Add(-time.Hour)) {
		return 0
	}
	return c.own.created.Sub(c.fetched)
}
