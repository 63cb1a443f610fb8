package tcp

import (
	"crypto/tls"
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"time"

	"sallyport/routing"
)

// TestMarkCourse: for what a peer takes in a row of measurements, at rates that come and go, this may wait and no more; when the kernel is to be told anew is a part of it.
// Whoever means to change how a rate is taken, puts the new figures here.
func TestMarkCourse(t *testing.T) {
	for most, want := range map[int][3]uint32{1 << 20: {0xa5, 0xf7f, 0x2a1432ea}, leastMark / 2: {0xa5, 0xf7f, 0xba2e3676}} {
		rnd, m, now := rand.New(rand.NewPCG(5, 6)), newMark(most), time.Unix(1000, 0)
		sum, taken, told, zero := crc32.NewIEEE(), uint64(0), uint32(0), uint32(0)
		rate := 1e6
		for step := range 20_000 {
			if rnd.IntN(60) == 0 {
				rate = []float64{1e5, 4e5, 8e5, 1e6, 1.7e6, 3e6, 6e6, 12e6, 13e6, 25e6, 1e8}[rnd.IntN(11)]
			}
			pending := []int{leastUnsent - 1, leastUnsent, leastUnsent + 1, 100 << 10, 400 << 10}[rnd.IntN(5)]
			elapsed := []time.Duration{0, markEvery / 4, markEvery - 1, markEvery, markEvery + 1}[rnd.IntN(5)]
			now = now.Add(elapsed)
			taken += uint64(rate * elapsed.Seconds())
			if rnd.IntN(100) == 0 {
				m.drained()
			}
			if m.note(pending, taken, now) {
				told++
			}
			if m.at.IsZero() {
				zero++
			}
			var b [24]byte
			for i, v := range []int{step, m.bytes, m.unsent} {
				binary.LittleEndian.PutUint64(b[8*i:], uint64(v))
			}
			_, _ = sum.Write(b[:])
			if m.bytes > most || m.unsent > mostUnsent || m.unsent < leastUnsent {
				t.Fatalf("%d may wait, %d unsent", m.bytes, m.unsent)
			}
		}
		if got := [3]uint32{told, zero, sum.Sum32()}; got != want {
			t.Errorf("at most %d: %#v", most, got)
		}
	}
}

// TestEndsAreCounted: connections are counted when they begin and end, by why; what one has sent the other has got.
func TestEndsAreCounted(t *testing.T) {
	a, b := newNode(t, 1, Options{}), newNode(t, 1, Options{})
	c := a.connect(t, b)
	for range 3 {
		if _, err := a.router.Request(limited(t), routing.RouteOf(c.Sender).Concat(routing.LocalRoute("echo")), make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	if out, in := &a.tcp.Stats, &b.tcp.Stats; out.MessagesOut.Load() != 3 || in.MessagesOut.Load() != 3 || out.BytesOut.Load() != in.BytesIn.Load() || in.BytesOut.Load() != out.BytesIn.Load() {
		t.Errorf("%d and %d messages, %d bytes of %d, %d of %d", out.MessagesOut.Load(), in.MessagesOut.Load(), in.BytesIn.Load(), out.BytesOut.Load(), out.BytesIn.Load(), in.BytesOut.Load())
	}
	if a.tcp.Stats.Connected.Load() != 1 || a.tcp.Stats.Accepted.Load() != 0 || b.tcp.Stats.Connected.Load() != 0 || b.tcp.Stats.Accepted.Load() != 1 {
		t.Error("connections are not counted by who opened them")
	}
	d := b.tcp.Connections()[0]
	if err := d.shard.Do(limited(t), func() {
		if n, taken := (*draining)(d).Waiting(); n != 0 || taken != d.written || d.written != b.tcp.Stats.BytesOut.Load() {
			t.Errorf("%d wait, %d of %d taken", n, taken, d.written)
		}
		(*draining)(d).Stalled()
		if !d.closed || b.tcp.Stats.CutOff.Load() != 1 || d.Severed() {
			t.Error("one that takes nothing is not cut off")
		}
		if d.ReserveFrame(routing.LocalRoute("x"), routing.Route{}, 1, nil) != nil {
			t.Error("it takes a message")
		}
	}); err != nil {
		t.Fatal(err)
	}
	<-d.Done()
	<-c.Done()
	if b.tcp.Stats.Closed.Load() != 1 || a.tcp.Stats.Closed.Load() != 1 || b.tcp.Stats.Oversize.Load() != 0 || b.tcp.Stats.TooLarge.Load() != 0 {
		t.Error("ends are not counted")
	}
	for name, c := range map[string]struct {
		says                string
		oversize, malformed uint64
	}{
		"a length that may not be": {"\x01\x01\x00\x00\x01", 1, 0}, "no length": {"\x01\x00\x00\x00\x00", 1, 0}, "no message": {"\x01\x00\x00\x00\x01\x80", 0, 1}, "another version": {"\x02", 0, 0},
	} {
		before := [2]uint64{b.tcp.Stats.Oversize.Load(), b.tcp.Stats.Malformed.Load()}
		r := dialRaw(t, b)
		r.send([]byte(c.says))
		r.ended(name)
		eventually(t, name+": it is gone", func() bool { return len(b.tcp.Connections()) == 0 })
		if o, m := b.tcp.Stats.Oversize.Load()-before[0], b.tcp.Stats.Malformed.Load()-before[1]; o != c.oversize || m != c.malformed {
			t.Errorf("%s: %d too large, %d malformed", name, o, m)
		}
	}
}

// TestWhatClientsName: a client over TLS names its protocol and the server that it is for, and believes certificates or pins.
func TestWhatClientsName(t *testing.T) {
	for _, c := range []struct {
		a      Address
		name   string
		protos []string
	}{
		{Address{Layer: TLS, HostPort: "relay.example.com:443"}, "relay.example.com", []string{ALPN}},
		{Address{Layer: TLS, HostPort: "192.0.2.1:443", Name: "relay.example.com"}, "relay.example.com", []string{ALPN}},
		{Address{Layer: SecureWS, HostPort: "relay.example.com.:443"}, "relay.example.com", []string{"http/1.1"}},
	} {
		for pins := range 2 {
			trust := Trust{Pins: make([][32]byte, pins)}
			got := trust.config(c.a)
			if got.ServerName != c.name || !slices.Equal(got.NextProtos, c.protos) || got.MinVersion != tls.VersionTLS12 || got.InsecureSkipVerify != (pins > 0) || (got.VerifyConnection != nil) != (pins > 0) {
				t.Errorf("%s, %d pins: %+v", c.a, pins, got)
			}
		}
	}
	for layer, want := range map[Layer][2]bool{"": {}, Plain: {}, TLS: {true, false}, WebSocket: {false, true}, SecureWS: {true, true}} {
		if got := [2]bool{layer.tls(), layer.webSocket()}; got != want {
			t.Errorf("%q: %v", layer, got)
		}
	}
}

// TestHandshakesGiveTheirTurnBack: whatever becomes of a TLS handshake, another one may be made in its turn.
func TestHandshakesGiveTheirTurnBack(t *testing.T) {
	l := newLayered(t, TLS, 1, loopback)
	c, err := l.a.tcp.Dial(limited(t), l.to)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	other, err := net.Dial("tcp", l.to.HostPort)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	_, _ = other.Write([]byte("no TLS\r\n\r\n"))
	if !ended(t, other) {
		t.Error("it stays")
	}
	<-c.Done()
	eventually(t, "turns are given back", func() bool {
		return len(l.b.tcp.handshaking) == 0 && l.b.tcp.Stats.TLSFailed.Load() == 1 && l.b.tcp.Admission().Open == 0
	})
}
