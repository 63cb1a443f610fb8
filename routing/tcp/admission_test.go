package tcp

import (
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"syscall"
	"testing"
	"time"

	"sallyport/dataplane"
	"sallyport/routing"
)

// ended waits until the peer has closed c.
func ended(t *testing.T, c net.Conn) bool {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(90 * time.Second))
	_, err := io.Copy(io.Discard, c)
	return err == nil || errors.Is(err, syscall.ECONNRESET)
}

// TestStrangersMakeRoom: at the limit the oldest connections that carry no channel go, and those that carry one stay; when all carry
// one, new ones are refused.
func TestStrangersMakeRoom(t *testing.T) {
	n := newNode(t, 2, Options{Connections: 4})
	var conns []net.Conn
	dial := func() net.Conn {
		c, err := net.Dial("tcp", n.ln.Bound.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		conns = append(conns, c)
		return c
	}
	vouchAll := func() {
		for _, c := range n.tcp.Connections() {
			if err := c.shard.Do(limited(t), c.Vouch); err != nil {
				t.Fatal(err)
			}
		}
	}
	dial()
	dial()
	eventually(t, "two are open", func() bool { return len(n.tcp.Connections()) == 2 })
	vouchAll()
	for range 8 {
		dial()
		eventually(t, "accepted", func() bool { return int(n.tcp.Stats.Accepted.Load()) == len(conns) })
	}
	for i := 2; i < 8; i++ {
		if !ended(t, conns[i]) {
			t.Errorf("connection %d of 10 is still open", i)
		}
	}
	eventually(t, "four are open", func() bool { return len(n.tcp.Connections()) == 4 })
	if u := n.tcp.Admission(); u.Open != 4 || u.Refused+u.RefusedEach != 6 {
		t.Errorf("%+v", u)
	}
	vouchAll()
	if c, err := net.Dial("tcp", n.ln.Bound.String()); err == nil && !ended(t, c) { // the reset may come while it connects
		t.Error("one too many")
	}
	if got := len(n.tcp.Connections()); got != 4 {
		t.Errorf("%d are open", got)
	}
	conns[0].Close()
	eventually(t, "its place is free", func() bool { return n.tcp.Admission().Open == 3 })
	dial()
	eventually(t, "the next one has it", func() bool { return len(n.tcp.Connections()) == 4 })
}

// TestAdmission: in any order of events the numbers stay within their bounds and come back to nothing.
func TestAdmission(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		a := newAdmission(10, 4)
		open := map[*place]bool{}
		for range 500 {
			switch r.IntN(5) {
			case 0, 1:
				from := netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(5))})
				if p := a.take(from); p != nil {
					open[p] = true
					if r.IntN(4) > 0 && !a.belongs(p, func() { delete(open, p); a.give(p) }) {
						delete(open, p)
					}
				}
			case 2:
				for p := range open {
					a.vouch(p)
					break
				}
			case 3:
				for p := range open { // a proxy in front has named whose it is
					end := p.end
					if !a.move(p, netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(5))})) {
						a.give(p)
						delete(open, p)
					} else if end != nil && !a.belongs(p, end) {
						delete(open, p)
					}
					break
				}
			case 4:
				for p := range open {
					a.give(p)
					delete(open, p)
					break
				}
			}
			if a.count > 10 || a.bare.Len() > a.count {
				t.Fatalf("seed %d: %d open, %d bare", seed, a.count, a.bare.Len())
			}
			for name, h := range a.byHost {
				if h.count > 4 || h.bare.Len() > h.count || h.count == 0 {
					t.Fatalf("seed %d: %s has %d, %d bare", seed, name, h.count, h.bare.Len())
				}
			}
		}
		for p := range open {
			a.give(p)
		}
		if a.count != 0 || a.bare.Len() != 0 || len(a.byHost) != 0 {
			t.Fatalf("seed %d: %d left", seed, a.count)
		}
	}
}

// TestDeadlines: the transport gives its peers the time that it was told.
func TestDeadlines(t *testing.T) {
	n := newNode(t, 1, Options{Deadlines: dataplane.Deadlines{Preamble: 50 * time.Millisecond, Frame: 50 * time.Millisecond}})
	for name, sent := range map[string][]byte{"nothing": nil, "half a length": {1, 0, 0}, "half a frame": {1, 0, 0, 1, 0, 7, 7}} {
		c, err := net.Dial("tcp", n.ln.Bound.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = c.Write(sent) // the end may come before it
		if !ended(t, c) {
			t.Errorf("%s: still open", name)
		}
	}
}

// TestPlacesOfOneHost: where a host has all its places, a new connection of it takes the place of the host's oldest without a channel; one that carries a
// channel is not ended for it, and another host's is not either.
func TestPlacesOfOneHost(t *testing.T) {
	a := newAdmission(10, 2)
	one, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	var ended []string
	take := func(from netip.Addr, name string) *place {
		p := a.take(from)
		if p != nil && !a.belongs(p, func() { ended = append(ended, name) }) {
			t.Errorf("%s has to go at once", name)
		}
		return p
	}
	elsewhere, first, second := take(other, "elsewhere"), take(one, "first"), take(one, "second")
	if elsewhere == nil || first == nil || second == nil || len(ended) > 0 {
		t.Fatalf("three places: %v, %v, %v, ended %q", elsewhere != nil, first != nil, second != nil, ended)
	}
	if third := take(one, "third"); third == nil || !slices.Equal(ended, []string{"first"}) {
		t.Fatalf("third: %v, ended %q", third != nil, ended)
	} else {
		a.vouch(third)
	}
	a.vouch(second)
	if p := take(one, "fourth"); p != nil || len(ended) != 1 {
		t.Errorf("a place beside two with channels: %v, ended %q", p != nil, ended)
	}
	a.give(second)
	if p := take(one, "fifth"); p == nil || len(ended) != 1 {
		t.Errorf("a place that was given back: %v, ended %q", p != nil, ended)
	}
	if u := a.use(); u.Open != 3 || u.OpenEach != 2 || u.RefusedEach != 2 || u.Refused != 0 {
		t.Errorf("%+v", u)
	}
}

// TestHostOfRequest: the port stands in a request's Host unless the scheme means it, whoever the server is for.
func TestHostOfRequest(t *testing.T) {
	for _, c := range []struct {
		layer  Layer
		at     string
		name   string
		wanted string
	}{
		{WebSocket, "example.com:80", "", "example.com"}, {WebSocket, "example.com:443", "", "example.com:443"}, {WebSocket, "example.com:8080", "", "example.com:8080"},
		{SecureWS, "example.com:443", "", "example.com"}, {SecureWS, "example.com:80", "", "example.com:80"}, {SecureWS, "example.com.:443", "", "example.com"},
		{SecureWS, "[2001:db8::1]:443", "", "[2001:db8::1]"}, {WebSocket, "[2001:db8::1]:443", "", "[2001:db8::1]:443"},
		{SecureWS, "192.0.2.1:4000", "relay.example.com", "relay.example.com:4000"}, {WebSocket, "192.0.2.1:4000", "relay.example.com", "relay.example.com:4000"},
		{SecureWS, "192.0.2.1:443", "relay.example.com", "relay.example.com"}, {WebSocket, "192.0.2.1:80", "relay.example.com.", "relay.example.com"},
	} {
		if got := (Address{Layer: c.layer, HostPort: c.at, Name: c.name}).hostField(); got != c.wanted {
			t.Errorf("%s://%s, named %q: %s, want %s", c.layer, c.at, c.name, got, c.wanted)
		}
	}
}

// TestLoads: how busy a shard is, is the part of the time that has passed in which it worked; questions close together get the answer of before.
func TestLoads(t *testing.T) {
	n := newNode(t, 1, Options{})
	shards := n.router.Shards()
	var l loads
	if first := l.measure(shards); len(first) != 1 || first[0] != 0 {
		t.Fatalf("before there is anything to compare: %v", first)
	}
	if err := shards[0].Do(t.Context(), func() {
		for began := time.Now(); time.Since(began) < 20*time.Millisecond; {
		}
	}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the loop has counted its turn", func() bool { return shards[0].Loop().Busy()-l.before[0] >= 20*time.Millisecond })
	l.at = time.Now().Add(-time.Hour)
	got := l.measure(shards)[0]
	if got <= 0 || got > float64(shards[0].Loop().Busy())/float64(time.Hour) {
		t.Errorf("busy for 20 ms or more of an hour: %v", got)
	}
	if l.before[0] < 20*time.Millisecond || time.Since(l.at) > 30*time.Minute {
		t.Errorf("the next time is measured from %v busy at %v", l.before[0], l.at)
	}
	l.at = time.Now().Add(time.Hour) // less than a tenth of a second has passed, however busy this machine is
	l.share[0] = 0.5
	if again := l.measure(shards)[0]; again != 0.5 {
		t.Errorf("asked again at once: %v", again)
	}
}

// TestDefaults: what is not asked for has a bound all the same.
func TestDefaults(t *testing.T) {
	none := Options{}.withDefaults()
	if want := (Options{HighWater: 1 << 20, Connections: math.MaxInt, ConnectionsPerAddress: math.MaxInt, MaxMessage: routing.MaxFrame, UserTimeout: 15 * time.Second,
		ConnectTimeout: 10 * time.Second}); !reflect.DeepEqual(none, want) {
		t.Errorf("%+v", none)
	}
	all := Options{HighWater: 5, Connections: 6, ConnectionsPerAddress: 7, MaxMessage: 8, UserTimeout: 9, ConnectTimeout: 10, Patience: 11}
	if got := all.withDefaults(); !reflect.DeepEqual(got, all) {
		t.Errorf("%+v", got)
	}
	if o := newNode(t, 1, Options{}).tcp.opts; o.sendBuffer != dataplane.SendBuffer(onTheWay) || o.socket().SendBuffer != o.sendBuffer {
		t.Errorf("%d bytes may be on the way to other machines", o.sendBuffer)
	}
}

// TestAdmissionMoved: a connection counts for whom the proxy in front names, makes room there, and can be ended as before.
func TestAdmissionMoved(t *testing.T) {
	proxy, client := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("192.0.2.1")
	a := newAdmission(10, 2)
	ended := 0
	end := func() { ended++ }
	var moved []*place
	for range 2 {
		p := a.take(proxy)
		if !a.belongs(p, end) || !a.move(p, client) || !a.belongs(p, end) {
			t.Fatal("not moved")
		}
		moved = append(moved, p)
	}
	if u := a.use(); u.Open != 2 || u.OpenEach != 2 || len(a.byHost) != 1 {
		t.Errorf("%+v, %d hosts", u, len(a.byHost))
	}
	// A third one ends the first; one that has been displaced does not move.
	third := a.take(proxy)
	if !a.move(third, client) || ended != 1 || a.move(moved[0], proxy) || a.move(moved[0], client) {
		t.Errorf("%d ended", ended)
	}
	// While nobody has said how it is ended it is left to whoever says so.
	if fourth := a.take(client); fourth == nil || ended != 2 {
		t.Errorf("%d ended", ended)
	} else if fifth := a.take(client); fifth == nil || a.belongs(third, end) {
		t.Error("a displaced connection goes on")
	} else {
		a.vouch(fourth)
		a.vouch(fifth)
	}
	// Where all carry channels there is no room.
	last := a.take(proxy)
	if a.move(last, client) {
		t.Error("moved to where there is no room")
	}
	a.give(last)
	// Who carries a channel already is not ended where it is moved to.
	b, kept := newAdmission(10, 1), 0
	p := b.take(proxy)
	b.vouch(p)
	if !b.move(p, client) || !b.belongs(p, func() { kept-- }) || b.take(client) != nil || kept != 0 {
		t.Errorf("a connection with a channel makes room: %d", kept)
	}
	if u := a.use(); u.Open != 2 || u.RefusedEach != 4 || a.bare.Len() != 0 {
		t.Errorf("%+v, %d bare", u, a.bare.Len())
	}
}
