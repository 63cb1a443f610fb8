//go:build !small

package node

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/portal/influxdb/influxtest"
	"sallyport/routing/rpc"
)

// TestInfluxPortals: with a fixed token the outlet sets it, whatever the client sends; with leases the inlet does, each client's node its own, while the
// outlet's policy lets it.
func TestInfluxPortals(t *testing.T) {
	server := influxtest.New(t, "")
	server.Put(influxtest.Authorization{ID: "fixed", Description: "the fixed one", Token: "fixed-token"})
	bank, client, other := newMember(t), newMember(t), newMember(t)
	ctx := within(t)
	to := strings.TrimPrefix(server.URL, "http://")
	lease := resource.InfluxOutlet{OrgID: "org", AllAccessToken: influxtest.AdminToken, Permissions: "[]", ExpiresInSeconds: 3600}
	for name, change := range map[string]func(*resource.Outlet){
		"a token that is no header": func(r *resource.Outlet) { r.InfluxDB = &resource.InfluxOutlet{FixedToken: "a\nb"} },
		"no permissions":            func(r *resource.Outlet) { r.InfluxDB.Permissions = "[" },
		"no organization":           func(r *resource.Outlet) { r.InfluxDB.OrgID = "" },
		"no token":                  func(r *resource.Outlet) { r.InfluxDB.AllAccessToken = "" },
		"no time":                   func(r *resource.Outlet) { r.InfluxDB.ExpiresInSeconds = 0 },
	} {
		with := lease
		r := changed(resource.Outlet{Name: "bad", To: to, InfluxDB: &with}, change)
		if _, err := bank.CreateOutlet(ctx, r); !errors.Is(err, admin.ErrInvalid) || bank.router.HasNamed("bad") || bank.router.HasNamed("bad_lease_manager") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, r := range []resource.Outlet{
		{Name: "fixed", To: to, InfluxDB: &resource.InfluxOutlet{FixedToken: "fixed-token"}},
		{Name: "leased", To: to, Allow: only(client), InfluxDB: &lease},
	} {
		if _, err := bank.CreateOutlet(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := bank.hops.Create(ctx, resource.Hop{Address: "taken_lease_manager"}); err != nil {
		t.Fatal(err)
	}
	if _, err := bank.CreateOutlet(ctx, resource.Outlet{Name: "taken", To: to, InfluxDB: &lease}); !errors.Is(err, admin.ErrExists) {
		t.Errorf("a lease manager at the address of a service: %v", err)
	}
	open := func(m *member, alias, name string, in resource.InfluxInlet) string {
		t.Helper()
		i, err := m.CreateInlet(ctx, resource.Inlet{Alias: alias, From: "127.0.0.1:0", To: bank.route() + "/secure/api/service/" + name, InfluxDB: &in, ConnectionWaitMS: 20_000})
		if err != nil || i.Status != "Up" {
			t.Fatalf("%+v, %v", i, err)
		}
		return "http://" + i.Bind
	}
	ask := func(at string) (string, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, at+"/query", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Token of-a-client")
		transport := &http.Transport{DisableKeepAlives: true}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return string(b), err
	}
	if got, err := ask(open(client, "fixed", "fixed", resource.InfluxInlet{Shared: true})); err != nil || got != "the fixed one" {
		t.Errorf("with the fixed token: %q, %v", got, err)
	}
	leased := open(client, "leased", "leased", resource.InfluxInlet{})
	if got, err := ask(leased); err != nil || !strings.Contains(got, client.self.String()) {
		t.Errorf("with a lease: %q, %v", got, err)
	}
	named := open(client, "named", "leased", resource.InfluxInlet{LeaseManager: bank.route() + "/secure/api/service/leased_lease_manager"})
	if got, err := ask(named); err != nil || !strings.Contains(got, client.self.String()) {
		t.Errorf("of a lease manager by its route: %q, %v", got, err)
	}

	// Leases by request, of who may and of who may not.
	manager := mustRoute(t, bank.route()+"/secure/api/service/leased_lease_manager")
	resp, err := client.AskAt(ctx, manager, rpc.NewRequest(rpc.Get, "/", nil))
	if err != nil || resp.Status != rpc.OK {
		t.Errorf("who may: %+v, %v", resp, err)
	}
	asking := shortly(t)
	if resp, err := other.AskAt(asking, manager, rpc.NewRequest(rpc.Post, "/", nil)); err == nil || !strings.Contains(err.Error(), "may this identity use it") {
		t.Errorf("who may not: %+v, %v", resp, err)
	}
	if _, err := other.AskAt(asking, mustRoute(t, "/ip4/127.0.0.1/tcp/1/service/x"), rpc.NewRequest(rpc.Get, "/", nil)); err == nil {
		t.Error("a node that is not there answers")
	}
	// Another policy decides about leases too, at once, and the outlet takes them along when it goes.
	i, _ := bank.outlets.Get("leased")
	file := i.Request
	file.Allow = only(other)
	if _, err := bank.set.Apply(ctx, admin.ApplyRequest{Resources: []resource.Stored{stored(t, resource.KindOutlet, "leased", file)}}); err != nil {
		t.Fatal(err)
	}
	if resp, err := other.AskAt(ctx, manager, rpc.NewRequest(rpc.Post, "/", nil)); err != nil || resp.Status != rpc.OK {
		t.Errorf("who may now: %+v, %v", resp, err)
	}
	if _, err := client.AskAt(shortly(t), manager, rpc.NewRequest(rpc.Post, "/", nil)); err == nil {
		t.Error("who may not any more has a lease")
	}
	if err := bank.DeleteOutlet(ctx, "leased"); err != nil || bank.router.HasNamed("leased_lease_manager") || bank.router.HasNamed("leased") {
		t.Errorf("deleted: %v", err)
	}
}

// TestWhatAnInfluxInletNeeds: an ordinary inlet needs nothing, one of a shared token the outlet behind, one of its own token a lease.
func TestWhatAnInfluxInletNeeds(t *testing.T) {
	m := newMember(t)
	in, err := m.influxInlet(&resource.Inlet{InfluxDB: &resource.InfluxInlet{}}, mustRoute(t, "/service/db"), connectOptions{})
	if err != nil || in.tokens == nil || in.suffix.Len() != 0 {
		t.Fatal(in, err)
	}
	if in, err := m.influxInlet(&resource.Inlet{}, nil, connectOptions{}); in != nil || err != nil {
		t.Errorf("an ordinary inlet: %+v, %v", in, err)
	}
	in, err = m.influxInlet(&resource.Inlet{InfluxDB: &resource.InfluxInlet{Shared: true}}, mustRoute(t, "/service/db"), connectOptions{})
	if err != nil || in.tokens != nil || in.suffix.String() == "" {
		t.Errorf("%+v, %v", in, err)
	}
}
