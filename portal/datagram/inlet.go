package datagram

import (
	"context"
	"crypto/rand"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/dataplane"
	"sallyport/portal"
	"sallyport/routing"
)

// InletOptions configure an Inlet.
type InletOptions struct {
	// Name is the inlet's, for logs and metrics.
	Name string
	// Listen is the address to listen on.
	Listen netip.AddrPort
	// Guard decides which outlets' nodes may be used; nil allows all.
	Guard portal.Guard
	// Idle is after how long without a datagram a flow ends; 0 is DefaultIdle.
	Idle time.Duration
	// MaxFlows is how many clients there are at most; 0 is DefaultFlows.
	MaxFlows int
	// Rate is how many bytes a second it carries in each direction; 0 is no limit.
	Rate int64
}

// Inlet takes the datagrams of clients to an outlet, and back to them what comes from there.
type Inlet struct {
	env    *Env
	router *routing.Router
	opts   InletOptions
	shard  *routing.Shard
	bound  netip.AddrPort
	meter  *Meter
	most   atomic.Int64
	// refused tells that the outlet's node has said no.
	refused  atomic.Bool
	paths    atomic.Uint64 // calls of SetPath
	up, down rate          // to the outlet, and to the clients
	closed   atomic.Bool

	// What follows is the shard's.
	sock    *dataplane.UDPSocket
	self    routing.WireAddress
	sender  sender
	table   table
	clients map[endpoints]*flow
	flows   map[uint64]*flow
	next    uint64 // number of the next flow
	path    uint64 // which call of SetPath the sender's route is from
	peer    *[32]byte
	grant   *portal.Grant
	watched bool      // the grant was given, and says when it is taken back
	askedAt time.Time // when the guard was asked
	timer   *dataplane.Timer
}

// endpoints are of a client's datagrams at an inlet.
type endpoints struct {
	client netip.AddrPort
	here   netip.Addr // which address of this machine it uses, if the inlet listens at all of them
}

// askEvery is how often a guard that has said no is asked again while clients send.
const askEvery = time.Second

// NewInlet opens the inlet's port. What clients send before SetPath is dropped. Not on a shard.
func NewInlet(ctx context.Context, env *Env, r *routing.Router, o InletOptions) (*Inlet, error) {
	if o.Idle == 0 {
		o.Idle = DefaultIdle
	}
	fd, bound, err := r.Group().OpenUDP(o.Listen, netip.AddrPort{}, portBuffer)
	if err != nil {
		return nil, err
	}
	in := &Inlet{
		env: env, router: r, opts: o, shard: r.Shards()[0], bound: bound, meter: env.take(EndInlet, o.Name),
		clients: map[endpoints]*flow{}, flows: map[uint64]*flow{}, next: 1,
	}
	in.SetMaxFlows(o.MaxFlows)
	in.SetRate(o.Rate)
	var name session
	_, _ = rand.Read(name[:]) // never fails (crypto/rand)
	var adoptErr error
	err = in.shard.Do(ctx, func() {
		if in.sock, adoptErr = in.shard.Loop().AdoptUDP(fd, (*clientsSocket)(in), &in.meter.Sock); adoptErr != nil {
			return
		}
		in.sock.ForService(portBuffer)
		in.self = in.shard.Start(in)
		in.sender.init(in.shard, in.meter, name, routing.RouteOf(in.self))
	})
	if err == nil {
		err = adoptErr
	} else {
		_ = unix.Close(fd)
	}
	if err != nil {
		env.give(in.meter)
		return nil, err
	}
	return in, nil
}

// Bound returns the address listened on.
func (in *Inlet) Bound() netip.AddrPort { return in.bound }

// SetMaxFlows lets the inlet have most flows from now on, 0 for DefaultFlows. Those that it has stay. Any goroutine.
func (in *Inlet) SetMaxFlows(most int) {
	if most == 0 {
		most = DefaultFlows
	}
	in.most.Store(int64(most))
}

// SetRate bounds the bytes that it carries in a second, in each direction; 0 is no bound. Any goroutine.
func (in *Inlet) SetRate(bytes int64) {
	in.up.set(bytes)
	in.down.set(bytes)
}

// everybody is all clients of an inlet as the one member that shares its rate.
var everybody [32]byte

// Refuse drops what clients send while refused is set: the outlet's node has said no. Any goroutine.
func (in *Inlet) Refuse(refused bool) { in.refused.Store(refused) }

// SetPath gives the route to the outlet, whose first hop lives on this node. Flows go on over it. With an empty one what clients send is dropped. Any
// goroutine.
func (in *Inlet) SetPath(route routing.Route) {
	turn := in.paths.Add(1)
	at := in.router.ShardFor(route)
	if route.Len() == 0 {
		at = in.shard
	}
	at.Loop().Post(dataplane.TaskFunc(func() {
		t := at.FirstTerminal(route)
		if t == nil && route.Len() > 1 {
			route = routing.Route{} // it broke a moment ago
		}
		var peer *[32]byte
		var from *routing.Flow
		if t != nil {
			if p := t.TerminalPeer(); p != nil {
				peer = &p.ID
			}
			if p := t.TerminalProducer(); p != nil {
				from = p.Own
			}
		}
		in.shard.Loop().Post(dataplane.TaskFunc(func() { in.follow(turn, route, peer, from) }))
	}))
}

// follow uses a path, unless a later one is there.
func (in *Inlet) follow(turn uint64, route routing.Route, peer *[32]byte, from *routing.Flow) {
	if in.closed.Load() || turn < in.path {
		return
	}
	in.path, in.peer = turn, peer
	in.grant.Unwatch(in)
	in.grant = nil
	if from != nil {
		in.shard.AddConsumer(in.self.Text(), from)
	}
	in.ask()
	in.sender.follow(route)
}

// ask has the guard decide about the node that the path leads to.
func (in *Inlet) ask() {
	if in.askedAt = in.shard.Loop().Now(); in.opts.Guard == nil {
		return
	}
	in.grant.Unwatch(in)
	in.grant = in.opts.Guard.Grant(in.peer)
	if in.watched = in.grant.Allowed(); in.watched {
		in.grant.Watch(in)
	}
}

// Revoked implements portal.Revoker: the policy does not allow the outlet's node any more.
func (in *Inlet) Revoked() {
	in.shard.Loop().Post(dataplane.TaskFunc(func() {
		if !in.closed.Load() && !in.grant.Allowed() {
			in.endAll(ReasonPolicy)
		}
	}))
}

// Close closes the port and ends the flows. Not on a shard.
func (in *Inlet) Close(ctx context.Context) error {
	if in.closed.Swap(true) {
		return nil
	}
	err := in.shard.Finish(ctx, func() {
		in.endAll(ReasonClosed)
		in.timer.Stop()
		in.grant.Unwatch(in)
		in.sender.close()
		in.shard.Stop(in.self)
		in.sock.Close()
	})
	in.env.give(in.meter)
	return err
}

// clientsSocket is an inlet as the handler of its socket.
type clientsSocket Inlet

// OnDatagram implements dataplane.UDPHandler.
func (c *clientsSocket) OnDatagram(buf []byte, n int, from netip.AddrPort) {
	in := (*Inlet)(c)
	now := in.shard.Loop().Now()
	if why, no := in.refuses(n, now); no {
		in.meter.drop(why)
		return
	}
	if !in.up.takes(&everybody, n, now) {
		in.meter.drop(DropRate)
		return
	}
	at := endpoints{from, in.sock.Here()}
	f := in.clients[at]
	if f == nil {
		f = in.begin(at)
	}
	in.table.fromClient(f, now)
	in.meter.In.Add(1)
	in.meter.BytesIn.Add(uint64(n))
	in.sender.send(f, buf[:n])
}

// refuses reports whether a datagram of n bytes cannot be carried now, and why.
func (in *Inlet) refuses(n int, now time.Time) (why Drop, no bool) {
	switch {
	case n > MaxSize:
		return DropSize, true
	case in.sender.route.Len() == 0:
		return DropPath, true
	case in.refused.Load():
		return DropRefused, true
	case in.opts.Guard == nil || in.watched && in.grant.Allowed():
		return 0, false
	}
	if in.grant.Allowed() || now.Sub(in.askedAt) >= askEvery {
		in.ask()
	}
	return DropPolicy, !in.watched || !in.grant.Allowed()
}

// begin makes a flow for a client, in another one's place if there are enough.
func (in *Inlet) begin(at endpoints) *flow {
	for int64(len(in.flows)) >= max(in.most.Load(), 1) {
		in.end(in.table.victim(), ReasonLimit, true)
	}
	f := &flow{number: in.next, client: at.client, here: at.here, began: in.shard.Loop().Now()}
	in.next++
	in.clients[at], in.flows[f.number] = f, f
	in.meter.Opened.Add(1)
	in.meter.Flows.Add(1)
	if in.timer == nil {
		in.timer = in.shard.Loop().After(sweepEvery(in.opts.Idle), in.sweep)
	}
	return f
}

// sweep ends flows through which nothing went, and looks again as long as there are some.
func (in *Inlet) sweep() {
	in.timer = nil
	now := in.shard.Loop().Now()
	for f := in.table.idle(now, in.opts.Idle); f != nil; f = in.table.idle(now, in.opts.Idle) {
		in.end(f, ReasonIdle, true)
	}
	in.meter.countLost(in.sock)
	if len(in.flows) > 0 {
		in.timer = in.shard.Loop().After(sweepEvery(in.opts.Idle), in.sweep)
	}
}

// end ends a flow; tell says whether the outlet is to be told.
func (in *Inlet) end(f *flow, why Reason, tell bool) {
	in.sender.forget(f)
	in.table.remove(f)
	delete(in.clients, endpoints{f.client, f.here})
	delete(in.flows, f.number)
	in.meter.Flows.Add(-1)
	in.meter.Ended[why].Add(1)
	in.record(f, why)
	if tell {
		in.sender.post(in.sender.route, appendEnd(in.sender.small[:0], in.sender.session, f.number, why))
	}
}

func (in *Inlet) endAll(why Reason) {
	for _, f := range in.flows {
		in.end(f, why, false)
	}
	in.sender.post(in.sender.route, appendEnd(in.sender.small[:0], in.sender.session, allFlows, why))
}

// HandleMessage takes what the outlet sends.
func (in *Inlet) HandleMessage(s *routing.Shard, m *routing.Message) {
	msg, err := parse(m.Payload())
	if err != nil || msg.session != in.sender.session {
		in.meter.Malformed.Add(1)
		return
	}
	if (m.Peer == nil) != (in.peer == nil) || m.Peer != nil && m.Peer.ID != *in.peer || !in.grant.Allowed() {
		in.meter.drop(DropPolicy) // of a path before this one, to another node
		return
	}
	switch msg.kind {
	case kindDatagram:
		f := in.flows[msg.number]
		if f == nil {
			in.meter.drop(DropLate)
			return
		}
		now := s.Loop().Now()
		if !in.down.takes(&everybody, len(msg.data), now) {
			in.meter.drop(DropRate)
			return
		}
		in.table.toClient(f, now)
		f.received.add(len(msg.data))
		in.meter.Out.Add(1)
		in.meter.BytesOut.Add(uint64(len(msg.data)))
		in.sock.SendFrom(msg.data, f.client, f.here)
	case kindMark:
		in.sender.post(in.sender.route, appendHead(in.sender.small[:0], kindMarked, msg.session, msg.number))
	case kindMarked:
		in.sender.answered(msg.number)
	case kindEnd:
		why := min(msg.reason, ReasonTarget)
		if msg.number == allFlows {
			for _, f := range in.flows {
				f.byPeer = true
				in.end(f, why, false)
			}
		} else if f := in.flows[msg.number]; f != nil {
			f.byPeer = true
			in.end(f, why, false)
		}
	}
}

// OnBatchEnd implements dataplane.UDPHandler.
func (c *clientsSocket) OnBatchEnd() {}

// OnFlush implements dataplane.UDPHandler.
func (c *clientsSocket) OnFlush() {}

// OnDrain implements dataplane.UDPHandler.
func (c *clientsSocket) OnDrain() {}

// OnRefused implements dataplane.UDPHandler.
func (c *clientsSocket) OnRefused() {}
