package routing

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
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
	ended           []string // names without a registration, whose workers are to be removed
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
	for _, name := range []string{RelayService, StaticRelayService} {
		if err := r.StartNamed(ctx, name, func(*Shard) Worker { return WorkerFunc(rs.register) }, o.Flows...); err != nil {
			return nil, err
		}
	}
	absent := rs.absent
	r.noName.Store(&absent)
	go rs.serve()
	return rs, nil
}

// Close stops the service's housekeeping.
func (rs *Relays) Close() {
	rs.once.Do(func() {
		rs.router.noName.Store(nil)
		close(rs.stop)
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
	var fresh []*relayName
	granted := list[:0]
	for _, q := range list {
		n, created, refused := rs.grant(q)
		if refused != 0 {
			rs.opts.Log.Warn("relay refused", "relay", q.name, "reason", refused.String(), "peer", ownerText(q.owner))
			rs.answer(q, LocalAddress(RelayPrefix+q.name).Wire(), AppendNotice(nil, Notice{Kind: refused, Name: q.name}))
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
			}
			return
		}
	}
	for _, q := range granted {
		rs.begin(q)
	}
}

// grant finds or makes the name of a request; refused is not 0 if it cannot have it.
func (rs *Relays) grant(q request) (n *relayName, created bool, refused NoticeKind) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	n = rs.named[q.name]
	switch {
	case n != nil && len(n.regs) > 0 && !sameOwner(n.owner, q.owner):
		// The reference lets the last one win, whoever it is. A name belongs to the identity that holds it.
		return nil, false, NoticeHeld
	case n == nil && len(rs.named) >= rs.opts.Names:
		rs.full++
		return nil, false, NoticeFull
	case rs.held[q.reg.holder] >= rs.opts.NamesPerOwner:
		rs.ownerFull++
		return nil, false, NoticeFull
	case n != nil && len(n.regs) >= maxPerName:
		return nil, false, NoticeFull
	case n == nil:
		n = &relayName{name: q.name, self: LocalAddress(RelayPrefix + q.name).Wire(), owner: q.owner}
		rs.named[q.name] = n
		created = true
	}
	n.owner = q.owner
	n.regs = append(n.regs, q.reg)
	q.reg.away = true // until it is watched
	rs.held[q.reg.holder]++
	return n, created, 0
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
		rs.reply(s, q.back, g.name.self, bare.AppendString(nil, RelayPrefix+q.name))
	})) {
		rs.left(g)
	}
}

// answer sends an answer to a request from its shard.
func (rs *Relays) answer(q request, self WireAddress, payload []byte) {
	q.reg.shard.loop.Post(dataplane.TaskFunc(func() { rs.reply(q.reg.shard, q.back, self, payload) }))
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
		if g.name.choose() {
			tell = rs.changed(g.name.name)
		}
	}
	rs.mu.Unlock()
	tell()
}

// left forgets a registration. The newest of the others under its name takes its place.
func (rs *Relays) left(g *registration) {
	rs.mu.Lock()
	n, tell := g.name, func() {}
	if !g.gone {
		g.gone = true
		n.regs = slices.DeleteFunc(n.regs, func(o *registration) bool { return o == g })
		if rs.held[g.holder]--; rs.held[g.holder] == 0 {
			delete(rs.held, g.holder)
		}
		if n.choose() {
			tell = rs.changed(n.name)
		}
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
	name := string(value[len(RelayPrefix):])
	s.notify(m, LocalAddress(RelayPrefix+name).Wire(), Notice{Kind: NoticeAbsent, Name: name})
}
