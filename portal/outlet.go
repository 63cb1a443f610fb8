package portal

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/dataplane"
	"sallyport/names"
	"sallyport/routing"
)

// Piped is a socket that somebody else joins to a client or a target, as TLS does.
type Piped struct {
	// FD is a connected, non-blocking stream socket, which the portal owns.
	FD int
	// Broken tells, when the socket has ended, that this is not the end of a whole stream. It does not block. nil: it always is.
	Broken func() bool
	// Direct tells that FD is the target's own socket, with nobody of this process at its other end.
	Direct bool
	// Watch is told what becomes of the connection; nil is nobody.
	Watch *Watch
}

// OutletOptions configure an Outlet.
type OutletOptions struct {
	// Name is the outlet's address.
	Name string
	// Target is host:port.
	Target string
	// Guard decides who may use it; nil lets everybody.
	Guard Guard
	// Flows are consumed by the outlet: from where it can be reached.
	Flows []*routing.Flow
	// Dial, if set, opens the target instead of a plain TCP connection. It runs on a goroutine of its own.
	Dial func(ctx context.Context, from Origin) (Piped, error)
	// Preface, if set, makes what a target that was dialled without Dial gets before the client's bytes; at is its address.
	Preface func(from Origin, at netip.AddrPort) []byte
	// SkipHandshake does not answer an inlet's Ping; the inlet must not wait for that (docs/protocol/03 §1.8).
	SkipHandshake bool
	// Hold is how long a connection waits for another path when its own is gone, if the inlet waits as well; 0 is not at all. Only over
	// a secure channel.
	Hold time.Duration
	// Rewrite, if set, makes what changes the bytes that go to the target. It must take all it is given.
	Rewrite func() Rewriter
	// MaxConnections is how many connections the outlet has at most; 0 is Limits.OutletConnections. What the target can take is a good
	// value.
	MaxConnections int
	// MaxConnectionsPerMember is how many of them one peer has at most; 0 is PeerShare.
	MaxConnectionsPerMember int
	// Rate is how many bytes a second are carried in each direction at most; 0 is no limit. Members get equal shares.
	Rate int64
	// Down, if set, reports whether the target is known not to answer, and whether that was found out a moment ago: clients wait then, for the target may be back
	// soon, or their inlet hear of another outlet; else they are refused at once. It must not block.
	Down func() (down, wait bool)
	// Resolve turns Target into the addresses to try, in this order. It is asked only for a Target that is a name; nil asks the system.
	Resolve func(ctx context.Context, hostport string) ([]netip.AddrPort, error)
	// Tried, if set, is told how each attempt to reach the target went; nil is success. On an event loop: it must not block.
	Tried func(err error)
	// ResolveAlways asks Resolve for every connection, whatever Target is: there are several targets, and they change.
	ResolveAlways bool
	// Carried is what the program before has left of the outlet's connections; nil is nothing.
	Carried *CarriedPortal
}

// Outlet connects portal connections to a target.
type Outlet struct {
	env    *Env
	router *routing.Router
	opts   OutletOptions
	fixed  []netip.AddrPort // not empty if Target is an address
	places places
	meter  *Meter
	rates  *rates
	leaves atomic.Bool // it takes no more connections
	fades  atomic.Bool // it does not answer those who want one
	closed atomic.Bool

	lines *registry

	mu         sync.Mutex
	resolved   []netip.AddrPort // that which answered last comes first; never changed in place
	resolvedAt time.Time
}

// resolveFor is how long an outlet believes a resolved name.
const resolveFor = 10 * time.Second

// targetOptions are the socket options of a target's connection (docs/protocol/03 §1.5).
var targetOptions = dataplane.TCPOptions{NoDelay: true, KeepAliveIdle: 300 * time.Second, KeepAliveInterval: 75 * time.Second, KeepAliveCount: 2,
	ResetOnCrash: true}

// NewOutlet starts an outlet. routing.ErrExists when its address is taken. Not on a shard.
func NewOutlet(ctx context.Context, env *Env, r *routing.Router, o OutletOptions) (*Outlet, error) {
	if o.Resolve == nil {
		o.Resolve = names.Lookup
	}
	out := &Outlet{env: env, router: r, opts: o, places: places{}, meter: env.meters.take(EndOutlet, o.Name), lines: env.lines.take(o.Name),
		rates: newRates(r.Group(), o.Rate)}
	out.SetMaxConnections(o.MaxConnections, o.MaxConnectionsPerMember)
	if fixed, err := netip.ParseAddrPort(o.Target); err == nil && !o.ResolveAlways {
		out.fixed = []netip.AddrPort{fixed}
	}
	worker := func(*routing.Shard) routing.Worker {
		if o.SkipHandshake {
			return &skipping{outlet: out, conns: map[source]*conn{}}
		}
		return out
	}
	out.takeUp(o.Carried) // before anybody can ask for them
	if err := r.StartNamed(ctx, o.Name, worker, o.Flows...); err != nil {
		env.meters.give(out.meter)
		env.lines.give(o.Name)
		return nil, err
	}
	return out, nil
}

// Leave has new connections refused; open ones stay, and are resumed. Any goroutine.
func (o *Outlet) Leave() { o.leaves.Store(true) }

// Fade has new connections left without an answer: another outlet takes them over, and their inlets begin anew when they have a path there, or none here. Any goroutine.
func (o *Outlet) Fade() { o.fades.Store(true) }

// Close stops the outlet; its open connections stay (docs/protocol/03 §2.1). They are resumed over another path if there is an outlet with this name again.
func (o *Outlet) Close(ctx context.Context) error {
	err := o.router.StopNamed(ctx, o.opts.Name)
	if !o.closed.Swap(true) {
		o.env.meters.give(o.meter)
		o.env.lines.give(o.opts.Name)
	}
	return err
}

// HandleMessage begins a connection with a Ping (docs/protocol/03 §1.3), or goes on with one (docs/protocol/04).
func (o *Outlet) HandleMessage(s *routing.Shard, m *routing.Message) {
	if b := m.Payload(); len(b) > 0 && b[0] == kindResume {
		o.resume(s, m)
		return
	}
	o.begin(s, m, false)
}

// begin begins a connection and returns it, or nil if it may not.
func (o *Outlet) begin(s *routing.Shard, m *routing.Message, skip bool) *conn {
	msg, err := parse(m.Payload())
	if err != nil || msg.kind != kindPing || m.Return.Len() == 0 {
		o.env.Stats.Malformed.Add(1)
		return nil
	}
	var peer *[32]byte
	if m.Peer != nil {
		peer = &m.Peer.ID
	}
	var grant *Grant
	if o.opts.Guard != nil {
		grant = o.opts.Guard.Grant(peer)
		if !grant.Allowed() {
			o.env.Stats.Denied.Add(1)
			o.refuse(s, m, msg, ReasonPolicy, true)
			return nil
		}
	}
	switch {
	case o.fades.Load():
		return nil
	case o.leaves.Load():
		o.refuse(s, m, msg, ReasonShutdown, false)
		return nil
	}
	down, wait := o.down()
	if down && !wait {
		o.refuse(s, m, msg, ReasonUnreachable, true)
		return nil
	}
	placed, tell := o.room(peer)
	if !placed && !o.claims(peer, m, msg) {
		o.env.Stats.Limited.Add(1)
		o.refuse(s, m, msg, ReasonLimit, tell)
		return nil
	}
	c := o.env.newConn(s, o.meter)
	c.outlet, c.grant, c.skip, c.tally.target, c.rates = true, grant, skip, o.opts.Target, o.rates
	if o.opts.Rewrite != nil {
		c.downstream = o.opts.Rewrite()
	}
	c.onEnd = func() { o.places.leave(nil) }
	if peer != nil {
		c.peer, c.hasPeer = *peer, true
		c.tally.attributes = o.env.attributes(peer)
		c.onEnd = func() { o.places.leave(&c.peer) }
	}
	if !placed {
		c.onEnd = func() { o.places.stay(c) }
	}
	if msg.extension >= extensionVersion && !skip {
		c.extended, c.version = true, min(msg.extension, resumeVersion)
		c.credit = int(min(msg.amount, maxCredit))
		c.topCredit = c.credit
	}
	c.promise(o, m, msg)
	back := m.Return.Clone()
	if skip {
		c.early = &early{back: back}
	}
	var flows []*routing.Flow
	t := s.FirstTerminal(back)
	if t != nil && t.TerminalProducer() != nil {
		flows = []*routing.Flow{t.TerminalProducer().Own}
	}
	c.self = s.Start(c, flows...)
	c.watch(t) // the path may break while the target is opened
	if !placed {
		o.await(c, back)
		return c
	}
	if down {
		o.waitFor(c, back)
		return c
	}
	o.connect(c, back)
	return c
}

// room takes one of the outlet's places, if there is one for the peer.
func (o *Outlet) room(peer *[32]byte) (ok, tell bool) {
	if o.env.Stats.Active.Load() >= int64(o.env.Limits.Connections) {
		o.env.Stats.Crowded.Add(1)
		return false, o.places.tell()
	}
	return o.places.take(peer)
}

// SetMaxConnections lets the outlet have most connections from now on, 0 for Limits.OutletConnections, and one peer perMember of them, 0 for PeerShare. Those that it has
// stay. Any goroutine.
func (o *Outlet) SetMaxConnections(most, perMember int) {
	if most == 0 {
		most = o.env.Limits.OutletConnections
	}
	if perMember == 0 {
		perMember = PeerShare(most)
	}
	o.places.limit(most, perMember)
}

// Connections returns how many connections the outlet has, and how many it may have. Any goroutine.
func (o *Outlet) Connections() (now, limit int) { return o.places.taken() }

// Refused returns how many connections were refused because the outlet, or its peer at it, had too many. Any goroutine.
func (o *Outlet) Refused() uint64 { return o.places.refused() }

// refuse tells an inlet of ours that it may not; one of the reference's would not understand.
func (o *Outlet) refuse(s *routing.Shard, m *routing.Message, msg message, why Reason, tell bool) {
	o.refused(m, msg, why)
	if tell {
		o.env.Log.Warn("portal connection refused", "portal", o.opts.Name, "reason", why.String(), "peer", peerName(m.Peer))
	}
	if msg.extension >= extensionVersion {
		m.SetPayloadBytes([]byte{kindDisconnect, byte(why)})
		m.Reply(s, routing.LocalAddress(o.opts.Name).Wire())
	}
}

func peerName(p *routing.Peer) string {
	if p == nil {
		return "none"
	}
	return fmt.Sprintf("I%x", p.ID[:])
}

// connect opens the target.
func (o *Outlet) connect(c *conn, back routing.Route) {
	loop := c.shard.Loop()
	dial := func(to []netip.AddrPort) {
		loop.DialAny(to, targetOptions, o.env.Limits.OpenTimeout, func(sock *dataplane.Conn, err error) {
			if len(to) > 1 || err != nil {
				o.answered(to, sock)
			}
			o.connected(c, back, sock, err)
		})
	}
	if o.opts.Dial != nil {
		from := c.origin()
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), o.env.Limits.OpenTimeout)
			defer cancel()
			pipe, err := o.opts.Dial(ctx, from)
			if !loop.Post(dataplane.TaskFunc(func() {
				var sock *dataplane.Conn
				if err == nil {
					sock, err = loop.Adopt(pipe.FD, nil)
					c.broken, c.told, c.piped = pipe.Broken, pipe.Watch, !pipe.Direct
				}
				o.connected(c, back, sock, err)
			})) && err == nil {
				pipe.Watch.never(ReasonShutdown)
				_ = unix.Close(pipe.FD)
			}
		}()
		return
	}
	if len(o.fixed) > 0 {
		dial(o.fixed)
		return
	}
	o.mu.Lock()
	to, fresh := o.resolved, time.Since(o.resolvedAt) < resolveFor
	o.mu.Unlock()
	if fresh && len(to) > 0 {
		dial(to)
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), o.env.Limits.OpenTimeout)
		defer cancel()
		to, err := o.opts.Resolve(ctx, o.opts.Target)
		if err == nil && !o.opts.ResolveAlways {
			o.mu.Lock()
			o.resolved, o.resolvedAt = to, time.Now()
			o.mu.Unlock()
		}
		loop.Post(dataplane.TaskFunc(func() {
			if err != nil {
				o.connected(c, back, nil, err)
			} else {
				dial(to)
			}
		}))
	}()
}

// answered remembers which address of the target took a connection, so that the next one goes there first; none, with a nil sock, asks for
// the name again: the target may have moved.
func (o *Outlet) answered(to []netip.AddrPort, sock *dataplane.Conn) {
	if len(o.fixed) > 0 {
		return
	}
	var first netip.AddrPort
	if sock != nil {
		if first = sock.RemoteAddr(); first == to[0] {
			return
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if !slices.Equal(o.resolved, to) {
		return // somebody was here before
	}
	if sock == nil {
		o.resolved = nil
		return
	}
	list := []netip.AddrPort{first}
	for _, a := range to {
		if a != first {
			list = append(list, a)
		}
	}
	o.resolved = list
}

// connected goes on when the target has answered.
func (o *Outlet) connected(c *conn, back routing.Route, sock *dataplane.Conn, err error) {
	if o.opts.Tried != nil {
		o.opts.Tried(err)
	}
	if c.state == ended {
		c.told.never(ReasonReset)
		if sock != nil {
			sock.SetHandler(c)
			sock.Abort()
		}
		return
	}
	if err != nil {
		if _, wait := o.down(); wait && !c.delayed {
			o.waitFor(c, back)
			return
		}
		reason := ReasonUnreachable
		switch {
		case errors.Is(err, unix.ECONNREFUSED):
			reason = ReasonRefused
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, unix.ETIMEDOUT), errors.Is(err, context.DeadlineExceeded):
			reason = ReasonTimeout
		}
		c.tally.by = byTarget
		o.notReached(c, back, reason, err)
		return
	}
	c.sock = sock
	c.reached()
	sock.SetHandler(c)
	if o.opts.Preface != nil && o.opts.Dial == nil {
		sock.Write(o.opts.Preface(c.origin(), sock.RemoteAddr()))
	}
	if c.skip {
		c.established()
		c.start(back)
		if c.state == open {
			c.takeEarly()
		}
		return
	}
	if !c.enter(o) {
		c.sendDisconnect(back, ReasonUnknown)
		c.end(ReasonUnknown, false)
		return
	}
	c.established()
	c.openedAt = time.Now()
	c.send(back, c.appendOffer(c.small[:0], kindPong))
	c.start(back)
}

// notReached refuses a client whose target was not opened.
func (o *Outlet) notReached(c *conn, back routing.Route, reason Reason, err error) {
	o.env.Log.Warn("portal target not reached", "portal", o.opts.Name, "target", o.opts.Target, "reason", reason.String(), "err", err)
	if _, near := c.shard.Worker(back.First().Value).(routing.Through); c.extended || c.skip || near {
		c.sendDisconnect(back, reason) // an interceptor passes it on; the reference's inlet behind it ignores it
	}
	c.forget(reason)
}
