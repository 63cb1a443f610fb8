package routing

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"sallyport/dataplane"
)

const (
	maxDepth = 24 // nested deliveries before a message takes its turn in the inbox
	// maxWork is how many bytes workers are handed for one message in one turn, each time that it is handed on: a channel in a channel in a
	// channel, and so on, would decrypt a message of 16 MiB hundreds of times while everybody else waits. Twenty-four
	// layers over the largest message that portals send come to less.
	maxWork  = 4 << 20
	maxHops  = 250 // deliveries of one message on one node: a loop of routes ends here
	maxShard = 256 // the first two characters of a random address are its shard
)

var (
	// ErrExists reports that a worker already has the address.
	ErrExists = errors.New("routing: address is taken")
	// ErrNotFound reports that no worker has the address.
	ErrNotFound = errors.New("routing: no worker at address")
)

// Worker handles messages on its shard.
type Worker interface {
	// HandleMessage handles m, whose onward route still begins with the worker's own address.
	HandleMessage(s *Shard, m *Message)
}

// WorkerFunc lets a function be a Worker.
type WorkerFunc func(s *Shard, m *Message)

// HandleMessage calls f.
func (f WorkerFunc) HandleMessage(s *Shard, m *Message) { f(s, m) }

type entry struct {
	worker Worker
	flows  []*Flow // flows the worker consumes; never changed in place
}

// Drops counts messages that were not delivered, by reason. Read it from any goroutine.
type Drops struct {
	NoWorker, NotLocal, Flow, Loop, Malformed, Overflow atomic.Uint64
	// NotMember were for a relay that passes on what members send.
	NotMember atomic.Uint64
	// LongRoute had a route with more addresses than the router's MaxRoute.
	LongRoute atomic.Uint64
}

// Shard is one event loop with its workers. Its methods are for the loop's goroutine unless they say otherwise.
type Shard struct {
	router      *Router
	loop        *dataplane.Loop
	id          int
	workers     map[string]entry
	depth       int
	free        []*Message
	scratchBufs [maxDepth + 1][]byte
	rand        [512]byte
	randAt      int
	running     *parcel      // whose message is being delivered
	inboxGate   *Gate        // shut while another shard has too much waiting from here
	waiting     atomic.Int64 // bytes of messages in the inbox
	clogged     atomic.Bool  // a source was paused because of them
	notices     noticeBudget
	// Drops counts what this shard did not deliver.
	Drops Drops
	// LongestRoute and LargestMessage are the most addresses and bytes that came so far. Any goroutine may read them.
	LongestRoute, LargestMessage atomic.Int64
	// Delivered counts messages handed to workers; read it on the shard only.
	Delivered uint64
}

// Router is all shards of one node.
type Router struct {
	group  *dataplane.Group
	shards []*Shard
	log    *slog.Logger
	mu     sync.RWMutex
	named  map[string]*Shard // workers with a name that live on one shard
	flows  map[string]*Flow
	begun  *Flow
	// noName is told of messages for which there is no worker, of the relay service.
	noName atomic.Pointer[func(s *Shard, m *Message, name []byte)]
	// MaxRoute is how many addresses a route from the network may have; 0 is the most that the program reads, 64. Set before the first message.
	MaxRoute int
	// Backlogs is the budget for what waits at destinations beyond their high water marks.
	Backlogs BacklogBudget
}

// NewRouter makes a router with one shard per loop of g.
func NewRouter(g *dataplane.Group, log *slog.Logger) (*Router, error) {
	if g.Len() > maxShard {
		return nil, fmt.Errorf("routing: %d shards, at most %d", g.Len(), maxShard)
	}
	r := &Router{group: g, log: log, named: map[string]*Shard{}, flows: map[string]*Flow{}, begun: NewFlow()}
	r.Backlogs.SetLimit(defaultBacklog)
	for i := range g.Len() {
		s := &Shard{router: r, loop: g.Loop(i), id: i, workers: map[string]entry{}, randAt: 512}
		s.inboxGate = &Gate{shard: s, hard: true}
		s.loop.Post(dataplane.TaskFunc(func() { s.loop.OnFault(s.faulted) }))
		r.shards = append(r.shards, s)
	}
	return r, nil
}

// Shards returns the shards; the slice is not to be changed. Any goroutine.
func (r *Router) Shards() []*Shard { return r.shards }

// Group returns the loops of the shards. Any goroutine.
func (r *Router) Group() *dataplane.Group { return r.group }

// Begun returns the flow that workers consume to be reachable from every connection and channel that this node began itself, now
// and later. Any goroutine.
func (r *Router) Begun() *Flow { return r.begun }

// Log returns the router's logger. Any goroutine.
func (r *Router) Log() *slog.Logger { return r.log }

// ID returns the shard's number. Any goroutine.
func (s *Shard) ID() int { return s.id }

// Router returns the shard's router. Any goroutine.
func (s *Shard) Router() *Router { return s.router }

// Loop returns the shard's event loop. Any goroutine.
func (s *Shard) Loop() *dataplane.Loop { return s.loop }

// Do runs f on the shard and waits for it; with an error f has not run and never will. Not on a shard.
func (s *Shard) Do(ctx context.Context, f func()) error { return s.loop.Do(ctx, f) }

// Finish runs f on the shard whatever ctx says, which bounds the waiting. Not on a shard.
func (s *Shard) Finish(ctx context.Context, f func()) error { return s.loop.Finish(ctx, f) }

// ShardOf returns the shard that a random address belongs to, or nil if it has another form. Any goroutine.
func (r *Router) ShardOf(address string) *Shard {
	if len(address) != 32 {
		return nil
	}
	var b [1]byte
	if _, err := hex.Decode(b[:], []byte(address[:2])); err != nil || int(b[0]) >= len(r.shards) {
		return nil
	}
	return r.shards[b[0]]
}

// NewAddress returns a random address on this shard: 32 hex characters, of which the first two are the shard's number, so
// that a message from another shard finds its way without a table of all addresses.
func (s *Shard) NewAddress() WireAddress {
	if s.randAt == len(s.rand) {
		s.randAt = 0
		fillRandom(s.rand[:])
	}
	var raw [16]byte
	copy(raw[:], s.rand[s.randAt:])
	clear(s.rand[s.randAt : s.randAt+16])
	s.randAt += 16
	raw[0] = byte(s.id)
	b := make([]byte, 4+32)
	b[0], b[1], b[2], b[3] = 0x82, 0, 0x58, 32
	hex.Encode(b[4:], raw[:])
	return WireAddress{b: b}
}

// Start starts w at a new random address. It consumes the given flows.
func (s *Shard) Start(w Worker, flows ...*Flow) WireAddress {
	a := s.NewAddress()
	s.workers[string(a.value())] = entry{worker: w, flows: flows}
	return a
}

// StartAs starts w at an address made with NewAddress.
func (s *Shard) StartAs(a WireAddress, w Worker, flows ...*Flow) {
	s.workers[string(a.value())] = entry{worker: w, flows: flows}
}

// value returns the bytes of the address.
func (w WireAddress) value() []byte { _, v := Route{b: w.b, n: 1}.first(); return v }

// Stop removes the worker at a. It is no error if there is none.
func (s *Shard) Stop(a WireAddress) { delete(s.workers, string(a.value())) }

// AddConsumer lets producers of f reach the worker at address.
func (s *Shard) AddConsumer(address string, f *Flow) {
	e, ok := s.workers[address]
	if !ok || f == nil || f.ended.Load() || slices.Contains(e.flows, f) {
		return
	}
	// A worker that stays, such as a relay's way to its node, outlives the flows of most that reach it.
	flows := make([]*Flow, 0, len(e.flows)+1)
	for _, other := range e.flows {
		if !other.ended.Load() {
			flows = append(flows, other)
		}
	}
	e.flows = append(flows, f)
	s.workers[address] = e
}

// RemoveConsumer undoes AddConsumer.
func (s *Shard) RemoveConsumer(address string, f *Flow) {
	e, ok := s.workers[address]
	if !ok || !slices.Contains(e.flows, f) {
		return
	}
	flows := make([]*Flow, 0, len(e.flows)-1)
	for _, other := range e.flows {
		if other != f {
			flows = append(flows, other)
		}
	}
	e.flows = flows
	s.workers[address] = e
}

// Consumes returns the flows that the worker at address consumes. The slice is not to be changed.
func (s *Shard) Consumes(address string) []*Flow { return s.workers[address].flows }

// Worker returns the worker at address on this shard, or nil.
func (s *Shard) Worker(address string) Worker { return s.workers[address].worker }

// Each calls f with every worker on this shard. f may stop workers.
func (s *Shard) Each(f func(Worker)) {
	for _, e := range s.workers {
		f(e.worker)
	}
}

// Through is a Worker that passes messages on to the next hop of their route, such as an interceptor of a portal. What a route leads
// to is decided by what comes behind it.
type Through interface {
	Worker
	// PassesOn marks the worker.
	PassesOn()
}

// FirstTerminal returns the first hop of r, leaving out Through workers, if it is a Terminal on this shard, else nil.
func (s *Shard) FirstTerminal(r Route) Terminal {
	for r.n > 0 {
		_, v := r.first()
		w := s.workers[string(v)].worker
		if t, ok := w.(Terminal); ok {
			return t
		}
		if _, ok := w.(Through); !ok {
			return nil
		}
		r = r.rest()
	}
	return nil
}

// NewMessage returns an empty message for use until Free.
func (s *Shard) NewMessage() *Message {
	if k := len(s.free); k > 0 {
		m := s.free[k-1]
		s.free = s.free[:k-1]
		return m
	}
	m := new(Message)
	m.Reset()
	return m
}

// Free takes back a message from NewMessage.
func (s *Shard) Free(m *Message) {
	m.Reset()
	s.free = append(s.free, m)
}

// scratch returns n bytes for one message's payload. Each depth of delivery has its own block: a worker moves at most
// one payload there before it delivers it.
func (s *Shard) scratch(n int) []byte {
	if n > 512<<10 {
		return make([]byte, n)
	}
	if len(s.scratchBufs[s.depth]) < n {
		s.scratchBufs[s.depth] = make([]byte, max(n, 4<<10))
	}
	return s.scratchBufs[s.depth]
}

// SetProducer marks m as brought from outside by p: its next hop must consume p's flows.
func (m *Message) SetProducer(p *Producer) { m.producer = p }

// Deliver hands m to the worker at the front of its onward route. When Deliver returns, m has been handled or copied: what
// it borrows may be reused.
func (s *Shard) Deliver(m *Message) {
	kind, value := m.Onward.first()
	if m.Onward.n == 0 {
		return // a heartbeat of some transport
	}
	if kind != Local {
		// Connections are opened by local code only (docs/protocol/01 §2.6).
		s.Drops.NotLocal.Add(1)
		return
	}
	e, ok := s.workers[string(value)]
	if !ok {
		s.deliverElsewhere(m, value)
		return
	}
	if m.producer != nil {
		if !m.producer.mayReach(e.flows, s.router.begun) {
			s.Drops.Flow.Add(1)
			return
		}
		m.producer = nil
	}
	if s.depth >= maxDepth || m.work > maxWork {
		s.send(s, m)
		return
	}
	if m.hops++; m.hops > maxHops {
		s.Drops.Loop.Add(1)
		return
	}
	m.work += m.end - m.start
	s.Delivered++
	s.depth++
	e.worker.HandleMessage(s, m)
	s.depth--
}

// deliverElsewhere looks for the worker on other shards.
func (s *Shard) deliverElsewhere(m *Message, value []byte) {
	to := s.router.find(value)
	if to == nil || to == s {
		s.Drops.NoWorker.Add(1)
		if f := s.router.noName.Load(); f != nil {
			(*f)(s, m, value)
		}
		return
	}
	s.send(to, m)
}

func (r *Router) find(value []byte) *Shard {
	if len(r.shards) > 1 && len(value) == 32 {
		var b [1]byte
		if _, err := hex.Decode(b[:], value[:2]); err == nil && int(b[0]) < len(r.shards) {
			return r.shards[b[0]]
		}
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.named[string(value)]
}

// parcel carries a copy of a message to a shard.
type parcel struct {
	to   *Shard
	m    Message
	buf  []byte
	size int64 // of the payload
	// again tells that the message has not been handled to its end, and takes another turn.
	again bool
}

var parcels = sync.Pool{New: func() any { return new(parcel) }}

// send copies m into the inbox of another shard (or its own, when deliveries nest too deeply).
func (s *Shard) send(to *Shard, m *Message) {
	if p := s.running; to == s && p != nil && m == &p.m && len(m.buf) > 0 && len(p.buf) > 0 && &m.buf[0] == &p.buf[0] {
		p.again = true // it is the copy already
		return
	}
	p := parcels.Get().(*parcel)
	p.to = to
	p.m.Reset()
	size := m.end - m.start
	want := HeadRoom + size + TailRoom + len(m.Onward.b) + len(m.Return.b)
	if cap(p.buf) < want {
		p.buf = make([]byte, max(want, 4<<10))
	}
	p.buf = p.buf[:cap(p.buf)]
	at := copy(p.buf, m.Onward.b)
	p.m.Onward = Route{b: p.buf[:at:at], n: m.Onward.n}
	end := at + copy(p.buf[at:], m.Return.b)
	p.m.Return = Route{b: p.buf[at:end:end], n: m.Return.n}
	start := end + HeadRoom
	copy(p.buf[start:], m.Payload())
	p.m.SetPayload(p.buf, end, start, start+size, len(p.buf))
	p.m.Peer, p.m.From, p.m.Loose, p.m.producer, p.m.hops = m.Peer, m.From, m.Loose, m.producer, m.hops
	p.size = int64(size)
	p.again = false
	s.enqueued(to, p.size, m.From)
	if !to.loop.Post(p) {
		parcels.Put(p)
	}
}

// faulted brings the shard in order after a fault: no delivery is under way any more.
func (s *Shard) faulted() { s.depth, s.running = 0, nil }

// Faulted implements dataplane.Faulted: whoever's connection brought the message loses it.
func (p *parcel) Faulted() {
	if t := p.m.From; t != nil {
		t.shard.loop.Post(dataplane.TaskFunc(t.fault))
	}
}

// Run delivers the parcel on its shard.
func (p *parcel) Run() {
	s, finished := p.to, false
	defer func() {
		if !finished {
			s.dequeued(p.size)
		}
	}()
	s.running = p
	s.Deliver(&p.m)
	s.running, finished = nil, true
	if p.again {
		p.again = false
		// What the routes borrowed is given back now.
		p.m.Onward, p.m.Return, p.m.work = p.m.Onward.Clone(), p.m.Return.Clone(), 0
		p.m.onwardAt, p.m.returnAt = routeRoom, routeRoom
		if s.loop.Post(p) {
			return
		}
	}
	s.dequeued(p.size)
	if cap(p.buf) <= 512<<10 {
		p.m.Reset()
		parcels.Put(p)
	}
}

// Inject hands a message that begins on another goroutine to the shard that owns the first hop of onward (or to shard 0). The
// payload is copied. Any goroutine.
func (r *Router) Inject(onward, ret Route, payload []byte) {
	s := r.shardFor(onward)
	s.loop.Post(dataplane.TaskFunc(func() {
		m := s.NewMessage()
		defer s.Free(m)
		m.Onward, m.Return = onward, ret
		m.SetPayloadBytes(payload)
		s.Deliver(m)
	}))
}

// shardFor returns the shard that owns the first hop of route, or the first shard for names that every shard has.
func (r *Router) shardFor(route Route) *Shard {
	if route.n > 0 {
		_, value := route.first()
		if to := r.find(value); to != nil {
			return to
		}
	}
	return r.shards[0]
}

// ShardFor returns the shard that owns the first hop of route, or the first shard for a name that every shard has. Any goroutine.
func (r *Router) ShardFor(route Route) *Shard { return r.shardFor(route) }

// StartNamed starts a worker with a name on every shard: w is called for each shard and usually returns the same worker
// when it has no state. ErrExists when the name is taken. With any error the name is as it was before. Not on a shard.
func (r *Router) StartNamed(ctx context.Context, name string, w func(*Shard) Worker, flows ...*Flow) error {
	r.mu.Lock()
	if _, taken := r.named[name]; taken {
		r.mu.Unlock()
		return fmt.Errorf("%w: %s", ErrExists, name)
	}
	r.named[name] = r.shards[0]
	r.mu.Unlock()
	return r.startOn(ctx, name, w, flows)
}

// startOn starts the worker on each shard, or takes the name away from all.
func (r *Router) startOn(ctx context.Context, name string, w func(*Shard) Worker, flows []*Flow) error {
	if err := r.each(ctx, func(s *Shard) { s.workers[name] = entry{worker: w(s), flows: flows} }); err != nil {
		r.mu.Lock()
		delete(r.named, name)
		for _, s := range r.shards { // whoever takes the name next reaches each shard behind this
			s.loop.Post(dataplane.TaskFunc(func() { delete(s.workers, name) }))
		}
		r.mu.Unlock()
		return fmt.Errorf("start %s: %w", name, err)
	}
	return nil
}

// StopNamed removes a worker started with StartNamed, and waits for that as long as ctx lets it. ErrNotFound when there is none. Not
// on a shard.
func (r *Router) StopNamed(ctx context.Context, name string) error {
	r.mu.Lock()
	_, there := r.named[name]
	delete(r.named, name)
	r.mu.Unlock()
	if !there {
		return fmt.Errorf("%w: %s", ErrNotFound, name)
	}
	return r.finish(ctx, func(s *Shard) { delete(s.workers, name) })
}

// putNames starts the workers of relay names on every shard. With an error none has a worker. Not on a shard.
func (r *Router) putNames(ctx context.Context, list []*relayName, w func(*relayName) Worker, flows []*Flow) error {
	names := make([]string, len(list))
	r.mu.Lock()
	for i, n := range list {
		names[i] = RelayPrefix + n.name
		r.named[names[i]] = r.shards[0]
	}
	r.mu.Unlock()
	err := r.each(ctx, func(s *Shard) {
		for i, n := range list {
			s.workers[names[i]] = entry{worker: w(n), flows: flows}
		}
	})
	if err != nil {
		return errors.Join(err, r.stopNames(ctx, names))
	}
	return nil
}

// stopNames removes workers with names from every shard, and waits for that as long as ctx lets it. Not on a shard.
func (r *Router) stopNames(ctx context.Context, names []string) error {
	r.mu.Lock()
	for _, name := range names {
		delete(r.named, name)
	}
	r.mu.Unlock()
	return r.finish(ctx, func(s *Shard) {
		for _, name := range names {
			delete(s.workers, name)
		}
	})
}

// HasNamed reports whether a worker with the name was started with StartNamed. Any goroutine.
func (r *Router) HasNamed(name string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	_, ok := r.named[name]
	return ok
}

// AddConsumer lets producers of f reach the worker at address, wherever it lives. With an error they do not. Not on a shard.
func (r *Router) AddConsumer(ctx context.Context, address string, f *Flow) error {
	if s := r.ShardOf(address); s != nil {
		return s.Do(ctx, func() { s.AddConsumer(address, f) })
	}
	err := r.each(ctx, func(s *Shard) { s.AddConsumer(address, f) })
	if err != nil {
		r.RemoveConsumer(address, f)
	}
	return err
}

// RemoveConsumer undoes AddConsumer for a worker with a name. Any goroutine; it does not wait.
func (r *Router) RemoveConsumer(name string, f *Flow) {
	for _, s := range r.shards {
		s.loop.Post(dataplane.TaskFunc(func() { s.RemoveConsumer(name, f) }))
	}
}

// each runs f on one shard after the other, waiting for each, until one does not run it.
func (r *Router) each(ctx context.Context, f func(*Shard)) error {
	for _, s := range r.shards {
		if err := s.loop.Do(ctx, func() { f(s) }); err != nil {
			return err
		}
	}
	return nil
}

// finish runs f on every shard whatever happens. ctx bounds the waiting.
func (r *Router) finish(ctx context.Context, f func(*Shard)) error {
	var first error
	for _, s := range r.shards {
		if err := s.loop.Finish(ctx, func() { f(s) }); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// Addresses returns the addresses of all workers, sorted. Not on a shard.
func (r *Router) Addresses(ctx context.Context) ([]string, error) {
	seen := map[string]bool{}
	err := r.each(ctx, func(s *Shard) {
		for a := range s.workers {
			seen[a] = true
		}
	})
	list := make([]string, 0, len(seen))
	for a := range seen {
		list = append(list, a)
	}
	slices.Sort(list)
	return list, err
}

// RegisterFlow makes f known by its id, for LookupFlow. Any goroutine.
func (r *Router) RegisterFlow(f *Flow) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flows[f.id] = f
}

// ForgetFlow undoes RegisterFlow. Any goroutine.
func (r *Router) ForgetFlow(f *Flow) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.flows, f.ID())
}

// LookupFlow returns the flow with an id, or nil. Any goroutine.
func (r *Router) LookupFlow(id string) *Flow {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.flows[id]
}
