package secure

import (
	"sync"
	"testing"

	"sallyport/crypto/channel"
	"sallyport/routing"
)

// looseWire is a connection that carries loose messages too: it keeps them, so that they come in whatever order and number.
type looseWire struct {
	routing.FrameWriter
	takes bool
	kept  [][]byte
}

func (w *looseWire) TakesLoose() bool { return w.takes }

func (w *looseWire) ReserveLoose(_, _ routing.Route, size int) []byte {
	w.kept = append(w.kept, make([]byte, size))
	return w.kept[len(w.kept)-1]
}

func (w *looseWire) CommitLoose(*routing.Throttle) {}

// TestLoose: of messages that may be lost any number may be, in any order, and the channel knows nothing of it; none is handed on twice, and none of
// them says anything about the channel itself. Over what does not carry them, and through more than one hop, they go as all others.
func TestLoose(t *testing.T) {
	a, b := newNode(t, 1, nil), newNode(t, 1, nil)
	c := a.dial(t, a.connect(t, b).Sender, "api")
	a.through(t, c, []byte("first"))
	d := b.channels.List()[0]
	var w lossWatcher
	on(t, d.Shard(), func() { (*encryptor)(d).Watch(&w) })
	var mu sync.Mutex
	var came []byte
	b.serve(t, "sink", routing.WorkerFunc(func(_ *routing.Shard, m *routing.Message) {
		mu.Lock()
		defer mu.Unlock()
		if came = append(came, m.Payload()[0]); m.Loose || m.Peer == nil || m.Peer.ID != a.self || len(m.Payload()) != 1 {
			t.Errorf("a message of %d bytes from %v", len(m.Payload()), m.Peer)
		}
	}), d.Flow)
	got := func() string {
		mu.Lock()
		defer mu.Unlock()
		s := string(came)
		came = nil
		return s
	}
	wire := &looseWire{takes: true}
	send := func(first byte, n int) {
		t.Helper()
		on(t, c.Shard(), func() {
			for i := range n {
				m := c.shard.NewMessage()
				m.Onward, m.Loose = routing.RouteOf(c.Encryptor).Concat(routing.LocalRoute("sink")), true
				m.SetPayloadBytes([]byte{first + byte(i)})
				c.shard.Deliver(m)
				c.shard.Free(m)
			}
		})
	}
	arrive := func(loose bool, msg []byte) {
		t.Helper()
		on(t, d.Shard(), func() {
			m := d.shard.NewMessage()
			m.Onward, m.Loose = routing.RouteOf(d.Decryptor), loose
			m.SetPayloadBytes(append([]byte(nil), msg...))
			d.shard.Deliver(m)
			d.shard.Free(m)
		})
	}
	on(t, c.Shard(), func() { wire.FrameWriter = (*encryptor)(c).frameWriter(c.shard); c.sink = wire })
	send('0', 200)
	if len(wire.kept) != 200 {
		t.Fatalf("%d of 200 went as such", len(wire.kept))
	}
	a.through(t, c, []byte("the others go on"))
	for _, k := range []int{150, 3, 199, 3, 150, 0} { // the others are lost
		arrive(true, wire.kept[k])
	}
	arrive(false, wire.kept[1]) // somebody on the way makes it one of the channel's
	if s := got(); s != string([]byte{'0' + 150, '3', '0' + 199, '0'}) {
		t.Errorf("%q came", s)
	}
	if n := b.channels.Stats.OpenFailed.Load(); n != 3 {
		t.Errorf("%d refused, want two that came before and one that is of the other kind", n)
	}
	a.through(t, c, []byte("and on"))
	if w.lost.Load() != 0 || b.channels.Stats.Gaps.Load() != 0 {
		t.Errorf("%d told of gaps, %d counted", w.lost.Load(), b.channels.Stats.Gaps.Load())
	}
	// One that would end the channel does not.
	var end []byte
	on(t, c.Shard(), func() {
		plain := []byte{0x82, 0x82, 2, 0x80, 0x40}
		end = make([]byte, len(plain)+24)
		if err := c.loose.begin().sealer.Seal(end, plain); err != nil {
			t.Error(err)
		}
	})
	arrive(true, end)
	on(t, d.Shard(), func() {
		if d.closed {
			t.Error("a message that may be lost has ended the channel")
		}
	})
	// A way that does not take them, and one with something between.
	was := len(wire.kept)
	on(t, c.Shard(), func() { wire.takes = false })
	send('a', 1)
	eventually(t, "it goes with the others", func() bool { return got() == "a" })
	// A message of a channel inside has that one's counter: lost, it would be a gap there.
	on(t, c.Shard(), func() { wire.takes = true })
	inner := a.dial(t, c.Encryptor, "api")
	a.through(t, inner, []byte("inside"))
	on(t, c.Shard(), func() {
		m := c.shard.NewMessage()
		m.Onward, m.Loose = routing.RouteOf(inner.Encryptor).Concat(routing.LocalRoute("echo")), true
		m.SetPayloadBytes([]byte("?"))
		c.shard.Deliver(m)
		c.shard.Free(m)
	})
	if len(wire.kept) != was {
		t.Error("a message of an inner channel went beside the others")
	}
	a.through(t, inner, []byte("inside, without a gap"))
	if b.channels.Stats.Gaps.Load() != 0 {
		t.Errorf("%d gaps", b.channels.Stats.Gaps.Load())
	}
	on(t, c.Shard(), func() {
		wire.takes = true
		c.remote = routing.NewRoute(c.remote.First()).Concat(routing.LocalRoute("x"), routing.NewRoute(c.remote.Last()))
	})
	send('b', 1)
	if len(wire.kept) != was {
		t.Error("it went beside the others where the other end of the way is not the peer")
	}
	on(t, c.Shard(), func() {
		c.end(false)
		if c.loose.keys != (channel.Keys{}) || c.loose.ends.sealer.Counter() != 1<<64-1 {
			t.Error("keys are left")
		}
	})
}
