package portal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"sallyport/dataplane"
	"sallyport/routing"
)

// When another program takes the place of this one (docs/upgrade.md), the sockets of clients and targets go on, and with them the
// connections that can find another path. What is written down of them is what a lifeline is, and what the socket has not taken yet.

// ErrMoving says that a connection is on its way from one shard to another: a moment later it can be carried.
var ErrMoving = errors.New("portal: a connection is moving")

// Carried is what the portals of a node leave to the program that comes next. Descriptors stay open; whoever decodes it owns them.
type Carried struct {
	Inlets  []CarriedPortal `cbor:"1,keyasint,omitempty"`
	Outlets []CarriedPortal `cbor:"2,keyasint,omitempty"`
	// Closing is sockets whose stream has ended, that only have to send what is left.
	Closing []CarriedSocket `cbor:"3,keyasint,omitempty"`
	// Left counts the connections that cannot be carried, by reason. They are reset.
	Left map[string]int `cbor:"4,keyasint,omitempty"`
}

// CarriedPortal is what one inlet or outlet leaves.
type CarriedPortal struct {
	Name    string          `cbor:"1,keyasint"`
	Conns   []CarriedConn   `cbor:"2,keyasint,omitempty"`
	Waiting []CarriedClient `cbor:"3,keyasint,omitempty"` // an inlet's clients that are not read yet

	at time.Time // when it was written down, by this program's clock; zero is when it is taken up
}

// CarriedSocket is a socket and what it has to send.
type CarriedSocket struct {
	FD        int    `cbor:"1,keyasint"` // -1 is none: the stream has ended, the other end has to be told
	Output    []byte `cbor:"2,keyasint,omitempty"`
	ShutWrite bool   `cbor:"3,keyasint,omitempty"`
}

// CarriedClient is a client that waits for a path or for the outlet's answer.
type CarriedClient struct {
	FD     int    `cbor:"1,keyasint"`
	ID     []byte `cbor:"2,keyasint,omitempty"` // that it was offered with, if it was
	Again  uint64 `cbor:"3,keyasint,omitempty"` // the next offer's number
	Client string `cbor:"4,keyasint,omitempty"` // its address
	// LeftMS is how long it may go on waiting for a path, 0 for as long as one that comes now; Came is when it came, in Unix nanoseconds, 0 for now.
	LeftMS uint64 `cbor:"5,keyasint,omitempty"`
	Came   int64  `cbor:"6,keyasint,omitempty"`
}

// CarriedConn is one end of a connection. Positions count from the beginning of the connection, as in docs/protocol/04.
type CarriedConn struct {
	Socket    CarriedSocket `cbor:"1,keyasint"`
	ID        []byte        `cbor:"2,keyasint"`
	Secret    []byte        `cbor:"3,keyasint"`
	Peer      []byte        `cbor:"4,keyasint"`
	Version   uint8         `cbor:"5,keyasint"`
	HoldMS    uint64        `cbor:"6,keyasint"`
	Attempt   uint64        `cbor:"7,keyasint,omitempty"`
	Offers    uint64        `cbor:"8,keyasint,omitempty"`
	Sent      uint64        `cbor:"9,keyasint,omitempty"`
	Finished  bool          `cbor:"10,keyasint,omitempty"`
	Confirmed uint64        `cbor:"11,keyasint,omitempty"`
	Kept      []byte        `cbor:"12,keyasint,omitempty"` // from Confirmed to Sent
	Received  uint64        `cbor:"13,keyasint,omitempty"`
	Allowed   uint64        `cbor:"14,keyasint,omitempty"`
	ReadDone  bool          `cbor:"15,keyasint,omitempty"`
	PeerDone  bool          `cbor:"16,keyasint,omitempty"`
	Gone      byte          `cbor:"17,keyasint,omitempty"` // why the socket has ended, which the other end is to be told
	// Tally is what the record of the connection will say.
	Tally   CarriedTally `cbor:"18,keyasint,omitempty"`
	Process []byte       `cbor:"19,keyasint,omitempty"` // an outlet's: of the inlet's node
	LeftMS  uint64       `cbor:"20,keyasint,omitempty"` // of the hold, where the path was away; 0 is all of it
}

// Portals returns what inlets and outlets leave.
func (c *Carried) Portals() []CarriedPortal { return slices.Concat(c.Inlets, c.Outlets) }

// WrittenAt says when all this was written down, by the clock of the program that takes it up: who waited goes on from then.
func (c *Carried) WrittenAt(at time.Time) {
	for _, list := range [][]CarriedPortal{c.Inlets, c.Outlets} {
		for i := range list {
			list[i].at = at
		}
	}
}

// msLeft returns how many milliseconds there are until a time, and at least one: 0 says that nothing has been waited for.
func msLeft(until time.Time) uint64 { return uint64(max(time.Until(until).Milliseconds(), 1)) }

// until is when a time is over of which ms were left when p was written down, and longest if it has not begun.
func (p *CarriedPortal) until(ms uint64, longest time.Duration) time.Time {
	if ms == 0 {
		return time.Now().Add(longest)
	}
	at := p.at
	if at.IsZero() {
		at = time.Now()
	}
	return at.Add(shorter(longest, ms))
}

// Wipe overwrites the secrets and the data.
func (c *Carried) Wipe() {
	for _, p := range c.Portals() {
		for _, k := range p.Conns {
			clear(k.Secret)
			clear(k.Kept)
			clear(k.Socket.Output)
		}
	}
	for _, s := range c.Closing {
		clear(s.Output)
	}
}

// Each calls f with every descriptor.
func (c *Carried) Each(f func(fd int)) {
	for _, p := range c.Portals() {
		p.each(f)
	}
	for _, s := range c.Closing {
		f(s.FD)
	}
}

func (p *CarriedPortal) each(f func(fd int)) {
	for _, k := range p.Conns {
		if k.Socket.FD >= 0 {
			f(k.Socket.FD)
		}
	}
	for _, w := range p.Waiting {
		f(w.FD)
	}
}

// Take returns what a portal of the list has left, nil if nothing, and takes it out.
func Take(list *[]CarriedPortal, name string) *CarriedPortal {
	for i, p := range *list {
		if p.Name == name {
			*list = append((*list)[:i:i], (*list)[i+1:]...)
			return &p
		}
	}
	return nil
}

// ResetCarried closes what nobody has taken up, with a reset and a record, and returns how many connections that is. The other ends are not told: an outlet's
// answer to the inlet that asks is missing, and without an inlet there is no path to the outlet. They end when the hold does.
func (e *Env) ResetCarried(c *Carried) (n int) {
	for end, list := range map[string][]CarriedPortal{EndInlet: c.Inlets, EndOutlet: c.Outlets} {
		for _, p := range list {
			for i := range p.Conns {
				e.recordCarried(end, p.Name, &p.Conns[i])
			}
		}
	}
	c.Each(func(fd int) {
		dataplane.Reset(fd)
		n++
	})
	*c = Carried{}
	return n
}

// Why a connection cannot be carried.
const (
	leftVersion   = "the other end cannot resume (version 1, or the reference)"
	leftPlain     = "there is no secure channel to the other end"
	leftSkip      = "it began without a handshake (--skip-handshake)"
	leftHold      = "one of the ends does not hold it (--hold 0)"
	leftRewriter  = "the bytes are changed on the way (HTTP headers)"
	leftTLS       = "TLS ends at this node"
	leftAccepting = "the client had not ended its TLS handshake or its PROXY header"
	leftOpening   = "the target had not answered"
	leftDeleted   = "their outlet was deleted"
	leftOther     = "the portal is part of something larger (Kafka)"
)

// Carry writes down what an inlet has, with secrets and bytes if data is set. The loops are halted. ErrMoving: try again in a moment. Clients that wait for a
// path live on no loop: they stay as they were written down until release is called, which is done before the loops go on.
func (in *Inlet) Carry(to *Carried, data bool) (release func(), err error) {
	in.mu.Lock()
	defer func() {
		if err != nil {
			in.mu.Unlock()
		}
	}()
	accepting := in.accepting.Load() // before handing: a client is counted there before it is no longer counted here
	if in.handing.Load() != 0 || in.env.arrivals.underWay() {
		return nil, ErrMoving
	}
	for range accepting {
		to.leave(leftAccepting)
	}
	p := CarriedPortal{Name: in.opts.Name, Conns: make([]CarriedConn, 0, len(in.conns))}
	for _, w := range in.waiting {
		if in.piped() {
			to.leave(leftTLS)
			continue
		}
		carried := CarriedClient{FD: w.fd, Again: w.offer.again, Client: w.offer.client, LeftMS: msLeft(w.until)}
		if !w.offer.came.IsZero() {
			carried.Came = w.offer.came.UnixNano()
		}
		if w.offer.id != (token{}) {
			carried.ID = append([]byte(nil), w.offer.id[:]...)
		}
		p.Waiting = append(p.Waiting, carried)
	}
	for c := range in.conns {
		if c.state == opening && !c.skip && !in.piped() && c.sock != nil {
			h, ok := c.sock.Copy(false) // nothing was sent to it yet
			if !ok {
				continue
			}
			w := CarriedClient{FD: h.FD, Client: c.tally.client, Came: c.tally.began.UnixNano()}
			if c.line != nil {
				w.ID, w.Again = append([]byte(nil), c.line.id[:]...), c.line.offers+1
			}
			p.Waiting = append(p.Waiting, w)
			continue
		}
		if err := c.writeDown(to, &p, data); err != nil {
			return nil, err
		}
	}
	to.Inlets = append(to.Inlets, p)
	return in.mu.Unlock, nil
}

// piped reports whether the other ends of the clients' sockets are in this process.
func (in *Inlet) piped() bool { return in.opts.Accept != nil || in.opts.Given }

// Carry writes down what an outlet has, with secrets and bytes if data is set. The loops are halted. ErrMoving: try again in a moment.
func (o *Outlet) Carry(to *Carried, data bool) error {
	if o.env.arrivals.underWay() {
		return ErrMoving
	}
	o.lines.mu.Lock()
	defer o.lines.mu.Unlock()
	p := CarriedPortal{Name: o.opts.Name, Conns: make([]CarriedConn, 0, len(o.lines.conns))}
	for _, c := range o.lines.conns {
		if err := c.writeDown(to, &p, data); err != nil {
			return err
		}
	}
	to.Outlets = append(to.Outlets, p)
	return nil
}

// CarrySockets writes down which sockets of portals are closing, with what they have to send if data is set, and counts those that have not been
// written down. The loops are halted.
func (e *Env) CarrySockets(g *dataplane.Group, to *Carried, data bool) {
	written := map[int]bool{}
	to.Each(func(fd int) { written[fd] = true })
	for _, sock := range g.Conns(func(h dataplane.Handler) bool { _, ok := h.(*conn); return ok }) {
		h, ok := sock.Copy(data)
		if !ok || written[h.FD] {
			continue
		}
		if sock.IsClosing() {
			to.Closing = append(to.Closing, CarriedSocket{h.FD, h.Output, true})
		} else if c := sock.Handler().(*conn); !c.left && !(c.outlet && c.inside()) { // the inlet's end of such a one was counted
			to.leave(cmp.Or(c.whyLeft(), leftOther))
		}
	}
	for _, sock := range g.Conns(func(h dataplane.Handler) bool { c, ok := h.(*conn); return ok && c.left }) {
		sock.Handler().(*conn).left = false
	}
}

func (c *Carried) leave(why string) {
	if c.Left == nil {
		c.Left = map[string]int{}
	}
	c.Left[why]++
}

// whyLeft says why c cannot be carried, empty if it can: as a connection, or as an inlet's client that is offered again. On its shard, or while that is halted.
func (c *conn) whyLeft() string {
	switch {
	case c.outlet && c.state == opening:
		return leftOpening
	case c.done:
		return "" // there is no socket any more, only a last word for the other end
	case c.upstream != nil && c.state != opening, c.downstream != nil:
		return leftRewriter
	case c.piped || c.inlet != nil && c.inlet.piped():
		return leftTLS
	case c.state == opening || c.line != nil && (c.lines == nil || c.lines.outlets.Load() > 0):
		return ""
	case c.line != nil:
		return leftDeleted
	case c.skip:
		return leftSkip
	case c.through():
		return leftOther
	case !c.hasPeer:
		return leftPlain
	case c.version >= resumeVersion:
		return leftHold
	}
	return leftVersion
}

// through reports whether the bytes go through interceptors of this node.
func (c *conn) through() bool {
	_, ok := c.shard.Worker(c.route.First().Value).(routing.Through)
	return ok
}

// inside reports whether the other end is in this process, and nothing in between.
func (c *conn) inside() bool {
	return c.route.Len() == 1 && c.shard.Router().ShardOf(c.route.First().Value) != nil
}

// EndLeft ends what cannot be carried, while paths can still bring the reason to the other ends: those would hold their sockets for a connection that nobody
// resumes, since the node's process stays the same. What an inlet tells later, as its path is away, the next program tells. Not on a shard.
func EndLeft(ctx context.Context, r *routing.Router, inlets []*Inlet) {
	for _, in := range inlets {
		in.endPiped()
	}
	for _, s := range r.Shards() {
		_ = s.Finish(ctx, func() {
			var list []*conn
			s.Loop().EachConn(func(h dataplane.Handler) bool {
				if c, ok := h.(*conn); ok && c.state != ended && c.whyLeft() != "" {
					list = append(list, c)
				}
				return true
			})
			for _, c := range list {
				if c.state == away && c.tellLater(ReasonShutdown) {
					continue
				}
				// Without a reason the other end would take it for the end of a whole stream. Ours learns of a path's end without being told, the reference does not.
				c.end(ReasonShutdown, c.extended || !c.skip && !c.through())
			}
		})
	}
}

// endPiped ends clients that wait for a path, if they can't be carried.
func (in *Inlet) endPiped() {
	if !in.piped() {
		return
	}
	in.mu.Lock()
	list := in.waiting
	in.waiting = nil
	in.env.Stats.Held.Add(-int64(len(list)))
	in.mu.Unlock()
	for _, w := range list {
		in.refused(ReasonShutdown, w.offer)
		w.drop(ReasonShutdown)
	}
}

// writeDown writes c down, or why it cannot go on.
func (c *conn) writeDown(to *Carried, p *CarriedPortal, data bool) error {
	if c.state == ended {
		return nil
	}
	if c.home.Load() == nil {
		return ErrMoving
	}
	why := c.whyLeft()
	if why == "" && c.state == opening { // its client is on its way elsewhere
		why = leftOther
	}
	if why != "" {
		to.leave(why)
		c.left = true
		return nil
	}
	l := c.line
	k := CarriedConn{
		Socket: CarriedSocket{FD: -1}, Version: c.version, HoldMS: uint64(l.hold / time.Millisecond), Attempt: l.attempt, Offers: l.offers,
		Peer: append([]byte(nil), c.peer[:]...), ID: append([]byte(nil), l.id[:]...),
		Sent: l.sent, Finished: l.finished, Confirmed: l.confirmed, Received: c.window.received, Allowed: c.window.allowed,
		ReadDone: c.readDone, PeerDone: c.peerDone, Gone: byte(l.gone), Tally: c.tally.carry(),
	}
	if c.state == away {
		k.LeftMS = msLeft(l.until)
	}
	if l.process != ([32]byte{}) {
		k.Process = append([]byte(nil), l.process[:]...)
	}
	if c.sock != nil {
		h, ok := c.sock.Copy(data)
		if !ok {
			return nil // it is ending
		}
		k.Socket = CarriedSocket{h.FD, h.Output, h.ShutWrite}
	}
	if data {
		k.Secret = append([]byte(nil), l.secret[:]...)
		k.Kept = make([]byte, l.kept.size)
		l.kept.copyAt(k.Kept, 0)
	}
	p.Conns = append(p.Conns, k)
	return nil
}

// errCarried is what is wrong with a connection that was written down.
var errCarried = errors.New("portal: a connection was written down wrongly")

// Check refuses what was not written down as this program would go on with it. data tells whether secrets and bytes are there.
func (c *Carried) Check(data bool) error {
	for _, p := range c.Portals() {
		for i := range p.Conns {
			if !p.Conns[i].fits(data) {
				return fmt.Errorf("%w: of %s", errCarried, p.Name)
			}
		}
	}
	return nil
}

// fits reports whether k can be a connection.
func (k *CarriedConn) fits(data bool) bool {
	secret, kept := 0, uint64(0)
	if data {
		secret, kept = len(token{}), k.Sent-min(k.Confirmed, k.Sent)
	}
	return len(k.ID) == len(token{}) && len(k.Secret) == secret && len(k.Peer) == len(conn{}.peer) && k.Version == resumeVersion &&
		uint64(len(k.Kept)) == kept && k.Confirmed <= k.Sent+1 && k.Received <= k.Allowed && k.Gone < byte(reasonCount)
}

// takeUp makes a connection of what was written down. It has no path yet. begin says whose it is, before anything can go wrong; enter makes it known, and
// returns why it may not go on.
func (e *Env) takeUp(s *routing.Shard, m *Meter, p *CarriedPortal, k *CarriedConn, begin func(*conn), enter func(*conn) Reason) {
	c := e.newConn(s, m)
	e.Stats.Active.Add(-1) // it was counted when it was announced, as one whose path is away too
	copy(c.peer[:], k.Peer)
	c.hasPeer, c.extended, c.version = true, true, k.Version
	begin(c)
	c.self = s.NewAddress() // which nobody knows: each path brings its own
	c.newLine(time.Duration(k.HoldMS) * time.Millisecond)
	l := c.line
	copy(l.id[:], k.ID)
	copy(l.secret[:], k.Secret)
	l.attempt, l.offers = k.Attempt, k.Offers
	c.tally.takeUp(&k.Tally, l.id)
	copy(l.process[:], k.Process)
	l.sent, l.next, l.finished, l.confirmed, l.gone = k.Sent, k.Sent, k.Finished, k.Confirmed, Reason(k.Gone)
	l.kept.add(k.Kept)
	c.window.received, c.window.allowed, c.window.known = k.Received, k.Allowed, true
	c.readDone, c.peerDone = k.ReadDone, k.PeerDone
	c.state = away
	l.told, l.until, l.pause = c.got(), p.until(k.LeftMS, l.hold), askFirst
	clear(k.Secret)
	clear(k.Kept)
	if c.done = k.Socket.FD < 0; !c.done {
		sock, err := s.Loop().TakeOver(dataplane.Handover{FD: k.Socket.FD, Output: k.Socket.Output, ShutWrite: k.Socket.ShutWrite}, c)
		clear(k.Socket.Output)
		if err != nil {
			c.end(ReasonReset, false)
			return
		}
		c.sock = sock
		sock.Pause()
	}
	if why := enter(c); why != ReasonNone {
		l.wipe()
		c.end(why, false)
		return
	}
	if !time.Now().Before(l.until) {
		c.expire(ReasonHold)
		return
	}
	c.limit()
	if c.inlet != nil {
		c.ask()
	}
	c.wait()
}

// announce returns the connections of a portal for the shards to take up: they count as open, with their paths away, from now on. lost is called for each that
// was written down wrongly.
func (e *Env) announce(m *Meter, p *CarriedPortal, lost func(*CarriedConn), begin func(*conn), enter func(*conn) Reason) *arriving {
	e.Stats.Active.Add(int64(len(p.Conns)))
	e.Stats.Away.Add(int64(len(p.Conns)))
	return newArriving(&e.arrivals, p.Conns, func(s *routing.Shard, k *CarriedConn) {
		if k.fits(true) {
			e.takeUp(s, m, p, k, begin, enter)
			return
		}
		e.Stats.Active.Add(-1)
		e.Stats.Away.Add(-1)
		e.Log.Error("connection lost in an upgrade", "portal", m.name, "err", errCarried.Error())
		if k.Socket.FD >= 0 {
			dataplane.Reset(k.Socket.FD)
		}
		lost(k)
	})
}

func (in *Inlet) takeUp(p *CarriedPortal) {
	if p == nil {
		return
	}
	for range p.Conns {
		in.places.enter(nil) // at once, so that nobody has it who comes meanwhile
	}
	in.env.announce(in.meter, p, func(*CarriedConn) { in.places.leave(nil) }, func(c *conn) {
		c.inlet, c.places, c.rates = in, &in.places, in.rates
		c.tally.attributes = in.env.attributes(&c.peer)
	}, func(c *conn) Reason {
		if closed := in.enter(c); closed {
			return ReasonShutdown
		}
		return ReasonNone
	}).begin(in.router.Shards())
	for _, w := range p.Waiting {
		o := offer{again: w.Again, client: w.Client, came: time.Now(), until: p.until(w.LeftMS, in.env.Limits.HoldTimeout), places: &in.places}
		in.places.enter(nil)
		copy(o.id[:], w.ID)
		if w.Came > 0 {
			o.came = time.Unix(0, w.Came)
		}
		in.place(w.FD, o)
	}
}

func (o *Outlet) takeUp(p *CarriedPortal) {
	if p != nil {
		o.expect(p).begin(o.router.Shards())
	}
}

// expect announces what the program before has left, before anybody can ask for it. The places are taken at once, so that nobody has them who comes meanwhile.
func (o *Outlet) expect(p *CarriedPortal) *arriving {
	for i := range p.Conns {
		peer := p.Conns[i].peer()
		o.places.enter(&peer)
	}
	a := o.env.announce(o.meter, p, func(k *CarriedConn) {
		peer := k.peer()
		o.places.leave(&peer)
	}, func(c *conn) {
		c.outlet, c.tally.target, c.rates = true, o.opts.Target, o.rates
		c.tally.attributes = o.env.attributes(&c.peer)
		c.onEnd = func() { o.places.leave(&c.peer) }
	}, func(c *conn) Reason {
		if !c.enter(o) { // the id is somebody else's
			return ReasonUnknown
		}
		return ReasonNone
	})
	o.lines.expect(a)
	return a
}

// peer is the identifier of who has the other end.
func (k *CarriedConn) peer() (id [32]byte) {
	copy(id[:], k.Peer)
	return id
}

// TakeUpSockets goes on with sockets that are closing. Not on a shard.
func (e *Env) TakeUpSockets(ctx context.Context, r *routing.Router, list []CarriedSocket) {
	s := r.Shards()[0]
	_ = s.Finish(ctx, func() {
		for _, k := range list {
			sock, err := s.Loop().TakeOver(dataplane.Handover{FD: k.FD, Output: k.Output}, ending{})
			clear(k.Output)
			if err == nil {
				sock.Close()
			}
		}
	})
}

// ending is the handler of a socket that is closing.
type ending struct{}

func (ending) OnReadable(*dataplane.Conn)     {}
func (ending) OnDrain(*dataplane.Conn)        {}
func (ending) OnClose(*dataplane.Conn, error) {}
