package udp

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"sallyport/routing"
)

// wire is a message of one part.
func wire(number uint16, onward, ret routing.Route, payload []byte) []byte {
	m := routing.AppendMessage(nil, onward, ret, payload)
	return append(appendFragmentHead(nil, number, 0, 1, len(m)), m...)
}

// TestGuard: a guarded socket sends nothing to an address that it was not heard from, little to one that may be another's, and all to one that
// proved itself by answering.
func TestGuard(t *testing.T) {
	n := newNode(t, Options{PacketSize: 1400})
	if err := n.bind.Guard(limited(t)); err != nil {
		t.Fatal(err)
	}
	// A service that answers with much more than it got.
	n.serve(t, "loud", routing.WorkerFunc(func(s *routing.Shard, m *routing.Message) {
		m.SetPayloadBytes(bytes.Repeat([]byte{'x'}, 1200))
		m.Reply(s, routing.LocalAddress("loud").Wire())
	}), n.bind.Flow)
	c, victim := newClient(t, n.bind.Local), newClient(t, n.bind.Local)
	at := func(c client) string { return c.LocalAddr().String() }

	n.router.Inject(routing.RouteOf(n.bind.Sender).Concat(routing.NewRoute(routing.Address{Type: routing.UDP, Value: at(victim)})), routing.LocalRoute("x"), []byte("unasked"))
	eventually(t, "the message to a stranger dropped", func() bool { return n.udp.Stats.Unheard.Load() == 1 })
	victim.send(wire(1, routing.LocalRoute("echo"), routing.LocalRoute("me"), []byte("asked")))
	_ = victim.SetReadDeadline(time.Now().Add(90 * time.Second))
	if _, _, payload := victim.message(); string(payload) != "asked" {
		t.Errorf("the first that comes is %q: something went to an address that nothing was heard from", payload)
	}

	// As if from an address that is not the sender's: what comes back is bounded by what came, and a little for all.
	var sent, number int
	ask := func(c client, service string, onward routing.Route) {
		number++
		d := wire(uint16(number), onward.Concat(routing.LocalRoute(service)), routing.LocalRoute("me"), []byte("?"))
		sent += len(d)
		c.send(d)
	}
	got := make(chan int, 1)
	stop, cancel := context.WithCancel(t.Context())
	go func() {
		total, buf := 0, make([]byte, 2048)
		for stop.Err() == nil {
			_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			k, err := c.Read(buf)
			if err == nil {
				total += k
			}
		}
		got <- total
	}()
	began := time.Now()
	for n.udp.Stats.Unproven.Load() < 500 {
		ask(c, "loud", routing.Route{})
		time.Sleep(100 * time.Microsecond)
	}
	time.Sleep(100 * time.Millisecond)
	cancel()
	most := sent + strangersBurst + int(time.Since(began).Seconds()*strangersRate)
	if total := <-got; total > most || total == 0 {
		t.Errorf("%d bytes for %d, at most %d may be", total, sent, most)
	}

	// The way to answer has a cookie, which proves the address and no other one.
	cookie := ""
	p := newClient(t, n.bind.Local)
	var ret routing.Route
	var payload string
	var err error
	for cookie == "" {
		p.send(wire(1, routing.LocalRoute("echo"), routing.LocalRoute("me"), bytes.Repeat([]byte{'y'}, 400)))
		if _, ret, payload, err = p.receive(2 * time.Second); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				continue // as long as strangers have used up what there is for all of them
			}
			t.Fatal(err)
		}
		if len(payload) != 400 || ret.Len() != 2 || !strings.HasPrefix(ret.First().Value, cookieMark) {
			t.Fatalf("%s, %d bytes", ret, len(payload))
		}
		cookie = ret.First().Value
	}
	proven := func(c client) (ok bool) {
		at := netip.MustParseAddrPort(at(c))
		if err := n.shard.Do(limited(t), func() {
			if e := n.bind.parts.peers[at]; e != nil {
				ok = e.Value.(*peer).proven
			}
		}); err != nil {
			t.Fatal(err)
		}
		return ok
	}
	ask(victim, "echo", routing.LocalRoute(cookie))
	ask(victim, "echo", routing.LocalRoute(cookieMark+strings.Repeat("0", 32)))
	eventually(t, "both heard", func() bool { return n.udp.Stats.MessagesIn.Load() > 0 && heard(t, n, at(victim)) })
	if proven(victim) || proven(p) {
		t.Error("proved by the cookie of another, or by none")
	}
	p.send(wire(2, routing.LocalRoute(cookie, "echo"), routing.LocalRoute("me"), []byte("mine")))
	eventually(t, "proved", func() bool { return proven(p) })
	unproven := n.udp.Stats.Unproven.Load()
	for k := range 20 {
		p.send(wire(uint16(3+k), routing.LocalRoute("loud"), routing.LocalRoute("me"), []byte("?")))
	}
	for range 20 {
		_ = p.SetReadDeadline(time.Now().Add(90 * time.Second))
		if _, ret, payload := p.message(); len(payload) == 1200 && ret.Len() != 1 {
			t.Errorf("still with a cookie: %s", ret)
		}
	}
	if n.udp.Stats.Unproven.Load() != unproven {
		t.Error("what was for a proved address was dropped")
	}
	// A channel whose peer comes from another address vouches for that, if the address is one of UDP.
	if err := n.shard.Do(limited(t), func() {
		for _, first := range []routing.Address{{Type: routing.TCP, Value: at(victim)}, {Type: routing.Local, Value: at(victim)}, {Type: routing.UDP, Value: "nowhere"}} {
			n.bind.Prove(routing.NewRoute(first, routing.LocalAddress("x")))
		}
		n.bind.Prove(routing.Route{})
	}); err != nil || proven(victim) {
		t.Errorf("proved by what is no address of UDP: %v", err)
	}
	if err := n.shard.Do(limited(t), func() {
		n.bind.Prove(routing.NewRoute(routing.Address{Type: routing.UDP, Value: at(victim)}, routing.LocalAddress("x")))
	}); err != nil || !proven(victim) {
		t.Errorf("not proved: %v", err)
	}
}

// heard reports whether a socket knows an address.
func heard(t *testing.T, n *node, at string) (ok bool) {
	t.Helper()
	if err := n.shard.Do(limited(t), func() { _, ok = n.bind.parts.peers[netip.MustParseAddrPort(at)] }); err != nil {
		t.Fatal(err)
	}
	return ok
}
