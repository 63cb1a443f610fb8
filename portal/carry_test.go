package portal

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"golang.org/x/sys/unix"

	"sallyport/routing"
)

// leave writes down what a portal has, as another program reads it, and ends the loops of the program before. From the moment at which it is written down
// these reach neither the sockets nor the channel: own is the channel's end here, other that at the other node.
func leave(t *testing.T, n *simNode, own, other *simEnd, carry func(c *Carried, data bool) error) (next Carried) {
	t.Helper()
	eventually(t, "all that was carried before is there", func() bool { return !n.env.arrivals.underWay() })
	release, err := n.router.Group().Halt(limited(t))
	if err != nil {
		t.Fatal(err)
	}
	writeDown := func(data bool) (c Carried) {
		t.Helper()
		if err := carry(&c, data); err != nil {
			t.Fatal(err)
		}
		n.env.CarrySockets(n.router.Group(), &c, data)
		if err := c.Check(data); err != nil {
			t.Error(err)
		}
		return c
	}
	bare, c := writeDown(false), writeDown(true)
	open := [2]int{}
	for i, c := range []*Carried{&bare, &c} {
		c.Each(func(int) { open[i]++ })
	}
	if open[0] != open[1] {
		t.Errorf("%d sockets for who is asked, %d carried", open[0], open[1])
	}
	for _, p := range bare.Portals() {
		for _, k := range p.Conns {
			if len(k.Secret)+len(k.Kept)+len(k.Socket.Output) > 0 {
				t.Error("who is asked whether it could go on is given secrets or bytes of a connection")
			}
		}
	}
	for _, k := range bare.Closing {
		if len(k.Output) > 0 {
			t.Error("who is asked whether it could go on is given bytes of a socket that is closing")
		}
	}
	dead, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	again := func(fd *int) {
		if *fd < 0 {
			return
		}
		before := *fd
		if *fd, err = unix.FcntlInt(uintptr(before), unix.F_DUPFD_CLOEXEC, 0); err == nil {
			err = unix.Dup3(dead[0], before, unix.O_CLOEXEC)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range c.Portals() {
		for i := range p.Conns {
			again(&p.Conns[i].Socket.FD)
		}
		for i := range p.Waiting {
			again(&p.Waiting[i].FD)
		}
	}
	b, err := cbor.Marshal(c)
	if err == nil {
		err = cbor.Unmarshal(b, &next)
	}
	if err != nil {
		t.Fatal(err)
	}
	c.Wipe()
	own.cut = true
	if err := other.shard.Do(limited(t), other.end); err != nil {
		t.Fatal(err)
	}
	release()
	n.router.Group().Stop()
	_, _ = unix.Close(dead[0]), unix.Close(dead[1])
	return next
}

// upgradeOutlet puts another program in the place of the outlet's node.
func (s *simulated) upgradeOutlet(t *testing.T, target string) {
	t.Helper()
	next := leave(t, s.out, s.far, s.near, s.outlet.Carry)
	next.WrittenAt(time.Now().Add(-s.age))
	s.out = newSimNode(t, 2, s.limits)
	var err error
	s.outlet, err = NewOutlet(context.Background(), s.out.env, s.out.router, OutletOptions{Name: "outlet", Target: target, Flows: []*routing.Flow{s.out.flow},
		Hold: time.Minute, Carried: Take(&next.Outlets, "outlet")})
	if err != nil {
		t.Fatal(err)
	}
}

// writtenDown is Carry where what waits may change at once.
func (in *Inlet) writtenDown(to *Carried, data bool) error {
	letGo, err := in.Carry(to, data)
	if err == nil {
		letGo()
	}
	return err
}

// upgradeInlet puts another program in the place of the inlet's node.
func (s *simulated) upgradeInlet(t *testing.T) {
	t.Helper()
	next := leave(t, s.in, s.near, s.far, s.inlet.writtenDown)
	next.WrittenAt(time.Now().Add(-s.age))
	s.in = newSimNode(t, 2, s.limits)
	if s.records != nil {
		s.in.env.Records = s.records
	}
	var err error
	s.inlet, err = NewInlet(context.Background(), s.in.env, s.in.router, InletOptions{Name: "in", Listen: netip.MustParseAddrPort("127.0.0.1:0"), Hold: time.Minute,
		Carried: Take(&next.Inlets, "in")})
	if err != nil {
		t.Fatal(err)
	}
}

// TestCarry: streams each way go on through upgrades of both ends, while neither end has been read for a moment and while they flow; at the end each is
// whole and ends as it was ended.
func TestCarry(t *testing.T) {
	target, ch := served(t)
	s := newSimulated(t, 3, 2, Limits{}, time.Minute, OutletOptions{Target: target})
	s.connect(t)
	client, server := s.pair(t, ch)
	const size = 24 << 20
	type result struct {
		sum [32]byte
		n   int64
		err error
	}
	send := func(c *net.TCPConn) <-chan result {
		done := make(chan result, 1)
		go func() {
			h, block := sha256.New(), make([]byte, 64<<10)
			var r result
			for i := 0; r.n < size && r.err == nil; i++ {
				for j := range block {
					block[j] = byte(i + j*(i|1))
				}
				h.Write(block)
				var n int
				n, r.err = c.Write(block)
				r.n += int64(n)
			}
			if r.err == nil {
				r.err = c.CloseWrite()
			}
			r.sum = [32]byte(h.Sum(nil))
			done <- r
		}()
		return done
	}
	receive := func(c *net.TCPConn, begin <-chan struct{}) <-chan result {
		done := make(chan result, 1)
		go func() {
			<-begin
			h := sha256.New()
			var r result
			r.n, r.err = io.Copy(h, c)
			r.sum = [32]byte(h.Sum(nil))
			done <- r
		}()
		return done
	}
	begin := make(chan struct{})
	sent := []<-chan result{send(client), send(server)}
	got := []<-chan result{receive(server, begin), receive(client, begin)}
	eventually(t, "full windows", func() bool { return s.in.env.Stats.Kept.Load() > 0 && s.out.env.Stats.Kept.Load() > 0 })
	s.upgradeOutlet(t, target) // while nobody reads
	s.connect(t)
	s.upgradeInlet(t)
	s.connect(t)
	close(begin)
	for range 3 {
		time.Sleep(20 * time.Millisecond)
		s.upgradeInlet(t)
		s.connect(t)
		s.upgradeOutlet(t, target)
		s.connect(t)
	}
	for i := range sent {
		a, b := <-sent[i], <-got[i]
		if a.err != nil || b.err != nil || a.n != b.n || !bytes.Equal(a.sum[:], b.sum[:]) {
			t.Errorf("direction %d: sent %d (%v), got %d (%v), the same: %v", i, a.n, a.err, b.n, b.err, a.sum == b.sum)
		}
	}
	s.idle(t)
}

// TestCarrySecret: who resumes a carried connection needs its secret, as before.
func TestCarrySecret(t *testing.T) {
	target, ch := served(t)
	s := newSimulated(t, 4, 2, Limits{}, time.Minute, OutletOptions{Target: target})
	s.connect(t)
	client, server := s.pair(t, ch)
	s.upgradeOutlet(t, target)
	eventually(t, "it is there", func() bool { return !s.out.env.arrivals.underWay() })
	c := s.own(t)
	if err := c.shard.Do(limited(t), func() {
		if !c.sock.Paused() {
			t.Error("the target is listened to while there is no path: what it sends would wake the loop without end")
		}
	}); err != nil {
		t.Fatal(err)
	}
	id, secret := c.line.id, c.line.secret
	if secret == (token{}) || s.outlet.lines.find(id, secret, &s.ids[0]) != c {
		t.Error("the owner does not find its connection")
	}
	secret[0] ^= 1
	if s.outlet.lines.find(id, secret, &s.ids[0]) != nil {
		t.Error("another secret finds it")
	}
	secret[0] ^= 1
	if s.outlet.lines.find(id, secret, &s.ids[1]) != nil {
		t.Error("another identity finds it")
	}
	s.connect(t)
	talk(t, client, server)
}

// TestCarriedRecord: the record of a connection that an upgrade has handed on says of its peer what one of a new connection says.
func TestCarriedRecord(t *testing.T) {
	target, ch := served(t)
	s := newSimulated(t, 5, 2, Limits{}, time.Minute, OutletOptions{Target: target})
	s.connect(t)
	client, server := s.pair(t, ch)
	r := &recorder{}
	s.records = r
	s.upgradeInlet(t)
	s.connect(t)
	talk(t, client, server)
	client.Close()
	server.Close()
	if rec := r.take(t); rec.Attributes["first"] != fmt.Sprint(s.ids[1][0]) || rec.Peer != s.ids[1] {
		t.Errorf("%v of %x", rec.Attributes, rec.Peer)
	}
	s.idle(t)
}

// TestCarryChecks: what was written down wrongly is not taken up.
func TestCarryChecks(t *testing.T) {
	good := func() CarriedConn {
		return CarriedConn{Socket: CarriedSocket{FD: -1}, ID: make([]byte, 16), Secret: make([]byte, 16), Peer: make([]byte, 32), Version: resumeVersion,
			Sent: 10, Confirmed: 4, Kept: make([]byte, 6), Received: 3, Allowed: 5}
	}
	for name, spoil := range map[string]func(*CarriedConn){
		"id": func(k *CarriedConn) { k.ID = k.ID[1:] }, "secret": func(k *CarriedConn) { k.Secret = nil }, "peer": func(k *CarriedConn) { k.Peer = nil },
		"version": func(k *CarriedConn) { k.Version = 1 }, "kept": func(k *CarriedConn) { k.Kept = k.Kept[1:] }, "confirmed": func(k *CarriedConn) { k.Confirmed = 12 },
		"allowed": func(k *CarriedConn) { k.Allowed = 2 }, "gone": func(k *CarriedConn) { k.Gone = byte(reasonCount) },
	} {
		k := good()
		if !k.fits(true) {
			t.Fatal("a good one is refused")
		}
		if spoil(&k); k.fits(true) {
			t.Errorf("a wrong %s is taken", name)
		}
	}
}

// TestPeerSilent: an outlet whose peer has fallen silent holds its connection from then on; a peer that is there goes on at once.
func TestPeerSilent(t *testing.T) {
	target, ch := served(t)
	s := newSimulated(t, 5, 1, Limits{}, 5*time.Second, OutletOptions{Target: target})
	s.connect(t)
	client, server := s.pair(t, ch)
	s.far.post(func() { s.far.TellSilent(time.Now()) })
	eventually(t, "resumed", func() bool { return s.out.env.Stats.Resumed.Load() == 1 })
	talk(t, client, server)
	s.near.post(func() { s.near.cut = true }) // nothing arrives any more, and nobody is told
	s.far.post(func() { s.far.TellSilent(time.Now()) })
	expectReset(t, "server", server)
	if s.out.env.Stats.Ended[ReasonHold].Load() != 1 {
		t.Error("the reason was not counted")
	}
}

// TestCarryClosing: what a socket that is closing has still to send goes on with it, and is not shown to a program that is only asked.
func TestCarryClosing(t *testing.T) {
	n := newSimNode(t, 1, Limits{})
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[1])
	s := n.router.Shards()[0]
	if err := s.Do(limited(t), func() {
		sock, err := s.Loop().Adopt(fds[0], &conn{})
		if err != nil {
			t.Error(err)
			return
		}
		sock.Write(make([]byte, 1<<23)) // more than the kernel takes while nobody reads
		sock.Close()
	}); err != nil {
		t.Fatal(err)
	}
	for _, data := range []bool{false, true} {
		release, err := n.router.Group().Halt(limited(t))
		if err != nil {
			t.Fatal(err)
		}
		var c Carried
		n.env.CarrySockets(n.router.Group(), &c, data)
		release()
		if len(c.Closing) != 1 || c.Closing[0].FD != fds[0] || !c.Closing[0].ShutWrite || len(c.Closing[0].Output) > 0 != data || len(c.Left) > 0 {
			t.Errorf("with data %v: %d sockets, %v left", data, len(c.Closing), c.Left)
		}
	}
}
