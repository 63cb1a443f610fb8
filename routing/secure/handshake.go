package secure

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"sallyport/crypto/channel"
	"sallyport/crypto/identity"
	"sallyport/dataplane"
	"sallyport/routing"
	"sallyport/routing/fair"
)

// handshake is one side of a handshake in progress. Its fields belong to its shard, but machine and payload belong to
// the goroutine that computes while busy is true.
type handshake struct {
	cs        *Channels
	shard     *routing.Shard
	opts      Options
	initiator bool
	listener  string              // the initiator's: where the first message goes
	address   routing.WireAddress // decryptor-remote
	machine   *channel.Handshake
	peer      *identity.Peer
	remote    routing.Route
	spawner   *Listener
	busy      bool
	kept      []routing.Reply // messages that came while busy, in order
	keptBytes int
	timer     *dataplane.Timer
	from      fair.Source
	place     *fair.Place[*handshake] // the responder's
	terminal  routing.Terminal        // what the handshake goes over, and ends with
	gone      atomic.Bool             // there is no use in computing for it
	ended     bool
	began     time.Time
	done      func(*Channel, error) // initiator: told once, on the shard

	// credential is what this side presents, or credentialErr why it cannot.
	credential    []byte
	credentialErr error

	// ctx bounds the step that is being computed; the machine's callbacks use it.
	ctx context.Context
}

// config makes the state machine's view of this side.
func (h *handshake) config(ctx context.Context) (channel.Config, error) {
	own, err := h.opts.Identities.Own(ctx, h.opts.Self)
	if err != nil {
		return channel.Config{}, fmt.Errorf("own secure channel key: %w", err)
	}
	return channel.Config{
		Static: own.Key.Public,
		DH:     func(peer [32]byte) ([32]byte, error) { return h.opts.Identities.DH(h.ctx, own.Key, peer) },
		Rand:   rand.Reader,
		Payload: func() ([]byte, error) {
			var credentials [][]byte
			if h.credentialErr != nil {
				return nil, fmt.Errorf("own credential: %w", h.credentialErr)
			}
			if h.credential != nil {
				credentials = [][]byte{h.credential}
			}
			return own.Payload(credentials), nil
		},
		VerifyPeer: func(static [32]byte, payload []byte) error {
			peer, err := h.opts.Identities.VerifyPeer(h.ctx, payload, static)
			if err != nil {
				return err
			}
			if h.opts.Trust != nil {
				if err := h.opts.Trust(peer.Identity.Identifier()); err != nil {
					return fmt.Errorf("%w: %s: %w", ErrRefused, peer.Identity.Identifier(), err)
				}
			}
			if h.opts.Accept != nil && len(peer.Credentials) > 0 {
				h.opts.Accept(h.ctx, peer.Identity.Identifier(), peer.Credentials)
			}
			if h.opts.Known != nil {
				if err := h.opts.Known(peer.Identity.Identifier()); err != nil {
					return fmt.Errorf("%w: %s: %w", ErrRefused, peer.Identity.Identifier(), err)
				}
			}
			h.peer = peer
			return nil
		},
	}, nil
}

// newResponder starts a responder for message 1, on the shard where it arrived, now or when its source may begin another handshake.
func newResponder(s *routing.Shard, l *Listener, m *routing.Message) {
	f := &firstMessage{listener: l, remote: m.Return.Clone(), payload: append([]byte(nil), m.Payload()...), came: time.Now()}
	f.terminal = s.FirstTerminal(f.remote)
	f.from = fair.SourceOf(f.terminal, f.remote)
	switch {
	case !l.ready():
	case !l.cs.room(f.from):
		l.cs.note("secure channel handshake waits, too many are under way", l.cs.asked.Max(), f.from)
	case l.cs.rate.Take(f.from):
		f.answer(s)
		return
	default:
		l.cs.note("secure channel handshake waits, its source begins too many a second", l.cs.rate.PerSecond(), f.from)
	}
	l.cs.lateOf(s).add(f)
}

// room reports whether a handshake from a source may begin at once: there is a place that nobody else waits for, or one is taken from a source that has more.
func (cs *Channels) room(from fair.Source) bool {
	_, more, free := cs.asked.Next(from, cs.waits.Held())
	return free || more
}

// overdue reports whether a handshake from a source may begin in place of one of another source that has had its time.
func (cs *Channels) overdue(from fair.Source) bool {
	oldest, more, free := cs.asked.Next(from, 0)
	return !free && !more && time.Since(oldest.began) > undisturbed
}

// answer starts the responder.
func (f *firstMessage) answer(s *routing.Shard) {
	l, cs := f.listener, f.listener.cs
	h := &handshake{cs: cs, shard: s, opts: l.opts, spawner: l, remote: f.remote, terminal: f.terminal, from: f.from, began: time.Now()}
	cs.open.Add(1)
	place, oldest, evicted := cs.asked.Take(h.from, h)
	h.place = place
	if evicted {
		cs.Stats.Refused.Add(1)
		cs.note("secure channel handshake refused to make room for others", cs.asked.Max(), oldest.from)
		oldest.gone.Store(true)
		oldest.shard.Loop().Post(dataplane.TaskFunc(func() { oldest.fail(ErrBusy) }))
	}
	// The responder can be reached from wherever the listener can be reached now.
	h.address = s.Start(h, s.Consumes(l.Name)...)
	h.timer = s.Loop().After(responderTimeout, func() { h.fail(ErrTimeout) })
	if h.terminal != nil {
		h.terminal.Watch(h)
	}
	h.compute(routing.Reply{Payload: f.payload, Return: h.remote})
}

// TerminalClosed implements routing.Watcher: what the handshake goes over has ended, and no other message will come from there.
func (h *handshake) TerminalClosed() {
	h.gone.Store(true)
	h.fail(errGone)
}

// Dial opens a channel to the listener at route and waits for it. Not on a shard.
func (cs *Channels) Dial(ctx context.Context, route routing.Route, o Options) (*Channel, error) {
	s := cs.router.ShardFor(route)
	h := &handshake{cs: cs, shard: s, opts: o, initiator: true, listener: route.Last().Value, from: fair.Source{"this node"}, began: time.Now()}
	config, err := h.config(ctx)
	if err != nil {
		return nil, err
	}
	h.machine = channel.NewInitiator(config)
	first, err := h.machine.Start()
	if err != nil {
		return nil, err
	}
	type result struct {
		c   *Channel
		err error
	}
	done := make(chan result, 1)
	cs.open.Add(1)
	if err := s.Do(ctx, func() {
		h.done = func(c *Channel, err error) { done <- result{c, err} }
		h.address = s.Start(h)
		if h.terminal = s.FirstTerminal(route); h.terminal != nil {
			h.terminal.Watch(h)
			if p := h.terminal.TerminalProducer(); p != nil {
				s.AddConsumer(h.address.Text(), p.Own)
			}
		}
		h.send(route, first)
		h.again(route, first, o.Again)
	}); err != nil {
		cs.open.Add(-1)
		return nil, err
	}
	select {
	case r := <-done:
		return r.c, r.err
	case <-s.Loop().Done():
		return nil, dataplane.ErrLoopClosed
	case <-ctx.Done():
		if s.Finish(context.WithoutCancel(ctx), func() { h.fail(ErrTimeout) }) != nil {
			return nil, dataplane.ErrLoopClosed
		}
		if r := <-done; r.err == nil { // it finished in the very moment
			return r.c, nil
		}
		cs.log.Debug("secure channel not opened", "route", route.String(), "err", ctx.Err())
		return nil, fmt.Errorf("%w: route %s", ErrTimeout, route)
	}
}

// maxAgain is how many handshakes may be under way while first messages are sent again: with more of them answers are late because much is to be done, and
// to ask twice would make it more.
const maxAgain = 16

// again sends the first message again from time to time, until the handshake ends. Each begins a responder of its own, and the first that answers is the peer.
func (h *handshake) again(route routing.Route, first []byte, after time.Duration) {
	if h.ended || after <= 0 {
		return
	}
	h.timer = h.shard.Loop().After(after, func() {
		if !h.busy && h.cs.open.Load() <= maxAgain { // busy: the answer has come
			h.send(route, first)
			after *= 2
		}
		h.again(route, first, after)
	})
}

// HandleMessage takes a handshake message.
func (h *handshake) HandleMessage(s *routing.Shard, m *routing.Message) {
	if h.ended || len(m.Payload()) > channel.MaxMessage {
		s.Drops.Malformed.Add(1)
		return
	}
	if n, ok := routing.ParseNotice(m.Payload()); ok && h.initiator {
		// Whoever can send this knows the handshake's address: it is on the way, and could have said nothing instead.
		h.fail(fmt.Errorf("%w: %s: %s", ErrAbsent, n.Name, n.Kind))
		return
	}
	in := routing.Reply{Payload: append([]byte(nil), m.Payload()...), Return: m.Return.Clone()}
	if h.busy {
		h.keep(s, in)
		return
	}
	h.compute(in)
}

// What a handshake keeps while it computes, and what all of a node do. An initiator has finished when it has sent message 3, and
// nothing tells it when the responder has: clients that waited for the channel then begin all at once. Losing more than
// 31 of their messages would make the channel deaf (docs/protocol/01 §7.7).
const (
	maxKept      = 1 << 20
	maxKeptAll   = 32 << 20
	keptOverhead = 128 // bytes that a message kept costs beyond its payload and route
)

func keptSize(in routing.Reply) int { return keptOverhead + len(in.Payload) + 36*in.Return.Len() }

// keep puts a message aside until the step under way is done.
func (h *handshake) keep(s *routing.Shard, in routing.Reply) {
	size := keptSize(in)
	if h.keptBytes+size > maxKept {
		s.Drops.Overflow.Add(1)
		return
	}
	if h.cs.kept.Add(int64(size)) > maxKeptAll {
		h.cs.kept.Add(int64(-size))
		s.Drops.Overflow.Add(1)
		return
	}
	h.keptBytes += size
	h.kept = append(h.kept, in)
}

// next goes on with what came meanwhile.
func (h *handshake) next() {
	if len(h.kept) == 0 {
		return
	}
	in := h.kept[0]
	h.kept = h.kept[1:]
	h.keptBytes -= keptSize(in)
	h.cs.kept.Add(int64(-keptSize(in)))
	h.compute(in)
}

// compute handles a message off the shard and comes back with the result.
func (h *handshake) compute(in routing.Reply) {
	h.busy = true
	go func() {
		h.fetchCredential()
		h.cs.work.Do(h.from, func() {
			var out []byte
			var done bool
			var keys channel.Keys
			err := errGone
			if !h.gone.Load() && !h.shard.Loop().Guard("a handshake", func() {
				if out, done, err = h.step(in.Payload); err == nil && done {
					keys = h.machine.Keys()
				}
			}) {
				err = dataplane.ErrFault
			}
			h.shard.Loop().Post(dataplane.TaskFunc(func() { h.stepped(in, out, done, &keys, err) }))
		})
	}()
}

// fetchCredential gets the credential to present. It may open a channel to the authority, so it must not hold one of the
// slots that handshakes compute in.
func (h *handshake) fetchCredential() {
	if h.opts.Credential == nil || h.credential != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), responderTimeout)
	defer cancel()
	h.credential, h.credentialErr = h.opts.Credential(ctx)
}

func (h *handshake) step(msg []byte) (out []byte, done bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), responderTimeout)
	defer cancel()
	h.ctx = ctx
	if h.machine == nil {
		config, err := h.config(ctx)
		if err != nil {
			return nil, false, err
		}
		h.machine = channel.NewResponder(config)
	}
	return h.machine.Handle(msg)
}

// stepped goes on after compute, on the shard.
func (h *handshake) stepped(in routing.Reply, out []byte, done bool, keys *channel.Keys, err error) {
	h.busy = false
	if h.ended { // while it was computed
		h.wipe()
		keys.Wipe()
		return
	}
	if errors.Is(err, errGone) {
		h.fail(err)
		return
	}
	if err != nil {
		h.cs.Stats.HandshakeFailed.Add(1)
		if errors.Is(err, ErrRefused) {
			h.cs.Stats.Untrusted.Add(1)
		}
		h.cs.log.Warn("secure channel handshake failed", "initiator", h.initiator, "reason", err.Error(), "source", h.from.String())
		if h.machine == nil || h.machine.Failed() || errors.Is(err, dataplane.ErrFault) {
			h.fail(err)
		} else {
			h.next() // the genuine message may have come behind it
		}
		return
	}
	if h.initiator {
		h.remote = in.Return
	}
	if out != nil {
		h.send(in.Return, out)
	}
	if done {
		h.finish(*keys)
		keys.Wipe()
		return
	}
	h.next()
}

func (h *handshake) send(route routing.Route, payload []byte) {
	m := h.shard.NewMessage()
	m.Onward, m.Return = route, routing.RouteOf(h.address)
	m.SetPayloadBytes(payload)
	h.shard.Deliver(m)
	h.shard.Free(m)
}

// finish turns the handshake into a channel.
func (h *handshake) finish(keys channel.Keys) {
	h.end()
	took := h.cs.Stats.Responded
	if h.initiator {
		took = h.cs.Stats.Initiated
	}
	took.Observe(time.Since(h.began), [16]byte{}, h.began)
	if h.opts.Exchanged != nil {
		h.exchanged(keys)
		return
	}
	c := newChannel(h, keys)
	keys.Wipe()
	h.wipe()
	for _, in := range h.kept { // data that came with message 3
		if c.closed {
			break
		}
		m := h.shard.NewMessage()
		m.Return = in.Return
		m.SetPayloadBytes(in.Payload)
		(*decryptor)(c).HandleMessage(h.shard, m)
		h.shard.Free(m)
	}
	h.kept = nil
	if h.done != nil {
		h.done(c, nil)
	}
}

// fail ends the handshake without a channel.
func (h *handshake) fail(err error) {
	if h.ended {
		return
	}
	h.end()
	switch {
	case errors.Is(err, ErrTimeout):
		h.cs.Stats.Late.Add(1)
	case errors.Is(err, ErrAbsent):
		h.cs.Stats.Absent.Add(1)
	}
	h.shard.Stop(h.address)
	h.gone.Store(true)
	if !h.busy { // else when the step has ended
		h.wipe()
	}
	if h.done != nil {
		h.done(nil, err)
	}
}

// wipe erases the handshake's secrets.
func (h *handshake) wipe() {
	if h.machine != nil {
		h.machine.Wipe()
	}
}

func (h *handshake) end() {
	h.ended = true
	if h.terminal != nil {
		h.terminal.Unwatch(h)
	}
	h.cs.asked.Leave(h.place)
	h.timer.Stop()
	h.cs.open.Add(-1)
	h.cs.kept.Add(int64(-h.keptBytes))
	h.keptBytes = 0
}
