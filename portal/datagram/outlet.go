package datagram

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/dataplane"
	"sallyport/names"
	"sallyport/portal"
	"sallyport/routing"
)

// Bounds of portals for UDP.
const (
	DefaultIdle  = time.Minute
	DefaultFlows = 1000
	MostFlows    = 1 << 16
	// flowBuffer is asked of the kernel for a flow's socket, and what waits for it at most; portBuffer for an inlet's.
	flowBuffer = 256 << 10
	portBuffer = 4 << 20
	// resolveFor is how long an outlet believes a resolved name.
	resolveFor = 10 * time.Second
	// mostEnds is how many refusals a shard of an outlet sends in a second.
	mostEnds = 100
)

// OutletOptions configure an Outlet.
type OutletOptions struct {
	// Name is the outlet's address.
	Name string
	// Target is host:port.
	Target string
	// Guard decides who may use it; nil lets everybody.
	Guard portal.Guard
	// Flows are consumed by the outlet: from where it can be reached.
	Flows []*routing.Flow
	// Idle is after how long without a datagram a flow ends; 0 is DefaultIdle.
	Idle time.Duration
	// MaxFlows is how many there are at most; 0 is DefaultFlows.
	MaxFlows int
	// MaxFlowsPerMember is how many of them one peer has at most; 0 is portal.PeerShare.
	MaxFlowsPerMember int
	// Rate is how many bytes a second it carries in each direction, in equal shares for those who use it; 0 is no limit.
	Rate int64
	// Resolve turns a Target that is a name into addresses, of which the first is used at which somebody listens; nil asks the system.
	Resolve func(ctx context.Context, hostport string) ([]netip.AddrPort, error)
}

// Outlet sends the datagrams of inlets to a target, and back what that answers.
type Outlet struct {
	env    *Env
	router *routing.Router
	opts   OutletOptions
	self   routing.Route
	meter  *Meter
	places places
	halves []*half
	closed atomic.Bool

	up, down rate // to the target, and to the inlets

	target     target
	resolvedAt atomic.Int64 // nanoseconds since 1970
	resolving  atomic.Bool
	failure    atomic.Pointer[error] // of the last attempt to resolve

	mu       sync.Mutex
	sessions map[sessionKey]routing.WireAddress
}

// sessionKey tells sessions apart: nobody speaks for another identity's.
type sessionKey struct {
	peer [32]byte
	name session
}

// NewOutlet starts an outlet. routing.ErrExists when its address is taken. Not on a shard.
func NewOutlet(ctx context.Context, env *Env, r *routing.Router, o OutletOptions) (*Outlet, error) {
	if o.Idle == 0 {
		o.Idle = DefaultIdle
	}
	if o.Resolve == nil {
		o.Resolve = names.Lookup
	}
	out := &Outlet{env: env, router: r, opts: o, self: routing.LocalRoute(o.Name), meter: env.take(EndOutlet, o.Name), sessions: map[sessionKey]routing.WireAddress{}}
	out.SetMaxFlows(o.MaxFlows, o.MaxFlowsPerMember)
	out.SetRate(o.Rate)
	if fixed, err := netip.ParseAddrPort(o.Target); err == nil {
		out.target.set([]netip.AddrPort{fixed}, time.Now())
		out.resolving.Store(true) // there is nothing to resolve
	} else {
		out.resolve()
	}
	for _, s := range r.Shards() {
		out.halves = append(out.halves, &half{out: out, shard: s, sessions: map[sessionKey]*served{}, elsewhere: map[sessionKey]routing.WireAddress{}, peers: map[[32]byte]*table{}})
	}
	if err := r.StartNamed(ctx, o.Name, func(s *routing.Shard) routing.Worker { return out.halves[s.ID()] }, o.Flows...); err != nil {
		env.give(out.meter)
		return nil, err
	}
	return out, nil
}

// SetMaxFlows lets the outlet have most flows from now on, 0 for DefaultFlows, and one peer perMember of them, 0 for portal.PeerShare. Those that it has stay. Any goroutine.
func (o *Outlet) SetMaxFlows(most, perMember int) {
	if most == 0 {
		most = DefaultFlows
	}
	if perMember == 0 {
		perMember = portal.PeerShare(most)
	}
	o.places.limit(most, perMember)
}

// SetRate bounds the bytes that it carries in a second, in each direction; 0 is no bound. Any goroutine.
func (o *Outlet) SetRate(bytes int64) {
	o.up.set(bytes)
	o.down.set(bytes)
}

// Failure returns why the target cannot be reached as far as that is known, else nil: its name has no address, or nobody listened at any of its addresses
// within the last minute. Any goroutine.
func (o *Outlet) Failure() error {
	if p := o.failure.Load(); p != nil {
		return fmt.Errorf("the target is not found: %w", *p)
	}
	if err := o.target.failure(time.Now()); err != nil {
		return fmt.Errorf("the target is away: %w", err)
	}
	return nil
}

// Close stops the outlet and ends its flows. Not on a shard.
func (o *Outlet) Close(ctx context.Context) error {
	if o.closed.Swap(true) {
		return nil
	}
	err := o.router.StopNamed(ctx, o.opts.Name)
	for _, h := range o.halves {
		err = errors.Join(err, h.shard.Finish(ctx, h.close))
	}
	o.env.give(o.meter)
	return err
}

// resolve asks for the target's addresses, unless somebody does.
func (o *Outlet) resolve() {
	if o.resolving.Swap(true) {
		return
	}
	go func() {
		defer o.resolving.Store(false)
		ctx, cancel := context.WithTimeout(context.Background(), resolveFor)
		defer cancel()
		to, err := o.opts.Resolve(ctx, o.opts.Target)
		if err == nil && len(to) == 0 {
			err = errors.New("the name has no address")
		}
		o.resolvedAt.Store(time.Now().UnixNano())
		if err != nil {
			o.failure.Store(&err)
			o.env.Log.Warn("portal target not found", "portal", o.opts.Name, "target", o.opts.Target, "err", err)
			return
		}
		o.target.set(to, time.Now())
		o.failure.Store(nil)
	}()
}

// address returns where the target is; ok is false while that is not known.
func (o *Outlet) address(now time.Time) (at netip.AddrPort, ok bool) {
	if now.UnixNano()-o.resolvedAt.Load() > int64(resolveFor) {
		o.resolve()
	}
	return o.target.use()
}

// find returns where a session is, as the outlet's halves know it together.
func (o *Outlet) find(k sessionKey) (routing.WireAddress, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	at, ok := o.sessions[k]
	return at, ok
}

// places counts the flows of an outlet, and those of each peer. It is asked when a flow begins and told when it ends.
type places struct {
	mu    sync.Mutex
	most  int
	each  int // of one peer
	all   int
	peers map[[32]byte]int
}

func (p *places) limit(most, each int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.most, p.each = most, each
}

func (p *places) take(peer *[32]byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all >= p.most || p.peers[*peer] >= p.each {
		return false
	}
	if p.peers == nil {
		p.peers = map[[32]byte]int{}
	}
	p.all++
	p.peers[*peer]++
	return true
}

func (p *places) leave(peer *[32]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all--
	if p.peers[*peer]--; p.peers[*peer] <= 0 {
		delete(p.peers, *peer)
	}
}

// half is an outlet on one shard.
type half struct {
	out       *Outlet
	shard     *routing.Shard
	sessions  map[sessionKey]*served
	elsewhere map[sessionKey]routing.WireAddress // sessions on other shards
	peers     map[[32]byte]*table                // their flows here
	timer     *dataplane.Timer
	ends      int // refusals in the second that began at endsAt
	endsAt    time.Time
	closed    bool
	small     [headMost + 1]byte
}

// HandleMessage takes what inlets send.
func (h *half) HandleMessage(s *routing.Shard, m *routing.Message) {
	msg, err := parse(m.Payload())
	if err != nil || m.Return.Len() == 0 {
		h.out.meter.Malformed.Add(1)
		return
	}
	k := sessionKey{name: msg.session}
	if m.Peer != nil {
		k.peer = m.Peer.ID
	}
	if v := h.sessions[k]; v != nil {
		v.handle(m, msg)
		return
	}
	at, known := h.elsewhere[k]
	if !known {
		if at, known = h.out.find(k); known {
			h.elsewhere[k] = at
		}
	}
	if !known && (msg.kind == kindDatagram || msg.kind == kindMark) {
		v, other, there := h.begin(k, m, msg)
		if v != nil {
			v.handle(m, msg)
		}
		at, known = other, there
	}
	if known {
		m.PopOnward()
		m.PushOnward(routing.RouteOf(at))
		s.Deliver(m)
	}
}

// begin begins a session, if the policy allows the peer. Where one was begun on another shard meanwhile it returns that one's address.
func (h *half) begin(k sessionKey, m *routing.Message, msg message) (v *served, other routing.WireAddress, there bool) {
	o := h.out
	if h.closed {
		return nil, other, false
	}
	var grant *portal.Grant
	if o.opts.Guard != nil {
		var peer *[32]byte
		if m.Peer != nil {
			peer = &m.Peer.ID
		}
		if grant = o.opts.Guard.Grant(peer); !grant.Allowed() {
			h.refuse(m.Return, msg, ReasonPolicy, DropPolicy)
			return nil, other, false
		}
	}
	v = &served{half: h, key: k, grant: grant, flows: map[uint64]*flow{}, at: h.shard.NewAddress()}
	o.mu.Lock()
	full := len(o.sessions) >= MostFlows
	if other, there = o.sessions[k]; !there && !full {
		o.sessions[k] = v.at
	}
	o.mu.Unlock()
	switch {
	case there:
		h.elsewhere[k] = other
		return nil, other, true
	case full:
		h.refuse(m.Return, msg, ReasonLimit, DropLimit)
		return nil, other, false
	}
	h.shard.StartAs(v.at, v)
	v.sender.init(h.shard, o.meter, k.name, routing.Route{})
	h.sessions[k] = v
	if v.table = h.peers[k.peer]; v.table == nil {
		v.table = &table{}
		h.peers[k.peer] = v.table
	}
	h.arm()
	grant.Watch(v)
	return v, other, false
}

// refuse counts a datagram that begins nothing, and tells the inlet, seldom enough that nobody is drowned in that.
func (h *half) refuse(back routing.Route, msg message, why Reason, drop Drop) {
	if msg.kind != kindDatagram {
		return
	}
	h.out.meter.drop(drop)
	now := h.shard.Loop().Now()
	if now.Sub(h.endsAt) >= time.Second {
		h.ends, h.endsAt = 0, now
	}
	if h.ends++; h.ends <= mostEnds {
		post(h.shard, back, h.out.self, appendEnd(h.small[:0], msg.session, msg.number, why))
	}
}

// arm has sweep called as long as there are sessions.
func (h *half) arm() {
	if h.timer == nil && len(h.sessions) > 0 {
		h.timer = h.shard.Loop().After(sweepEvery(h.out.opts.Idle), func() {
			h.timer = nil
			h.sweep()
			h.arm()
		})
	}
}

// sweepEvery is how often idle flows are looked for.
func sweepEvery(idle time.Duration) time.Duration {
	return min(max(idle/8, 10*time.Millisecond), 5*time.Second)
}

// sweep ends flows and sessions through which nothing went.
func (h *half) sweep() {
	now, idle := h.shard.Loop().Now(), h.out.opts.Idle
	for _, t := range h.peers {
		for f := t.idle(now, idle); f != nil; f = t.idle(now, idle) {
			f.served.end(f, ReasonIdle, true)
		}
	}
	for _, v := range h.sessions {
		for _, f := range v.flows {
			h.out.meter.countLost(f.sock)
		}
		if len(v.flows) == 0 && now.Sub(v.heard) >= idle {
			v.finish(ReasonIdle, false)
		}
	}
}

// room ends a flow so that a peer can begin another one: its own, or, where it has none here, one of the peer that has most.
func (h *half) room(of *table) bool {
	if of.len() == 0 {
		for _, t := range h.peers {
			if t.len() > of.len() {
				of = t
			}
		}
	}
	f := of.victim()
	if f == nil {
		return false
	}
	f.served.end(f, ReasonLimit, true)
	return true
}

func (h *half) close() {
	h.closed = true
	h.timer.Stop()
	for _, v := range h.sessions {
		v.finish(ReasonClosed, true)
	}
}
