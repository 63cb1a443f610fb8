package main

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/routing"
	"sallyport/routing/bare"
)

// mischief is what a hostile relay does to messages.
type mischief string

// Kinds of mischief.
const (
	none     mischief = ""
	drop     mischief = "drops"
	flip     mischief = "flips bits"
	repeat   mischief = "repeats"
	replay   mischief = "repeats what is old"
	reorder  mischief = "reorders"
	truncate mischief = "truncates"
	extend   mischief = "appends"
	splice   mischief = "splices two channels"
	reflect  mischief = "sends back"
	invent   mischief = "invents"
	delay    mischief = "delays"
	reroute  mischief = "changes routes"
)

var allMischief = []mischief{drop, flip, repeat, replay, reorder, truncate, extend, splice, reflect, invent, delay, reroute}

// hostile is a relay of its own that real nodes take for theirs. It ends the channels between them and it, as every relay does, and has the messages
// between the two of them in its hands: in both directions, since it puts itself into the return route.
type hostile struct {
	*visitor
	at      string // host:port
	flows   []*routing.Flow
	begun   sync.Map // names
	doing   atomic.Pointer[mischief]
	every   atomic.Int64 // of so many messages one is touched
	touched atomic.Int64

	mu   sync.Mutex
	kept []kept // of late, of all ways
	held *kept  // waits to be overtaken
}

// kept is a message.
type kept struct {
	onward, back routing.Route
	payload      []byte
}

func newHostile(ctx context.Context) (*hostile, error) {
	v, err := newVisitor(ctx)
	if err != nil {
		return nil, err
	}
	h := &hostile{visitor: v}
	h.do(none)
	h.every.Store(40)
	fail := func(err error) (*hostile, error) {
		v.close()
		return nil, err
	}
	tcp, err := v.tcp.Listen(ctx, netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		return fail(err)
	}
	h.at = tcp.Bound.String()
	channels, err := v.channels.Listen(ctx, routing.ChannelService, v.options, true, tcp.Flow)
	if err != nil {
		return fail(err)
	}
	h.flows = []*routing.Flow{channels.Flow, tcp.Flow}
	if err := v.router.StartNamed(ctx, "backward", h.worker(func(m *routing.Message) routing.Route { return m.Onward.WithoutFirst() }), h.flows...); err != nil {
		return fail(err)
	}
	if err := v.router.StartNamed(ctx, "echo", h.worker(func(m *routing.Message) routing.Route { return m.Return }), h.flows...); err != nil {
		return fail(err)
	}
	register := routing.WorkerFunc(func(_ *routing.Shard, m *routing.Message) {
		text, _, err := bare.Bytes(m.Payload())
		if err != nil {
			return
		}
		name, to, back := routing.RelayPrefix+string(text), m.Return.WithoutLast().Clone(), m.Return.Clone()
		go func() {
			if _, again := h.begun.LoadOrStore(name, true); again {
				_ = v.router.StopNamed(ctx, name)
			}
			_ = v.router.StartNamed(ctx, name, h.worker(func(m *routing.Message) routing.Route { return to.Concat(m.Onward.WithoutFirst()) }), h.flows...)
			v.router.Inject(back, routing.LocalRoute(name), bare.AppendString(nil, name))
		}()
	})
	for _, name := range []string{routing.RelayService, routing.StaticRelayService} {
		if err := v.router.StartNamed(ctx, name, func(*routing.Shard) routing.Worker { return register }, h.flows...); err != nil {
			return fail(err)
		}
	}
	return h, nil
}

// do begins a kind of mischief.
func (h *hostile) do(m mischief) {
	h.touched.Store(0)
	h.doing.Store(&m)
}

// worker passes messages on to where next says, or does otherwise. An echo is left alone: it is how nodes look whether a relay is there.
func (h *hostile) worker(next func(*routing.Message) routing.Route) func(*routing.Shard) routing.Worker {
	w := routing.WorkerFunc(func(_ *routing.Shard, m *routing.Message) {
		isEcho := m.Onward.Len() == 1
		k := kept{next(m).Clone(), m.Return.Clone(), append([]byte(nil), m.Payload()...)}
		if isEcho {
			h.send(k)
			return
		}
		k.back = routing.LocalRoute("backward").Concat(k.back) // the answer comes by here too
		h.pass(k)
	})
	return func(*routing.Shard) routing.Worker { return w }
}

func (h *hostile) send(k kept) { h.router.Inject(k.onward, k.back, k.payload) }

// pass does what is to be done with a message.
func (h *hostile) pass(k kept) {
	doing := *h.doing.Load()
	h.mu.Lock()
	defer h.mu.Unlock()
	defer func() {
		if h.kept = append(h.kept, k); len(h.kept) > 200 {
			h.kept = h.kept[100:]
		}
		if h.held != nil && doing != reorder {
			h.send(*h.held)
			h.held = nil
		}
	}()
	if doing == none || rand.Int64N(h.every.Load()) != 0 || len(k.payload) == 0 {
		h.send(k)
		if h.held != nil {
			h.send(*h.held)
			h.held = nil
		}
		return
	}
	h.touched.Add(1)
	changed := kept{k.onward, k.back, append([]byte(nil), k.payload...)}
	var other *kept // an older one that goes another way, or the same
	for range 20 {
		if len(h.kept) > 0 {
			if o := h.kept[rand.IntN(len(h.kept))]; doing != splice || !o.onward.Equal(k.onward) {
				other = &o
				break
			}
		}
	}
	switch doing {
	case drop:
	case flip:
		changed.payload[rand.IntN(len(changed.payload))] ^= 1 << rand.IntN(8)
		h.send(changed)
	case repeat:
		h.send(k)
		h.send(k)
	case replay:
		h.send(k)
		if other != nil {
			h.send(*other)
		}
	case reorder:
		if h.held == nil {
			h.held = &k
		} else {
			h.send(k)
		}
	case truncate:
		changed.payload = changed.payload[:rand.IntN(len(changed.payload))]
		h.send(changed)
	case extend:
		changed.payload = append(changed.payload, make([]byte, 1+rand.IntN(100))...)
		h.send(changed)
	case splice:
		if other != nil {
			changed.payload = other.payload
		}
		h.send(changed)
	case reflect:
		h.send(k)
		h.send(kept{k.back.WithoutFirst(), k.onward, k.payload})
	case invent:
		for i := range changed.payload {
			changed.payload[i] = byte(rand.Uint32())
		}
		if len(changed.payload) > 8 { // a counter that could be
			copy(changed.payload[:8], k.payload[:8])
		}
		h.send(changed)
		h.send(k)
	case delay:
		time.AfterFunc(time.Duration(rand.IntN(400))*time.Millisecond, func() { h.send(k) })
	case reroute:
		if other != nil {
			changed.back = other.back
		}
		h.send(changed)
	}
}

// close ends the relay.
func (h *hostile) close() { h.visitor.close() }
