package node

import (
	"bufio"
	"errors"
	"net"
	"syscall"
	"testing"
	"time"

	"sallyport/node/resource"
	"sallyport/portal"
)

// die closes a proxy and what goes through it, as the machine does when the process behind it is killed.
func (f *freezer) die() {
	f.ln.Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.open {
		c.Close()
	}
}

// TestGoneBehindRelay: a relay tells each side when the process of the other one has ended, long before the hold is over, and the restarted node of an inlet
// tells what its process before has left.
func TestGoneBehindRelay(t *testing.T) {
	for _, dies := range []string{"inlet", "outlet", "outlet without a relay"} {
		t.Run(dies, func(t *testing.T) {
			relay, bank, client := plainNode(t, "relay", "127.0.0.1:0"), plainNode(t, "bank", "127.0.0.1:0"), plainNode(t, "client", "127.0.0.1:0")
			server, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			bankAt, clientAt := newFreezer(t, relay.Listening()), newFreezer(t, relay.Listening())
			if _, err := bank.CreateOutlet(t.Context(), resource.Outlet{Name: "db", To: server.Addr().String()}); err != nil {
				t.Fatal(err)
			}
			if _, err := bank.CreateRelay(t.Context(), resource.Relay{Name: "bank", At: bankAt.route() + "/secure/api"}); err != nil {
				t.Fatal(err)
			}
			to := clientAt.route() + "/secure/api/service/forward_to_bank/secure/api/service/db"
			if dies == "outlet without a relay" {
				bankAt = newFreezer(t, bank.Listening())
				to = bankAt.route() + "/secure/api/service/db"
			}
			in, err := client.CreateInlet(t.Context(), resource.Inlet{Alias: "in", From: "127.0.0.1:0", To: to})
			if err != nil {
				t.Fatal(err)
			}
			c, err := net.Dial("tcp", in.Bind)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			s, err := server.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if _, err := c.Write([]byte("x\n")); err != nil {
				t.Fatal(err)
			}
			if _, err := bufio.NewReader(s).ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			until(t, "somebody asks for the end", func() bool {
				return relay.control.Stats.Waiting.Load() > 2 || dies == "outlet without a relay"
			})
			proxy, left, sees := bankAt, c, client
			if dies == "inlet" {
				proxy, left, sees = clientAt, s, bank
			}
			proxy.die()
			_ = left.SetReadDeadline(time.Now().Add(90 * time.Second))
			if _, err := left.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("ended with %v; a reset is right", err)
			}
			if n := sees.portals.Stats.Ended[portal.ReasonGone].Load(); n != 1 {
				t.Errorf("%d were counted", n)
			}
		})
	}
}

// TestProcessTold: a node whose process is another one than that of its open connections says so when its path to the outlet is up.
func TestProcessTold(t *testing.T) {
	bank, client := plainNode(t, "bank", "127.0.0.1:0"), plainNode(t, "client", "127.0.0.1:0")
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if _, err := bank.CreateOutlet(t.Context(), resource.Outlet{Name: "db", To: server.Addr().String()}); err != nil {
		t.Fatal(err)
	}
	open := func(alias string) net.Conn {
		in, err := client.CreateInlet(t.Context(), resource.Inlet{Alias: alias, From: "127.0.0.1:0", To: tcpRoute(t, bank) + "/secure/api/service/db"})
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", in.Bind)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		s, err := server.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	before := open("before")
	next := newProcess(&client.opts)
	if next == client.portals.Process || [16]byte(next[:16]) != [16]byte(client.portals.Process[:16]) {
		t.Fatal("another process of the same node differs in the second half alone")
	}
	loops := func() { // what they have done is before, what they will do is after
		for _, s := range client.router.Shards() {
			if err := s.Do(t.Context(), func() {}); err != nil {
				t.Fatal(err)
			}
		}
	}
	loops()
	client.portals.Process = next // as after a restart, except that this one still has the connection
	loops()
	open("after")
	_ = before.SetReadDeadline(time.Now().Add(90 * time.Second))
	if _, err := before.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("ended with %v; a reset is right", err)
	}
	if n := bank.portals.Stats.Active.Load(); n != 1 {
		t.Errorf("%d connections are left; that of the new process stays", n)
	}
}
