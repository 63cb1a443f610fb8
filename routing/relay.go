package routing

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"time"

	"sallyport/dataplane"
	"sallyport/routing/bare"
)

// RelayOptions configure a Relays service.
type RelayOptions struct {
	// Allow decides whether the sender of a request may register name. nil allows everybody every name.
	Allow func(m *Message, name string) bool
	// Admit decides whose messages are passed on, once for each channel; nil passes on everybody's. The result is asked for each message,
	// and follows what is known of the peer.
	Admit func(peer [32]byte) Admission
	// Shares decides whether the owner of a name shares it with joiner: by share, the owner's expression, or what goes without one. nil: never. It is not called on
	// a loop.
	Shares func(name string, owner [32]byte, share string, joiner [32]byte) bool
	// Fleet, if set, makes the service one of several that know each other's names.
	Fleet *Fleet
	// Flows are consumed by the service and by every relay it starts: from where they can be reached.
	Flows []*Flow
	// Names is how many names there are at most, default 100,000; NamesPerOwner how many of them one identity has, or one connection whose
	// peer has none, default 10,000.
	Names, NamesPerOwner int
	Log                  *slog.Logger
}

// Admission tells whether a peer is admitted now. Any goroutine.
type Admission interface{ Allowed() bool }

// Relays is the relay service of a node: it starts workers that forward messages to whoever registered their name
// (docs/protocol/03 §3).
type Relays struct {
	router *Router
	opts   RelayOptions

	mu    sync.Mutex
	named map[string]*relayName
	held  map[string]int // names by holder
	// full and ownerFull count refusals because of opts.Names and of opts.NamesPerOwner.
	full, ownerFull uint64
	waits           map[string]map[*relayWait]struct{}
	flows           []*flowTable // by shard
	closed          bool
	fleet           *relayFleet // nil without
	ended           []string    // names without a registration, whose workers are to be removed
	queue           chan request
	waiting         map[string]int // requests in queue, by holder
	wake            chan struct{}
	stop            chan struct{}
	once            sync.Once
}

// request waits to be carried out.
type request struct {
	reg   *registration
	name  string
	owner *[32]byte
	back  Route
	terms *Terms                                     // nil for one that says its name only
	done  func(state RelayState, refused NoticeKind) // is told instead of back; with terms
	by    struct {
		owner *[32]byte
		share string
		ok    bool
	} // what the name was when it was decided whether it is shared with owner
	again   bool       // changes a registration that there is
	claimed *Ownership // whose the name is, as the registry says; nil if it was not asked
	unknown bool       // the registry is away, and does not remember
}

// maxRegistrations bounds the requests that wait; more are dropped, as if they had been lost on the way. One owner has as many as are left free at
// most, so that whoever repeats its own as fast as it can keeps nobody else out.
const maxRegistrations = 4096

// batch is how many requests are carried out with one round of the shards.
const batch = 256

// NewRelays starts the relay service under both of its names.
func NewRelays(ctx context.Context, r *Router, o RelayOptions) (*Relays, error) {
	if o.Names == 0 {
		o.Names = 100_000
	}
	if o.NamesPerOwner == 0 {
		o.NamesPerOwner = 10_000
	}
	rs := &Relays{
		router: r, opts: o, named: map[string]*relayName{}, held: map[string]int{}, waiting: map[string]int{}, waits: map[string]map[*relayWait]struct{}{},
		queue: make(chan request, maxRegistrations), wake: make(chan struct{}, 1), stop: make(chan struct{}),
	}
	for range r.shards {
		rs.flows = append(rs.flows, newFlowTable())
	}
	for _, name := range []string{RelayService, StaticRelayService} {
		if err := r.StartNamed(ctx, name, func(*Shard) Worker { return WorkerFunc(rs.register) }, o.Flows...); err != nil {
			return nil, err
		}
	}
	absent := rs.absent
	r.noName.Store(&absent)
	if o.Fleet != nil {
		if err := rs.startFleet(ctx, o.Fleet); err != nil {
			return nil, err
		}
	}
	go rs.serve()
	return rs, nil
}

// Close stops the service's housekeeping.
func (rs *Relays) Close() {
	rs.once.Do(func() {
		rs.router.noName.Store(nil)
		if rs.fleet != nil {
			rs.fleet.stop()
		}
		close(rs.stop)
		rs.mu.Lock()
		defer rs.mu.Unlock()
		rs.closed = true
		for _, n := range rs.named {
			n.timer.stop()
		}
	})
}

// NamesUse says how many names there are and how many the owner with the most has, and how many were refused because of either limit.
type NamesUse struct {
	Names, OfOwner              int
	RefusedNames, RefusedOwners uint64
}

// Use returns what names use of their limits. Any goroutine.
func (rs *Relays) Use() NamesUse {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	u := NamesUse{Names: len(rs.named), RefusedNames: rs.full, RefusedOwners: rs.ownerFull}
	for _, n := range rs.held {
		u.OfOwner = max(u.OfOwner, n)
	}
	return u
}

// Names returns the names registered now, without the prefix.
func (rs *Relays) Names() []string {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	var list []string
	for n := range rs.named {
		list = append(list, n)
	}
	return list
}

// register handles a request: a BARE text, the name wanted.
func (rs *Relays) register(s *Shard, m *Message) {
	text, _, err := bare.Bytes(m.Payload())
	if err != nil || m.Return.Len() == 0 || len(text) > maxRelayName {
		s.Drops.Malformed.Add(1)
		return
	}
	q := request{name: string(text), back: m.Return.Clone(), reg: &registration{relays: rs, id: randomID(), forward: m.Return.WithoutLast().Clone(), shard: s}}
	if q.name == "register" {
		q.name = randomHex()
	}
	if m.Peer != nil {
		id := m.Peer.ID
		q.owner = &id
		q.reg.holder = string(id[:])
	}
	if way := s.wayOut(m.Return); way != nil || m.From.Shared() {
		// From another node. What a message came through stands in front of all that its sender wrote into the return route, behind
		// workers of this node that passed it on. Without it the relay would lead to workers of this node, which no flow may reach.
		if q.reg.terminal = s.wayOut(q.reg.forward); q.reg.terminal == nil || q.reg.terminal != way {
			s.Drops.Malformed.Add(1)
			return
		}
		if q.owner == nil {
			_, first := q.reg.forward.first()
			q.reg.holder = "connection " + string(first)
		}
	}
	if rs.opts.Allow != nil && !rs.opts.Allow(m, q.name) {
		rs.opts.Log.Warn("relay refused", "relay", q.name, "reason", "policy or ockam-relay attribute", "peer", peerText(m.Peer))
		if m.Peer != nil {
			s.notify(m, LocalAddress(RelayPrefix+q.name).Wire(), Notice{Kind: NoticeDenied, Name: q.name})
		}
		return
	}
	if !rs.enqueue(q) {
		s.Drops.Overflow.Add(1)
	}
}

// enqueue lets a request wait, if its owner has room for it.
func (rs *Relays) enqueue(q request) bool {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if rs.waiting[q.reg.holder] >= cap(rs.queue)-len(rs.queue) {
		return false
	}
	select {
	case rs.queue <- q:
		rs.waiting[q.reg.holder]++
		return true
	default:
		return false
	}
}

// dequeued notes that requests wait no longer.
func (rs *Relays) dequeued(list []request) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, q := range list {
		if rs.waiting[q.reg.holder]--; rs.waiting[q.reg.holder] == 0 {
			delete(rs.waiting, q.reg.holder)
		}
	}
}

// wayOut returns the first Terminal on a route whose hops before it are workers of this shard.
func (s *Shard) wayOut(r Route) Terminal {
	for ; r.n > 0; r = r.rest() {
		_, v := r.first()
		w := s.workers[string(v)].worker
		if t, ok := w.(Terminal); ok {
			return t
		}
		if w == nil {
			return nil
		}
	}
	return nil
}

// serve carries out requests and removes the workers of names that nobody has any more, one round after the other: what a name stands
// for and the workers that answer to it change together.
func (rs *Relays) serve() {
	for {
		select {
		case <-rs.stop:
			return
		case <-rs.wake:
			if rs.fleet != nil {
				rs.fleet.sync()
			}
			rs.removeEnded()
		case q := <-rs.queue:
			list := []request{q}
			for more := true; more && len(list) < batch; {
				select {
				case q := <-rs.queue:
					list = append(list, q)
				default:
					more = false
				}
			}
			rs.dequeued(list)
			q.reg.shard.loop.Guard("registrations", func() { rs.install(list) })
		}
	}
}

// install grants names, makes their workers, and answers. It waits for all shards, so it is not on one.
func (rs *Relays) install(list []request) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if rs.fleet != nil {
		rs.fleet.claim(list)
	}
	var fresh []*relayName
	granted := list[:0]
	for _, q := range list {
		rs.decide(&q)
		n, created, refused := rs.grant(&q)
		if refused != 0 {
			rs.opts.Log.Warn("relay refused", "relay", q.name, "reason", refused.String(), "peer", ownerText(q.owner))
			rs.answer(q, LocalAddress(RelayPrefix+q.name).Wire(), refused)
			continue
		}
		if q.again {
			rs.answer(q, n.self, 0)
			continue
		}
		q.reg.name = n
		granted = append(granted, q)
		if created {
			fresh = append(fresh, n)
		}
	}
	if len(fresh) > 0 {
		err := rs.router.putNames(ctx, fresh, func(n *relayName) Worker { return &relayWorker{relays: rs, name: n} }, rs.opts.Flows)
		if err != nil {
			rs.opts.Log.Error("relays not started", "err", err)
			for _, q := range granted { // nobody was told that they exist
				rs.left(q.reg)
				if q.done != nil {
					q.done(RelayState{}, NoticeFull)
				}
			}
			return
		}
	}
	for _, q := range granted {
		rs.begin(q)
	}
}

// decide decides whether the owner of the name shares it with who asks. It may take its time.
func (rs *Relays) decide(q *request) {
	rs.mu.Lock()
	var owner *[32]byte
	share := ""
	if n := rs.named[q.name]; n != nil && len(n.regs) > 0 {
		owner, share = n.owner, n.share
	}
	if q.claimed != nil {
		owner, share = &q.claimed.Owner, q.claimed.Share
	}
	ask := owner != nil && q.owner != nil && !sameOwner(owner, q.owner) && rs.opts.Shares != nil
	if ask {
		q.by.owner, q.by.share = owner, share
	}
	rs.mu.Unlock()
	q.by.ok = ask && rs.opts.Shares(q.name, *q.by.owner, q.by.share, *q.owner)
}

// mayJoin reports whether the name is the asker's or shared with it: as it was decided, if the name is still what it was then. rs.mu is held.
func (n *relayName) mayJoin(q *request) bool {
	return sameOwner(n.owner, q.owner) || q.by.ok && sameOwner(n.owner, q.by.owner) && n.share == q.by.share
}

// grant finds or makes the name of a request; refused is not 0 if it cannot have it.
func (rs *Relays) grant(q *request) (n *relayName, created bool, refused NoticeKind) {
	rs.mu.Lock()
	n = rs.named[q.name]
	if q.claimed != nil && n != nil {
		n.owner, n.rule, n.share = &q.claimed.Owner, q.claimed.Rule, q.claimed.Share
	}
	switch {
	case q.unknown:
		rs.mu.Unlock()
		return nil, false, NoticeFull
	case q.claimed != nil && !sameOwner(&q.claimed.Owner, q.owner) && !q.by.ok, n != nil && len(n.regs) > 0 && !n.mayJoin(q):
		// The reference lets the last one win, whoever it is. A name belongs to the identity that holds it, and to those whom that one shares it with.
		rs.mu.Unlock()
		return nil, false, NoticeHeld
	case n != nil && n.registered(q) != nil:
		q.again = true
		tell := rs.change(n, n.registered(q), q)
		rs.mu.Unlock()
		tell()
		return n, false, 0
	case n == nil && len(rs.named) >= rs.opts.Names:
		rs.full++
		refused = NoticeFull
	case rs.held[q.reg.holder] >= rs.opts.NamesPerOwner:
		rs.ownerFull++
		refused = NoticeFull
	case n != nil && len(n.regs) >= maxPerName:
		refused = NoticeFull
	case n == nil:
		n = &relayName{name: q.name, self: LocalAddress(RelayPrefix + q.name).Wire(), owner: q.owner}
		rs.named[q.name] = n
		created = true
	}
	defer rs.mu.Unlock()
	if refused != 0 {
		return nil, false, refused
	}
	switch {
	case q.claimed != nil:
		n.owner, n.rule, n.share = &q.claimed.Owner, q.claimed.Rule, q.claimed.Share
	case len(n.regs) == 0:
		n.owner, n.rule, n.share = q.owner, RuleNone, ""
	}
	key := memberKey{isIdentity: q.owner != nil}
	if q.owner != nil {
		key.identity = *q.owner
	}
	if q.terms != nil {
		key.id = q.terms.Member
	}
	if q.reg.member = n.join(key); len(q.reg.member.regs) == 0 {
		q.reg.member.since = time.Now()
	}
	q.reg.member.regs = append(q.reg.member.regs, q.reg)
	n.regs = append(n.regs, q.reg)
	q.reg.away = true // until it is watched
	rs.held[q.reg.holder]++
	n.take(q.reg.member, q)
	return n, created, 0
}

// registered returns the registration that a request changes: one through the same channel on the same terms.
func (n *relayName) registered(q *request) *registration {
	if q.terms == nil {
		return nil
	}
	for _, g := range n.regs {
		if g.terminal == q.reg.terminal && g.member.key.id == q.terms.Member && g.member.key.isIdentity && q.owner != nil && g.member.key.identity == *q.owner {
			return g
		}
	}
	return nil
}

// take takes over the terms of a request. rs.mu is held.
func (n *relayName) take(m *member, q *request) {
	if t := q.terms; t != nil {
		m.priority, m.down = min(t.Priority, maxPriority), t.Down
		m.reports.Store(true)
		m.connections.Store(int64(min(t.Connections, 1<<40)))
		m.given.Store(0)
		if sameOwner(n.owner, q.owner) {
			n.rule, n.share = t.Rule, t.Share
		}
	}
	if q.terms != nil || n.living() > 1 {
		n.grouped.Store(true)
	}
}

// change carries out a request that changes a registration. rs.mu is held.
func (rs *Relays) change(n *relayName, g *registration, q *request) (tell func()) {
	n.take(g.member, q)
	return rs.rechoose(n)
}

// rechoose decides anew who gets what is for a name. rs.mu is held; tell is to be called without it.
func (rs *Relays) rechoose(n *relayName) (tell func()) {
	changed, again := n.choose(time.Now())
	if rs.fleet != nil {
		rs.fleet.touch(n.name)
	}
	n.timer.stop()
	if n.timer = nil; !again.IsZero() && !rs.closed {
		n.timer = after(time.Until(again), func() { rs.again(n) })
	}
	if changed {
		return rs.changed(n.name)
	}
	return func() {}
}

// again decides anew since time has passed.
func (rs *Relays) again(n *relayName) {
	rs.mu.Lock()
	tell := func() {}
	if !rs.closed && rs.named[n.name] == n {
		tell = rs.rechoose(n)
	}
	rs.mu.Unlock()
	tell()
}

// maxPerName is how many registrations of its owner one name has. Those of connections that are gone leave.
const maxPerName = 64

// begin lets a registration take effect and answers, on its shard.
func (rs *Relays) begin(q request) {
	s, g := q.reg.shard, q.reg
	if !s.loop.Post(dataplane.TaskFunc(func() {
		if g.terminal != nil {
			if s.wayOut(g.forward) != g.terminal { // it has ended meanwhile
				rs.left(g)
				return
			}
			g.terminal.Watch(g)
		}
		rs.setAway(g, g.terminal != nil && IsAway(s, g.terminal))
		rs.opts.Log.Info("relay registered", "relay", q.name, "peer", ownerText(q.owner))
		answer := func() { rs.answer(q, g.name.self, 0) }
		if rs.fleet != nil {
			rs.fleet.whenTold(q.name, answer)
		} else {
			answer()
		}
	})) {
		rs.left(g)
	}
}

// answer answers a request: that it was granted, or why not.
func (rs *Relays) answer(q request, self WireAddress, refused NoticeKind) {
	if q.done != nil {
		q.done(rs.State(q.name), refused)
		return
	}
	payload := bare.AppendString(nil, RelayPrefix+q.name)
	if refused != 0 {
		payload = AppendNotice(nil, Notice{Kind: refused, Name: q.name})
	}
	s := q.reg.shard
	s.loop.Post(dataplane.TaskFunc(func() { rs.reply(s, q.back, self, payload) }))
}

func (rs *Relays) reply(s *Shard, back Route, self WireAddress, payload []byte) {
	m := s.NewMessage()
	m.Onward, m.Return = back, Route{b: self.b, n: 1}
	m.SetPayloadBytes(payload)
	s.Deliver(m)
	s.Free(m)
}

// setAway notes whether there is a way to a registration's node.
func (rs *Relays) setAway(g *registration, away bool) {
	rs.mu.Lock()
	tell := func() {}
	if !g.gone {
		g.away = away
		tell = rs.rechoose(g.name)
	}
	rs.mu.Unlock()
	tell()
}

// left forgets a registration. The newest of the others under its name takes its place.
func (rs *Relays) left(g *registration) {
	rs.mu.Lock()
	n, tell := g.name, func() {}
	if !g.gone {
		n.remove(g)
		if rs.held[g.holder]--; rs.held[g.holder] == 0 {
			delete(rs.held, g.holder)
		}
		tell = rs.rechoose(n)
		if len(n.regs) == 0 {
			rs.ended = append(rs.ended, n.name)
		}
	}
	rs.mu.Unlock()
	tell()
	select {
	case rs.wake <- struct{}{}:
	default:
	}
}

// removeEnded removes the workers of names that nobody has any more.
func (rs *Relays) removeEnded() {
	rs.mu.Lock()
	list := rs.ended
	rs.ended = nil
	var names []string
	for _, name := range list {
		if n := rs.named[name]; n != nil && len(n.regs) == 0 {
			delete(rs.named, name)
			n.timer.stop()
			names = append(names, RelayPrefix+name)
			rs.opts.Log.Info("relay ended", "relay", name, "reason", "connection of its node closed")
		}
	}
	rs.mu.Unlock()
	if len(names) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := rs.router.stopNames(ctx, names); err != nil {
		rs.opts.Log.Error("relays not stopped", "err", err)
	}
}

func sameOwner(a, b *[32]byte) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

func peerText(p *Peer) string {
	if p == nil {
		return "none"
	}
	return ownerText(&p.ID)
}

// absent answers a message for a relay name that this node does not have.
func (rs *Relays) absent(s *Shard, m *Message, value []byte) {
	if !bytes.HasPrefix(value, []byte(RelayPrefix)) || len(value) > len(RelayPrefix)+maxRelayName || !rs.admits(s, m) {
		return
	}
	rs.nobody(s, m, string(value[len(RelayPrefix):]))
}
