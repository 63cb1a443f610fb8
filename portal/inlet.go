package portal

import (
	"context"
	"math"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/dataplane"
	"sallyport/routing"
)

// InletOptions configure an Inlet.
type InletOptions struct {
	// Name is the inlet's alias, for logs and metrics.
	Name string
	// Listen is the address to listen on.
	Listen netip.AddrPort
	// Unix, if set, is the Unix socket to listen on, instead of Listen.
	Unix *dataplane.UnixSocket
	// Given leaves the inlet without a port: its clients are those of Give.
	Given bool
	// Guard decides which outlet nodes may be used; nil allows all.
	Guard Guard
	// Nagle leaves Nagle's algorithm on for clients.
	Nagle bool
	// Plain does not offer the extension.
	Plain bool
	// SkipHandshake does not wait for the outlet's answer; the outlet must skip it too (docs/protocol/03 §1.8).
	SkipHandshake bool
	// Hold is how long a connection waits for another path when its own is gone, if the outlet waits as well; 0 is not at all. Only over
	// a secure channel.
	Hold time.Duration
	// Rewrite, if set, makes what changes the bytes of one client.
	Rewrite func() Rewriter
	// Prefix leads every connection through interceptors of this node before it goes out (docs/protocol/03 §1.12). Its workers are
	// routing.Through and exist on every shard.
	Prefix routing.Route
	// Accept, if set, wraps an accepted client (TLS). It runs on a goroutine of its own and owns fd.
	Accept func(ctx context.Context, fd int) (Piped, error)
	// TellClient has the outlet told who the client is, for its record of the connection and for a target that is told.
	TellClient bool
	// Preface, if set, takes from a client's socket what comes before its stream, and returns the address of whom the client speaks for; from is the
	// client's own. It runs on a goroutine of its own; an error closes the client.
	Preface func(ctx context.Context, fd int, from netip.AddrPort) (netip.AddrPort, error)
	// Rate is how many bytes a second are carried in each direction at most; 0 is no limit.
	Rate int64
	// MaxConnections is how many clients there are at most, those that wait for a path among them; 0 is no limit.
	MaxConnections int
	// WantLanes, if set, is called when lanes would be of use, perhaps often and on any shard; it must not block. SetLanes gives them. slow: only if
	// segments are lost, which SetLossy then says.
	WantLanes func(slow bool)
	// Carried is what the program before has left of the inlet's connections; nil is nothing.
	Carried *CarriedPortal
}

// path is where an inlet's connections go now.
type path struct {
	route routing.Route
	shard *routing.Shard
	users int // of a lane; under Inlet.mu
}

// Inlet listens for clients and makes a portal connection of each.
type Inlet struct {
	env    *Env
	router *routing.Router
	opts   InletOptions
	shard  *routing.Shard // of the listener
	ln     *dataplane.Listener
	bound  netip.AddrPort
	meter  *Meter
	rates  *rates
	places places // of clients, from when they come until they have gone
	path   atomic.Pointer[path]
	closed atomic.Bool
	// refusal is why clients are closed at once, nil while they are not.
	refusal atomic.Pointer[string]
	// accepting is how many clients are in Accept.
	accepting atomic.Int64
	// handing is how many clients are on their way to a shard.
	handing atomic.Int64

	mu        sync.Mutex
	waiting   []waiting // clients that wait for a path
	looking   bool      // expire is going to be called
	sweptAt   time.Time // when all of them were there still
	conns     map[*conn]struct{}
	lanes     []*path // what transfers go over, beside path
	lanesCome bool    // more of them come

	transfers int          // connections that are transfers
	lossy     atomic.Bool  // segments are lost on the paths
	requestAt atomic.Int64 // when a connection of requests last carried something, in Unix nanoseconds
	endedAt   atomic.Int64 // and when one that has ended did
}

// offer is what a client was offered to an outlet with, if it was: its id, and how often before.
type offer struct {
	id     token
	again  uint64
	broken func() bool // of Piped
	client string      // its address
	came   time.Time
	until  time.Time // when it has waited for long enough, by the program before; zero if that has not begun
	watch  *Watch    // who holds the client, nil for nobody in this process
	places *places   // of which the client has one; nil for none
	lane   *path     // that it begins on, and counts as a user of; nil for none
}

// leave gives back the place of a client that has gone.
func (o offer) leave() { o.places.giveBack() }

type waiting struct {
	fd    int
	offer offer
	until time.Time
}

// NewInlet opens the inlet's port at once; until SetPath clients wait, up to a bound. Not on a shard.
func NewInlet(ctx context.Context, env *Env, r *routing.Router, o InletOptions) (*Inlet, error) {
	in := &Inlet{env: env, router: r, opts: o, shard: r.Shards()[0], conns: map[*conn]struct{}{}, meter: env.meters.take(EndInlet, o.Name),
		rates: newRates(r.Group(), o.Rate)}
	in.SetMaxConnections(o.MaxConnections)
	if !o.Given {
		if err := in.listen(ctx); err != nil {
			env.meters.give(in.meter)
			return nil, err
		}
	}
	in.takeUp(o.Carried)
	return in, nil
}

// listen opens the port.
func (in *Inlet) listen(ctx context.Context) error {
	fd, err := in.socket()
	if err != nil {
		return err
	}
	var startErr error
	if err := in.shard.Do(ctx, func() {
		in.ln, startErr = in.shard.Loop().Accept(fd, func(fd int, from netip.AddrPort) { in.accepted(fd, from) })
	}); err != nil || startErr != nil {
		_ = unix.Close(fd)
		if err == nil {
			err = startErr
		}
		return err
	}
	return nil
}

// socket opens the listening socket.
func (in *Inlet) socket() (fd int, err error) {
	if in.opts.Unix != nil {
		return in.router.Group().ListenUnix(*in.opts.Unix)
	}
	if fd, in.bound, err = in.router.Group().ListenTCP(in.opts.Listen); err != nil {
		return fd, err
	}
	if err := clientOptions(in.opts).Apply(fd); err != nil { // clients' sockets inherit them
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// clientOptions are the socket options of an inlet's clients. A client that has vanished is found in two minutes; the kernel always tells of
// the end of one on this machine.
func clientOptions(o InletOptions) dataplane.TCPOptions {
	opts := dataplane.TCPOptions{NoDelay: !o.Nagle, ResetOnCrash: true}
	if !o.Listen.Addr().Unmap().IsLoopback() {
		opts.KeepAliveIdle, opts.KeepAliveInterval, opts.KeepAliveCount = 60*time.Second, 15*time.Second, 4
	}
	return opts
}

// Bound returns the address listened on.
func (in *Inlet) Bound() netip.AddrPort { return in.bound }

// SetPath gives the route to the outlet, whose first hop lives on this node; new clients and those that wait use it. Open
// connections that can be resumed go on over it, if it leads to the same identity; others stay on theirs. The route that there is already changes nothing for
// them. An empty route makes new clients wait. Any goroutine.
func (in *Inlet) SetPath(route routing.Route) {
	if route.Len() == 0 {
		in.path.Store(nil)
		return
	}
	p := &path{route: in.opts.Prefix.Concat(route), shard: in.router.ShardFor(route)}
	now := in.path.Load()
	again := now != nil && now.route.Equal(p.route)
	if again {
		p = now
	} else {
		in.path.Store(p)
	}
	in.mu.Lock()
	list := in.waiting
	in.waiting = nil
	in.env.Stats.Held.Add(-int64(len(list)))
	in.handing.Add(1) // they can't be written down before they are on a loop
	defer in.handing.Add(-1)
	in.mu.Unlock()
	list, _ = in.living(list, look(list)) // no target is opened for those that have gone
	for _, w := range list {
		in.hand(p, w.fd, w.offer)
	}
	if !again {
		in.resumeAll(p)
	}
}

// StopListening closes the port; clients that were accepted stay. Not on a shard.
func (in *Inlet) StopListening(ctx context.Context) error {
	if in.ln == nil {
		return nil
	}
	return in.shard.Finish(ctx, in.ln.Close)
}

// Close stops listening and ends all connections. Not on a shard.
func (in *Inlet) Close(ctx context.Context) error {
	if !in.closed.Swap(true) {
		in.env.meters.give(in.meter)
	}
	err := in.StopListening(ctx)
	in.mu.Lock()
	for _, w := range in.waiting {
		w.drop(ReasonShutdown)
	}
	in.env.Stats.Held.Add(-int64(len(in.waiting)))
	in.waiting = nil
	var conns []*conn
	for c := range in.conns {
		conns = append(conns, c)
	}
	in.mu.Unlock()
	for _, c := range conns {
		c.post(func() { c.end(ReasonShutdown, true) })
	}
	return err
}

// SetMaxConnections lets the inlet have most clients from now on, 0 for any number. Those that it has stay. Any goroutine.
func (in *Inlet) SetMaxConnections(most int) {
	if most == 0 {
		most = math.MaxInt
	}
	in.places.limit(most, most)
}

// Connections returns how many clients the inlet has, and how many it may have, 0 for any number. Any goroutine.
func (in *Inlet) Connections() (now, limit int) {
	if now, limit = in.places.taken(); limit == math.MaxInt {
		limit = 0
	}
	return now, limit
}

// Active returns how many connections are open.
func (in *Inlet) Active() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.conns)
}

// accepted takes a client, on the listener's shard.
func (in *Inlet) accepted(fd int, from netip.AddrPort) {
	o := offer{came: time.Now()}
	if in.env.Records != nil || in.opts.TellClient {
		o.client = addressOf(from)
	}
	if r := in.refusal.Load(); r != nil {
		in.refuse(waiting{fd: fd, offer: o}, *r)
		return
	}
	if !in.room(fd, &o) {
		return
	}
	if in.opts.Accept != nil || in.opts.Preface != nil {
		if in.accepting.Add(1) > int64(in.env.Limits.HoldClients) {
			in.accepting.Add(-1)
			in.refused(ReasonTimeout, o)
			waiting{fd: fd, offer: o}.drop(ReasonTimeout)
			return
		}
		go func() {
			defer in.accepting.Add(-1)
			ctx, cancel := context.WithTimeout(context.Background(), in.env.Limits.OpenTimeout)
			defer cancel()
			client, prepared, err := in.prepare(ctx, fd, from, o)
			if err != nil {
				o.leave()
				in.env.Log.Warn("client not accepted", "portal", in.opts.Name, "err", err)
				return
			}
			in.place(client, prepared)
		}()
		return
	}
	if p := in.pick(&o); p != nil && p.shard == in.shard {
		in.start(p, fd, o)
		return
	}
	in.place(fd, o)
}

// addressOf is a client's address, empty for one of a Unix socket.
func addressOf(client netip.AddrPort) string {
	if !client.IsValid() {
		return ""
	}
	return netip.AddrPortFrom(client.Addr().Unmap(), client.Port()).String()
}

// prepare does what has to be done with a client before it is one; fd is closed when that fails.
func (in *Inlet) prepare(ctx context.Context, fd int, from netip.AddrPort, o offer) (int, offer, error) {
	if in.opts.Preface != nil {
		client, err := in.opts.Preface(ctx, fd, from)
		if err != nil {
			closeFD(fd)
			return -1, o, err
		}
		o.client = addressOf(client)
	}
	if in.opts.Accept != nil {
		wrapped, err := in.opts.Accept(ctx, fd)
		if err != nil {
			return -1, o, err
		}
		fd, o.broken = wrapped.FD, wrapped.Broken
	}
	return fd, o, nil
}

func (in *Inlet) place(fd int, o offer) {
	if p := in.pick(&o); p != nil && !in.closed.Load() {
		in.hand(p, fd, o)
		return
	}
	in.hold(nil, fd, o)
}

// hold lets a client wait for a path other than broken. The path is looked at under the lock that SetPath takes after it has stored
// the path, so no client starts to wait just after the others were called.
func (in *Inlet) hold(broken *path, fd int, o offer) {
	in.unpick(&o)
	in.mu.Lock()
	defer in.mu.Unlock()
	if p := in.path.Load(); p != broken && p != nil && !in.closed.Load() {
		in.hand(p, fd, o)
		return
	}
	over := !o.until.IsZero() && !time.Now().Before(o.until)
	if over || in.closed.Load() || len(in.waiting) >= in.env.Limits.HoldClients && !in.sweep() {
		in.refused(ReasonPath, o)
		waiting{fd: fd, offer: o}.drop(ReasonPath)
		return
	}
	w := waiting{fd: fd, offer: o, until: o.until}
	if w.until.IsZero() {
		w.until = time.Now().Add(in.env.Limits.HoldTimeout)
	}
	i := len(in.waiting)
	for i > 0 && in.waiting[i-1].until.After(w.until) { // only beside one that was carried
		i--
	}
	in.waiting = slices.Insert(in.waiting, i, w)
	in.env.Stats.Held.Add(1)
	if len(in.waiting) == 1 && !in.looking {
		in.looking = true
		time.AfterFunc(min(time.Until(w.until), lookEvery), in.expire)
	}
}

// expire closes clients that waited too long, and those that have gone.
func (in *Inlet) expire() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.leave(look(in.waiting))
	now := time.Now()
	n := 0
	for n < len(in.waiting) && !in.waiting[n].until.After(now) {
		in.waiting[n].drop(ReasonPath)
		in.refused(ReasonPath, in.waiting[n].offer)
		n++
	}
	in.waiting = in.waiting[n:]
	in.env.Stats.Held.Add(int64(-n))
	if n > 0 {
		in.env.Log.Warn("clients closed, no path to the outlet", "portal", in.opts.Name, "clients", n)
	}
	if in.looking = len(in.waiting) > 0; in.looking {
		time.AfterFunc(min(time.Until(in.waiting[0].until), lookEvery), in.expire)
	}
}

// hand gives a client to the shard of the path.
func (in *Inlet) hand(p *path, fd int, o offer) {
	in.handing.Add(1)
	start := func() {
		in.handing.Add(-1)
		in.start(p, fd, o)
	}
	if !p.shard.Loop().Post(dataplane.TaskFunc(start)) {
		in.handing.Add(-1)
		in.unpick(&o)
		o.leave()
		o.watch.never(ReasonShutdown)
		_ = unix.Close(fd)
	}
}

// start sends the Ping for a client (docs/protocol/03 §1.3). The client is not read before the Pong. o is what it was offered with
// before, on another path, if it was.
func (in *Inlet) start(p *path, fd int, o offer) {
	s := p.shard
	t := s.FirstTerminal(p.route)
	if t == nil && p.route.Len() > 1+in.opts.Prefix.Len() {
		in.hold(p, fd, o) // the path broke a moment ago; there may be another already
		return
	}
	sock, err := s.Loop().Adopt(fd, nil)
	if err != nil {
		in.env.Log.Error("client lost", "portal", in.opts.Name, "err", err)
		in.unpick(&o)
		o.leave()
		o.watch.never(ReasonReset)
		return
	}
	c := in.env.newConn(s, in.meter)
	c.tally.client = o.client
	if !o.came.IsZero() {
		c.tally.began = o.came
	}
	c.bulk.lane = o.lane
	c.sock, c.inlet, c.places, c.broken, c.told, c.rates = sock, in, o.places, o.broken, o.watch, in.rates
	if in.opts.Rewrite != nil {
		c.upstream = &upstream{rw: in.opts.Rewrite()}
	}
	sock.SetHandler(c)
	sock.Pause()
	var flows []*routing.Flow
	if t != nil {
		if peer := t.TerminalPeer(); peer != nil {
			c.peer, c.hasPeer = peer.ID, true
			c.tally.attributes = in.env.attributes(&c.peer)
		}
		if producer := t.TerminalProducer(); producer != nil {
			flows = []*routing.Flow{producer.Own}
		}
	}
	if in.opts.Guard != nil {
		var peer *[32]byte
		if c.hasPeer {
			peer = &c.peer
		}
		c.grant = in.opts.Guard.Grant(peer)
	}
	closed := in.enter(c)
	c.self = s.Start(c, flows...)
	if closed {
		c.end(ReasonShutdown, false)
		return
	}
	if in.refusal.Load() != nil { // Refuse may not have seen c
		c.end(ReasonRefused, false)
		return
	}
	if !c.grant.Allowed() {
		in.env.Stats.Denied.Add(1)
		c.end(ReasonPolicy, false)
		return
	}
	if t == nil && in.absent(p.route.Last()) {
		c.end(ReasonRefused, false)
		return
	}
	c.timer = s.Loop().After(in.env.Limits.OpenTimeout, func() { c.end(ReasonTimeout, false) })
	c.watch(t)
	if c.hasPeer && !in.opts.Plain && !in.opts.SkipHandshake {
		if o.id == (token{}) {
			o.id = newToken()
		}
		c.tally.id = o.id
	}
	if in.opts.Hold > 0 && c.tally.id != (token{}) {
		c.newLine(in.opts.Hold)
		c.line.id, c.line.offers = o.id, o.again
	}
	c.reoffer = func(fd int, broken bool) {
		if broken && in.path.Load() == p {
			in.path.CompareAndSwap(p, nil) // whoever keeps the path sets the next one
		}
		w := []waiting{{fd: fd, offer: offer{id: o.id, again: o.again + 1, broken: o.broken, client: o.client, came: o.came, watch: o.watch, places: o.places}}}
		if rest, _ := in.living(w, look(w)); len(rest) > 0 {
			in.place(fd, rest[0].offer)
		}
	}
	c.openedAt, c.asked = time.Now(), true
	if in.opts.Plain || in.opts.SkipHandshake {
		c.send(p.route, appendHandshake(c.small[:0], kindPing, 0))
	} else {
		c.send(p.route, c.appendOffer(c.small[:0], kindPing))
	}
	if in.opts.SkipHandshake && c.state == opening {
		c.skip = true
		c.established()
		c.start(p.route)
	}
}

// enter lists c until it ends. It reports whether the inlet has been closed, without seeing c.
func (in *Inlet) enter(c *conn) (closed bool) {
	c.onEnd = func() {
		in.mu.Lock()
		delete(in.conns, c)
		in.mu.Unlock()
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.conns[c] = struct{}{}
	return in.closed.Load()
}

// opened handles the answer to the Ping.
func (c *conn) opened(m *routing.Message, msg message) {
	switch {
	case msg.kind == kindPong && m.Return.Len() > 0:
		c.asked = false
		if msg.extension >= extensionVersion {
			c.extended, c.version = true, min(msg.extension, resumeVersion)
			c.credit = int(min(msg.amount, maxCredit))
			c.topCredit = c.credit
		}
		c.agree(m, msg)
		c.established()
		c.start(m.Return.Clone())
	case msg.kind == kindDisconnect:
		c.asked = false
		c.tally.by = c.toldBy(msg.reason)
		c.env.Log.Warn("portal connection refused", "portal", c.name, "reason", msg.reason.String())
		c.end(max(msg.reason, ReasonRefused), false)
	}
}
