package interceptor

import (
	"context"
	"time"

	"sallyport/dataplane"
	"sallyport/portal"
	"sallyport/routing"
)

// answerGrace is how long a pair waits for the Pong beyond what the portal's ends wait.
const answerGrace = 5 * time.Second

// pair is the interception of one connection: two workers on the connection's shard.
type pair struct {
	l        *Listener
	shard    *routing.Shard
	peer     *routing.Peer    // at the other node, nil if it is not authenticated
	terminal routing.Terminal // the way to the other node, watched
	up, down *direction
	opened   bool // the Pong has passed
	ended    bool
	timer    *dataplane.Timer
	ctx      context.Context // ends with the pair
	cancel   context.CancelFunc
}

// newPair begins with the Ping m, whose onward route no longer has the listener in it.
func newPair(l *Listener, s *routing.Shard, m *routing.Message) {
	p := &pair{l: l, shard: s}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	var client Conn
	if end, ok := s.Worker(m.Return.First().Value).(portal.Client); ok && !l.opts.Outlet {
		client.Reached = end.Reached()
	}
	up, down := l.opts.Filters(client)
	p.up, p.down = newDirection(p, up), newDirection(p, down)
	onward, back := m.Onward.Clone(), m.Return.Clone()
	p.up.to, p.down.to = onward, back
	var far *direction // takes what comes from the other node
	if l.opts.Outlet {
		far, p.terminal, p.peer = p.up, s.FirstTerminal(back), m.Peer
	} else {
		far, p.terminal = p.down, s.FirstTerminal(onward)
		if p.terminal != nil {
			p.peer = p.terminal.TerminalPeer()
		}
	}
	far.remote = true
	var flows []*routing.Flow
	if p.terminal != nil {
		if producer := p.terminal.TerminalProducer(); producer != nil {
			flows = []*routing.Flow{producer.Own}
		}
		p.terminal.Watch(p)
	}
	for _, d := range []*direction{p.up, p.down} {
		if d == far {
			d.self = s.Start(d, flows...)
		} else {
			d.self = s.Start(d)
		}
	}
	p.up.back, p.down.back = routing.RouteOf(p.down.self), routing.RouteOf(p.up.self)
	p.timer = s.Loop().After(l.env.Limits.OpenTimeout+answerGrace, func() {
		if !p.opened {
			p.stop()
		}
	})
	ret := p.up.back
	if l.opts.Outlet { // the outlet sees where the connection really comes from
		ret = ret.Concat(back)
	}
	p.up.send(ret, []byte{portal.KindPing}) // without an offer of the extension
}

// pong passes the answer on. From now on the outlet's own worker is where the data goes.
func (p *pair) pong(m *routing.Message) {
	if p.opened || m.Return.Len() == 0 {
		return
	}
	p.opened = true
	p.timer.Stop()
	p.up.to = m.Return.Clone()
	ret := p.down.back
	if !p.l.opts.Outlet { // the inlet sees where the connection really goes
		ret = ret.Concat(p.up.to)
	}
	p.down.send(ret, []byte{portal.KindPong})
}

// local is the direction that ends on this node.
func (p *pair) local() *direction {
	if p.l.opts.Outlet {
		return p.up
	}
	return p.down
}

// fail ends the connection for both sides: its stream is no longer whole.
func (p *pair) fail(reason portal.Reason, err error) {
	if p.ended {
		return
	}
	p.l.env.Log.Warn("portal connection ended", "portal", p.l.opts.Name, "reason", reason.String(), "err", err)
	for _, d := range []*direction{p.up, p.down} {
		switch {
		case d == p.local():
			d.send(d.back, []byte{portal.KindDisconnect, byte(reason)})
		case p.opened:
			d.send(d.back, []byte{portal.KindDisconnect})
		}
	}
	p.stop()
}

// TerminalClosed implements routing.Watcher: the way to the other node is gone. The portal's end on this node sees that too.
func (p *pair) TerminalClosed() {
	p.terminal = nil
	p.stop()
}

// stop forgets both workers.
func (p *pair) stop() {
	if p.ended {
		return
	}
	p.ended = true
	p.cancel()
	p.timer.Stop()
	if p.terminal != nil {
		p.terminal.Unwatch(p)
		p.terminal = nil
	}
	p.up.stop()
	p.down.stop()
}
