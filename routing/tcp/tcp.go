// Package tcp is the transport of routing messages over streams: TCP (docs/protocol/01 §2), one version byte from each side, then frames of
// a length and a CBOR message; WebSocket (docs/protocol/06), a binary message for each; and either over TLS. It ties dataplane's framed
// connections to a routing.Router. Limits, backpressure and admission are the same for all.
package tcp

import (
	"context"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/dataplane"
	"sallyport/names"
	"sallyport/proxy"
	"sallyport/routing"
)

// version is the protocol's version byte (docs/protocol/01 §2.1).
const version = 1

// Options are the settings of a Transport. The zero value is completed with the defaults named.
type Options struct {
	// HighWater is how many bytes may wait on a connection before the sources that fill it are paused (routing.Backlog); default 1 MiB.
	HighWater int
	// Patience is how long a peer may take nothing of what waits for it; default 10 s.
	Patience time.Duration
	// UserTimeout is how long sent data may stay unacknowledged before a connection is given up; default 15 s.
	UserTimeout time.Duration
	// Connections is how many connections of others are open, ConnectionsPerAddress how many of one machine; default no bound.
	Connections, ConnectionsPerAddress int
	// Deadlines are what a peer is given to begin and to finish a message; zero gives it for ever.
	Deadlines dataplane.Deadlines
	// MaxMessage is the largest message that is read; default routing.MaxFrame.
	MaxMessage int
	// ConnectTimeout bounds one attempt to connect; default 10 s.
	ConnectTimeout time.Duration
	// Proxies say through which proxy a destination is reached; nil: none.
	Proxies *proxy.Rules
	// Trust says which servers are believed over TLS.
	Trust Trust

	sendBuffer int // of connections to other machines; 0 for the system's
}

// onTheWay is how much one connection to another node may have on the way, where the system lets it: two thirds of twice as much carry
// 1 Gbit/s over a round trip of 340 ms.
const onTheWay = 32 << 20

func (o Options) withDefaults() Options {
	if o.HighWater == 0 {
		o.HighWater = 1 << 20
	}
	if o.Connections == 0 {
		o.Connections = math.MaxInt
	}
	if o.ConnectionsPerAddress == 0 {
		o.ConnectionsPerAddress = math.MaxInt
	}
	if o.MaxMessage == 0 {
		o.MaxMessage = routing.MaxFrame
	}
	if o.UserTimeout == 0 {
		o.UserTimeout = 15 * time.Second
	}
	if o.ConnectTimeout == 0 {
		o.ConnectTimeout = 10 * time.Second
	}
	return o
}

// A request that is alone on its connection, and is lost, has nothing behind it that shows that: it waits for a timer, 200 ms and more beyond the round trip
// as systems have it. repeatAfter is above the 40 ms that another Linux may wait with an acknowledgement, of which acknowledgeWithin is ours.
const (
	repeatAfter       = 50 * time.Millisecond
	acknowledgeWithin = 20 * time.Millisecond
)

func (o Options) socket() dataplane.TCPOptions {
	// Keep-alive finds a dead path within 5+3*3 = 14 s; the user timeout does when data is under way.
	return dataplane.TCPOptions{
		NoDelay: true, KeepAliveIdle: 5 * time.Second, KeepAliveInterval: 3 * time.Second, KeepAliveCount: 3,
		UserTimeout: o.UserTimeout, NotSentLowat: 256 << 10, SendBuffer: o.sendBuffer,
		RepeatAfter: repeatAfter, AcknowledgeWithin: acknowledgeWithin,
	}
}

// Stats counts what a transport did, for metrics.
type Stats struct {
	Accepted, Connected, Closed  atomic.Uint64
	MessagesIn, MessagesOut      atomic.Uint64
	BytesIn, BytesOut            atomic.Uint64
	Malformed, TooLarge, Stalled atomic.Uint64
	// Oversize are connections ended because a message was announced that is larger than what may be, or has no length.
	Oversize atomic.Uint64
	// CutOff are connections ended because the peer took too little of what was for it.
	CutOff atomic.Uint64
	// TLSFailed are connections of others that ended in their TLS handshake, PrefaceFailed those of a proxy in front that did not begin with its header.
	TLSFailed, PrefaceFailed atomic.Uint64
}

// Transport holds the listeners and connections of one node.
type Transport struct {
	router *routing.Router
	opts   Options
	// Stats counts messages and connections.
	Stats Stats

	admission   *admission
	handshaking chan struct{} // TLS handshakes with others
	mu          sync.Mutex
	conns       map[*Connection]struct{}
	listeners   map[*Listener]struct{}
	loads       loads
	paused      atomic.Bool // listeners accept nobody
}

// New makes a transport for the workers of r.
func New(r *routing.Router, o Options) *Transport {
	o = o.withDefaults()
	o.sendBuffer = dataplane.SendBuffer(onTheWay)
	return &Transport{router: r, opts: o, admission: newAdmission(o.Connections, o.ConnectionsPerAddress),
		handshaking: make(chan struct{}, handshakes), conns: map[*Connection]struct{}{}, listeners: map[*Listener]struct{}{}}
}

// Listener accepts connections of other nodes.
type Listener struct {
	// Address is the worker-like name of the listener, Processor a second one; both are random (docs/protocol/01 §2.5).
	Address string
	// Flow is the spawner flow: its consumers can be reached from every connection accepted.
	Flow *routing.Flow
	// Bound is the address listened on.
	Bound netip.AddrPort

	t       *Transport
	shard   *routing.Shard
	ln      *dataplane.Listener
	serving Serving
}

// Layer returns what its connections have between TCP and the messages.
func (l *Listener) Layer() Layer { return l.serving.Layer() }

// Listen opens a listener for plain TCP.
func (t *Transport) Listen(ctx context.Context, at netip.AddrPort) (*Listener, error) {
	return t.Serve(ctx, at, Serving{})
}

// Serve opens a listener.
func (t *Transport) Serve(ctx context.Context, at netip.AddrPort, serving Serving) (*Listener, error) {
	fd, bound, err := t.router.Group().ListenTCP(at)
	if err != nil {
		return nil, err
	}
	s := t.router.Shards()[0]
	flow := serving.Flow
	if flow == nil {
		flow = routing.NewFlow()
	}
	l := &Listener{Flow: flow, Bound: bound, t: t, shard: s, serving: serving}
	var startErr error
	if err := s.Do(ctx, func() {
		l.Address = s.NewAddress().Text()
		if l.ln, startErr = s.Loop().Accept(fd, func(fd int, from netip.AddrPort) { t.accepted(l, fd, from) }); startErr == nil && t.paused.Load() {
			l.ln.Pause()
		}
	}); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	if startErr != nil {
		_ = unix.Close(fd)
		return nil, startErr
	}
	if serving.Flow == nil {
		t.router.RegisterFlow(l.Flow)
	}
	t.mu.Lock()
	t.listeners[l] = struct{}{}
	t.mu.Unlock()
	return l, nil
}

// Close stops listening; connections accepted before stay.
func (l *Listener) Close(ctx context.Context) error {
	l.t.mu.Lock()
	delete(l.t.listeners, l)
	l.t.mu.Unlock()
	if l.serving.Flow == nil {
		l.t.router.ForgetFlow(l.Flow)
	}
	return l.shard.Finish(ctx, l.ln.Close)
}

// StopListening closes all listeners; connections stay. Not on a shard.
func (t *Transport) StopListening(ctx context.Context) {
	t.mu.Lock()
	list := slices.Collect(maps.Keys(t.listeners))
	t.mu.Unlock()
	for _, l := range list {
		_ = l.shard.Finish(ctx, l.ln.Close) // its flow stays: connections that were accepted use it
	}
}

// Pause has listeners that are opened from now on accept nobody before Resume. Who connects waits: what came before the workers that it is for would be lost.
func (t *Transport) Pause() { t.paused.Store(true) }

// Resume has all listeners accept. Not on a shard, nor while one is opened.
func (t *Transport) Resume(ctx context.Context) error {
	t.paused.Store(false)
	for _, l := range t.Listeners() {
		if err := l.shard.Do(ctx, l.ln.Resume); err != nil {
			return err
		}
	}
	return nil
}

// accepted places a new connection on a shard. It runs on the listener's shard.
func (t *Transport) accepted(l *Listener, fd int, from netip.AddrPort) {
	p := t.admission.take(from.Addr())
	if p == nil {
		t.full(from)
		dataplane.Reset(fd)
		return
	}
	opts := t.opts.socket()
	if from.Addr().Unmap().IsLoopback() {
		opts.SendBuffer = 0
	}
	if err := opts.Apply(fd); err != nil {
		t.admission.give(p)
		dataplane.Reset(fd)
		return
	}
	a := &arrival{l: l, client: from, place: p}
	if within(l.serving.PrefacedFrom, from.Addr()) {
		go t.prefaced(a, fd)
		return
	}
	t.bring(a, fd, l.shard)
}

// full says that a connection was refused.
func (t *Transport) full(client netip.AddrPort) {
	t.router.Log().Warn("connection refused: too many are open", "peer", endpoint(client), "open", t.admission.open())
}

// bring makes a connection of an accepted socket, which it owns. It runs on a shard, or with here nil on another goroutine.
func (t *Transport) bring(a *arrival, fd int, here *routing.Shard) {
	l := a.l
	if l.serving.TLS != nil {
		go t.secured(a, fd)
		return
	}
	s := t.place()
	adopt := func() {
		c, err := s.Loop().Adopt(fd, nil)
		var conn *Connection
		if err == nil {
			conn = t.start(s, c, l.serving.Layer(), l.Flow, a.framing(), nil)
		}
		t.admitted(conn, err, a)
	}
	if s == here {
		adopt()
	} else if !s.Loop().Post(dataplane.TaskFunc(adopt)) {
		t.admission.give(a.place)
		dataplane.Reset(fd)
	}
}

// Admitted says how many connections of others are open and how many of them come from the address with the most; and how many were not begun
// or had to make room because all had too many, and because their address had.
type Admitted struct {
	Open, OpenEach       int
	Refused, RefusedEach uint64
}

// Admission returns what connections of others use of their limits. Any goroutine.
func (t *Transport) Admission() Admitted { return t.admission.use() }

// loadLimit is the share of its time from which a shard is full: new connections then go to the next one.
const loadLimit = 0.7

// loads measures how busy the shards are, between questions at least a tenth of a second apart.
type loads struct {
	mu     sync.Mutex
	at     time.Time
	before []time.Duration
	share  []float64
}

func (l *loads) measure(shards []*routing.Shard) []float64 {
	now := time.Now()
	if l.share == nil {
		l.share, l.before, l.at = make([]float64, len(shards)), make([]time.Duration, len(shards)), now
		return l.share
	}
	passed := now.Sub(l.at)
	if passed < 100*time.Millisecond {
		return l.share
	}
	for i, s := range shards {
		busy := s.Loop().Busy()
		l.share[i] = float64(busy-l.before[i]) / float64(passed)
		l.before[i] = busy
	}
	l.at = now
	return l.share
}

// place chooses the shard of a new connection: the first that is not full, else the least busy. What runs over a connection stays
// on its shard, and a message between two shards costs a copy and a wake-up, so shards are filled one after the other rather than
// in turn.
func (t *Transport) place() *routing.Shard {
	shards := t.router.Shards()
	if len(shards) == 1 {
		return shards[0]
	}
	t.loads.mu.Lock()
	defer t.loads.mu.Unlock()
	share := t.loads.measure(shards)
	best := 0
	for i := range shards {
		if share[i] < loadLimit {
			return shards[i]
		}
		if share[i] < share[best] {
			best = i
		}
	}
	return shards[best]
}

// Connect is Dial of plain TCP to host:port.
func (t *Transport) Connect(ctx context.Context, hostport string) (*Connection, error) {
	return t.Dial(ctx, Address{HostPort: hostport})
}

// Dial opens a connection and waits for it. All addresses of a name are tried, unless there is a proxy: then it is the proxy's to
// resolve the name.
func (t *Transport) Dial(ctx context.Context, to Address) (*Connection, error) {
	through, err := t.opts.Proxies.For(to.HostPort)
	if err != nil {
		return nil, err
	}
	if through != nil || to.Layer != Plain && to.Layer != "" {
		return t.connectOutside(ctx, to, through)
	}
	return t.connectPlain(ctx, to)
}

// connectPlain is Dial without anything in between, begun on the loop.
func (t *Transport) connectPlain(ctx context.Context, a Address) (*Connection, error) {
	timeout := t.opts.ConnectTimeout
	resolving, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	to, err := (&names.Resolver{Spread: a.Spread}).Lookup(resolving, a.HostPort)
	if err != nil {
		return nil, fmt.Errorf("tcp: %w", err)
	}
	if deadline, ok := ctx.Deadline(); ok {
		timeout = min(timeout, time.Until(deadline))
	}
	return t.connect(ctx, to, a.HostPort, timeout)
}

// Connections returns the open connections. Any goroutine.
func (t *Transport) Connections() []*Connection {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]*Connection, 0, len(t.conns))
	for c := range t.conns {
		list = append(list, c)
	}
	return list
}

// Listeners returns the listeners. Any goroutine.
func (t *Transport) Listeners() []*Listener {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]*Listener, 0, len(t.listeners))
	for l := range t.listeners {
		list = append(list, l)
	}
	return list
}
