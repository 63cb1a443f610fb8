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
	// Flows are consumed by the service and by every relay it starts: from where they can be reached.
	Flows []*Flow
	Log   *slog.Logger
}

// Relays is the relay service of a node: it starts workers that forward messages to whoever registered their name
// (docs/protocol/03 §3).
type Relays struct {
	router *Router
	opts   RelayOptions

	mu    sync.Mutex
	named map[string]*relay
	queue chan registration
	stop  chan struct{}
	once  sync.Once
}

// registration is a request that waits to be carried out.
type registration struct {
	reg  *relay
	from *Shard
	back Route
}

// relay forwards to one registration.
type relay struct {
	name     string
	forward  Route // from this node to the registered one, without the last hop
	owner    *[32]byte
	producer *Producer // of the forward route's first hop
	self     WireAddress
	workers  []*relayWorker // one per shard
}

// relayWorker is a relay on one shard.
type relayWorker struct {
	*relay
	granted []byte // first return hop that was last granted the way back
	// Forwarded counts messages; on the shard only.
	Forwarded uint64
}

// maxRelays bounds the names on one node.
const maxRelays = 100_000

// maxRegistrations bounds the requests that wait; more are dropped, as if they had been lost on the way.
const maxRegistrations = 1024

// NewRelays starts the relay service under both of its names.
func NewRelays(ctx context.Context, r *Router, o RelayOptions) (*Relays, error) {
	rs := &Relays{router: r, opts: o, named: map[string]*relay{}, queue: make(chan registration, maxRegistrations), stop: make(chan struct{})}
	for _, name := range []string{RelayService, StaticRelayService} {
		if err := r.StartNamed(ctx, name, func(*Shard) Worker { return WorkerFunc(rs.register) }, o.Flows...); err != nil {
			return nil, err
		}
	}
	go rs.serve()
	return rs, nil
}

// Close stops the service's housekeeping.
func (rs *Relays) Close() { rs.once.Do(func() { close(rs.stop) }) }

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
	if err != nil || m.Return.Len() == 0 || len(text) > 512 {
		s.Drops.Malformed.Add(1)
		return
	}
	name := string(text)
	if name == "register" {
		name = randomHex()
	}
	if rs.opts.Allow != nil && !rs.opts.Allow(m, name) {
		rs.opts.Log.Warn("relay refused", "relay", name, "reason", "policy or ockam-relay attribute", "peer", peerText(m.Peer))
		return
	}
	reg := &relay{name: name, forward: m.Return.WithoutLast().Clone(), self: LocalAddress(RelayPrefix + name).Wire()}
	if m.Peer != nil {
		id := m.Peer.ID
		reg.owner = &id
	}
	if t := s.FirstTerminal(reg.forward); t != nil {
		reg.producer = t.TerminalProducer()
	}
	select {
	case rs.queue <- registration{reg: reg, from: s, back: m.Return.Clone()}:
	default:
		s.Drops.Overflow.Add(1)
	}
}

// serve carries registrations out and removes relays whose node has gone, one after the other: what a name stands for and the workers
// that answer to it change together.
func (rs *Relays) serve() {
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-rs.stop:
			return
		case r := <-rs.queue:
			r.from.loop.Guard("a registration", func() { rs.install(r.from, r.reg, r.back) })
		case <-tick.C:
			rs.dropOrphans()
		}
	}
}

// install makes the relay's workers and answers. It waits for all shards, so it is not on one.
func (rs *Relays) install(s *Shard, reg *relay, back Route) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	rs.mu.Lock()
	old := rs.named[reg.name]
	switch {
	case old != nil && !sameOwner(old.owner, reg.owner):
		// The reference lets the last one win, whoever it is. A name belongs to the identity that holds it.
		rs.mu.Unlock()
		rs.opts.Log.Warn("relay refused", "relay", reg.name, "reason", "name is held by another identity", "peer", ownerText(reg.owner))
		return
	case old == nil && len(rs.named) >= maxRelays:
		rs.mu.Unlock()
		rs.opts.Log.Warn("relay refused", "relay", reg.name, "reason", "too many relays")
		return
	}
	rs.named[reg.name] = reg
	rs.mu.Unlock()
	err := rs.router.PutNamed(ctx, RelayPrefix+reg.name, func(*Shard) Worker {
		w := &relayWorker{relay: reg}
		reg.workers = append(reg.workers, w)
		return w
	}, rs.opts.Flows...)
	if err != nil {
		rs.opts.Log.Error("relay not started", "relay", reg.name, "err", err)
		rs.mu.Lock()
		delete(rs.named, reg.name) // a shard that hangs may have it or not; nobody was told that it exists
		rs.mu.Unlock()
		return
	}
	rs.opts.Log.Info("relay registered", "relay", reg.name, "peer", ownerText(reg.owner))
	answer := bare.AppendString(nil, RelayPrefix+reg.name)
	s.loop.Post(dataplane.TaskFunc(func() {
		m := s.NewMessage()
		m.Onward, m.Return = back, Route{b: reg.self.b, n: 1}
		m.SetPayloadBytes(answer)
		s.Deliver(m)
		s.Free(m)
	}))
}

func sameOwner(a, b *[32]byte) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

// HandleMessage forwards m: the relay's own address gives way to the forward route, the return route is left alone.
func (w *relayWorker) HandleMessage(s *Shard, m *Message) {
	m.PopOnward()
	m.PushOnward(w.forward)
	w.Forwarded++
	w.grantReturn(s, m)
	s.Deliver(m)
}

// grantReturn lets the answer come back: the first hop of each direction becomes a consumer of what the other one brings
// (docs/protocol/03 §3.3).
func (w *relayWorker) grantReturn(s *Shard, m *Message) {
	if m.Return.n == 0 {
		return
	}
	_, prev := m.Return.first()
	if bytes.Equal(prev, w.granted) {
		return
	}
	t := s.FirstTerminal(m.Return)
	if t == nil {
		// From a worker of this node: a transport or a channel puts itself in front of what it brings in. With more hops behind it that
		// worker only passes the message on, as hop does, and must not become reachable.
		if w.producer != nil && m.Return.n == 1 {
			w.granted = append(w.granted[:0], prev...)
			s.router.grant(s, string(prev), w.producer.Own)
		}
		return
	}
	w.granted = append(w.granted[:0], prev...)
	if w.producer != nil {
		s.AddConsumer(string(prev), w.producer.Own)
	}
	if p := t.TerminalProducer(); p != nil && w.forward.n > 0 {
		_, next := w.forward.first()
		s.router.grant(s, string(next), p.Own)
	}
}

// grant adds a consumer on the shard that has the address, before any message sent there later.
func (r *Router) grant(s *Shard, address string, f *Flow) {
	to := r.ShardOf(address)
	if to == nil || to == s {
		s.AddConsumer(address, f)
		return
	}
	to.loop.Post(dataplane.TaskFunc(func() { to.AddConsumer(address, f) }))
}

// dropOrphans removes relays whose owner's connection has ended: the name is free again.
func (rs *Relays) dropOrphans() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	rs.mu.Lock()
	byShard := map[*Shard][]*relay{}
	for _, reg := range rs.named {
		if reg.forward.n > 0 {
			s := rs.router.shardFor(reg.forward)
			byShard[s] = append(byShard[s], reg)
		}
	}
	rs.mu.Unlock()
	for s, list := range byShard {
		var gone []*relay
		if s.Do(ctx, func() {
			for _, reg := range list {
				if _, v := reg.forward.first(); s.workers[string(v)].worker == nil {
					gone = append(gone, reg)
				}
			}
		}) != nil {
			return
		}
		for _, reg := range gone {
			rs.mu.Lock()
			current := rs.named[reg.name] == reg
			if current {
				delete(rs.named, reg.name)
			}
			rs.mu.Unlock()
			if current {
				_ = rs.router.StopNamed(ctx, RelayPrefix+reg.name)
				rs.opts.Log.Info("relay ended", "relay", reg.name, "reason", "connection of its node closed")
			}
		}
	}
}

func peerText(p *Peer) string {
	if p == nil {
		return "none"
	}
	return ownerText(&p.ID)
}
