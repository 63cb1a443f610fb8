package portal

import (
	"time"

	"sallyport/dataplane"
	"sallyport/routing"
)

// Times of a way without a secure channel that leads on behind its connection: nothing tells when what is behind has gone.
const (
	bareLook = 5 * time.Second
	// bareSilence is how long nothing may come over such a way: three of the reference's pings and more.
	bareSilence = 50 * time.Second
)

// bareWays are the ways without a secure channel, behind other nodes, over which an outlet's connections of one shard go. Whoever is
// at the other end pings this node's echo service, as a session does; one that does not, and sends nothing either, has gone.
type bareWays struct {
	env   *Env
	shard *routing.Shard
	ways  map[string]*bareWay // by the route without its last address
	timer *dataplane.Timer
}

type bareWay struct {
	name  string
	conns map[*conn]struct{}
	heard time.Time
}

func (e *Env) bareWays(s *routing.Shard) *bareWays {
	b, ok := e.bare.Load(s)
	if !ok {
		b, _ = e.bare.LoadOrStore(s, &bareWays{env: e, shard: s, ways: map[string]*bareWay{}})
	}
	return b.(*bareWays)
}

// Heard notes that a ping has come from behind ret without a channel: who sent it is alive. On s.
func (e *Env) Heard(s *routing.Shard, ret routing.Route) {
	if b := e.bareWays(s); len(b.ways) > 0 {
		if w := b.ways[string(ret.WithoutLast().Key())]; w != nil {
			w.heard = s.Loop().Now()
		}
	}
}

// watchBare has the connection ended when its way falls silent, if nothing else would end it.
func (c *conn) watchBare() {
	if !c.outlet || c.hasPeer || c.terminal == nil || c.route.Len() <= 2 {
		return
	}
	b := c.env.bareWays(c.shard)
	key := string(c.route.WithoutLast().Key())
	w := b.ways[key]
	if w == nil {
		w = &bareWay{name: key, conns: map[*conn]struct{}{}}
		b.ways[key] = w
	}
	w.heard = b.shard.Loop().Now()
	w.conns[c] = struct{}{}
	c.bare = w
	if b.timer == nil {
		b.timer = b.shard.Loop().After(bareLook, b.look)
	}
}

// unwatchBare undoes watchBare.
func (c *conn) unwatchBare() {
	w := c.bare
	if w == nil {
		return
	}
	c.bare = nil
	if delete(w.conns, c); len(w.conns) == 0 {
		delete(c.env.bareWays(c.shard).ways, w.name)
	}
}

// look ends the connections of ways that have fallen silent.
func (b *bareWays) look() {
	b.timer = nil
	b.endSilent(b.shard.Loop().Now().Add(-bareSilence))
	if len(b.ways) > 0 && b.timer == nil {
		b.timer = b.shard.Loop().After(bareLook, b.look)
	}
}

// endSilent ends the connections of ways that were last heard before since.
func (b *bareWays) endSilent(since time.Time) {
	for _, w := range b.ways {
		if w.heard.After(since) {
			continue
		}
		b.env.Log.Info("portal connections ended, nothing comes any more over their route, which has no secure channel", "connections", len(w.conns))
		for c := range w.conns {
			c.end(ReasonPath, true)
		}
	}
}
