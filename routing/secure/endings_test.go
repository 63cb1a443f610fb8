package secure

import (
	"bytes"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/crypto/channel"
	"sallyport/internal/cborhead"
	"sallyport/routing"
	"sallyport/routing/fair"
)

// TestEndsWithItsWay: who began a channel ends it when its connection ends, and does not wait for the housekeeping.
func TestEndsWithItsWay(t *testing.T) {
	a, b := newNode(t, 1, nil), newNode(t, 1, nil)
	a.channels.Stop()
	conn := a.connect(t, b)
	c := a.dial(t, conn.Sender, "api")
	conn.Close()
	ended(t, c)
}

// answering begins a handshake with n itself and returns both sides, of which who began has not looked at message 2 yet.
func answering(t *testing.T, n *node) (began, h *handshake, second routing.Reply) {
	t.Helper()
	s := n.router.Shards()[0]
	began = &handshake{cs: n.channels, shard: s, opts: n.options(), initiator: true, ctx: t.Context()}
	config, err := began.config(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	began.machine = channel.NewInitiator(config)
	first, err := began.machine.Start()
	if err != nil {
		t.Fatal(err)
	}
	if second, err = n.router.Request(limited(t), routing.LocalRoute("api"), first); err != nil {
		t.Fatal(err)
	}
	on(t, s, func() {
		began.address = s.Start(began)
		h, _ = s.Worker(second.Return.First().Value).(*handshake)
	})
	if h == nil {
		t.Fatalf("nobody is at %s", second.Return)
	}
	return began, h, second
}

// TestHalfOpenHandshakeEnds: one whose message 3 does not come ends when its time is over, and leaves nothing.
func TestHalfOpenHandshakeEnds(t *testing.T) {
	n := newNode(t, 1, nil)
	_, h, _ := answering(t, n)
	on(t, h.shard, func() {
		if h.ended || h.timer == nil {
			t.Errorf("ended %v, it has a timer: %v", h.ended, h.timer != nil)
			h.fail(ErrTimeout)
			return
		}
		h.timer.Reset(0)
	})
	eventually(t, "ended", func() bool { return n.channels.UnderWay() == 0 })
	on(t, h.shard, func() {
		if !h.ended || h.shard.Worker(h.address.Text()) != nil || !h.machine.Failed() {
			t.Error("it is there still")
		}
	})
	if held, _ := n.channels.Held(); held != 0 || n.channels.Stats.Late.Load() != 1 {
		t.Errorf("%d places are taken, %d were late", held, n.channels.Stats.Late.Load())
	}
}

// TestSecretsOfHandshakes: the keys that a handshake has made are wiped when a channel has them, at both ends, and also when nobody wants them any more.
func TestSecretsOfHandshakes(t *testing.T) {
	n := newNode(t, 1, nil)
	began, h, second := answering(t, n)
	third, done, err := began.machine.Handle(second.Payload)
	if err != nil || !done {
		t.Fatalf("done %v, %v", done, err)
	}
	on(t, h.shard, func() {
		n.channels.open.Add(1)
		keys := began.machine.Keys()
		if began.stepped(second, third, true, &keys, nil); keys != (channel.Keys{}) || !began.machine.Failed() {
			t.Error("who began has keys beside those of the channel")
		}
		late := &handshake{cs: n.channels, shard: h.shard, machine: channel.NewInitiator(channel.Config{}), ended: true}
		keys.Send[0] = 1
		if late.stepped(second, nil, true, &keys, nil); keys != (channel.Keys{}) || !late.machine.Failed() {
			t.Error("keys are left of a handshake that ended while they were computed")
		}
	})
	eventually(t, "open", func() bool { return len(n.channels.List()) == 2 })
	on(t, h.shard, func() {
		if !h.machine.Failed() {
			t.Error("who answered has keys beside those of the channel")
		}
	})
}

// TestReachedFromItsNewWay: what an initiator goes on over may reach the channel, also when it never led to the listener.
func TestReachedFromItsNewWay(t *testing.T) {
	a, b := newNode(t, 1, nil), newNode(t, 1, nil)
	c := a.dial(t, a.connect(t, b).Sender, "api")
	for range 2 {
		a.through(t, c, []byte("x"))
	}
	d := b.channels.List()[0]
	other := b.connect(t, a)
	on(t, d.shard, func() {
		reached := func() bool { return slices.Contains(d.shard.Consumes(d.Decryptor.Text()), other.Flow) }
		if reached() {
			t.Error("reached before")
		}
		d.moved = d.opener.Last() - 1
		if d.roam(routing.RouteOf(other.Sender)); !reached() || d.remote.First().Value != other.Sender.Text() {
			t.Errorf("it is at %s, reached from there: %v", d.remote, reached())
		}
	})
}

// TestProbe: a silent peer's echo service is sent a number of 64 bits at most, another one each time, and its answer is a sign of life.
func TestProbe(t *testing.T) {
	a, b := newNode(t, 1, nil), newNode(t, 1, nil)
	c := a.dial(t, a.connect(t, b).Sender, "api")
	a.through(t, c, []byte("x"))
	asked, echo := make(chan []byte, 2), routing.Echo(nil, nil)
	if err := b.router.StopNamed(limited(t), "echo"); err != nil {
		t.Fatal(err)
	}
	b.serve(t, "echo", routing.WorkerFunc(func(s *routing.Shard, m *routing.Message) {
		asked <- bytes.Clone(m.Payload())
		echo.HandleMessage(s, m)
	}), b.api.Flow)
	long := time.Now().Add(-time.Hour)
	var numbers []uint64
	for range 2 {
		on(t, c.shard, func() {
			c.hear(long)
			c.probe()
		})
		select {
		case p := <-asked:
			head, size, err := cborhead.ReadItem(p)
			if err != nil || size != len(p) || head.Major != cborhead.Uint {
				t.Errorf("asked with %x", p)
			}
			numbers = append(numbers, head.N)
		case <-limited(t).Done():
			t.Fatal("nobody asked")
		}
		eventually(t, "heard", func() bool { return c.Heard().After(long) })
	}
	if numbers[0] == numbers[1] {
		t.Errorf("asked with %d twice", numbers[0])
	}
}

// TestSourceOfAChannel: what comes through a channel is counted as of the source that its handshake came from, whoever the peer says that it is.
func TestSourceOfAChannel(t *testing.T) {
	a, b := newNode(t, 1, nil), newNode(t, 1, nil)
	a.through(t, a.dial(t, a.connect(t, b).Sender, "api"), []byte("x"))
	d := b.channels.List()[0]
	on(t, d.shard, func() {
		want := fair.SourceOf(d.shard.FirstTerminal(d.remote), d.remote.WithoutLast())
		if got := (*encryptor)(d).Origin(); got[0] == "" || got[0] != want[0] {
			t.Errorf("it is of %q, not of %q", got, want)
		}
	})
}

// TestAskedWhenItHasGone: who asks to be told of a peer that has gone already is told at once.
func TestAskedWhenItHasGone(t *testing.T) {
	a, b := newNode(t, 1, nil), newNode(t, 1, nil)
	c := a.dial(t, a.connect(t, b).Sender, "api")
	var told atomic.Int32
	c.AwaitGone(func() { told.Add(1) })
	cancel := c.AwaitGone(func() { t.Error("told who does not want to know any more") })
	cancel()
	c.PeerGone()
	ended(t, c)
	if told.Load() != 1 {
		t.Errorf("told %d times", told.Load())
	}
	c.AwaitGone(func() { told.Add(1) })()
	if told.Load() != 2 {
		t.Error("not told at once")
	}
}

// TestLooseCannotSeal: a channel whose loose messages cannot be sealed any more ends; nothing of them goes out in clear. What comes is counted.
func TestLooseCannotSeal(t *testing.T) {
	a, b := newNode(t, 1, nil), newNode(t, 1, nil)
	c := a.dial(t, a.connect(t, b).Sender, "api")
	a.through(t, c, []byte("x"))
	d := b.channels.List()[0]
	wire := &looseWire{takes: true}
	send := func() {
		m := c.shard.NewMessage()
		m.Onward, m.Loose = routing.RouteOf(c.Encryptor).Concat(routing.LocalRoute("sink")), true
		m.SetPayloadBytes([]byte("12345"))
		c.shard.Deliver(m)
		c.shard.Free(m)
	}
	on(t, c.shard, func() {
		wire.FrameWriter = (*encryptor)(c).frameWriter(c.shard)
		c.sink = wire
		send()
	})
	on(t, d.shard, func() {
		before, messages := d.bytesIn, (*encryptor)(d).Carried().MessagesIn
		m := d.shard.NewMessage()
		m.Loose = true
		m.SetPayloadBytes(bytes.Clone(wire.kept[0]))
		(*decryptor)(d).HandleMessage(d.shard, m)
		d.shard.Free(m)
		if now := (*encryptor)(d).Carried(); now.BytesIn != before+uint64(len(wire.kept[0])-channel.Overhead) || now.MessagesIn != messages+1 {
			t.Errorf("%d bytes and %d messages are counted", now.BytesIn-before, now.MessagesIn-messages)
		}
	})
	on(t, c.shard, func() {
		c.loose.ends.sealer.Wipe()
		if send(); !c.closed || bytes.Contains(wire.kept[1], []byte("12345")) {
			t.Errorf("ended %v, %x", c.closed, wire.kept[1])
		}
	})
}
