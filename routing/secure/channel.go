package secure

import (
	"context"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/crypto/channel"
	"sallyport/crypto/identity"
	"sallyport/dataplane"
	"sallyport/routing"
	"sallyport/routing/fair"
)

// Channel is an open secure channel. Methods are for the channel's shard unless they say otherwise; the exported fields do not change.
type Channel struct {
	// Encryptor is the address to send to in order to reach the peer through the channel; Decryptor is where the peer
	// sends to.
	Encryptor, Decryptor routing.WireAddress
	// Flow is what workers consume to be reachable from this channel alone.
	Flow *routing.Flow
	// Initiator tells whether this side opened it.
	Initiator bool
	// Listener is the address of the listener it was opened to; the responder's is empty.
	Listener string
	// Peer is who is at the other end.
	Peer routing.Peer
	// Identity is the peer's verified identity, as presented.
	Identity *identity.Identity
	// Self is this side's identity.
	Self identity.Identifier
	// OpenedAt is when the handshake finished.
	OpenedAt time.Time

	cs       *Channels
	shard    *routing.Shard
	opts     Options
	producer routing.Producer
	sealer   channel.Sealer
	bytesOut uint64 // of messages, as they are inside
	bytesIn  uint64
	opener   channel.Opener
	loose    loose
	remote   routing.Route // ends in the peer's decryptor
	moved    uint64        // highest counter that moved the route (responder)
	counter  uint64        // the peer's next, if nothing is lost
	sink     routing.FrameWriter
	header   []byte // scratch for the plaintext's header
	watchers routing.Watchers
	way      routing.Terminal // a responder's: what it runs on, watched
	from     fair.Source
	place    *fair.Place[*Channel] // a responder's
	heard    atomic.Int64          // how long after OpenedAt the last message came
	probed   time.Time             // when the peer was last asked whether it is there
	pong     *routing.WireAddress  // where answers go
	lost     int                   // sweeps that found the first hop gone
	lostAt   int64                 // what heard was then
	closed   bool
	done     chan struct{}

	goneMu  sync.Mutex
	awaits  map[uint64]func() // who is told that the peer's process has ended, by number
	awaited uint64
	isGone  bool

	refreshing  bool   // a refresh of the peer's is being checked
	refreshNext []byte // the one to check after it
}

// newChannel makes the workers of a channel. The decryptor takes over the handshake's address.
func newChannel(h *handshake, keys channel.Keys) *Channel {
	s := h.shard
	c := &Channel{
		Decryptor: h.address, Flow: routing.NewFlow(), Initiator: h.initiator, Listener: h.listener,
		Peer: routing.Peer{ID: h.peer.Identity.Identifier()}, Identity: h.peer.Identity, Self: h.opts.Self, OpenedAt: time.Now(),
		cs: h.cs, shard: s, opts: h.opts, remote: h.remote, done: make(chan struct{}),
	}
	c.sealer.Init(&keys.Send)
	c.sealer.Rekeys = &h.cs.Stats.Rekeys
	c.opener.Init(&keys.Receive)
	c.loose.keys = keys.Loose()
	c.producer.Own = c.Flow
	if h.spawner != nil {
		c.producer.Spawner = h.spawner.Flow
	}
	s.StartAs(h.address, (*decryptor)(c), s.Consumes(h.address.Text())...)
	c.Encryptor = s.Start((*encryptor)(c))
	h.cs.router.RegisterFlow(c.Flow)
	h.cs.mu.Lock()
	h.cs.channels[c.Encryptor.Text()] = c
	h.cs.mu.Unlock()
	if t := s.FirstTerminal(c.remote); t != nil {
		if c.Initiator {
			t.Watch((*decryptor)(c)) // the way out was opened with the channel and ends with it
		}
		if v, ok := t.(routing.Vouched); ok {
			v.Vouch()
		}
	}
	c.from = h.from
	if !c.Initiator {
		c.watchWay()
		h.cs.admit(c, h.from)
		if h.cs.Opened != nil {
			h.cs.Opened(c)
		}
	}
	h.cs.Stats.Opened.Add(1)
	h.cs.log.Debug("secure channel opened", "initiator", c.Initiator, describe(c.Peer.ID), "self", c.Self.String())
	return c
}

// Done is closed when the channel has ended. Any goroutine.
func (c *Channel) Done() <-chan struct{} { return c.done }

// Shard returns the channel's shard. Any goroutine.
func (c *Channel) Shard() *routing.Shard { return c.shard }

// Heard returns when the last message came that only the peer can have made, or when the channel was opened. Any goroutine: sessions ask for each path again and again.
func (c *Channel) Heard() time.Time { return c.OpenedAt.Add(time.Duration(c.heard.Load())) }

// hear notes that such a message came.
func (c *Channel) hear(now time.Time) {
	if d := int64(now.Sub(c.OpenedAt)); c.heard.Load() != d { // most come many in a turn
		c.heard.Store(d)
	}
}

// Watched reports whether anybody waits for the channel's end. Not on a shard.
func (c *Channel) Watched(ctx context.Context) (watched bool) {
	_ = c.shard.Do(ctx, func() { watched = c.watchers.Any() })
	return watched
}

// Way returns how the peer is reached. Not on a shard.
func (c *Channel) Way(ctx context.Context) (route routing.Route) {
	_ = c.shard.Do(ctx, func() { route = c.remote.Clone() })
	return route
}

// Remote returns the route to the peer's decryptor.
func (c *Channel) Remote() routing.Route { return c.remote }

// Close tells the peer and ends the channel. Any goroutine.
func (c *Channel) Close() {
	c.shard.Loop().Post(dataplane.TaskFunc(func() { c.end(true) }))
}

// Refresh presents a new credential to the peer. Any goroutine.
func (c *Channel) Refresh(ctx context.Context, credential []byte) error {
	history, err := c.opts.Identities.History(ctx, c.Self)
	if err != nil {
		return err
	}
	plain := channel.AppendRefresh(nil, identity.EncodeRefresh(history, [][]byte{credential}))
	return c.shard.Do(ctx, func() { c.control(plain) })
}

// control sends a message of the channel itself. Its outer return route is the encryptor (docs/protocol/01 §7.9).
func (c *Channel) control(plain []byte) {
	if c.closed {
		return
	}
	out := make([]byte, len(plain)+channel.Overhead)
	if err := c.sealer.Seal(out, plain); err != nil {
		c.end(false)
		return
	}
	m := c.shard.NewMessage()
	m.Onward, m.Return = c.remote, routing.RouteOf(c.Encryptor)
	m.SetPayloadBytes(out)
	c.shard.Deliver(m)
	c.shard.Free(m)
}

// end stops both workers and wipes the keys.
func (c *Channel) end(tell bool) {
	if c.closed {
		return
	}
	if tell {
		c.control(channel.CloseMessage)
	}
	c.closed = true
	if t := c.shard.FirstTerminal(c.remote); t != nil {
		t.Unwatch((*decryptor)(c))
	}
	c.unwatchWay()
	c.shard.Stop(c.Encryptor)
	c.shard.Stop(c.Decryptor)
	c.sealer.Wipe()
	c.opener.Wipe()
	c.loose.wipe()
	c.sink = nil
	c.Flow.End()
	if c.pong != nil {
		c.shard.Stop(*c.pong)
	}
	c.cs.router.ForgetFlow(c.Flow)
	c.cs.mu.Lock()
	delete(c.cs.channels, c.Encryptor.Text())
	c.cs.mu.Unlock()
	if !c.Initiator {
		c.cs.dismiss(c)
	}
	c.cs.Stats.Closed.Add(1)
	close(c.done)
	c.watchers.Tell()
}

// encryptor is the Channel as the worker that local senders address.
type encryptor Channel

// TerminalPeer implements routing.Terminal.
func (e *encryptor) TerminalPeer() *routing.Peer { return &e.Peer }

// Origin implements fair.Originated.
func (e *encryptor) Origin() fair.Source { return e.from }

// SourceName implements routing.Sourced.
func (e *encryptor) SourceName() string { return string(e.Peer.ID[:]) }

// TerminalProducer implements routing.Terminal.
func (e *encryptor) TerminalProducer() *routing.Producer { return &e.producer }

// Watch implements routing.Terminal.
func (e *encryptor) Watch(w routing.Watcher) { e.watchers.Watch(w) }

// Unwatch implements routing.Terminal.
func (e *encryptor) Unwatch(w routing.Watcher) { e.watchers.Unwatch(w) }

// Lossy implements routing.Lossy: a channel is what it runs on.
func (e *encryptor) Lossy(s *routing.Shard) bool {
	return routing.IsLossy(s, s.FirstTerminal(e.remote))
}

// Carried implements routing.Carrier.
func (e *encryptor) Carried() routing.Traffic {
	return routing.Traffic{MessagesIn: e.counter + e.loose.in, MessagesOut: e.sealer.Counter() + e.loose.out, BytesIn: e.bytesIn, BytesOut: e.bytesOut}
}

// Channel returns the channel that an encryptor belongs to.
func (e *encryptor) Channel() *Channel { return (*Channel)(e) }

// payloadPrefix begins the plaintext that carries a message: [message, padding], message = [0, [ [onward, return, payload] ]].
var payloadPrefix = []byte{0x82, 0x82, 0x00, 0x81}

// HandleMessage encrypts m and sends it on (docs/protocol/01 §7.6). The order matters: routes may lie in the bytes that
// the header is written over, so the header is built aside first.
func (e *encryptor) HandleMessage(s *routing.Shard, m *routing.Message) {
	m.PopOnward()
	e.header = append(e.header[:0], payloadPrefix...)
	e.header = routing.AppendHeader(e.header, m.Onward, m.Return, len(m.Payload()))
	plain := m.Grow(s, len(e.header), 1)
	copy(plain, e.header)
	plain[len(plain)-1] = 0x40 // empty padding
	e.bytesOut += uint64(len(plain))
	if m.Loose {
		if sink := e.looseWriter(s); sink != nil {
			e.sendLoose(sink, m, plain)
			return
		}
		m.Loose = false // its counter is one of the channel's, where a gap is a fault
	}
	if sink := e.frameWriter(s); sink != nil {
		// The last layer: seal into the connection's output.
		if dst := sink.ReserveFrame(e.remote.WithoutFirst(), routing.Route{}, len(plain)+channel.Overhead, m.From); dst != nil {
			if err := e.sealer.Seal(dst, plain); err != nil {
				e.exhausted(err)
				return
			}
			sink.CommitFrame(m.From)
		}
		return
	}
	if m.Kept() {
		if err := e.sealer.Seal(m.Replace(s, len(plain)+channel.Overhead), plain); err != nil {
			e.exhausted(err)
			return
		}
		m.SetRoutes(e.remote, routing.Route{})
		s.Deliver(m)
		return
	}
	out := m.Grow(s, channel.CounterSize, channel.Overhead-channel.CounterSize)
	if err := e.sealer.Seal(out, out[channel.CounterSize:len(out)-(channel.Overhead-channel.CounterSize)]); err != nil {
		e.exhausted(err)
		return
	}
	m.SetRoutes(e.remote, routing.Route{})
	s.Deliver(m)
}

func (e *encryptor) exhausted(err error) {
	e.cs.log.Error("secure channel cannot encrypt", "err", err, describe(e.Peer.ID))
	(*Channel)(e).end(false)
}

// frameWriter returns the transport that the channel runs directly on, if it does. A connection that has ended answers
// for itself.
func (e *encryptor) frameWriter(s *routing.Shard) routing.FrameWriter {
	if e.sink == nil {
		e.sink, _ = s.FirstTerminal(e.remote).(routing.FrameWriter)
	}
	return e.sink
}

// decryptor is the Channel as the worker that the peer addresses.
type decryptor Channel

// TerminalClosed implements routing.Watcher: what the channel runs on has ended.
func (d *decryptor) TerminalClosed() { (*Channel)(d).end(false) }

// HandleMessage opens m and delivers what is inside.
func (d *decryptor) HandleMessage(s *routing.Shard, m *routing.Message) {
	c := (*Channel)(d)
	payload := m.Payload()
	if m.Loose {
		d.handleLoose(s, m)
		return
	}
	plain, err := d.opener.Open(payload)
	if err != nil {
		c.cs.Stats.OpenFailed.Add(1)
		c.cs.log.Debug("secure channel message refused", "reason", err.Error(), describe(c.Peer.ID))
		return
	}
	(*Channel)(d).hear(s.Loop().Now())
	c.count(binary.BigEndian.Uint64(payload))
	d.bytesIn += uint64(len(plain))
	kind, body, err := channel.ParsePlaintext(plain)
	if err != nil {
		c.cs.log.Warn("secure channel message malformed", "reason", err.Error(), describe(c.Peer.ID))
		return
	}
	switch kind {
	case channel.KindPayload:
		p, err := s.Parse(body)
		if err != nil {
			c.cs.log.Warn("secure channel message malformed", "reason", err.Error(), describe(c.Peer.ID))
			return
		}
		if !d.Initiator {
			c.roam(m.Return)
		}
		d.deliver(s, m, p, len(payload)-len(plain)-(channel.Overhead-channel.CounterSize)+offset(plain, body))
	case channel.KindRefresh:
		c.refreshed(append([]byte(nil), body...))
	case channel.KindClose:
		c.end(false)
	}
}

// deliver hands on what m has carried: p, which begins at byte at of its payload.
func (d *decryptor) deliver(s *routing.Shard, m *routing.Message, p routing.Parsed, at int) {
	m.SetRoutes(p.Onward, p.Return)
	m.PushReturn(d.Encryptor)
	m.Peer = &d.Peer
	m.Narrow(at+p.Start, at+p.End)
	m.SetProducer(&d.producer)
	s.Deliver(m)
}

// count looks for a gap in the peer's counters. What a channel runs on may lose or reorder messages without a word (UDP does), and
// nothing but the counters shows it to those over the channel whose messages are parts of a whole.
func (c *Channel) count(n uint64) {
	if n == c.counter {
		c.counter++
		return
	}
	c.counter = max(c.counter, n+1)
	c.cs.Stats.Gaps.Add(1)
	c.watchers.TellLost()
}

// Move lets an initiator go on over another way: prefix leads to the peer's node and takes the place of all but the last address of the
// route there (docs/protocol/01 §7.6). The responder follows with the next message. Not on a shard.
func (c *Channel) Move(ctx context.Context, prefix routing.Route) error {
	err := ErrClosed
	if doErr := c.shard.Do(ctx, func() {
		t := c.shard.FirstTerminal(prefix)
		if c.closed || t == nil {
			return
		}
		if old := c.shard.FirstTerminal(c.remote); old != nil {
			old.Unwatch((*decryptor)(c))
		}
		c.remote = prefix.Concat(routing.NewRoute(c.remote.Last()))
		c.sink = nil
		if t.TerminalProducer() != nil {
			c.shard.AddConsumer(c.Decryptor.Text(), t.TerminalProducer().Own)
		}
		t.Watch((*decryptor)(c))
		err = nil
	}); doErr != nil {
		return doErr
	}
	return err
}

// offset returns where part, a subslice of whole, begins.
func offset(whole, part []byte) int { return cap(whole) - cap(part) }

// roam follows the initiator to another transport: a newer message's outer return route becomes the way back
// (docs/protocol/01 §7.6, responder only).
func (c *Channel) roam(ret routing.Route) {
	counter := c.opener.Last()
	if counter <= c.moved {
		return
	}
	c.moved = counter
	if prefix := c.remote.WithoutLast(); ret.Equal(prefix) {
		return
	}
	c.remote = ret.Clone().Concat(routing.NewRoute(c.remote.Last()))
	c.sink = nil
	// The new way's first hop is a worker of ours; let the decryptor be reached from there too.
	if t := c.shard.FirstTerminal(c.remote); t != nil && t.TerminalProducer() != nil {
		c.shard.AddConsumer(c.Decryptor.Text(), t.TerminalProducer().Own)
	}
	if p, ok := c.shard.FirstTerminal(c.remote).(routing.Prover); ok {
		p.Prove(c.remote.WithoutFirst())
	}
	c.watchWay()
	c.cs.log.Debug("secure channel moved", "route", c.remote.String(), describe(c.Peer.ID))
}

// refreshPause is how long after one refresh the next is checked, whatever the peer does: checking costs three signatures.
const refreshPause = time.Second

// refreshed handles a peer's new credential off the shard, one at a time with a pause between them: of those that come meanwhile only
// the last one counts.
func (c *Channel) refreshed(content []byte) {
	if c.opts.Accept == nil || c.closed {
		return
	}
	if c.refreshing {
		c.refreshNext = content
		return
	}
	c.refreshing = true
	go func() {
		c.shard.Loop().Guard("a refresh of credentials", func() { c.refresh(content) })
		c.shard.Loop().Post(dataplane.TaskFunc(func() {
			c.shard.Loop().After(refreshPause, func() {
				next := c.refreshNext
				c.refreshing, c.refreshNext = false, nil
				if next != nil {
					c.refreshed(next)
				}
			})
		}))
	}()
}

// refresh checks a refresh and hands its credentials on. Not on a shard.
func (c *Channel) refresh(content []byte) {
	ctx, cancel := context.WithTimeout(context.Background(), responderTimeout)
	defer cancel()
	history, credentials, err := identity.DecodeRefresh(content)
	if err == nil {
		id := identity.Identifier(c.Peer.ID)
		_, err = c.opts.Identities.Import(ctx, history, &id)
	}
	if err != nil {
		c.cs.log.Warn("credential refresh refused", "reason", err.Error(), describe(c.Peer.ID))
		return
	}
	c.opts.Accept(ctx, c.Peer.ID, credentials)
}
