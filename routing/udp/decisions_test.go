package udp

import (
	"encoding/binary"
	"hash/crc64"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"sallyport/routing"
)

// TestReassemblyCourse: of what several peers send over a network that loses, repeats and reorders, begins anew and falls silent, exactly these messages come, in this
// order, and this is counted. Nearly every decision of the reassembler changes one of them: whoever means to change one, puts the new figures here.
func TestReassemblyCourse(t *testing.T) {
	for _, c := range []struct {
		window int
		budget int64
		came   int
		stats  [6]uint64 // duplicates, late, incomplete, no room, restarts, malformed
		sum    uint64
	}{
		{5, 6_000, 2796, [6]uint64{326, 467, 173, 1148, 48, 17}, 0x696442f065c48480},
		{64, 1 << 20, 2921, [6]uint64{1292, 24, 147, 0, 22, 31}, 0x16be3c53cc3aec73},
	} {
		rnd, a := rand.New(rand.NewPCG(3, uint64(c.window))), newAssembly(c.window, c.budget)
		sum, came := crc64.New(crc64.MakeTable(crc64.ECMA)), 0
		note := func(list ...int64) {
			for _, v := range list {
				var b [8]byte
				binary.LittleEndian.PutUint64(b[:], uint64(v))
				_, _ = sum.Write(b[:])
			}
		}
		type datagram struct {
			from netip.AddrPort
			b    []byte
		}
		var air []datagram
		var numbers [6]uint16
		for step := range 8_000 {
			k := rnd.IntN(len(numbers))
			from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(k)}), 1000)
			switch rnd.IntN(400) {
			case 0:
				numbers[k] = uint16(rnd.Uint32()) // it begins anew
			case 1:
				numbers[k] -= uint16(rnd.IntN(80))
			}
			if len(air) < 60 {
				message := make([]byte, []int{1, 40, 400, 493, 494, 986, 3000}[rnd.IntN(7)])
				for i := range message {
					message[i] = byte(step + i)
				}
				for _, d := range cut(numbers[k], defaultPacketSize, message) {
					switch rnd.IntN(25) {
					case 0: // lost
					case 1:
						air = append(air, datagram{from, d}, datagram{from, slices.Clone(d)})
					default:
						air = append(air, datagram{from, d})
					}
				}
				if rnd.IntN(50) == 0 { // a part of something else under the same number
					air = append(air, datagram{from, cut(numbers[k], defaultPacketSize, make([]byte, 1500))[2]})
				}
				numbers[k]++
			}
			if len(air) > 0 {
				i := rnd.IntN(min(len(air), 12))
				d := air[i]
				air = slices.Delete(air, i, i+1)
				if m := a.feed(t, d.b, d.from); m != nil {
					came++
					sum.Write(m)
					note(int64(d.from.Addr().As4()[3]))
				}
			}
			switch n := rnd.IntN(2000); {
			case n < 3:
				a.now = a.now.Add(time.Duration(n+1) * 4 * time.Second)
			case n == 3:
				a.now = a.now.Add(peerTimeout)
			case n < 20:
				a.now = a.now.Add(restartQuiet)
			default:
				a.now = a.now.Add(time.Duration(rnd.IntN(4)) * time.Millisecond)
			}
			if step%200 == 0 && a.sweep(a.now) {
				note(1)
			}
			note(a.budget.Load(), int64(a.held), int64(len(a.peers)))
		}
		s := &a.stats
		stats := [6]uint64{s.Duplicates.Load(), s.Late.Load(), s.Incomplete.Load(), s.NoRoom.Load(), s.Restarts.Load(), s.Malformed.Load()}
		if came != c.came || stats != c.stats || sum.Sum64() != c.sum {
			t.Errorf("a window of %d: %d came, %v, 0x%x", c.window, came, stats, sum.Sum64())
		}
		a.settled(t, c.budget)
	}
}

// TestOptionsHaveBounds: what is not asked for has a default, and what is is within bounds.
func TestOptionsHaveBounds(t *testing.T) {
	none := Options{PacketSize: defaultPacketSize, Pending: defaultPending, Budget: 2 * routing.MaxFrame, HighWater: 256 << 10, Windows: defaultWindows, times: defaultTimes}
	for _, c := range []struct{ asked, want func(*Options) }{
		{func(*Options) {}, func(*Options) {}},
		{func(o *Options) { o.PacketSize = 1 }, func(o *Options) { o.PacketSize = minPacketSize }},
		{func(o *Options) { o.PacketSize = maxPacketSize + 1 }, func(o *Options) { o.PacketSize = maxPacketSize }},
		{func(o *Options) { o.PacketSize = 1000 }, func(o *Options) { o.PacketSize = 1000 }},
		{func(o *Options) { o.Pending = -1 }, func(o *Options) { o.Pending = 1 }},
		{func(o *Options) { o.Pending = maxPending + 1 }, func(o *Options) { o.Pending = maxPending }},
		{func(o *Options) { o.Pending = 7 }, func(o *Options) { o.Pending = 7 }},
		{func(o *Options) { o.Budget, o.HighWater, o.Windows = 1, 2, 3 }, func(o *Options) { o.Budget, o.HighWater, o.Windows = 1, 2, 3 }},
		{func(o *Options) { o.times = patient }, func(o *Options) { o.times = patient }},
	} {
		asked, want := Options{}, none
		c.asked(&asked)
		c.want(&want)
		got := asked.withDefaults()
		if got.lose != nil {
			t.Error("the network loses what nobody asked for")
		}
		if got.PacketSize != want.PacketSize || got.Pending != want.Pending || got.Budget != want.Budget || got.HighWater != want.HighWater || got.Windows != want.Windows || got.times != want.times {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	n := newNode(t, Options{Budget: 77, Windows: 88})
	if n.udp.budget.Load() != 77 || n.udp.grown.most != 88 {
		t.Errorf("%d and %d bytes", n.udp.budget.Load(), n.udp.grown.most)
	}
}

// TestStrangersShare: what goes to addresses that have proved nothing is what came from them, and beyond that what all of them have together, which comes again with time.
func TestStrangersShare(t *testing.T) {
	at := time.Unix(1000, 0)
	g, p := &guard{left: 100, at: at}, &peer{credit: 50}
	for i, c := range []struct {
		n      int
		after  time.Duration
		ok     bool
		left   float64
		credit int
	}{
		{30, 0, true, 100, 20},
		{30, 0, true, 90, 0},
		{91, 0, false, 90, 0},
		{90, 0, true, 0, 0},
		{1, 0, false, 0, 0},
		{strangersRate, time.Second, true, 0, 0},
		{strangersBurst + 1, time.Hour, false, strangersBurst, 0},
		{strangersBurst, 0, true, 0, 0},
	} {
		at = at.Add(c.after)
		if ok := g.spend(p, c.n, at); ok != c.ok || g.left != c.left || p.credit != c.credit {
			t.Errorf("%d: %v, %v are left, %d of its own", i, ok, g.left, p.credit)
		}
	}
}

// TestCookies: a cookie is taken off the route if it looks like one, and proves the address that it was made for and no other; a worker's name stays.
func TestCookies(t *testing.T) {
	g := &guard{secret: [32]byte{1}}
	other := &guard{secret: [32]byte{2}}
	own := g.cookie(somebody)
	if len(own) != cookieSize || own == other.cookie(somebody) || own == g.cookie(netip.AddrPortFrom(somebody.Addr(), somebody.Port()+1)) {
		t.Fatalf("%q", own)
	}
	for name, c := range map[string]struct {
		first  string
		taken  bool
		proves bool
	}{
		"its own":              {own, true, true},
		"another node's":       {other.cookie(somebody), true, false},
		"of another length":    {own + "0", false, false},
		"cut off":              {own[:cookieSize-1], false, false},
		"a name of its length": {"xk" + own[2:], false, false},
		"a name":               {"echo", false, false},
	} {
		p := &peer{addr: somebody}
		rest := g.check(p, routing.LocalRoute(c.first, "echo"))
		if p.proven != c.proves || (rest.Len() == 1) != c.taken {
			t.Errorf("%s: proves %v, %d addresses are left", name, p.proven, rest.Len())
		}
		p.proven = true // and stays so, whatever comes
		if g.check(p, routing.LocalRoute(c.first, "echo")); !p.proven {
			t.Errorf("%s: takes away what was proved", name)
		}
	}
	if p := (&peer{addr: somebody}); g.check(p, routing.Route{}).Len() != 0 || p.proven {
		t.Error("proved by nothing")
	}
}

// TestSeen: a token is taken as it was seen by the first address of UDP that it came from; what is no token, or came another way, is counted.
func TestSeen(t *testing.T) {
	n := newNode(t, Options{})
	at := routing.Address{Type: routing.UDP, Value: "192.0.2.1:5"}
	later := routing.Address{Type: routing.UDP, Value: "192.0.2.2:5"}
	token := [TokenSize]byte{1, 2, 3}
	for i, c := range []struct {
		back    routing.Route
		payload []byte
		want    string // "" for none
	}{
		{routing.NewRoute(at), token[:], "192.0.2.1:5"},
		{routing.NewRoute(routing.LocalAddress("socket"), at, later), token[:], "192.0.2.1:5"},
		{routing.NewRoute(routing.Address{Type: routing.UDP, Value: "nowhere"}, at), token[:], ""},
		{routing.LocalRoute("socket"), token[:], ""},
		{routing.Route{}, token[:], ""},
		{routing.NewRoute(at), token[:TokenSize-1], ""},
		{routing.NewRoute(at), append(slices.Clone(token[:]), 0), ""},
		{routing.NewRoute(at), nil, ""},
	} {
		got, dropped := "", n.shard.Drops.Malformed.Load()
		worker := Seen(func(what [TokenSize]byte, from netip.AddrPort) {
			if got += from.String(); what != token {
				t.Errorf("%d: token %x", i, what)
			}
		})
		if err := n.shard.Do(limited(t), func() {
			m := n.shard.NewMessage()
			m.Return = c.back
			m.SetPayloadBytes(c.payload)
			worker.HandleMessage(n.shard, m)
			n.shard.Free(m)
		}); err != nil {
			t.Fatal(err)
		}
		if got != c.want || (n.shard.Drops.Malformed.Load()-dropped == 1) != (c.want == "") {
			t.Errorf("%d: seen at %q, want %q", i, got, c.want)
		}
	}
}

// TestPausedSockets: a socket that is opened while a transport is paused takes nothing until it goes on, and then what has come meanwhile; one of before takes what comes.
func TestPausedSockets(t *testing.T) {
	n := newNode(t, Options{})
	n.udp.Pause()
	b := n.open(t, netip.AddrPort{})
	if err := n.router.AddConsumer(limited(t), "echo", b.Flow); err != nil {
		t.Fatal(err)
	}
	waits, goes := newClient(t, b.Local), newClient(t, n.bind.Local)
	for _, c := range []client{waits, goes} {
		c.send(wire(1, routing.LocalRoute("echo"), routing.LocalRoute("me"), []byte("x")))
	}
	goes.message()
	if got := n.udp.Stats.MessagesIn.Load(); got != 1 {
		t.Errorf("%d messages are taken", got)
	}
	if err := n.udp.Resume(limited(t)); err != nil {
		t.Fatal(err)
	}
	waits.message()
	c := n.open(t, netip.AddrPort{})
	if err := n.router.AddConsumer(limited(t), "echo", c.Flow); err != nil {
		t.Fatal(err)
	}
	later := newClient(t, c.Local)
	later.send(wire(1, routing.LocalRoute("echo"), routing.LocalRoute("me"), []byte("x")))
	later.message()
}
