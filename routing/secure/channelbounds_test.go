package secure

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"sallyport/crypto/channel"
	"sallyport/routing"
)

// TestMalformedInside: what a peer sends through a channel and is no message is dropped and told; the channel goes on.
func TestMalformedInside(t *testing.T) {
	a, b := newNode(t, 1, nil), newNode(t, 1, nil)
	c := a.dial(t, a.connect(t, b).Sender, "api")
	for _, plain := range [][]byte{{}, []byte("x"), append(bytes.Clone(payloadPrefix), 0xff), append(bytes.Clone(payloadPrefix), 0x83, 0xff)} {
		on(t, c.shard, func() { c.control(plain) })
	}
	a.through(t, c, []byte("goes on"))
	if !b.log.Contains("malformed") {
		t.Error("nobody was told")
	}
	d := b.channels.List()[0]
	if b.channels.Stats.OpenFailed.Load() != 0 || b.channels.Stats.Gaps.Load() != 0 {
		t.Error("counted as something else")
	}
	// A copy of what was sent, and what was changed on its way, are refused and counted.
	on(t, d.shard, func() {
		for _, payload := range [][]byte{nil, make([]byte, channel.Overhead-1), make([]byte, channel.Overhead), make([]byte, 100)} {
			m := d.shard.NewMessage()
			m.SetPayloadBytes(payload)
			(*decryptor)(d).HandleMessage(d.shard, m)
			d.shard.Free(m)
		}
	})
	if n := b.channels.Stats.OpenFailed.Load(); n != 4 {
		t.Errorf("%d refused", n)
	}
	a.through(t, c, []byte("goes on"))
}

// TestChannelThatCannotSeal ends, with its log, whichever way what it seals goes; nothing goes out.
func TestChannelThatCannotSeal(t *testing.T) {
	for name, hops := range map[string][]string{"into a connection": {"api"}, "into a message": {"hop", "api"}} {
		for _, kept := range []bool{false, true} {
			a, b := newNode(t, 1, nil), newNode(t, 1, nil)
			b.serve(t, "hop", routing.Hop("hop"), b.ln.Flow)
			first := a.connect(t, b).Sender
			c := a.dial(t, first, hops...)
			if name == "into a message" { // as where it runs through another channel
				outer := c
				c = a.dial(t, outer.Encryptor, "api")
			}
			a.through(t, c, []byte("before"))
			sent := a.tcp.Stats.MessagesOut.Load()
			on(t, c.shard, func() {
				c.sealer.Wipe()
				m := c.shard.NewMessage()
				m.SetRoutes(routing.RouteOf(c.Encryptor).Concat(routing.LocalRoute("echo")), routing.LocalRoute("me"))
				m.SetPayloadBytes([]byte("after"))
				if kept {
					buf := make([]byte, routing.HeadRoom+5+routing.TailRoom)
					m.SetPayload(buf, 0, routing.HeadRoom, routing.HeadRoom+5, len(buf))
					m.Keep()
				}
				c.shard.Deliver(m)
				c.shard.Free(m)
			})
			ended(t, c)
			if n := a.tcp.Stats.MessagesOut.Load(); n != sent || !a.log.Contains("cannot encrypt") {
				t.Errorf("%s, kept %v: %d messages went out", name, kept, n-sent)
			}
			on(t, c.shard, func() {
				c.control([]byte("x")) // of no use any more
				c.end(true)
			})
		}
	}
	a, b := newNode(t, 1, nil), newNode(t, 1, nil)
	c := a.dial(t, a.connect(t, b).Sender, "api")
	on(t, c.shard, func() {
		c.sealer.Wipe()
		c.control([]byte("x"))
	})
	ended(t, c)
}

// TestKeptWhileItComputes: what comes for a handshake while it computes is kept up to a bound for each, and one for all; nothing of it is counted for ever.
func TestKeptWhileItComputes(t *testing.T) {
	n := newNode(t, 1, nil)
	s, cs := n.router.Shards()[0], n.channels
	on(t, s, func() {
		h := &handshake{cs: cs, shard: s, busy: true}
		message := func(size int) routing.Reply {
			return routing.Reply{Payload: make([]byte, size), Return: routing.LocalRoute("a")}
		}
		fits := maxKept - keptSize(message(0))
		for _, c := range []struct {
			size, kept int
			dropped    uint64
		}{{fits + 1, 0, 1}, {fits, 1, 1}, {0, 1, 2}} {
			h.keep(s, message(c.size))
			if len(h.kept) != c.kept || s.Drops.Overflow.Load() != c.dropped || int(cs.kept.Load()) != h.keptBytes {
				t.Errorf("%d bytes: %d kept, %d dropped, %d of %d bytes", c.size, len(h.kept), s.Drops.Overflow.Load(), h.keptBytes, cs.kept.Load())
			}
		}
		if h.keptBytes != maxKept {
			t.Errorf("%d bytes kept", h.keptBytes)
		}
		other := &handshake{cs: cs, shard: s, busy: true}
		cs.kept.Store(maxKeptAll - int64(keptSize(message(5))))
		other.keep(s, message(5))
		other.keep(s, message(0))
		if len(other.kept) != 1 || cs.kept.Load() != maxKeptAll || s.Drops.Overflow.Load() != 3 {
			t.Errorf("%d kept, %d of all, %d dropped", len(other.kept), cs.kept.Load(), s.Drops.Overflow.Load())
		}
		(&handshake{cs: cs, shard: s}).next() // nothing came
		cs.kept.Store(0)

		// A handshake takes no message that is too long, nor any when it has ended.
		before := s.Drops.Malformed.Load()
		for i, x := range []struct {
			ended bool
			size  int
			taken bool
		}{{false, channel.MaxMessage + 1, false}, {true, 10, false}, {false, channel.MaxMessage, true}} {
			h := &handshake{cs: cs, shard: s, busy: true, ended: x.ended}
			m := s.NewMessage()
			m.SetPayloadBytes(make([]byte, x.size))
			h.HandleMessage(s, m)
			s.Free(m)
			if (len(h.kept) == 1) != x.taken || s.Drops.Malformed.Load()-before != uint64(min(i+1, 2)) {
				t.Errorf("%+v: %d kept, %d malformed", x, len(h.kept), s.Drops.Malformed.Load()-before)
			}
		}
		cs.kept.Store(0)
		l := &Listener{cs: cs, Name: "x"}
		m := s.NewMessage()
		m.SetPayloadBytes(make([]byte, 31))
		l.HandleMessage(s, m)
		if s.Drops.Malformed.Load()-before != 3 || cs.open.Load() != 0 {
			t.Error("a handshake begins with less than a key")
		}
		s.Free(m)
	})
}

// TestGapsInCounters: a message that is missing is told once, and an old one that comes late too; what follows in order is not.
func TestGapsInCounters(t *testing.T) {
	n := newNode(t, 1, nil)
	c := &Channel{cs: n.channels}
	w := &lossWatcher{}
	c.watchers.Watch(w)
	for i, x := range []struct {
		counter, next uint64
		gaps          int
	}{{0, 1, 0}, {1, 2, 0}, {5, 6, 1}, {3, 6, 2}, {6, 7, 2}, {8, 9, 3}} {
		c.count(x.counter)
		if c.counter != x.next || int(w.lost.Load()) != x.gaps || n.channels.Stats.Gaps.Load() != uint64(x.gaps) {
			t.Errorf("message %d: %d is next, %d gaps", i, c.counter, w.lost.Load())
		}
	}
}

// TestWhatIsKnownOfAChannel: when it was last heard of, whether somebody waits for its end, and that it answers nothing when its loop has ended.
func TestWhatIsKnownOfAChannel(t *testing.T) {
	a, b := newNode(t, 1, nil), newNode(t, 1, nil)
	c := a.dial(t, a.connect(t, b).Sender, "api")
	ctx := limited(t)
	a.through(t, c, []byte("x"))
	if heard := c.Heard(); !heard.After(c.OpenedAt) || time.Since(heard) > time.Minute {
		t.Errorf("heard %v", heard)
	}
	if c.Watched(ctx) {
		t.Error("somebody watches")
	}
	w := make(watcher)
	on(t, c.shard, func() { (*encryptor)(c).Watch(w) })
	if !c.Watched(ctx) {
		t.Error("nobody watches")
	}
	on(t, c.shard, func() { (*encryptor)(c).Unwatch(w) })
	if c.Watched(ctx) {
		t.Error("somebody watches still")
	}
	if err := c.Move(ctx, routing.LocalRoute("nobody")); !errors.Is(err, ErrClosed) {
		t.Errorf("moved to nobody: %v", err)
	}
	a.through(t, c, []byte("goes on"))
	c.Close()
	ended(t, c)
	if err := c.Move(ctx, routing.RouteOf(a.connect(t, b).Sender)); !errors.Is(err, ErrClosed) {
		t.Errorf("moved when it had ended: %v", err)
	}
	if n := a.channels.Stats.Closed.Load(); n != 1 || a.channels.Find(c.Encryptor.Text()) != nil || len(a.channels.List()) != 0 {
		t.Errorf("%d closed", n)
	}
}

// TestOwnSideFails: an initiator whose identity or credential cannot be had opens nothing, and says why.
func TestOwnSideFails(t *testing.T) {
	a, b := newNode(t, 1, nil), newNode(t, 1, nil)
	route := routing.RouteOf(a.connect(t, b).Sender).Concat(routing.LocalRoute("api"))
	o := a.options()
	o.Self[3]++
	if _, err := a.channels.Dial(limited(t), route, o); err == nil || !strings.Contains(err.Error(), "own secure channel key") {
		t.Error(err)
	}
	o = a.options()
	away := errors.New("the authority is away")
	o.Credential = func(context.Context) ([]byte, error) { return nil, away }
	if _, err := a.channels.Dial(limited(t), route, o); !errors.Is(err, away) {
		t.Error(err)
	}
	eventually(t, "no handshake is open", func() bool { return a.channels.open.Load() == 0 })
	for name, x := range map[string]func(){
		"a listener of the name": func() {
			if _, err := b.channels.Listen(limited(t), "api", b.options(), false); !errors.Is(err, routing.ErrExists) {
				t.Error(err)
			}
		},
		"one that is not there": func() {
			if b.channels.FindListener("none") != nil || b.channels.FindListener("api") != b.api || len(b.channels.Listeners()) != 1 {
				t.Error("listeners are not known by their names")
			}
		},
	} {
		t.Run(name, func(*testing.T) { x() })
	}
	if err := b.api.Close(limited(t)); err != nil || b.channels.FindListener("api") != nil || b.router.HasNamed("api") || b.router.LookupFlow(b.api.Flow.ID()) != nil {
		t.Errorf("closed: %v", err)
	}
}
