package secure

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/crypto/channel"
	"sallyport/crypto/identity"
	"sallyport/internal/histogram"
	"sallyport/routing"
	"sallyport/routing/fair"
)

// TestLimitsHaveDefaults: each limit that is not set has its own, and one that is set stays.
func TestLimitsHaveDefaults(t *testing.T) {
	if got := (Limits{}).withDefaults(); got != (Limits{1024, 5000, 1 << 16, 4096}) {
		t.Errorf("%+v", got)
	}
	if set := (Limits{1, 2, 3, 4}); set.withDefaults() != set {
		t.Errorf("%+v", set.withDefaults())
	}
}

// TestPlacesAreNotedSeldom: that places are short is written once in ten seconds, however many are refused.
func TestPlacesAreNotedSeldom(t *testing.T) {
	n := newNode(t, 1, nil)
	notes := func() int { return strings.Count(n.log.String(), "places are short") }
	for _, c := range []struct {
		since time.Duration // when the last one was written
		notes int
	}{{time.Hour, 1}, {time.Second, 1}, {5 * time.Second, 1}, {12 * time.Second, 2}} {
		n.channels.noted.Store(time.Now().Add(-c.since).Unix())
		for range 3 {
			n.channels.note("places are short", 5, fair.Source{"somebody"})
			if c.since < 10*time.Second {
				n.channels.noted.Store(time.Now().Add(-c.since).Unix())
			}
		}
		if got := notes(); got != c.notes {
			t.Errorf("%v after the last note: %d in all, want %d", c.since, got, c.notes)
		}
	}
}

// TestWhatIsCounted: how long handshakes took is counted by who began them, what is refused or late by why, and what goes through a channel by direction; the node
// that others open channels to is told of each, and who opens them is not.
func TestWhatIsCounted(t *testing.T) {
	a, b := newNode(t, 1, nil), newNode(t, 1, nil)
	var told [2]atomic.Int32
	for i, n := range []*node{a, b} {
		on(t, n.router.Shards()[0], func() {
			n.channels.Opened = func(c *Channel) {
				if c.Initiator {
					t.Error("told of a channel of its own")
				}
				told[i].Add(1)
			}
		})
	}
	conn := a.connect(t, b)
	c := a.dial(t, conn.Sender, "api")
	a.through(t, c, []byte("12345"))
	d := b.channels.List()[0]
	count := func(h *histogram.Histogram) int { n, _, _ := h.Counts(); return int(n) }
	if i, r := count(a.channels.Stats.Initiated), count(a.channels.Stats.Responded); i != 1 || r != 0 || told[0].Load() != 0 {
		t.Errorf("who began: %d began, %d answered, told %d times", i, r, told[0].Load())
	}
	if i, r := count(b.channels.Stats.Initiated), count(b.channels.Stats.Responded); i != 0 || r != 1 || told[1].Load() != 1 {
		t.Errorf("who answered: %d began, %d answered, told %d times", i, r, told[1].Load())
	}
	if a.channels.Stats.Opened.Load() != 1 || b.channels.Stats.Opened.Load() != 1 || b.channels.HandshakeRate() > 1 {
		t.Error("channels opened, or begun in a second")
	}
	// One message each way, of so many bytes as are inside.
	var out, in routing.Traffic
	on(t, c.shard, func() { out = (*encryptor)(c).Carried() })
	on(t, d.shard, func() { in = (*encryptor)(d).Carried() })
	if out.MessagesOut != 1 || out.MessagesIn != 1 || in.MessagesOut != 1 || in.MessagesIn != 1 || out.BytesOut != in.BytesIn || out.BytesIn != in.BytesOut || in.BytesIn < 5 || in.BytesIn > 200 || in.BytesOut < 5 {
		t.Errorf("%+v and %+v", out, in)
	}
	for range 31 {
		a.through(t, c, []byte("x"))
	}
	if r := a.channels.Stats.Rekeys.Load(); r > 1 || r != b.channels.Stats.Rekeys.Load() {
		t.Errorf("%d keys replaced", r)
	}
	for range 32 {
		a.through(t, c, []byte("x"))
	}
	if r := a.channels.Stats.Rekeys.Load(); r < 1 || r > 2 {
		t.Errorf("%d keys replaced after 64 messages", r)
	}

	// Nobody answers.
	ctx, cancel := context.WithCancel(t.Context())
	sent, failed := a.tcp.Stats.MessagesOut.Load(), make(chan error, 1)
	go func() {
		_, err := a.channels.Dial(ctx, routing.RouteOf(conn.Sender).Concat(routing.LocalRoute("nobody")), a.options())
		failed <- err
	}()
	eventually(t, "its first message has gone", func() bool { return a.tcp.Stats.MessagesOut.Load() > sent })
	cancel()
	if err := <-failed; !errors.Is(err, ErrTimeout) {
		t.Error(err)
	}
	s := &a.channels.Stats
	if s.Late.Load() != 1 || s.Absent.Load() != 0 || s.HandshakeFailed.Load() != 0 || a.channels.UnderWay() != 0 {
		t.Errorf("late: %d, %d absent, %d failed", s.Late.Load(), s.Absent.Load(), s.HandshakeFailed.Load())
	}
	// A relay says that nobody is there.
	b.serve(t, "relay", routing.WorkerFunc(func(s *routing.Shard, m *routing.Message) {
		m.SetPayloadBytes(routing.AppendNotice(nil, routing.Notice{Kind: routing.NoticeAbsent, Name: "bank"}))
		m.Reply(s, routing.LocalAddress("relay").Wire())
	}), b.ln.Flow)
	if _, err := a.channels.Dial(limited(t), routing.RouteOf(conn.Sender).Concat(routing.LocalRoute("relay")), a.options()); !errors.Is(err, ErrAbsent) {
		t.Error(err)
	}
	if s.Late.Load() != 1 || s.Absent.Load() != 1 || s.HandshakeFailed.Load() != 0 || a.channels.UnderWay() != 0 {
		t.Errorf("absent: %d, %d late, %d failed", s.Absent.Load(), s.Late.Load(), s.HandshakeFailed.Load())
	}
	// This side does not want the peer, or cannot know whether it does.
	for i, c := range []struct {
		change    func(*Options)
		untrusted uint64
	}{
		{func(o *Options) { o.Trust = func(identity.Identifier) error { return errors.New("no") } }, 1},
		{func(o *Options) { o.Known = func(identity.Identifier) error { return errors.New("no") } }, 2},
		{func(o *Options) {
			o.Credential = func(context.Context) ([]byte, error) { return nil, errors.New("away") }
		}, 2},
	} {
		o := a.options()
		c.change(&o)
		_, err := a.channels.Dial(limited(t), routing.RouteOf(conn.Sender).Concat(routing.LocalRoute("api")), o)
		if err == nil || errors.Is(err, ErrRefused) != (i < 2) || s.HandshakeFailed.Load() != uint64(i+1) || s.Untrusted.Load() != c.untrusted {
			t.Errorf("%d: %v, %d failed, %d not trusted", i, err, s.HandshakeFailed.Load(), s.Untrusted.Load())
		}
	}
	if count(s.Initiated) != 1 || s.Opened.Load() != 1 {
		t.Error("a handshake that failed counts as one that took a while")
	}
}

// TestCredentialsAreShownOnce: a credential is fetched once for a handshake, and who presents none gives the peer nothing to accept.
func TestCredentialsAreShownOnce(t *testing.T) {
	var accepted, fetched atomic.Int32
	a := newNode(t, 1, nil)
	b := newNode(t, 1, func(o *Options) {
		o.Accept = func(context.Context, identity.Identifier, [][]byte) { accepted.Add(1) }
	})
	conn := a.connect(t, b)
	a.through(t, a.dial(t, conn.Sender, "api"), []byte("without"))
	if accepted.Load() != 0 {
		t.Error("nothing was presented, and accepted")
	}
	o := a.options()
	raw, err := a.ids.IssueCredential(limited(t), a.self, a.self, identity.Attributes{"role": "one"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	o.Credential = func(context.Context) ([]byte, error) { fetched.Add(1); return raw, nil }
	h := &handshake{opts: o}
	h.fetchCredential()
	h.fetchCredential()
	if fetched.Load() != 1 || !bytes.Equal(h.credential, raw) {
		t.Errorf("fetched %d times", fetched.Load())
	}
	c, err := a.channels.Dial(limited(t), routing.RouteOf(conn.Sender).Concat(routing.LocalRoute("api")), o)
	if err != nil {
		t.Fatal(err)
	}
	a.through(t, c, []byte("with"))
	if accepted.Load() != 1 {
		t.Errorf("accepted %d times", accepted.Load())
	}
	// A refresh that nobody wants, or that comes when the channel has ended, is not begun.
	on(t, c.shard, func() {
		if c.refreshed([]byte("x")); c.refreshing || c.refreshNext != nil {
			t.Error("who accepts nothing checks a refresh")
		}
	})
	for _, d := range b.channels.List() {
		on(t, d.shard, func() {
			d.end(false)
			if d.refreshed([]byte("x")); d.refreshing {
				t.Error("a channel that has ended checks a refresh")
			}
		})
	}
}

// TestChannelInOneNode: a channel whose both ends are in one node has no way that could end, and stays.
func TestChannelInOneNode(t *testing.T) {
	a := newNode(t, 1, nil)
	c, err := a.channels.Dial(limited(t), routing.LocalRoute("api"), a.options())
	if err != nil {
		t.Fatal(err)
	}
	a.through(t, c, []byte("x"))
	list := a.channels.List()
	if len(list) != 2 {
		t.Fatalf("%d ends", len(list))
	}
	for _, d := range list {
		on(t, d.shard, func() {
			for range 2 * lostSweeps {
				d.hear(d.Heard().Add(-time.Hour))
				d.Peer.Pinged = false
				d.check()
			}
			if d.closed || d.lost != 0 || d.pong != nil {
				t.Errorf("began it %v: ended %v, lost %d times, asked %v", d.Initiator, d.closed, d.lost, d.pong != nil)
			}
			d.hear(time.Now())
		})
	}
	a.through(t, c, []byte("x"))
}

// TestWhenSilenceEnds: which silence ends a channel, and which is asked about.
func TestWhenSilenceEnds(t *testing.T) {
	const direct, behind = false, true
	for _, c := range []struct {
		name                      string
		initiator, pinged, behind bool
		quiet                     time.Duration
		closed, asked             bool
	}{
		{"one that pinged, silent", false, true, direct, silence + time.Second, true, false},
		{"one that pinged, behind a relay, silent", true, true, behind, silence + time.Second, true, false},
		{"one that pinged, not so long", false, true, behind, silence - 5*time.Second, false, false},
		{"direct", false, false, direct, time.Hour, false, false},
		{"direct, began here", true, false, direct, time.Hour, false, false},
		{"behind a relay, not so long", false, false, behind, probeAfter - 5*time.Second, false, false},
		{"behind a relay", false, false, behind, probeAfter + 5*time.Second, false, true},
		{"behind a relay, began here", true, false, behind, probeAfter + 5*time.Second, false, true},
		{"behind a relay, unanswered", false, false, behind, unanswered + time.Second, true, false},
		{"behind a relay, unanswered, began here", true, false, behind, unanswered + time.Second, false, true},
	} {
		a, b := newNode(t, 1, nil), newNode(t, 1, nil)
		x := a.dial(t, a.connect(t, b).Sender, "api")
		eventually(t, "open", func() bool { return len(b.channels.List()) == 1 })
		n := a
		if !c.initiator {
			n, x = b, b.channels.List()[0]
		}
		on(t, x.shard, func() {
			x.Peer.Pinged = c.pinged
			x.hear(time.Now().Add(-c.quiet))
			if c.behind {
				x.remote = routing.NewRoute(x.remote.First(), routing.LocalAddress("hop")).Concat(routing.NewRoute(x.remote.Last()))
			}
			x.check()
			silent := n.channels.Stats.Silent.Load() == 1
			if x.closed != c.closed || silent != c.closed || (x.pong != nil) != c.asked {
				t.Errorf("%s: closed %v, counted %v, asked %v", c.name, x.closed, silent, x.pong != nil)
			}
			if !c.asked {
				return
			}
			// Who was just asked is not asked again; later it is, from the same address, which goes with the channel.
			pong, at := *x.pong, x.probed
			if x.check(); x.probed != at {
				t.Errorf("%s: asked again at once", c.name)
			}
			x.probed = time.Now().Add(-probeEvery - time.Second)
			if x.check(); time.Since(x.probed) > probeEvery || x.pong.Text() != pong.Text() {
				t.Errorf("%s: not asked again", c.name)
			}
			if x.shard.Worker(pong.Text()) == nil {
				t.Errorf("%s: nobody is where the answer goes", c.name)
			}
			if x.end(false); x.shard.Worker(pong.Text()) != nil {
				t.Errorf("%s: a worker is left", c.name)
			}
		})
	}
}

// TestLostWay: a channel that began here ends as soon as the first hop of its way has gone; another one after some sweeps, in a row.
func TestLostWay(t *testing.T) {
	a, b := newNode(t, 1, nil), newNode(t, 1, nil)
	c := a.dial(t, a.connect(t, b).Sender, "api")
	eventually(t, "open", func() bool { return len(b.channels.List()) == 1 })
	d := b.channels.List()[0]
	on(t, d.shard, func() {
		way := d.remote
		gone := routing.NewRoute(routing.LocalAddress("gone"), d.remote.Last())
		for range 2 {
			d.remote = gone
			for range lostSweeps {
				d.check()
			}
			if d.closed {
				t.Fatal("it has ended too early")
			}
			d.remote = way
			d.check()
		}
		d.remote = gone
		for range lostSweeps + 1 {
			d.check()
		}
		if !d.closed {
			t.Error("it stays for ever")
		}
		d.check() // no harm
	})
	on(t, c.shard, func() {
		c.remote = routing.NewRoute(routing.LocalAddress("gone"), c.remote.Last())
		if c.check(); !c.closed {
			t.Error("who began it waits for another way")
		}
	})
}

// TestPlacesOfPeers: a peer's channels are counted while they are open, each once, and nothing is left of a peer that has none.
func TestPlacesOfPeers(t *testing.T) {
	a, b := newNode(t, 1, nil), newNode(t, 1, nil)
	conn := a.connect(t, b).Sender
	first, second := a.dial(t, conn, "api"), a.dial(t, conn, "api")
	for _, c := range []*Channel{first, second} {
		a.through(t, c, []byte("x"))
	}
	if _, held := b.channels.Held(); held != 2 || b.channels.MostOfPeer() != 2 || a.channels.MostOfPeer() != 0 {
		t.Errorf("%d held, %d of one peer", held, b.channels.MostOfPeer())
	}
	for i, c := range []*Channel{first, second} {
		c.Close()
		eventually(t, "one less", func() bool { return b.channels.MostOfPeer() == 1-i && len(b.channels.List()) == 1-i })
		b.channels.mu.Lock()
		if len(b.channels.peers) != 1-i {
			t.Errorf("%d peers are known when %d channels are left", len(b.channels.peers), 1-i)
		}
		b.channels.mu.Unlock()
	}
	if b.channels.Stats.TooMany.Load()+b.channels.Stats.Evicted.Load() != 0 {
		t.Error("some had to make room")
	}
}

// TestListenerInItsOwnChannels: a listener can be reached through its own channels if that is wanted, and not otherwise.
func TestListenerInItsOwnChannels(t *testing.T) {
	for _, own := range []bool{true, false} {
		a, b := newNode(t, 1, nil), newNode(t, 1, nil)
		if _, err := b.channels.Listen(limited(t), "other", b.options(), own, b.ln.Flow); err != nil {
			t.Fatal(err)
		}
		outer := a.dial(t, a.connect(t, b).Sender, "other")
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		if !own {
			ctx, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
		}
		_, err := a.channels.Dial(ctx, routing.RouteOf(outer.Encryptor).Concat(routing.LocalRoute("other")), a.options())
		if cancel(); (err == nil) != own {
			t.Errorf("own %v: %v", own, err)
		}
	}
}

// TestKeptPayloads: a message whose payload its sender keeps goes through channels in channels as any other, and the payload is left as it was.
func TestKeptPayloads(t *testing.T) {
	a, b := newNode(t, 1, nil), newNode(t, 1, nil)
	outer := a.dial(t, a.connect(t, b).Sender, "api")
	inner := a.dial(t, outer.Encryptor, "api")
	a.through(t, inner, []byte("open"))
	got := make(chan []byte, 1)
	var d *Channel
	for _, x := range b.channels.List() {
		on(t, inner.shard, func() {
			if inner.remote.Last().Value == x.Decryptor.Text() {
				d = x
			}
		})
	}
	b.serve(t, "sink", routing.WorkerFunc(func(_ *routing.Shard, m *routing.Message) { got <- bytes.Clone(m.Payload()) }), d.Flow)
	buf := make([]byte, routing.HeadRoom+5+routing.TailRoom)
	copy(buf[routing.HeadRoom:], "mine!")
	on(t, inner.shard, func() {
		m := inner.shard.NewMessage()
		m.SetRoutes(routing.RouteOf(inner.Encryptor).Concat(routing.LocalRoute("sink")), routing.LocalRoute("me"))
		m.SetPayload(buf, 0, routing.HeadRoom, routing.HeadRoom+5, len(buf))
		m.Keep()
		inner.shard.Deliver(m)
		inner.shard.Free(m)
	})
	select {
	case p := <-got:
		if string(p) != "mine!" || string(buf[routing.HeadRoom:routing.HeadRoom+5]) != "mine!" {
			t.Errorf("%q came, %q is left", p, buf[routing.HeadRoom:routing.HeadRoom+5])
		}
	case <-limited(t).Done():
		t.Error("nothing came")
	}
}

// TestSeveredDecides: only a peer whose machine has closed what the channel ran on, and that has neither come back nor opened another channel, has gone.
func TestSeveredDecides(t *testing.T) {
	for name, c := range map[string]struct {
		way        routing.Terminal
		back, anew bool
		ended      bool
		gone       bool
	}{
		"closed by its machine":             {cut{severed: true}, false, false, false, true},
		"closed here":                       {cut{}, false, false, false, false},
		"by what cannot tell":               {nil, false, false, false, false},
		"closed by its machine, came back":  {cut{severed: true}, true, false, false, false},
		"closed by its machine, came anew":  {cut{severed: true}, false, true, false, false},
		"closed by its machine, then ended": {cut{severed: true}, false, false, true, false},
	} {
		a, b := newNode(t, 1, nil), newNode(t, 1, nil)
		b.channels.goneAfter = time.Millisecond
		a.dial(t, a.connect(t, b).Sender, "api")
		eventually(t, "open", func() bool { return len(b.channels.List()) == 1 })
		d := b.channels.List()[0]
		told, over := 0, make(chan struct{})
		d.AwaitGone(func() { told++ })
		w := &goneWatcher{make(chan struct{}), make(chan struct{})}
		on(t, d.shard, func() {
			d.watchers.Watch(w)
			way := d.way
			d.way = nil
			d.severed(c.way)
			if c.back {
				d.way = way
			}
			if c.anew {
				b.channels.mu.Lock()
				p := b.channels.peers[d.Peer.ID]
				p.latest = time.Now().Add(time.Hour)
				b.channels.peers[d.Peer.ID] = p
				b.channels.mu.Unlock()
			}
			if c.ended {
				d.end(false)
			}
			d.shard.Loop().After(2*b.channels.goneAfter, func() { // behind the other timer
				if (told == 1) != c.gone || d.closed != (c.gone || c.ended) {
					t.Errorf("%s: told %d times, ended %v", name, told, d.closed)
				}
				close(over)
			})
		})
		<-over
		select {
		case <-w.gone:
			if !c.gone {
				t.Errorf("%s: a watcher is told that it has gone", name)
			}
		default:
			if c.gone {
				t.Errorf("%s: its watcher is not told", name)
			}
		}
		// Somebody between says that it has gone: that counts once, and not for a channel that has ended.
		d.PeerGone()
		eventually(t, "ended", func() (closed bool) { on(t, d.shard, func() { closed = d.closed }); return closed })
		if want := map[bool]int{true: 0, false: 1}[c.ended]; told != want {
			t.Errorf("%s: told %d times in all", name, told)
		}
	}
}

// cut is a connection that has ended.
type cut struct {
	routing.Terminal
	severed bool
}

func (c cut) Severed() bool { return c.severed }

// TestNoticeToWhoAnswers: a notice ends a handshake of who began it; for who answers it is a message as any other. What a handshake keeps is given back when it ends.
func TestNoticeToWhoAnswers(t *testing.T) {
	n := newNode(t, 1, nil)
	on(t, n.router.Shards()[0], func() {
		h := &handshake{cs: n.channels, shard: n.router.Shards()[0], busy: true}
		m := h.shard.NewMessage()
		m.SetPayloadBytes(routing.AppendNotice(nil, routing.Notice{Kind: routing.NoticeAbsent, Name: "x"}))
		if h.HandleMessage(h.shard, m); h.ended || len(h.kept) != 1 || h.keptBytes != keptSize(h.kept[0]) {
			t.Errorf("ended %v, %d kept", h.ended, len(h.kept))
		}
		h.shard.Free(m)
		n.channels.kept.Store(0)
	})
	// What is kept of a handshake that ends is given back.
	a := newNode(t, 1, nil)
	on(t, a.router.Shards()[0], func() {
		h := &handshake{cs: a.channels, shard: a.router.Shards()[0], busy: true, address: a.router.Shards()[0].NewAddress()}
		a.channels.open.Add(1)
		h.keep(h.shard, routing.Reply{Payload: make([]byte, 100), Return: routing.LocalRoute("a")})
		if h.fail(errGone); !h.ended || !h.gone.Load() || a.channels.kept.Load() != 0 || h.keptBytes != 0 || a.channels.open.Load() != 0 {
			t.Errorf("ended %v, %d bytes kept, %d under way", h.ended, a.channels.kept.Load(), a.channels.open.Load())
		}
		if h.fail(errGone); a.channels.open.Load() != 0 {
			t.Error("ended twice")
		}
		if h.stepped(routing.Reply{}, nil, false, &channel.Keys{}, nil); h.busy {
			t.Error("it computes for ever")
		}
	})
}
