package node

import (
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/node/resource"
	"sallyport/routing"
	"sallyport/routing/secure"
)

// TestNobodyBehindABareRelay: clients of an inlet that leads through a relay's name without a channel are closed as soon as the relay says that the node behind the
// name has gone; the inlet is down and says why, also where nobody has ever had the name.
func TestNobodyBehindABareRelay(t *testing.T) {
	for _, way := range []string{"its own connection", "a connection that was there", "a hop before the name", "a hop behind it"} {
		t.Run(way, func(t *testing.T) {
			relay, bank, client := plainNode(t, "relay", "127.0.0.1:0"), plainNode(t, "bank", "127.0.0.1:0"), plainNode(t, "client", "127.0.0.1:0")
			if _, err := bank.CreateOutlet(t.Context(), resource.Outlet{Name: "db", To: echoServer(t)}); err != nil {
				t.Fatal(err)
			}
			if _, err := bank.CreateRelay(t.Context(), resource.Relay{Name: "bank", At: tcpRoute(t, relay)}); err != nil {
				t.Fatal(err)
			}
			to := tcpRoute(t, relay)
			hop, service := "", "/service/db"
			switch way {
			case "a hop before the name":
				hop = "/service/hop"
			case "a hop behind it":
				service = "/service/hop/service/db"
			}
			for _, n := range []*Node{relay, bank} {
				if _, err := n.hops.Create(t.Context(), resource.Hop{}); err != nil {
					t.Fatal(err)
				}
			}
			if way != "its own connection" {
				c, err := client.tcp.Connect(within(t), relay.Listening())
				if err != nil {
					t.Fatal(err)
				}
				to = "/worker/" + c.Sender.Text()
			}
			open := func(alias, name string) string {
				t.Helper()
				in, err := client.CreateInlet(t.Context(), resource.Inlet{Alias: alias, From: "127.0.0.1:0", To: to + hop + "/service/forward_to_" + name + service})
				if err != nil {
					t.Fatal(err)
				}
				return in.Bind
			}
			at, never := open("in", "bank"), open("never", "nobody")
			until(t, "up", func() bool { return isUp(client) })
			c, err := net.Dial("tcp", at)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := says(c); err != nil {
				t.Fatal(err)
			}
			down := func(alias string) bool {
				i, _ := client.inlets.Get(alias)
				s := i.Value.status()
				return s.State == resource.Down && !s.Refused && strings.Contains(s.Reason, routing.NoticeAbsent.String())
			}
			until(t, "an inlet to nobody is down", func() bool { return down("never") })
			closedAtOnce(t, "a client of an inlet to nobody", never)

			bank.cut(t)
			expectClosed(t, "a client of a node that has gone", c)
			until(t, "down", func() bool { return down("in") })
		})
	}
}

// TestNoticeIsNoAnswer: a notice ends the wait for an answer only if it comes from a relay's name on the way, and never is one.
func TestNoticeIsNoAnswer(t *testing.T) {
	n := plainNode(t, "a", "127.0.0.1:0")
	s := &session{router: n.router}
	c := &connection{router: n.router, route: routing.LocalRoute("away", "db"), closed: make(chan struct{})}
	p, err := s.ping(within(t), c)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	p.route = routing.LocalRoute("way", routing.RelayPrefix+"bank")
	send := func(from routing.Route, payload []byte) {
		t.Helper()
		shard := n.router.Shards()[0]
		if err := shard.Do(within(t), func() {
			m := shard.NewMessage()
			m.Onward, m.Return = routing.NewRoute(p.box.Address()), from
			m.SetPayloadBytes(payload)
			shard.Deliver(m)
		}); err != nil {
			t.Fatal(err)
		}
	}
	notice := func(k routing.NoticeKind) []byte {
		return routing.AppendNotice(nil, routing.Notice{Kind: k, Name: "bank"})
	}
	next := func() (uint64, bool, error) {
		t.Helper()
		select {
		case reply := <-p.box.Replies():
			return p.answer(reply)
		case <-within(t).Done():
			t.Fatal("no answer")
		}
		return 0, false, nil
	}
	ping := func() {
		t.Helper()
		number, payload := newPing()
		send(routing.LocalRoute("way"), payload)
		if got, ok, err := next(); !ok || err != nil || got != number {
			t.Errorf("the answer %d (%v, %v) to ping %d", got, ok, err, number)
		}
	}
	for _, other := range []struct {
		from routing.Route
		kind routing.NoticeKind
	}{
		{routing.LocalRoute("way", routing.RelayPrefix+"other"), routing.NoticeAbsent}, {routing.LocalRoute("way"), routing.NoticeAbsent},
		{routing.LocalRoute("way", routing.RelayPrefix+"bank"), routing.NoticeHeld},
	} {
		send(other.from, notice(other.kind))
		if _, ok, err := next(); ok || err != nil {
			t.Errorf("a notice that does not come from the way was taken for one that does, or for an answer: %v, %v", ok, err)
		}
	}
	ping()
	send(routing.LocalRoute("way", routing.RelayPrefix+"bank"), notice(routing.NoticeAbsent))
	if _, ok, err := next(); ok || !errors.Is(err, secure.ErrAbsent) {
		t.Errorf("a notice of the relay on the way: %v, %v", ok, err)
	}
}

// TestPingedNode: where the service is named later, as by the parts of a Kafka inlet and by a relay, the whole route leads to the node that is asked.
func TestPingedNode(t *testing.T) {
	for to, want := range map[string]bool{"/service/way/service/forward_to_bank": true, "/worker/way": true} {
		n := plainNode(t, "a", "127.0.0.1:0")
		for _, whole := range []bool{false, true} {
			c, err := n.connect(within(t), mustRoute(t, to), connectOptions{self: n.opts.Self, whole: whole})
			if err != nil {
				t.Fatal(err)
			}
			if got := c.pingRoute().Equal(c.route); got != (whole && want) {
				t.Errorf("%s, whole %v: %s is asked", to, whole, c.pingRoute())
			}
			c.close()
		}
	}
}

// closedAtOnce expects that who connects to an address is not served, and not kept waiting.
func closedAtOnce(t *testing.T, what, at string) {
	t.Helper()
	c, err := net.Dial("tcp", at)
	if errors.Is(err, syscall.ECONNRESET) { // the reset may be faster than the connecting
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	expectClosed(t, what, c)
}

// expectClosed expects a connection's end before anything comes.
func expectClosed(t *testing.T, what string, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(90 * time.Second))
	if n, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%s: %d bytes, %v", what, n, err)
	}
}
