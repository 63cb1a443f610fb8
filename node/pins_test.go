package node

import (
	"context"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/authority"
	"sallyport/internal/servers"
	"sallyport/node/admin"
	"sallyport/project"
)

// know has a member know the project whose node is relay.
func (p *testProject) know(m, relay *member) {
	p.t.Helper()
	ctx := context.Background()
	relayIdentity, err := relay.ids.Identity(ctx, relay.self)
	if err != nil {
		p.t.Fatal(err)
	}
	authorityIdentity, err := p.ids.Identity(ctx, p.self)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := m.dir.ImportProject(ctx, &project.Project{
		ID: "p", Name: "p", SpaceName: "s", SpaceID: "s", Users: []string{}, UserRoles: []project.UserRole{},
		AccessRoute: relay.route() + "/service/api", Identity: relay.self.String(), ChangeHistory: relayIdentity.Hex(),
		AuthorityAccessRoute: p.route().String(), AuthorityChangeHistory: authorityIdentity.Hex(),
	}); err != nil {
		p.t.Fatal(err)
	}
}

// listening is a target that counts what it is sent, and answers like an echo.
func listening(t *testing.T) (at string, heard *atomic.Int64) {
	t.Helper()
	heard = &atomic.Int64{}
	at = servers.Listen(t, func(c net.Conn) {
		b := make([]byte, 100)
		for {
			n, err := c.Read(b)
			heard.Add(int64(n))
			if err != nil {
				return
			}
			if _, err := c.Write(b[:n]); err != nil {
				return
			}
		}
	})
	return at, heard
}

// serveAs makes a member serve a target under the relay's name.
func (m *member) serveAs(name, target string, relay *member) {
	m.t.Helper()
	if _, err := m.CreateOutlet(within(m.t), admin.OutletRequest{To: target}); err != nil {
		m.t.Fatal(err)
	}
	if _, err := m.CreateRelay(within(m.t), admin.RelayRequest{Name: name, At: relay.route() + "/secure/api"}); err != nil {
		m.t.Fatal(err)
	}
	settles(m.t, "relay registered", func() bool { return len(relay.relaySvc.Names()) == 1 })
}

// TestOperatorPosesAsTheBank: whoever has the project's authority and relay makes itself a member, takes the bank's name at the relay and puts an outlet
// there. A client that has seen the bank, or knows its identifier, does not send it a byte.
func TestOperatorPosesAsTheBank(t *testing.T) {
	p := newProject(t, 0)
	relay := p.join(nil, "")
	bank, client := p.join(authority.Attributes{"ockam-relay": "bank"}, "p"), p.join(authority.Attributes{"side": "client"}, "p")
	p.know(client, relay)
	target, served := listening(t)
	bank.serveAs("bank", target, relay)
	to := "/project/p/service/forward_to_bank/secure/api/service/outlet"
	inlet := func(r admin.InletRequest) admin.Inlet {
		t.Helper()
		r.From, r.To = "127.0.0.1:0", to
		in, err := client.CreateInlet(within(t), r)
		if err != nil {
			t.Fatal(err)
		}
		return in
	}
	pinned, named := inlet(admin.InletRequest{Alias: "pinned"}), inlet(admin.InletRequest{Alias: "named", Authorized: bank.self.String()})
	ask := func(at string) error {
		c, err := net.Dial("tcp", at)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(500 * time.Millisecond))
		if _, err := c.Write([]byte("password")); err != nil {
			return err
		}
		_, err = io.ReadFull(c, make([]byte, 8))
		return err
	}
	for _, in := range []admin.Inlet{pinned, named} {
		settles(t, "served by the bank", func() bool { return ask(in.Bind) == nil })
	}
	if served.Load() < 16 {
		t.Fatal("the bank was not asked")
	}

	// The operator.
	bank.Stop()
	settles(t, "the name is free", func() bool { return len(relay.relaySvc.Names()) == 0 })
	operator := p.join(authority.Attributes{"ockam-relay": "*"}, "p")
	trap, stolen := listening(t)
	operator.serveAs("bank", trap, relay)
	failures := func(alias string) string {
		i, ok := client.inlets.Get(alias)
		if !ok || !i.IsOpen {
			return ""
		}
		_, _, err := i.Value.session.state()
		if err == nil {
			return ""
		}
		return err.Error()
	}
	settles(t, "the change is refused", func() bool {
		text := failures("pinned")
		return strings.Contains(text, bank.self.String()) && strings.Contains(text, operator.self.String()) && strings.Contains(text, "tcp-inlet accept pinned")
	})
	settles(t, "another identifier is refused", func() bool { return strings.Contains(failures("named"), "not one of the 1 authorized") })
	for range 2 {
		for _, in := range []admin.Inlet{pinned, named} {
			if ask(in.Bind) == nil {
				t.Error("the operator's outlet answers")
			}
		}
	}
	client.restart() // which forgets nothing
	for _, in := range client.Inlets() {
		if in.Alias == "pinned" {
			pinned = in
		} else {
			named = in
		}
	}
	settles(t, "refused after a restart", func() bool { return strings.Contains(failures("pinned"), operator.self.String()) })
	if ask(pinned.Bind) == nil || ask(named.Bind) == nil {
		t.Error("the operator's outlet answers after a restart")
	}
	if n := stolen.Load(); n != 0 {
		t.Fatalf("the operator has read %d bytes", n)
	}

	// The change was meant: it is accepted for the one inlet.
	got, err := client.AcceptOutlet(within(t), "pinned")
	if err != nil || got.Before != bank.self.String() || got.Now != operator.self.String() {
		t.Errorf("%+v, %v", got, err)
	}
	settles(t, "the accepted one is used", func() bool { return ask(pinned.Bind) == nil })
	if ask(named.Bind) == nil {
		t.Error("accepted for another inlet too")
	}
	if _, err := client.AcceptOutlet(within(t), "named"); err == nil {
		t.Error("an inlet without a pin is accepted")
	}
}
