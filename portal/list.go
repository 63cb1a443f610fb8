package portal

import (
	"cmp"
	"context"
	"slices"
	"time"

	"sallyport/dataplane"
	"sallyport/routing"
)

// Listed is what there is to see of an open connection.
type Listed struct {
	// End and Portal are as in a Meter, ID as in a record.
	End, Portal string
	ID          [16]byte
	Began       time.Time
	// Client is the client's address; empty where it is not known here.
	Client string
	// Target is host:port at an outlet.
	Target string
	// Peer is who is at the other end, if HasPeer. Attributes are what an authority attested of it; not to be changed.
	Peer       [32]byte
	HasPeer    bool
	Attributes map[string]string
	// ToTarget and ToClient are the bytes carried in each direction.
	ToTarget, ToClient uint64
	Resumed            int
	// Away tells that its path is gone, and that it waits for another.
	Away bool
}

// List returns up to most open portal connections of the shards, the newest of those first. It looks at few where there are many: which is not said.
// A loop that does not answer before ctx ends has none. Not on a shard.
func List(ctx context.Context, shards []*routing.Shard, most int) []Listed {
	var list []Listed
	for _, s := range shards {
		var here []Listed
		if s.Do(ctx, func() {
			s.Loop().EachConn(func(h dataplane.Handler) bool {
				if c, ok := h.(*conn); ok && (c.state == open || c.state == away) {
					here = append(here, c.listed())
				}
				return len(here) < most
			})
		}) == nil {
			list = append(list, here...)
		}
	}
	slices.SortFunc(list, func(a, b Listed) int { return cmp.Or(b.Began.Compare(a.Began), slices.Compare(a.ID[:], b.ID[:])) })
	return list[:min(len(list), most)]
}

// listed describes c. On its shard.
func (c *conn) listed() Listed {
	t := &c.tally
	l := Listed{End: EndInlet, Portal: c.name, ID: t.id, Began: t.began, Client: t.client, Target: t.target, Peer: c.peer, HasPeer: c.hasPeer,
		Attributes: t.attributes, ToTarget: t.sent, ToClient: c.window.received, Resumed: t.resumed, Away: c.state == away}
	if c.outlet {
		l.End, l.ToTarget, l.ToClient = EndOutlet, l.ToClient, l.ToTarget
	}
	return l
}
