package node

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"sallyport/crypto/identity"
	"sallyport/limits"
	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/portal"
	"sallyport/routing/multiaddr"
)

// changed is a request with a change.
func changed[R any](r R, change func(*R)) R {
	change(&r)
	return r
}

// TestWhatCanBeNoPortal: each thing in a request that can never be is refused as such, one by one, and the request without it is not.
func TestWhatCanBeNoPortal(t *testing.T) {
	m := newMember(t)
	ctx := within(t)
	free := func(string) bool { return false }
	inlet := resource.Inlet{Alias: "in", From: "127.0.0.1:0", To: m.route() + "/secure/api/service/db"}
	type in = func(*resource.Inlet)
	for name, change := range map[string]in{
		"nothing":         func(*resource.Inlet) {},
		"a header":        func(r *resource.Inlet) { r.HTTPHeaders = []string{"A:b"} },
		"a certificate":   func(r *resource.Inlet) { r.TLSProvider = "/service/tls" },
		"its protocols":   func(r *resource.Inlet) { r.TLSProvider, r.ALPN = "/service/tls", []string{"h2"} },
		"an identifier":   func(r *resource.Inlet) { r.Authorized = m.self.String() },
		"a policy":        func(r *resource.Inlet) { r.Allow = `(= subject.a "b")` },
		"InfluxDB":        func(r *resource.Inlet) { r.InfluxDB = &resource.InfluxInlet{} },
		"a shared token":  func(r *resource.Inlet) { r.InfluxDB = &resource.InfluxInlet{Shared: true} },
		"a lease manager": func(r *resource.Inlet) { r.InfluxDB = &resource.InfluxInlet{LeaseManager: "/service/lease"} },
	} {
		if r := changed(inlet, change); m.checkInlet(ctx, &r, free) != nil {
			t.Errorf("with %s: %v", name, m.checkInlet(ctx, &r, free))
		}
	}
	for name, change := range map[string]in{
		"no multiaddress":               func(r *resource.Inlet) { r.To = "nonsense" },
		"no port":                       func(r *resource.Inlet) { r.From = "127.0.0.1" },
		"no header":                     func(r *resource.Inlet) { r.HTTPHeaders = []string{"A:b", "nothing"} },
		"no protocol":                   func(r *resource.Inlet) { r.TLSProvider, r.ALPN = "/service/tls", []string{""} },
		"protocols without TLS":         func(r *resource.Inlet) { r.ALPN = []string{"h2"} },
		"no provider":                   func(r *resource.Inlet) { r.TLSProvider = "nonsense" },
		"no identifier":                 func(r *resource.Inlet) { r.Authorized = "x" },
		"no policy":                     func(r *resource.Inlet) { r.Allow = "(" },
		"InfluxDB behind no service":    func(r *resource.Inlet) { r.InfluxDB, r.To = &resource.InfluxInlet{}, m.route() },
		"InfluxDB behind nothing":       func(r *resource.Inlet) { r.InfluxDB, r.To = &resource.InfluxInlet{}, "" },
		"InfluxDB with headers":         func(r *resource.Inlet) { r.InfluxDB, r.HTTPHeaders = &resource.InfluxInlet{}, []string{"A:b"} },
		"no lease manager":              func(r *resource.Inlet) { r.InfluxDB = &resource.InfluxInlet{LeaseManager: "nonsense"} },
		"a shared token that is leased": func(r *resource.Inlet) { r.InfluxDB = &resource.InfluxInlet{Shared: true, LeaseManager: "/service/l"} },
	} {
		r := changed(inlet, change)
		if err := m.checkInlet(ctx, &r, free); !errors.Is(err, admin.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A name is given to one that has none: one that is free.
	r, asked := changed(inlet, func(r *resource.Inlet) { r.Alias = "" }), 0
	if err := m.checkInlet(ctx, &r, func(string) bool { asked++; return asked < 3 }); err != nil || r.Alias == "" || asked != 3 {
		t.Errorf("%q after %d names: %v", r.Alias, asked, err)
	}
	// One that was given is refused later if it is taken, not replaced.
	r = inlet
	if err := m.checkInlet(ctx, &r, func(string) bool { return true }); err != nil || r.Alias != "in" {
		t.Errorf("%q: %v", r.Alias, err)
	}

	type out = func(*resource.Outlet)
	n := 0
	for name, e := range map[string]struct {
		change out
		ok     bool
	}{
		"nothing":                  {func(*resource.Outlet) {}, true},
		"TLS":                      {func(r *resource.Outlet) { r.TLS = true }, true},
		"its protocols":            {func(r *resource.Outlet) { r.TLS, r.ALPN = true, []string{"h2"} }, true},
		"a check":                  {func(r *resource.Outlet) { r.Check = "tcp" }, true},
		"no check":                 {func(r *resource.Outlet) { r.Check = "none" }, true},
		"one connection":           {func(r *resource.Outlet) { r.MaxConnections = 1 }, true},
		"most connections":         {func(r *resource.Outlet) { r.MaxConnections = portal.MostConnections }, true},
		"held for a day":           {func(r *resource.Outlet) { r.Hold = "24h" }, true},
		"not held":                 {func(r *resource.Outlet) { r.Hold = "0s" }, true},
		"no port":                  {func(r *resource.Outlet) { r.To = "127.0.0.1" }, false},
		"protocols without TLS":    {func(r *resource.Outlet) { r.ALPN = []string{"h2"} }, false},
		"no protocol":              {func(r *resource.Outlet) { r.TLS, r.ALPN = true, []string{""} }, false},
		"an unknown check":         {func(r *resource.Outlet) { r.Check = "smtp" }, false},
		"a check too often":        {func(r *resource.Outlet) { r.CheckInterval = "1ms" }, false},
		"less than no connections": {func(r *resource.Outlet) { r.MaxConnections = -1 }, false},
		"too many connections":     {func(r *resource.Outlet) { r.MaxConnections = portal.MostConnections + 1 }, false},
		"one of each member":       {func(r *resource.Outlet) { r.MaxConnectionsPerMember = 1 }, true},
		"most of each member":      {func(r *resource.Outlet) { r.MaxConnectionsPerMember = portal.MostConnections }, true},
		"less than none of each":   {func(r *resource.Outlet) { r.MaxConnectionsPerMember = -1 }, false},
		"too many of each member":  {func(r *resource.Outlet) { r.MaxConnectionsPerMember = portal.MostConnections + 1 }, false},
		"no policy":                {func(r *resource.Outlet) { r.Allow = "(" }, false},
		"held for longer":          {func(r *resource.Outlet) { r.Hold = "24h1ns" }, false},
		"held for less than never": {func(r *resource.Outlet) { r.Hold = "-1s" }, false},
		"held for no time":         {func(r *resource.Outlet) { r.Hold = "soon" }, false},
	} {
		n++
		r := changed(resource.Outlet{Name: "db" + string(rune('a'+n)), To: "127.0.0.1:1"}, e.change)
		_, err := m.CreateOutlet(ctx, r)
		if (err == nil) != e.ok || err != nil && !errors.Is(err, admin.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
		if m.router.HasNamed(r.Name) != e.ok {
			t.Errorf("%s: the outlet is there: %v", name, !e.ok)
		}
	}
	// An outlet without a name has the default one, or one that is free.
	for i, want := range []string{"outlet", ""} {
		o, err := m.CreateOutlet(ctx, resource.Outlet{To: "127.0.0.1:1"})
		if err != nil || want != "" && string(o.Worker) != want || i == 1 && (o.Worker == "outlet" || o.Worker == "") {
			t.Errorf("%q, %v", o.Worker, err)
		}
	}
	if _, err := m.CreateOutlet(ctx, resource.Outlet{Name: "echo", To: "127.0.0.1:1"}); !errors.Is(err, admin.ErrExists) {
		t.Errorf("an outlet at the address of a service: %v", err)
	}
	if err := m.DeleteOutlet(ctx, "outlet"); err != nil || m.router.HasNamed("outlet") {
		t.Errorf("deleted: %v", err)
	}
	if err := m.DeleteOutlet(ctx, "outlet"); !errors.Is(err, admin.ErrNotFound) {
		t.Errorf("deleted twice: %v", err)
	}

	if _, err := m.CreateRelay(ctx, resource.Relay{At: "nonsense"}); !errors.Is(err, admin.ErrInvalid) {
		t.Errorf("a relay at no multiaddress: %v", err)
	}
	if _, err := m.CreateRelay(ctx, resource.Relay{At: m.route() + "/secure/api", Authorized: "x"}); !errors.Is(err, admin.ErrInvalid) {
		t.Errorf("a relay of no identifier: %v", err)
	}
	rel, err := m.CreateRelay(ctx, resource.Relay{At: m.route() + "/secure/api", RelayAddress: "other"})
	if err != nil || rel.Name != "default" || rel.ConnectionStatus != "Up" || rel.RemoteAddress == nil || *rel.RemoteAddress != "forward_to_other" ||
		rel.ForwardingRoute == nil || rel.WorkerAddress == nil || rel.Flow == nil || rel.LastFailure != nil || rel.Destination != m.route()+"/secure/api" {
		t.Errorf("%+v, %v", rel, err)
	}
	if err := m.DeleteRelay(ctx, "default"); err != nil || len(m.Relays()) != 0 {
		t.Errorf("%v, %+v", err, m.Relays())
	}
	if err := m.DeleteRelay(ctx, "default"); !errors.Is(err, admin.ErrNotFound) {
		t.Errorf("deleted twice: %v", err)
	}
	down, err := m.CreateRelay(ctx, resource.Relay{Name: "down", At: "/ip4/127.0.0.1/tcp/1/secure/api"})
	if err != nil || down.ConnectionStatus != "Down" || down.LastFailure == nil || *down.LastFailure == "" || down.ForwardingRoute != nil {
		t.Errorf("%+v, %v", down, err)
	}
}

// TestUDPThatCannotBe: an inlet that wants a direct path is refused by a node that can have none, with what is missing.
func TestUDPThatCannotBe(t *testing.T) {
	m := newMember(t)
	r := resource.Inlet{Alias: "in", From: "127.0.0.1:0", To: m.route() + "/secure/api/service/db", UDP: true, NoConnectionWait: true}
	if _, err := m.CreateInlet(within(t), r); !errors.Is(err, admin.ErrInvalid) || len(m.Inlets()) != 0 {
		t.Errorf("%v, %+v", err, m.Inlets())
	}
	// One that was asked for before, of a node that had UDP then, is there: it comes over the main path.
	m.restartWith(stored(t, resource.KindInlet, "in", r))
	if i, _ := m.inlets.Get("in"); !i.IsOpen {
		t.Errorf("%+v", i.Status)
	}
}

// TestMemoryBoundsPortals: with little memory portals hold less, with much no more than usual, and what was asked for is left as it is.
func TestMemoryBoundsPortals(t *testing.T) {
	usual := portalLimits(portal.Limits{}, limits.Limits{}.WithDefaults())
	for _, c := range []struct {
		memory                        limits.Bytes
		window, high, least, greatest int
	}{
		{1 << 20, 32 << 10, 64 << 10, 8 << 10, 256 << 10},
		{64 << 20, 64 << 10, 128 << 10, 16 << 10, 2 << 20},
		{512 << 20, 512 << 10, 1 << 20, 32 << 10, 16 << 20},
		{1 << 40, 512 << 10, 1 << 20, 32 << 10, 64 << 20},
	} {
		l := limits.Limits{}.WithDefaults()
		l.Memory = c.memory
		if p := portalLimits(portal.Limits{}, l); p.Window != c.window || p.HighWater != c.high || p.LeastWindow != c.least || p.MaxWindow != c.greatest {
			t.Errorf("%d MiB: %+v", c.memory>>20, p)
		}
		given := portal.Limits{Window: 3 << 10, HighWater: 5 << 10, LeastWindow: 7 << 10, MaxWindow: 11 << 20, Budget: 13, KeepBudget: 17, Connections: 19, OutletConnections: 23}
		if p := portalLimits(given, l); p.Window != 3<<10 || p.HighWater != 5<<10 || p.LeastWindow != 7<<10 || p.MaxWindow != 11<<20 ||
			p.Budget != 13 || p.KeepBudget != 17 || p.Connections != 19 || p.OutletConnections != 23 {
			t.Errorf("what was asked for: %+v", p)
		}
	}
	l := limits.Limits{Windows: 29 << 20, Kept: 31 << 20, PortalConnections: 37, OutletConnections: 41}.WithDefaults()
	l.Memory = 0
	if p := portalLimits(portal.Limits{}, l); p.Budget != 29<<20 || p.KeepBudget != 31<<20 || p.Connections != 37 || p.OutletConnections != 41 || p.Window != usual.Window {
		t.Errorf("%+v", p)
	}
	for memory, want := range map[limits.Bytes]int{0: 0, 1 << 20: 128 << 10, 64 << 20: 256 << 10, 1 << 40: 1 << 20} {
		l.Memory = memory
		if got := transportOptions(l).HighWater; got != want {
			t.Errorf("%d MiB: a high water mark of %d, not %d", memory>>20, got, want)
		}
	}
	l = limits.Limits{
		Connections: 1, ConnectionsPerAddress: 2, Message: 3, PreambleTimeout: limits.Duration(4 * time.Second), FrameTimeout: limits.Duration(5 * time.Second),
		Handshakes: 6, HandshakesPerSecond: 7, Channels: 8, ChannelsPerPeer: 9, Descriptors: 10, Unfinished: 11,
	}
	if o := transportOptions(l); o.Connections != 1 || o.ConnectionsPerAddress != 2 || o.MaxMessage != 3 || o.Deadlines.Preamble != 4*time.Second || o.Deadlines.Frame != 5*time.Second {
		t.Errorf("%+v", o)
	}
	if c := channelLimits(l); c.Handshakes != 6 || c.PerSecond != 7 || c.Channels != 8 || c.ChannelsPerPeer != 9 {
		t.Errorf("%+v", c)
	}
	if d := loopLimits(l); d.KeepDescriptors != 10 || d.Unfinished != 11 {
		t.Errorf("%+v", d)
	}
}

// TestRoutesThatCannotBe: what cannot be followed is told, and what was opened on the way is closed.
func TestRoutesThatCannotBe(t *testing.T) {
	m, there := newMember(t), newMember(t)
	ctx := within(t)
	at := there.route()
	for name, text := range map[string]string{
		"two transports":              at + at + "/service/echo",
		"a host alone":                "/ip4/127.0.0.1/service/echo",
		"a node that is not resolved": "/node/n/service/echo",
		"no such project":             "/project/p/service/echo",
		"another's channel":           at + "/secure/api" + at,
	} {
		to, err := multiaddr.Parse(text)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if c, err := m.connect(ctx, to, connectOptions{self: m.self}); err == nil {
			t.Errorf("%s: %v", name, c.route)
		}
		settles(t, name+": what was opened is closed", func() bool { return len(m.TCPConnections()) == 0 })
	}
	if _, err := m.connect(ctx, nil, connectOptions{self: m.self}); err == nil {
		t.Error("an empty route")
	}
	// Whom the last channel leads to is not asked of those before it.
	if _, err := there.CreateRelay(ctx, resource.Relay{Name: "there", At: m.route() + "/secure/api"}); err != nil {
		t.Fatal(err)
	}
	through, err := multiaddr.Parse(m.route() + "/secure/api/service/forward_to_there/secure/api/service/echo")
	if err != nil {
		t.Fatal(err)
	}
	client := newMember(t)
	for id, ok := range map[string]bool{there.self.String(): true, m.self.String(): false} {
		o, err := client.connectOptions(ctx, "", id)
		if err != nil {
			t.Fatal(err)
		}
		c, err := client.connect(ctx, through, o)
		if (err == nil) != ok {
			t.Errorf("through the relay to %s: %v", id, err)
		}
		if err == nil {
			if c.name != "there" || c.relay.Len() == 0 || len(c.channels) != 2 {
				t.Errorf("name %q, %d channels", c.name, len(c.channels))
			}
			c.close()
			select {
			case <-c.done():
			case <-ctx.Done():
				t.Error("closed, and not done")
			}
		}
	}
	if _, err := client.connectOptions(ctx, "", "x"); !errors.Is(err, admin.ErrInvalid) {
		t.Errorf("no identifier: %v", err)
	}
}

// TestCloseIsSeen: what a connection consists of says when it has ended: the channel, else the transport, else that it was closed.
func TestCloseIsSeen(t *testing.T) {
	m, there := newMember(t), newMember(t)
	ctx := within(t)
	for _, text := range []string{there.route() + "/secure/api/service/echo", there.route() + "/service/echo", "/service/echo"} {
		to, err := multiaddr.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		c, err := m.connect(ctx, to, connectOptions{self: m.self})
		if err != nil {
			// A route that leaves nothing open has no flow to make services reachable from.
			t.Fatalf("%s: %v", text, err)
		}
		select {
		case <-c.done():
			t.Errorf("%s: done while it is open", text)
		default:
		}
		if want := c.route.WithoutLast().String(); c.pingRoute().String() != want {
			t.Errorf("%s: pinged at %s, not at %s", text, c.pingRoute(), want)
		}
		if c.tcp != nil && len(c.channels) == 0 {
			whole := c.route
			c.route = whole.WithoutLast()
			if c.pingRoute().Len() != 1 {
				t.Errorf("%s: the way out is pinged at %s", text, c.pingRoute())
			}
			c.route = whole
		}
		c.close()
		c.close()
		select {
		case <-c.done():
		case <-ctx.Done():
			t.Errorf("%s: closed, and not done", text)
		}
	}
	settles(t, "nothing is left open", func() bool { return len(m.TCPConnections()) == 0 && len(m.channels.List()) == 0 })
}

// projects is a Store that has projects.
type projects struct {
	forgetful
	list map[string]*Project
}

func (p projects) Project(_ context.Context, name string) (*Project, error) {
	if one, ok := p.list[name]; ok {
		return one, nil
	}
	return nil, admin.ErrNotFound
}

// TestProjectRoutes: a route that begins with a project leads through its node, to nobody who is not that node; the project's authority counts
// before the node's own.
func TestProjectRoutes(t *testing.T) {
	there, other := newMember(t), newMember(t)
	route := func(text string) multiaddr.Addr { return mustRoute(t, text) }
	authority := numbered(9)
	store := projects{list: map[string]*Project{
		"right":   {Route: route(there.route() + "/service/api"), Identifier: there.self, Authority: &authority, Expects: []identity.Identifier{numbered(5)}},
		"secure":  {Route: route(there.route() + "/secure/api"), Identifier: there.self},
		"wrong":   {Route: route(there.route() + "/service/api"), Identifier: other.self},
		"nowhere": {Identifier: there.self},
		"open":    {Route: route(there.route()), Identifier: there.self},
		"absent":  {Route: route("/ip4/127.0.0.1/tcp/1/service/api"), Identifier: there.self},
	}}
	ids, self := newIdentities(t)
	own := numbered(8)
	n, err := Start(within(t), Options{Name: "n", Self: self, Identities: ids, Store: store, Listen: "127.0.0.1:0", Shards: 1, Log: testLog})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Stop)
	for name, ok := range map[string]bool{"right": true, "secure": true, "wrong": false, "nowhere": false, "open": false, "absent": false, "none": false} {
		c, err := n.connect(within(t), route("/project/"+name+"/service/echo"), connectOptions{self: self})
		if (err == nil) != ok {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil {
			continue
		}
		if c.project == nil || *c.project != there.self || (c.authority != nil) != (name == "right") || (len(c.expects) == 1) != (name == "right") {
			t.Errorf("%s: %+v", name, c)
		}
		c.close()
	}
	if _, ok := n.projectNodes.Load(there.self); !ok {
		t.Error("the project's node is not known as such")
	}
	n.opts.Trust.Authority = &own
	for text, want := range map[string]identity.Identifier{
		"/project/right/service/x": authority, "/project/secure/service/x": own, "/project/none/service/x": own, "/service/x": own, "": own,
	} {
		to := multiaddr.Addr(nil)
		if text != "" {
			to = route(text)
		}
		if got := n.authorityOf(within(t), to); got == nil || *got != want {
			t.Errorf("%q: %v, not %v", text, got, want)
		}
	}
	n.opts.Trust.Authority = nil
}

// TestTargetSince: how long a target answers, or does not, is counted from when that began.
func TestTargetSince(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // it plans no looks
	g := newTarget(ctx, &resource.Outlet{To: "127.0.0.1:1"}, nil, nil)
	if s := g.status(); s.State != resource.Up || !s.Since.IsZero() {
		t.Errorf("before anybody tried: %+v", s)
	}
	before := g.status().Since
	for i, c := range []struct {
		err   error
		since bool // it begins anew
		state resource.State
	}{
		{nil, true, resource.Up}, {nil, false, resource.Up}, {errors.New("refused"), true, resource.Degraded}, {errors.New("timeout"), false, resource.Degraded},
		{nil, true, resource.Up}, {nil, false, resource.Up},
	} {
		for time.Now().Equal(before) { // a clock that stands still tells nothing
			time.Sleep(time.Microsecond)
		}
		g.tried(c.err)
		s := g.status()
		if s.State != c.state || s.Since.Equal(before) == c.since || c.err != nil && !strings.Contains(s.Reason, c.err.Error()) {
			t.Errorf("attempt %d: %+v, before since %v", i, s, before)
		}
		before = s.Since
	}
	for text, ok := range map[string]bool{
		"": true, "none": true, "tcp": true, "pg": true, "http": true, "http:/health": true, "http:health": false, "http:/a b": false, "https": false,
	} {
		if err := checkTargetCheck(&resource.Outlet{Check: text}); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
	for text, ok := range map[string]bool{"": true, "1s": true, "100ms": true, "99ms": false, "1h": true, "2h": false, "-1s": false, "often": false} {
		if err := checkTargetCheck(&resource.Outlet{CheckInterval: text}); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
}
