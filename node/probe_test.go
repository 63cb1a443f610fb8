package node

import (
	"errors"
	"strings"
	"testing"

	"sallyport/authority"
	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/routing/multiaddr"
)

// TestProbe: a way is gone hop by hop, each is named with who answers there, and it ends with the hop that fails, which says why.
func TestProbe(t *testing.T) {
	relay, bank, asks := newMember(t), newMember(t), newMember(t)
	ctx := within(t)
	if _, err := bank.CreateRelay(ctx, resource.Relay{Name: "bank", At: relay.route() + "/secure/api"}); err != nil {
		t.Fatal(err)
	}
	if _, err := bank.CreateOutlet(ctx, resource.Outlet{Name: "db", To: echoServer(t)}); err != nil {
		t.Fatal(err)
	}
	if _, err := bank.CreateOutlet(ctx, resource.Outlet{Name: "closed", To: echoServer(t), Allow: only(relay)}); err != nil {
		t.Fatal(err)
	}
	way := relay.route() + "/secure/api/service/forward_to_bank/secure/api/service/db"
	if _, err := asks.CreateInlet(ctx, resource.Inlet{Alias: "in", From: "127.0.0.1:0", To: way, Authorized: bank.self.String()}); err != nil {
		t.Fatal(err)
	}
	through := relay.route() + "/secure/api/service/forward_to_bank/secure/api/service/"
	for _, c := range []struct {
		what  string
		ask   admin.ProbeRequest
		hops  []string // kind, and who answers there
		state string   // of the last hop
		fails string   // what the last hop says, empty if all answer
	}{
		{"an inlet", admin.ProbeRequest{Inlet: "in", Count: 2}, []string{"tcp", "channel relay", "relay", "channel bank", "outlet"}, "up", ""},
		{"a route", admin.ProbeRequest{To: through + "db"}, []string{"tcp", "channel relay", "relay", "channel bank", "outlet"}, "up", ""},
		{"a bulk", admin.ProbeRequest{To: relay.route() + "/secure/api", BulkMS: 1000}, []string{"tcp", "channel relay"}, "", ""},
		{"no outlet", admin.ProbeRequest{To: through + "none"}, []string{"tcp", "channel relay", "relay", "channel bank", "outlet"}, "down", "there is no outlet none"},
		{"not admitted", admin.ProbeRequest{To: through + "closed"}, []string{"tcp", "channel relay", "relay", "channel bank", "outlet"}, "down", "policy"},
		{"nobody registered", admin.ProbeRequest{To: relay.route() + "/secure/api/service/forward_to_none/secure/api"}, []string{"tcp", "channel relay", "relay"}, "", "nobody is registered under the name none"},
		{"no node", admin.ProbeRequest{To: "/ip4/127.0.0.1/tcp/1/secure/api/service/db"}, []string{"tcp"}, "", "connection refused"},
		{"a service on the way", admin.ProbeRequest{To: relay.route() + "/secure/api/service/hop/service/db"}, []string{"tcp", "channel relay", "service", "service"}, "", ""},
		{"no channel", admin.ProbeRequest{To: relay.route() + "/service/forward_to_none"}, []string{"tcp", "service"}, "", ""},
	} {
		p, err := asks.Probe(ctx, c.ask)
		if err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		var hops []string
		for k, h := range p.Hops {
			who := ""
			for name, m := range map[string]*member{"relay": relay, "bank": bank} {
				if h.Peer == m.self.String() {
					who = " " + name
				}
			}
			hops = append(hops, h.Kind+who)
			trips := 0
			if h.Kind == "channel" {
				if trips = c.ask.Count; trips == 0 {
					trips = 3
				}
			}
			if len(h.RoundTripsMS)+h.Lost != trips || trips > 0 && len(h.RoundTripsMS) == 0 || (h.BytesPerSecond > 0) != (c.ask.BulkMS > 0 && h.Kind == "channel") {
				t.Errorf("%s: %+v", c.what, h)
			}
			if k < len(p.Hops)-1 && h.Error != "" || h.TookMS < 0 {
				t.Errorf("%s: %+v", c.what, h)
			}
			if h.Kind == "relay" && h.Error == "" && (h.Name != "bank" || h.State != "registered by 1") {
				t.Errorf("%s: %+v", c.what, h)
			}
		}
		last := p.Hops[len(p.Hops)-1]
		if strings.Join(hops, ", ") != strings.Join(c.hops, ", ") || last.State != c.state || (last.Error == "") != (c.fails == "") || !strings.Contains(last.Error, c.fails) || p.OK() != (c.fails == "") {
			t.Errorf("%s: %q, then %+v", c.what, hops, last)
		}
		if want := c.ask.To; want != "" && p.To != want || want == "" && p.To != way {
			t.Errorf("%s: to %s", c.what, p.To)
		}
	}
	// Whoever an inlet expects is expected by its probe, at the end and not on the way.
	if _, err := asks.CreateInlet(ctx, resource.Inlet{Alias: "other", From: "127.0.0.1:0", To: way, Authorized: relay.self.String(), NoConnectionWait: true}); err != nil {
		t.Fatal(err)
	}
	if p, err := asks.Probe(ctx, admin.ProbeRequest{Inlet: "other"}); err != nil || len(p.Hops) != 4 || p.Hops[1].Error != "" || p.Hops[3].Error == "" {
		t.Errorf("somebody else at the end: %+v, %v", p, err)
	}
	settles(t, "only the two inlets are connected", func() bool { return len(asks.tcp.Connections()) <= 2 })
}

// TestProbeRefused: what cannot be asked for, at its bounds.
func TestProbeRefused(t *testing.T) {
	m := newMember(t)
	to := "/ip4/127.0.0.1/tcp/1"
	for _, c := range []struct {
		ask  admin.ProbeRequest
		want error
	}{
		{admin.ProbeRequest{To: to, Count: -1}, admin.ErrInvalid}, {admin.ProbeRequest{To: to, Count: maxTrips + 1}, admin.ErrInvalid}, {admin.ProbeRequest{To: to, Count: maxTrips}, nil},
		{admin.ProbeRequest{To: to, BulkMS: -1}, admin.ErrInvalid}, {admin.ProbeRequest{To: to, BulkMS: maxBulk.Milliseconds() + 1}, admin.ErrInvalid}, {admin.ProbeRequest{To: to, BulkMS: maxBulk.Milliseconds()}, nil},
		{admin.ProbeRequest{To: "no route"}, admin.ErrInvalid}, {admin.ProbeRequest{Inlet: "none"}, admin.ErrNotFound},
	} {
		p, err := m.Probe(within(t), c.ask)
		if !errors.Is(err, c.want) || (err == nil) != (p != nil) || p != nil && p.OK() {
			t.Errorf("%+v: %+v, %v", c.ask, p, err)
		}
	}
	if p := (&admin.Probe{}); p.OK() {
		t.Error("a way without hops answers")
	}
	for text, want := range map[string]string{"/ip4/127.0.0.1/tcp/1": "tcp", "/ip4/127.0.0.1/udp/1": "udp"} {
		if got := transportKind(mustRoute(t, text)); got != want {
			t.Errorf("%s is %s", text, got)
		}
	}
	if transportKind(multiaddr.Addr{}) != "tcp" {
		t.Error("no address")
	}
}

// TestProbeDoesNotEcho: a node that does not echo to this one is reached, and its answer says that; data is not sent to it.
func TestProbeDoesNotEcho(t *testing.T) {
	p := newProject(t, 0)
	m := p.join(authority.Attributes{}, "p")
	stranger := newMember(t)
	got, err := stranger.Probe(within(t), admin.ProbeRequest{To: m.route() + "/secure/api", Count: 5, BulkMS: 50})
	if err != nil || len(got.Hops) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	if h := got.Hops[1]; h.Lost != 2 || len(h.RoundTripsMS) != 0 || h.BytesPerSecond != 0 || h.Error == "" && !strings.Contains(h.State, "does not echo") {
		t.Errorf("%+v", h)
	}
}
