package node

import (
	"context"
	"net/http"
	"testing"
	"time"

	"sallyport/crypto/identity"
	"sallyport/fleet"
	"sallyport/node/admin"
	"sallyport/project"
	"sallyport/routing/rpc"
)

// TestFleetAdministered: the owner of a node that keeps the list of others makes tickets, sees who is on the list, and takes one from it; the others are told. A
// node that keeps none says so.
func TestFleetAdministered(t *testing.T) {
	m := newMember(t)
	var kept []byte
	keeper, err := fleet.NewKeeper(fleet.Options{
		Self: m.self, Kind: "relay", Identities: m.ids,
		History: func(ctx context.Context) ([]byte, error) { return m.ids.History(ctx, m.self) },
		Load:    func() ([]byte, error) { return kept, nil },
		Save:    func(b []byte) error { kept = b; return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx := within(t)
	c, _ := administered(t, m.Node)
	ticket := func(lifetime, ttl time.Duration, uses int) (out admin.FleetTicket, err error) {
		err = c.Do(ctx, http.MethodPost, admin.PathFleetTickets, admin.FleetTicketRequest{LifetimeMS: lifetime.Milliseconds(), ExpiresMS: ttl.Milliseconds(), Uses: uses}, &out)
		return out, err
	}
	nodes := func() (out []admin.FleetNode, err error) {
		err = c.Do(ctx, http.MethodGet, admin.PathFleet, nil, &out)
		return out, err
	}
	// Without a list, then as one of those that are on it.
	for _, o := range []*FleetOptions{nil, {}} {
		m.opts.Fleet = o
		_, listErr := nodes()
		_, ticketErr := ticket(0, time.Hour, 1)
		for what, err := range map[string]error{"list": listErr, "ticket": ticketErr, "delete": c.Delete(ctx, admin.PathFleet, "x")} {
			if statusOf(err) != http.StatusBadRequest {
				t.Errorf("%s at a node without a list: %v", what, err)
			}
		}
		if o.server() != nil {
			t.Error("it serves others")
		}
	}
	if d := (&FleetOptions{Delegate: &fleet.Delegate{}}); d.server() == nil {
		t.Error("one on the list serves nobody")
	}
	m.opts.Fleet = &FleetOptions{Keeper: keeper}
	if err := m.startFleet(ctx); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []struct {
		lifetime, ttl time.Duration
		uses          int
	}{{time.Millisecond, time.Hour, 1}, {0, 0, 1}, {0, time.Hour, 0}} {
		if _, err := ticket(bad.lifetime, bad.ttl, bad.uses); statusOf(err) != http.StatusBadRequest {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	made, err := ticket(48*time.Hour, time.Hour, 2)
	if err != nil || made.Reference == "" || made.Code == "" {
		t.Fatalf("%+v, %v", made, err)
	}
	if list, err := nodes(); err != nil || list == nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
	// A node comes with the ticket, through a channel. Whenever the list changes, those that are on it are told, or were.
	at, heard := listening(t)
	one, route := newMember(t), "/ip4/127.0.0.1/tcp/"+portOf(at)+"/service/api"
	expected := []identity.Identifier{m.self}
	client := &fleet.Client{Call: func(ctx context.Context, req *rpc.Request) (*rpc.Response, error) {
		return one.AskService(ctx, one.self, mustRoute(t, m.route()+"/secure/api"), expected, fleet.Service, req)
	}}
	code, err := project.ParseCode(made.Code)
	if err != nil {
		t.Fatal(err)
	}
	if lifetime, err := client.Redeem(ctx, code, "one", route); err != nil || lifetime != 48*time.Hour {
		t.Errorf("%v, %v", lifetime, err)
	}
	settles(t, "the new node is told of the list", func() bool { return heard.Load() > 0 })
	list, err := nodes()
	if err != nil || len(list) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	if d := list[0]; d.Name != "one" || d.Kind != "relay" || d.Identifier != one.self.String() || d.Route != route || d.LifetimeSeconds != 48*3600 || d.Ticket != made.Reference ||
		time.Since(time.Unix(d.AddedAt, 0)) > time.Hour || d.Deleted != 0 {
		t.Errorf("%+v", d)
	}
	expected = []identity.Identifier{one.self}
	if _, err := client.Nodes(ctx); err == nil {
		t.Error("somebody else answers for the list")
	}
	if err := c.Delete(ctx, admin.PathFleet, "two"); statusOf(err) != http.StatusNotFound {
		t.Errorf("one that is not on the list: %v", err)
	}
	before := heard.Load()
	if err := c.Delete(ctx, admin.PathFleet, "one"); err != nil {
		t.Error(err)
	}
	settles(t, "the one that left is told", func() bool { return heard.Load() > before })
	if list := keeper.Nodes(); len(list) > 1 || len(list) == 1 && list[0].Deleted.IsZero() {
		t.Errorf("%+v", list)
	}
}
