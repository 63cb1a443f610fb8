package udp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sallyport/routing"
)

// linked makes two nodes with a link between them.
func linked(t *testing.T) (a, b *node, p *Puncture) {
	t.Helper()
	a, b, p, err := meet(t, patient, nil, nil)
	if err != nil || !p.Linked() {
		t.Fatal(p, err)
	}
	return a, b, p
}

// TestLinkEnds: what cannot go on ends a link at once, and its puncture with it; what can is kept until it is whole.
func TestLinkEnds(t *testing.T) {
	for name, c := range map[string]struct {
		act  func(p *Puncture, l *link)
		ends bool
	}{
		"a frame that is too large": {func(_ *Puncture, l *link) {
			came(l, binary.BigEndian.AppendUint32(nil, routing.MaxFrame+1))
			l.handOn()
		}, true},
		"the largest frame, not whole": {func(_ *Puncture, l *link) {
			came(l, append(binary.BigEndian.AppendUint32(nil, routing.MaxFrame), 1))
			l.handOn()
		}, false},
		"half a length": {func(_ *Puncture, l *link) { came(l, []byte{0, 0, 0}); l.handOn() }, false},
		"no message":    {func(_ *Puncture, l *link) { came(l, []byte{0, 0, 0, 1, 0xff}); l.handOn() }, true},
		"an empty one":  {func(_ *Puncture, l *link) { came(l, []byte{0, 0, 0, 0}); l.handOn() }, true},
		"no message, while it is paused": {func(_ *Puncture, l *link) {
			l.PauseSource()
			came(l, []byte{0, 0, 0, 1, 0xff})
			l.handOn()
		}, false},
		"no message, when it goes on": {func(_ *Puncture, l *link) {
			l.PauseSource()
			came(l, []byte{0, 0, 0, 1, 0xff})
			l.handOn()
			l.ResumeSource()
		}, true},
		"its backlog": {func(_ *Puncture, l *link) { (*linkDraining)(l).Stalled() }, true},
		"more than is taken": {func(p *Puncture, l *link) {
			s := &linkSender{punctureSender{p}}
			l.arq.expect = 0
			if s.ReserveFrame(routing.Route{}, routing.Route{}, routing.MaxFrame, nil) != nil {
				panic("a message that is too large is taken")
			}
			for range linkLimit/(routing.MaxFrame-1024) + 1 {
				if s.ReserveFrame(routing.Route{}, routing.Route{}, routing.MaxFrame-1024, nil) == nil {
					return
				}
				l.arq.out.commit(l.reserved)
			}
			panic("there is no bound")
		}, true},
	} {
		_, _, p := linked(t)
		if err := p.shard.Do(limited(t), func() {
			c.act(p, p.bind.link)
			if !c.ends && p.closed {
				t.Errorf("%s: it has ended", name)
			}
			if !c.ends {
				if len(p.bind.link.arq.ready()) == 0 {
					t.Errorf("%s: what has come is lost", name)
				}
				p.end()
			}
		}); err != nil {
			t.Fatal(err)
		}
		<-p.Done()
		if err := p.shard.Do(limited(t), func() {
			l := p.bind.link
			if !l.closed || !p.bind.closed {
				t.Errorf("%s: the link or the socket is open", name)
			}
			l.handOn() // nothing happens any more
			l.flush()
			l.fired()
			p.end()
			if (&linkSender{punctureSender{p}}).ReserveFrame(routing.Route{}, routing.Route{}, 1, nil) != nil {
				t.Errorf("%s: it takes a message", name)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLinkSizes: a link's datagrams are of a size that every network carries, or of what somebody has said of the network.
func TestLinkSizes(t *testing.T) {
	for size, want := range map[int]int{0: linkPacketSize, defaultPacketSize: linkPacketSize, defaultPacketSize - 1: linkMinPacketSize, 100: linkMinPacketSize, 1500: 1500, 1200: 1200, 1199: 1200} {
		n := newNode(t, Options{PacketSize: size})
		if err := n.shard.Do(limited(t), func() {
			o := offer{address: "127.0.0.1:5", remote: []byte("theirs")}
			ours := n.shard.NewAddress()
			p := &Puncture{bind: n.bind, shard: n.shard, ours: ours, onward: routing.LocalRoute("socket", string(o.remote))}
			initiator := newLink(p, 1)
			if initiator.arq.grown != &n.udp.grown || n.udp.grown.most != defaultWindows {
				t.Error("its window is not within the node's bound")
			}
			if got := initiator.arq.size; got != want-1-tokenSize {
				t.Errorf("of %d: datagrams of %d bytes, want %d", size, got+1+tokenSize, want)
			}
			q := &Puncture{bind: n.bind, shard: n.shard, ours: routing.LocalAddress("theirs").Wire(), onward: routing.LocalRoute("socket", ours.Text()), responder: true}
			responder := newLink(q, 1)
			if initiator.send != responder.recv || initiator.recv != responder.send || initiator.send == initiator.recv || initiator.send[0] != linkMark {
				t.Errorf("tokens %x %x and %x %x", initiator.send, initiator.recv, responder.send, responder.recv)
			}
			q.responder = false
			if both := newLink(q, 1); both.recv == initiator.send {
				t.Error("two who both began take each other's datagrams")
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	for text, want := range map[string]bool{"": false, "S": false, "S12345678": false, "S123456789": true, "T123456789": false} {
		if isLinkPacket([]byte(text)) != want {
			t.Errorf("%q: %v", text, !want)
		}
	}
}

// TestLinkTellsOfRoom: a link's backlog is told when as little waits as it asked for, once.
func TestLinkTellsOfRoom(t *testing.T) {
	_, _, p := linked(t)
	if err := p.shard.Do(limited(t), func() {
		l := p.bind.link
		d := (*linkDraining)(l)
		frame := l.arq.out.reserve(1000)
		clear(frame)
		l.arq.out.commit(1000)
		l.written += 1000
		if n, taken := d.Waiting(); n != 1000 || taken+1000 != l.written {
			t.Errorf("%d wait, %d taken of %d", n, taken, l.written)
		}
		d.WantDrain(999)
		if l.drained(); l.drain != 999 {
			t.Error("told of room that there is not")
		}
		d.WantDrain(1000)
		if l.drained(); l.drain != 0 {
			t.Error("not told of room")
		}
		p.end()
	}); err != nil {
		t.Fatal(err)
	}
}

// TestNegotiationRefused: what is no offer, comes from nowhere, from somebody who may not, or is one too many begins nothing, and is counted or told.
func TestNegotiationRefused(t *testing.T) {
	n := newNode(t, Options{times: times{beat: time.Second, silence: time.Second, opening: time.Second, answer: time.Second}})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	asked := make(chan struct{}, 10)
	away := errors.New("away")
	l := n.udp.NewListener(ctx, func(context.Context, *Bind) (netip.AddrPort, error) {
		asked <- struct{}{}
		return netip.AddrPort{}, away
	})
	good := appendOffer(nil, offer{address: "192.0.2.1:5", remote: []byte("theirs"), link: 7})
	back := routing.LocalRoute("nobody")
	hand := func(payload []byte, back routing.Route) {
		t.Helper()
		if err := n.shard.Do(limited(t), func() {
			m := n.shard.NewMessage()
			m.Return = back
			m.SetPayloadBytes(payload)
			l.HandleMessage(n.shard, m)
			n.shard.Free(m)
		}); err != nil {
			t.Fatal(err)
		}
	}
	for i, c := range []struct {
		payload []byte
		back    routing.Route
	}{{[]byte("x"), back}, {appendOffer(nil, offer{address: "[ff02::1]:5", remote: []byte("theirs")}), back}, {good, routing.Route{}}} {
		hand(c.payload, c.back)
		if got := n.shard.Drops.Malformed.Load(); got != uint64(i+1) {
			t.Errorf("%d of %d counted", got, i+1)
		}
	}
	l.Allow = func(*routing.Message) bool { return false }
	hand(good, back)
	l.Allow = func(*routing.Message) bool { return true }
	l.open.Store(maxPunctures)
	hand(good, back)
	if l.open.Load() != maxPunctures || len(asked) != 0 {
		t.Errorf("%d open, %d begun", l.open.Load(), len(asked))
	}
	l.open.Store(maxPunctures - 1)
	hand(good, back)
	<-asked
	eventually(t, "a place is given back", func() bool { return l.open.Load() == maxPunctures-1 })
	if got := n.shard.Drops.Malformed.Load(); got != 3 {
		t.Errorf("%d malformed", got)
	}

	// The other side: a server that is away, one that does not answer, another node that does not, or answers what is none.
	for name, c := range map[string]struct {
		public Public
		answer []byte
		want   string
	}{
		"no server":     {func(context.Context, *Bind) (netip.AddrPort, error) { return netip.AddrPort{}, away }, nil, "away"},
		"no answer":     {nil, nil, "does not negotiate"},
		"no offer":      {nil, []byte("x"), "answer to the negotiation"},
		"a bad address": {nil, appendOffer(nil, offer{address: "0.0.0.0:5", remote: []byte("x")}), "not the address"},
	} {
		rendezvous := newNode(t, Options{})
		if c.public == nil {
			c.public = func(ctx context.Context, b *Bind) (netip.AddrPort, error) {
				return b.PublicAddress(ctx, rendezvous.bind.Local)
			}
		}
		negotiator := fmt.Sprintf("negotiator %s", name)
		n.serve(t, negotiator, routing.WorkerFunc(func(s *routing.Shard, m *routing.Message) {
			if c.answer != nil {
				m.SetPayloadBytes(c.answer)
				m.Reply(s, routing.LocalAddress(negotiator).Wire())
			}
		}))
		before := len(n.udp.Binds())
		patience := 90 * time.Second
		if name == "no answer" {
			patience = 3 * time.Second
		}
		asking, cancel := context.WithTimeout(limited(t), patience)
		_, err := n.udp.Negotiate(asking, Negotiation{Shard: n.shard, Route: routing.LocalRoute(negotiator), Public: c.public})
		cancel()
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		eventually(t, name+": the socket is closed", func() bool { return len(n.udp.Binds()) == before })
	}
}

// TestMessageBounds: a control message is read up to each bound and not beyond.
func TestMessageBounds(t *testing.T) {
	text := func(n int) string { return strings.Repeat("a", n) }
	for n, ok := range map[int]bool{0: true, maxTextLen: true, maxTextLen + 1: false} {
		if got, err := parseAddress(appendAddress(nil, text(n))); (err == nil) != ok || ok && got != text(n) {
			t.Errorf("an address of %d bytes: %v", n, err)
		}
	}
	for n, ok := range map[int]bool{0: false, 1: true, maxRemoteLen: true, maxRemoteLen + 1: false} {
		o, err := parseOffer(appendOffer(nil, offer{address: "a", remote: []byte(text(n))}))
		if (err == nil) != ok || ok && len(o.remote) != n {
			t.Errorf("a worker of %d bytes: %v", n, err)
		}
	}
	whole := appendOffer(nil, offer{address: "ab", remote: []byte{5}, link: 9})
	if o, err := parseOffer(whole); err != nil || o.link != 9 {
		t.Errorf("%+v, %v", o, err)
	}
	for first, ok := range map[byte]bool{0x81: false, 0x82: true, 0x83: true, 0x80 + maxExtensions: true, 0x80 + maxExtensions + 1: false, 0x43: false, 0xa2: false} {
		b := bytes.Clone(whole)
		b[0] = first
		o, err := parseOffer(b)
		if (err == nil) != ok || ok && (o.link == 9) != (first > 0x82) {
			t.Errorf("%x: %+v, %v", first, o, err)
		}
	}
	for i := range len(whole) - 5 {
		if o, err := parseOffer(whole[:i]); err == nil && o.link != 0 {
			t.Errorf("%x: %+v", whole[:i], o)
		}
	}
	for b, want := range map[string]bool{"\x82\x00\x80": true, "\x82\x17\x80": true, "\x81\x00\x80": false, "\x83\x00\x80": false, "\x9f\x00\x80": false, "\x82\x40\x80": false, "\x82\x00": false, "\x82": false, "": false} {
		if _, _, err := openKind([]byte(b)); (err == nil) != want {
			t.Errorf("%x: %v", b, err)
		}
	}
	for b, want := range map[string]bool{"\x81": true, "\x82": true, "\x80": false, "\x9f": true, "\x41": false, "": false} {
		if _, err := openArray([]byte(b), 0, 1); (err == nil) != want {
			t.Errorf("%x: %v", b, err)
		}
	}
	for b, want := range map[string]string{
		"\x80": "", "\x81\x05": "\x05", "\x83\x17\x18\x18\x18\xff": "\x17\x18\xff", "\x9f\x01\xff": "\x01", "\x83\x01\x02\x03": "\x01\x02\x03",
		"\x84\x01\x02\x03\x04": "-", "\x9f\x01\x02\x03\x04\xff": "-", "\x82\x01": "-", "\x9f\x01": "-", "\x81\x19\x01\x00": "-", "\x81\x41\x00": "-", "\x40": "-", "": "-",
	} {
		got, at, err := readInts(nil, []byte(b), 0, 3)
		if (err == nil) != (want != "-") || err == nil && (string(got) != want || at != len(b)) {
			t.Errorf("%x: %x to %d, %v", b, got, at, err)
		}
	}
	for kind, ok := range map[byte]bool{kindPing: true, kindPong: true, kindPayload + 1: false} {
		if p, err := parsePunched(appendKind(nil, kind), nil); (err == nil) != ok || ok && p.kind != uint64(kind) {
			t.Errorf("kind %d: %v", kind, err)
		}
	}
	payload := appendPunched(nil, routing.LocalRoute("a"), routing.LocalRoute("b"), []byte{1})
	for i := range payload {
		if _, err := parsePunched(payload[:i], nil); err == nil {
			t.Errorf("%d of %d bytes are a message", i, len(payload))
		}
	}
	if _, err := parseAddress(appendKind(nil, kindAddress+1)); err == nil {
		t.Error("another kind is an address")
	}
	for text, want := range map[string]string{"192.0.2.1:5": "192.0.2.1:5", "[::ffff:192.0.2.1]:5": "192.0.2.1:5", "255.255.255.254:1": "255.255.255.254:1"} {
		if a, err := peerAddress(text); err != nil || a.String() != want {
			t.Errorf("%s: %s, %v", text, a, err)
		}
	}
	if _, err := peerAddress("[::ffff:255.255.255.255]:5"); err == nil {
		t.Error("all hosts of a network are one")
	}
}

// TestSocketsSayWhatTheyAre: names in logs, and that nothing holds up what UDP brings.
func TestSocketsSayWhatTheyAre(t *testing.T) {
	n := newNode(t, Options{})
	fixed := n.open(t, netip.MustParseAddrPort("127.0.0.1:5"))
	if got := n.bind.String(); got != "udp "+n.bind.Local.String() {
		t.Error(got)
	}
	if got := fixed.String(); got != "udp "+fixed.Local.String()+" to 127.0.0.1:5" {
		t.Error(got)
	}
	if fixed.TerminalPeer() != nil || fixed.TerminalProducer().Own != fixed.Flow || !fixed.Lossy(nil) || fixed.Shard() != n.shard {
		t.Error("a socket is not what it is")
	}
	n.bind.PauseSource()
	n.bind.ResumeSource()
	// A datagram of another than the fixed peer is nobody's.
	c := newClient(t, fixed.Local)
	c.send(wire(1, routing.LocalRoute("echo"), routing.LocalRoute("me"), nil))
	eventually(t, "counted as foreign", func() bool { return n.udp.Stats.Foreign.Load() == 1 })
	if n.udp.Stats.MessagesIn.Load() != 0 {
		t.Error("taken")
	}
}

// came puts b into a link as what has come in order.
func came(l *link, b []byte) { l.arq.in, l.arq.at = b, 0 }
