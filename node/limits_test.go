package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"sallyport/node/admin"
	"sallyport/node/resource"
)

// limitMetrics returns the metrics of limits, by their name and the limit's.
func (m *member) limitMetrics() map[string]float64 {
	m.t.Helper()
	all := map[string]float64{}
	for name, v := range metricsOf(m.t, m.Node) {
		all["sallyport_"+name] += v
	}
	return all
}

// TestEveryLimitIsSeen: each limit is on the page of limits, and has metrics of its value, its use and what it refused.
func TestEveryLimitIsSeen(t *testing.T) {
	page, err := os.ReadFile("../docs/limits.md")
	if err != nil {
		t.Fatal(err)
	}
	m := newMember(t)
	got := m.limitMetrics()
	for _, l := range m.opts.Limits.List() {
		if !strings.Contains(string(page), "\n| `"+l.Name+"` |") {
			t.Errorf("docs/limits.md has no row %s", l.Name)
		}
		for _, metric := range []string{"sallyport_limit", "sallyport_limit_used", "sallyport_limit_refused_total"} {
			_, there := got[metric+" "+l.Name]
			if needed := metric != "sallyport_limit_used" || !l.IsTime && (l.Name != "descriptors" || descriptorsInUse() >= 0); needed && !there {
				t.Errorf("no metric %s of %s", metric, l.Name)
			}
		}
	}
	if used := got["sallyport_limit_used memory"]; used < 1<<20 {
		t.Errorf("%v bytes of memory in use", used)
	}
}

// TestMaxConnections: an outlet has as many connections as it was created with, and follows a change without losing those that it has.
func TestMaxConnections(t *testing.T) {
	ctx := within(t)
	m := newMember(t)
	target := echoServer(t)
	create := func(most int) error {
		_, err := m.CreateOutlet(ctx, resource.Outlet{Name: "few", To: target, MaxConnections: most})
		return err
	}
	for _, wrong := range []int{-1, 1<<20 + 1} {
		if err := create(wrong); !errors.Is(err, admin.ErrInvalid) {
			t.Errorf("%d: %v", wrong, err)
		}
	}
	if err := create(5); err != nil {
		t.Fatal(err)
	}
	in, err := m.CreateInlet(ctx, resource.Inlet{Alias: "in", From: "127.0.0.1:0", To: m.route() + "/secure/api/service/few"})
	if err != nil {
		t.Fatal(err)
	}
	m.until(resource.KindInlet, "in", resource.Up)
	var conns []net.Conn
	dial := func() error {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", in.Bind)
		if err != nil {
			return err
		}
		t.Cleanup(func() { c.Close() })
		if err := ping(ctx, c); err != nil {
			return err
		}
		conns = append(conns, c)
		return nil
	}
	expect := func(most int, perPeer int) {
		t.Helper()
		for len(conns) < perPeer {
			if err := dial(); err != nil {
				t.Fatal(err)
			}
		}
		if dial() == nil {
			t.Errorf("%d connections of one peer, %d of %d are for it", len(conns), perPeer, most)
		}
		i, _ := m.outlets.Get("few")
		if now, limit := i.Value.portal.Connections(); now != perPeer || limit != most {
			t.Errorf("%d of %d", now, limit)
		}
	}
	expect(5, 4)
	got := m.limitMetrics()
	if got["sallyport_limit_used outlet-connections"] != 4 || got["sallyport_limit_refused_total outlet-connections"] != 1 {
		t.Errorf("%v", got)
	}
	for _, most := range []int{10, 4} {
		r := resource.Outlet{Name: "few", To: target, MaxConnections: most}
		a, err := m.set.Apply(ctx, admin.ApplyRequest{Resources: []resource.Stored{stored(t, resource.KindOutlet, "few", r)}})
		if err != nil || len(a.Faults) > 0 {
			t.Fatal(err, a.Faults)
		}
		if most == 10 {
			expect(10, 8)
		} else if dial() == nil {
			t.Error("a ninth connection with four places")
		}
		for i, c := range conns {
			if err := ping(ctx, c); err != nil {
				t.Errorf("connection %d after the change to %d: %v", i, most, err)
			}
		}
	}
}

// TestMaxConnectionsOfInlets: an inlet has as many clients as it was created with, beyond which one is reset, and follows a change in place.
func TestMaxConnectionsOfInlets(t *testing.T) {
	ctx := within(t)
	m := newMember(t)
	if _, err := m.CreateOutlet(ctx, resource.Outlet{Name: "svc", To: echoServer(t)}); err != nil {
		t.Fatal(err)
	}
	r := resource.Inlet{Alias: "in", From: "127.0.0.1:0", To: m.route() + "/secure/api/service/svc", MaxConnections: 1}
	in, err := m.CreateInlet(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	if in.MaxConnections != 1 {
		t.Errorf("it is said to have %d at most", in.MaxConnections)
	}
	m.until(resource.KindInlet, "in", resource.Up)
	dial := func() (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", in.Bind)
		if err == nil {
			t.Cleanup(func() { c.Close() })
			err = ping(ctx, c)
		}
		return c, err
	}
	first, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dial(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a second client of one: %v", err)
	}
	if got := metricsOf(t, m.Node)["portal_connections_refused_total in inlet too_many"]; got != 1 {
		t.Errorf("%v refusals are counted", got)
	}
	r.MaxConnections = 2
	a, err := m.set.Apply(ctx, admin.ApplyRequest{Resources: []resource.Stored{stored(t, resource.KindInlet, "in", r)}})
	if err != nil || len(a.Faults) > 0 {
		t.Fatal(err, a.Faults)
	}
	if _, err := dial(); err != nil {
		t.Error(err)
	}
	if _, err := dial(); err == nil {
		t.Error("a third client of two")
	}
	if err := ping(ctx, first); err != nil {
		t.Errorf("after the change: %v", err)
	}
}

// TestMaxConnectionsPerMember: one member has as many connections at an outlet as that says, by the option and after a change in place, and a lone one both of two places.
func TestMaxConnectionsPerMember(t *testing.T) {
	ctx := within(t)
	m := newMember(t)
	r := resource.Outlet{Name: "few", To: echoServer(t), MaxConnections: 5, MaxConnectionsPerMember: 1}
	o, err := m.CreateOutlet(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	if o.MaxConnections != 5 || o.MaxConnectionsPerMember != 1 {
		t.Errorf("it is said to have %d at most, %d of one member", o.MaxConnections, o.MaxConnectionsPerMember)
	}
	in, err := m.CreateInlet(ctx, resource.Inlet{Alias: "in", From: "127.0.0.1:0", To: m.route() + "/secure/api/service/few"})
	if err != nil {
		t.Fatal(err)
	}
	m.until(resource.KindInlet, "in", resource.Up)
	for _, c := range []struct{ most, each, want int }{{5, 1, 1}, {2, 0, 2}, {5, 5, 5}} {
		r.MaxConnections, r.MaxConnectionsPerMember = c.most, c.each
		a, err := m.set.Apply(ctx, admin.ApplyRequest{Resources: []resource.Stored{stored(t, resource.KindOutlet, "few", r)}})
		if err != nil || len(a.Faults) > 0 {
			t.Fatal(err, a.Faults)
		}
		i, _ := m.outlets.Get("few")
		for range c.most + 1 {
			if conn, err := new(net.Dialer).DialContext(ctx, "tcp", in.Bind); err == nil {
				t.Cleanup(func() { conn.Close() })
				_ = ping(ctx, conn)
			}
		}
		if now, most := i.Value.portal.Connections(); now != c.want || most != c.most {
			t.Errorf("%d of %d connections of one member, which may have %d", now, most, c.want)
		}
	}
}

// ping expects an echo.
func ping(ctx context.Context, c net.Conn) error {
	end, _ := ctx.Deadline()
	_ = c.SetDeadline(end)
	if _, err := c.Write([]byte{1}); err != nil {
		return err
	}
	b := make([]byte, 1)
	if n, err := c.Read(b); err != nil || n != 1 {
		return fmt.Errorf("read %d: %w", n, err)
	}
	return nil
}
