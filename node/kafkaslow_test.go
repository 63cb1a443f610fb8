//go:build !small

package node

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/node/table"
	"sallyport/portal"
	"sallyport/portal/interceptor"
	"sallyport/routing"
)

// TestKafkaPatience: the interceptors of both ends have a Kafka portal's patience, and the node's budget.
func TestKafkaPatience(t *testing.T) {
	k := &kafkaPortals{n: &Node{}}
	if o := k.interception("name", nil); o.Name != "name" || o.Patience != kafkaStall || o.Budget != &k.n.intercepted || o.Outlet {
		t.Errorf("%+v", o)
	}
}

// passer is a filter that changes nothing.
type passer struct{ interceptor.Filter }

func (passer) Next(b []byte) (interceptor.Step, int, error) { return interceptor.Pass, len(b), nil }

// longMessage is a Kafka message that passes as it is: a request to produce in version 3 without acknowledgements, or the answer to request 3.
func longMessage(size int) []byte {
	b := make([]byte, size)
	binary.BigEndian.PutUint32(b, uint32(size-4))
	binary.BigEndian.PutUint32(b[4:], 3)
	return b
}

// heartbeat is request 3.
var heartbeat = []byte{0, 0, 0, 10, 0, 12, 0, 0, 0, 0, 0, 3, 0, 0}

// TestSlowKafka: a broker, or a consumer, that reads nothing for longer than another portal's reader may is left alone. That other portal, through the same
// nodes and stopped later, is cut off meanwhile.
func TestSlowKafka(t *testing.T) {
	for name, toBroker := range map[string]bool{"broker": true, "consumer": false} {
		t.Run(name, func(t *testing.T) { testSlowKafka(t, toBroker) })
	}
}

func testSlowKafka(t *testing.T, toBroker bool) {
	ctx := within(t)
	outlet, client := newMember(t), newMember(t)
	for _, m := range []*member{outlet, client} {
		m.portals.Limits.StallTimeout = 200 * time.Millisecond
	}
	data := longMessage(12 << 20)
	// A machine that is busy enough does not answer its own pings in time.
	lost := func() {
		if outlet.portals.Stats.Ended[portal.ReasonPath].Load()+client.portals.Stats.Ended[portal.ReasonPath].Load() > 0 {
			t.Skip("a path was lost meanwhile: this machine is too busy to show it")
		}
	}
	brokers := make(chan net.Conn, 1)
	broker := accepting(t, func(c net.Conn) { brokers <- c })
	if _, err := outlet.kafkaOutlets().Create(ctx, admin.KafkaOutletRequest{Bootstrap: broker, Allow: only(client)}); err != nil {
		t.Fatal(err)
	}
	in := client.kafkaInlet(admin.KafkaInletRequest{To: outlet.route() + "/secure/api", NoContentEncryption: true})
	dial := func(at string) net.Conn {
		c, err := (&net.Dialer{Control: takesLittle}).Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	from := dial(in.request.From)
	to := <-brokers
	node := outlet
	if !toBroker {
		if _, err := from.Write(heartbeat); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(to, make([]byte, len(heartbeat))); err != nil {
			t.Fatal(err)
		}
		from, to, node = to, from, client
	}
	fill(t, from, data, node.intercepted.Used, lost)

	// The other portal: interceptors leave it without windows too, and nobody reads at its end.
	stuck := accepting(t, func(net.Conn) {})
	if _, err := outlet.CreateOutlet(ctx, resource.Outlet{Name: "stuck", To: stuck}); err != nil {
		t.Fatal(err)
	}
	pass := interceptor.Options{
		Name: "between", Filters: func(interceptor.Conn) (up, down interceptor.Filter) { return passer{}, passer{} }, Budget: &interceptor.Budget{},
		Outlet: true, Next: func(string) bool { return true }, Flows: outlet.outletFlows(),
	}
	if _, err := interceptor.New(ctx, outlet.portals, outlet.router, pass); err != nil {
		t.Fatal(err)
	}
	other, err := client.inlets.CreatePart(ctx, "other", resource.Inlet{Alias: "other", From: "127.0.0.1:0", To: outlet.route() + "/secure/api"},
		func(ctx context.Context, o *table.Opening[resource.Inlet]) (*inlet, error) {
			return client.openInlet(ctx, o, &inletParts{suffix: routing.LocalRoute("between", "stuck")})
		})
	if err != nil {
		t.Fatal(err)
	}
	otherEnd := dial(other.Value.portal.Bound().String())
	fill(t, otherEnd, data, pass.Budget.Used, lost)
	settles(t, "the other portal's connection has ended", func() bool { return pass.Budget.Used() == 0 })
	waits := node.intercepted.Used()
	lost()
	if cut := outlet.router.Backlogs.Cut() + client.router.Backlogs.Cut(); cut != 1 {
		t.Errorf("%d connections were cut off, it was to be the other portal's alone", cut)
	}
	if waits == 0 {
		t.Error("nothing waits for the reader any more")
	}
}

// fill sends until more waits before a reader than stops its source. It sends a little at a time, so that a slow machine
// answers the pings of its paths meanwhile. A part of it waits in sockets and at the portal's end, not at the interceptor.
func fill(t *testing.T, to net.Conn, data []byte, waits func() int64, lost func()) {
	t.Helper()
	const piece, before = 64 << 10, 4 << 20
	for sent := 0; waits() <= interceptor.HighWater && sent < len(data); sent += piece {
		settles(t, "what was sent is at the interceptor", func() bool { lost(); return waits() >= int64(sent-before) })
		if _, err := to.Write(data[sent : sent+piece]); err != nil {
			settles(t, "a reason for its end: "+err.Error(), func() bool { lost(); return false })
		}
	}
	settles(t, "more waits for the reader than stops its source", func() bool { lost(); return waits() > interceptor.HighWater })
}

// takesLittle gives a socket the smallest buffer for what it reads.
func takesLittle(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 1) })
}

// accepting hands every connection that it gets to f, and closes them at the end of the test.
func accepting(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	l, err := (&net.ListenConfig{Control: takesLittle}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
			f(c)
		}
	}()
	return l.Addr().String()
}
