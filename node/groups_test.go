package node

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/authority"
	"sallyport/crypto/identity"
	"sallyport/internal/freeport"
	"sallyport/internal/servers"
	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/portal"
	"sallyport/routing"
	"sallyport/routing/registrytest"
)

// naming is a target that says its name and ends. It can come back where it was.
func naming(t *testing.T, name string) (at string, l net.Listener) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:"+freeport.For(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	serveName(l, name)
	return l.Addr().String(), l
}

func serveName(l net.Listener, name string) {
	servers.Serve(l, func(c net.Conn) {
		_, _ = c.Write([]byte(name))
		b := make([]byte, 1)
		_, _ = c.Read(b) // until the client has gone
	})
}

// who connects and returns the name of the target that answers, "" if none does, with the connection.
func who(at string) (string, net.Conn) {
	c, err := net.Dial("tcp", at)
	if err != nil {
		return "", nil
	}
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	b := make([]byte, 16)
	n, _ := c.Read(b)
	return string(b[:n]), c
}

// asks returns who answers a new client.
func asks(at string) string {
	name, c := who(at)
	if c != nil {
		_ = c.Close()
	}
	return name
}

// share registers a member under a name on terms, with an outlet to a target.
func (m *member) share(relay *member, target string, r admin.RelayRequest, o admin.OutletRequest) error {
	m.t.Helper()
	o.To = target
	if _, err := m.CreateOutlet(within(m.t), o); err != nil {
		m.t.Fatal(err)
	}
	r.At = relay.route() + "/secure/api"
	_, err := m.CreateRelay(within(m.t), r)
	return err
}

// members returns what a member's relay shows of those who share its name.
func (m *member) members(name string) []admin.RelayMember {
	i, ok := m.relays.Get(name)
	if !ok || !i.IsOpen {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return m.sharers(ctx, i.Value, name)
}

func (m *member) relayState(name string) resource.Status {
	i, _ := m.relays.Get(name)
	return i.Status
}

// TestNobodyHasTheName: clients of an inlet to a name that nobody has are closed at once with a reason, and served when somebody has it.
func TestNobodyHasTheName(t *testing.T) {
	p := newProject(t, 0)
	relay := p.join(nil, "")
	bank, client := p.join(authority.Attributes{"ockam-relay": "db"}, "p"), p.join(authority.Attributes{"side": "client"}, "p")
	in, err := client.CreateInlet(within(t), admin.InletRequest{Alias: "in", From: "127.0.0.1:0", To: relay.route() + "/secure/api/service/forward_to_db/secure/api/service/outlet"})
	if err != nil || !in.State.Refused || !strings.Contains(in.State.Reason, "nobody is registered") {
		t.Fatalf("%+v, %v", in, err)
	}
	refused := func() (refused, waited uint64) {
		for _, m := range client.portals.Meters() {
			if m.Name() == "in" {
				return m.Refused[portal.ReasonRefused].Load(), m.Refused[portal.ReasonPath].Load()
			}
		}
		return 0, 0
	}
	if got := asks(in.Bind); got != "" {
		t.Errorf("served by %q", got)
	}
	if n, waited := refused(); n != 1 || waited != 0 {
		t.Errorf("%d refused, %d waited in vain", n, waited)
	}
	target, _ := naming(t, "bank")
	if err := bank.share(relay, target, admin.RelayRequest{Name: "db"}, admin.OutletRequest{}); err != nil {
		t.Fatal(err)
	}
	settles(t, "served", func() bool { return asks(in.Bind) == "bank" })
	if testing.Short() {
		return // the rest takes as long as a client waits for a node that is restarted
	}
	before, _ := refused()
	bank.Stop()
	settles(t, "nobody has it again", func() bool {
		i, _ := client.inlets.Get("in")
		return i.Status.Refused
	})
	c, err := net.Dial("tcp", in.Bind) // it waits for a while: a node that is restarted is back soon
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(90 * time.Second))
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes of nobody", n)
	}
	if n, waited := refused(); n != before+1 || waited != 0 {
		t.Errorf("%d refused before and %d now, %d waited for as long as any", before, n, waited)
	}
}

const dbGroup = `(= subject.side "bank")`

// TestGroupFailsOver: of two members who share a name new connections go to the one with the lower number; when its target goes, they go to the other at once,
// and when that one's node goes, back to the first. One whom the owner does not share the name with is refused.
func TestGroupFailsOver(t *testing.T) {
	p := newProject(t, 0)
	relay := p.join(nil, "")
	bank := authority.Attributes{"ockam-relay": "db", "side": "bank"}
	one, two := p.join(bank, "p"), p.join(bank, "p")
	other := p.join(authority.Attributes{"ockam-relay": "db", "side": "client"}, "p")
	client := p.join(authority.Attributes{"side": "client"}, "p")
	p.know(client, relay)
	first, listener := naming(t, "one")
	second, _ := naming(t, "two")
	terms := admin.RelayRequest{Name: "db", Rule: "failover", Share: dbGroup}
	check := admin.OutletRequest{Check: "tcp", CheckInterval: "100ms"}
	if err := one.share(relay, first, terms, check); err != nil {
		t.Fatal(err)
	}
	settles(t, "registered", func() bool { return one.relayState("db").State == resource.Up })
	terms.Priority = 10
	if err := two.share(relay, second, terms, check); err != nil {
		t.Fatal(err)
	}
	settles(t, "both are members", func() bool { return len(two.members("db")) == 2 })
	if err := other.share(relay, second, terms, check); err != nil {
		t.Fatal(err)
	}
	settles(t, "the third is refused", func() bool { return other.relayState("db").Reason != "" })
	if s := other.relayState("db"); s.State == resource.Up || len(one.members("db")) != 2 {
		t.Errorf("a stranger: %+v", s)
	}
	in, err := client.CreateInlet(within(t), admin.InletRequest{From: "127.0.0.1:0", To: "/project/p/service/forward_to_db/secure/api/service/outlet"})
	if err != nil {
		t.Fatal(err)
	}
	settles(t, "served", func() bool { return asks(in.Bind) == "one" })
	settles(t, "who may stand for it is known", func() bool {
		client.pins.mu.Lock()
		defer client.pins.mu.Unlock()
		return len(client.pins.shares) == 1
	})
	_, stays := who(in.Bind)
	defer stays.Close()

	// The target of the first goes and comes back. Who comes in the moment in which that is found out waits for the other one.
	one.targetOf("outlet").waits(time.Minute)
	_ = listener.Close()
	for i := range 5 {
		if got := asks(in.Bind); got != "two" {
			t.Errorf("client %d after the target's end is served by %q", i, got)
		}
	}
	l, err := net.Listen("tcp", first)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	serveName(l, "one")
	settles(t, "up again", func() bool { m := one.members("db"); return len(m) == 2 && m[0].State == "up" })
	if m := one.members("db"); !m[0].Self || m[1].Self || m[1].Identifier != two.self.String() || m[1].Priority != 10 {
		t.Errorf("members: %+v", m)
	}

	// The other one's node goes.
	two.Stop()
	settles(t, "the first one serves again", func() bool { return asks(in.Bind) == "one" })
	if st := relay.relaySvc.State("db"); st.Registrations != 1 || st.Rule != routing.RuleFailover {
		t.Errorf("%+v", st)
	}
	other.Stop() // else it has the name when that is free
	one.Stop()
	settles(t, "free", func() bool { return len(relay.relaySvc.Names()) == 0 })
}

// TestStopHandsOver: clients of a shared name who come all the time, of whom one is always in the middle of something short, notice nothing when the member that serves them stops, whatever
// relay of a fleet the others are at. What takes long is not waited for, and nothing is where nobody takes over.
func TestStopHandsOver(t *testing.T) {
	for _, rule := range []string{"failover", "spread"} {
		t.Run(rule, func(t *testing.T) { stopHandsOver(t, rule) })
	}
}

// serveSlowly is a target that answers a byte with its name after a while.
func serveSlowly(t *testing.T, name string) string {
	return servers.Listen(t, func(c net.Conn) {
		if _, err := c.Read(make([]byte, 1)); err == nil {
			time.Sleep(30 * time.Millisecond)
			_, _ = c.Write([]byte(name))
		}
	})
}

func stopHandsOver(t *testing.T, rule string) {
	p := newProject(t, 0)
	var shared registrytest.Shared
	a := p.relayOf(&shared, "a", nil)
	b := p.relayOf(&shared, "b", a)
	bank := authority.Attributes{"ockam-relay": "db", "side": "bank"}
	one, two := p.join(bank, "p"), p.join(bank, "p")
	client := p.join(authority.Attributes{"side": "client"}, "p")
	terms := admin.RelayRequest{Name: "db", Rule: rule, Share: dbGroup}
	if err := one.share(a, serveSlowly(t, "one"), terms, admin.OutletRequest{}); err != nil {
		t.Fatal(err)
	}
	terms.Priority = 10
	if err := two.share(b, serveSlowly(t, "two"), terms, admin.OutletRequest{}); err != nil {
		t.Fatal(err)
	}
	settles(t, "both at each", func() bool {
		up := func(m routing.MemberState) bool { return m.Up }
		return len(slices.DeleteFunc(a.relaySvc.Members("db"), up)) == 0 && len(a.relaySvc.Members("db")) == 2 && len(b.relaySvc.Members("db")) == 2
	})
	in, err := client.CreateInlet(within(t), admin.InletRequest{
		From: "127.0.0.1:0", Authorized: one.self.String() + "," + two.self.String(), To: b.route() + "/secure/api/service/forward_to_db/secure/api/service/outlet",
	})
	if err != nil {
		t.Fatal(err)
	}
	ask := func() string {
		c, err := net.Dial("tcp", in.Bind)
		if err != nil {
			return err.Error()
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		got := make([]byte, 16)
		if _, err := c.Write([]byte{1}); err != nil {
			return err.Error()
		}
		n, err := c.Read(got)
		if err != nil {
			return err.Error()
		}
		return string(got[:n])
	}
	settles(t, "served", func() bool { return ask() == "one" || rule == "spread" && ask() == "two" })
	idle, err := net.Dial("tcp", in.Bind) // it stays open
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	var all sync.WaitGroup
	stopped := make(chan struct{})
	var asked, byTwo atomic.Int64
	for range 4 {
		all.Go(func() {
			for last := false; !last; {
				select {
				case <-stopped:
					last = true // one more
				default:
				}
				asked.Add(1)
				switch got := ask(); got {
				case "one":
				case "two":
					byTwo.Add(1)
				default:
					t.Errorf("a client got %q", got)
				}
			}
		})
	}
	time.Sleep(200 * time.Millisecond)
	began := time.Now()
	one.HandOver()
	one.Stop()
	took := time.Since(began)
	time.Sleep(200 * time.Millisecond)
	close(stopped)
	all.Wait()
	t.Logf("stopped after %v, %d clients, of whom the other one served %d", took, asked.Load(), byTwo.Load())
	if byTwo.Load() == 0 {
		t.Error("nobody took over")
	}
	began = time.Now()
	two.HandOver()
	if took := time.Since(began); took > handOver/2 && !testing.Short() {
		t.Errorf("it takes %v to find that nobody takes over", took)
	}
}

// TestWhoSharesARelayName: by the owner's expression, or without one by an attribute that both have; what cannot be told is a no.
func TestWhoSharesARelayName(t *testing.T) {
	p := newProject(t, 0)
	m := p.join(nil, "")
	owner, joiner, revoked := numbered(1), numbered(2), numbered(3)
	foreign, quoted := numbered(4), numbered(6)
	group := identity.Attributes{groupAttribute: "db", "side": "bank"}
	for _, id := range []identity.Identifier{owner, joiner, revoked} {
		m.access.learn(credential(id, p.self, time.Hour, group))
	}
	m.access.learn(credential(foreign, numbered(99), time.Hour, group))
	m.access.learn(credential(quoted, p.self, time.Hour, identity.Attributes{groupAttribute: `d"b\`}))
	m.access.revoke(revoked, time.Now().Add(-time.Minute), time.Now().Add(time.Hour), false)
	nobody := numbered(5)
	for _, c := range []struct {
		what, name, share string
		owner, joiner     identity.Identifier
		want              bool
	}{
		{"attribute of both", "db", "", owner, joiner, true},
		{"attribute for another name", "other", "", owner, joiner, false},
		{"attribute of another authority", "db", "", owner, foreign, false},
		{"owner without it", "db", "", nobody, joiner, false},
		{"joiner without it", "db", "", owner, nobody, false},
		{"no name", "", "", owner, joiner, false},
		{"expression", "db", dbGroup, owner, joiner, true},
		{"expression, and the owner has nothing", "db", dbGroup, nobody, joiner, true},
		{"expression that does not hold", "db", `(= subject.side "client")`, owner, joiner, false},
		{"expression, and nothing is known", "db", dbGroup, owner, nobody, false},
		{"expression, of another authority", "db", dbGroup, owner, foreign, false},
		{"expression, revoked", "db", dbGroup, owner, revoked, false},
		{"attribute, revoked", "db", "", owner, revoked, false},
		{"identifier", "db", `(= subject.identifier "` + nobody.String() + `")`, owner, nobody, true},
		{"another identifier", "db", `(= subject.identifier "` + nobody.String() + `")`, owner, joiner, false},
		{"no expression at all", "db", "(((", owner, joiner, false},
		{"the expression instead of the attribute", "db", shareOf("db"), nobody, joiner, true},
		{"a name with quotes", `d"b\`, shareOf(`d"b\`), owner, quoted, true},
		{"a name with quotes, not the joiner's", `d"b\`, shareOf(`d"b\`), owner, joiner, false},
	} {
		if got := m.relayShares(c.name, [32]byte(c.owner), c.share, [32]byte(c.joiner)); got != c.want {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
	m = newMember(t)
	for share, want := range map[string]bool{"": false, dbGroup: false, `(= subject.identifier "` + joiner.String() + `")`: true} {
		if got := m.relayShares("db", [32]byte(owner), share, [32]byte(joiner)); got != want {
			t.Errorf("without an authority, %q: %v", share, got)
		}
	}
	for _, c := range []struct {
		r  resource.Relay
		ok bool
	}{
		{resource.Relay{}, true}, {resource.Relay{Rule: "spread", Priority: 1000, Share: dbGroup}, true}, {resource.Relay{Rule: "random"}, false}, {resource.Relay{Priority: 1001}, false},
		{resource.Relay{Priority: -1}, false}, {resource.Relay{Share: "((("}, false}, {resource.Relay{Share: `(= subject.a "` + strings.Repeat("x", 1024) + `")`}, false},
	} {
		if err := checkGroup(&c.r); (err == nil) != c.ok || err != nil && !errors.Is(err, admin.ErrInvalid) {
			t.Errorf("%+v: %v", c.r, err)
		}
	}
}

// probed answers each connection with bytes, after it has read what comes first.
func probed(t *testing.T, answer string) string {
	t.Helper()
	return servers.Listen(t, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1024))
		_, _ = c.Write([]byte(answer))
	})
}

// TestTargetProbes: what a server answers tells whether it is up.
func TestTargetProbes(t *testing.T) {
	starting := "SFATAL\x00VFATAL\x00C57P03\x00Mthe database system is starting up\x00\x00"
	refuses := "SFATAL\x00VFATAL\x00C28000\x00Mno such role\x00\x00"
	pgError := func(fields string) string { return "E\x00\x00\x00" + string(rune(4+len(fields))) + fields }
	for _, c := range []struct {
		check, answer string
		up            bool
	}{
		{"tcp", "", true},
		{"pg", "R\x00\x00\x00\x08\x00\x00\x00\x00", true}, {"pg", pgError(refuses), true}, {"pg", pgError(starting), false}, {"pg", "", false}, {"pg", "HTTP/1.1 400", false},
		{"pg", "E\xff\xff\xff\xff", false}, {"pg", "E\x00\x00\x00\x20S", false},
		{"http", "HTTP/1.1 200 OK\r\n\r\n", true}, {"http:/health", "HTTP/1.1 404 Not Found\r\n\r\n", true}, {"http", "HTTP/1.1 503 Service Unavailable\r\n\r\n", false},
		{"http", "", false}, {"http", "SSH-2.0-x\r\n", false}, {"http", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 100_000), false},
	} {
		probe, err := targetProbeOf(c.check)
		if err != nil {
			t.Fatal(err)
		}
		at := probed(t, c.answer)
		conn, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		if err := probe(conn, at); (err == nil) != c.up {
			t.Errorf("%s, %.20q: %v", c.check, c.answer, err)
		}
		_ = conn.Close()
	}
}

// TestDownTargetIsRefusedAtOnce: an outlet that has found its target down refuses clients without asking it, until it has found it up.
func TestDownTargetIsRefusedAtOnce(t *testing.T) {
	outlet, inlet := newMember(t), newMember(t)
	var answers atomic.Value
	answers.Store("HTTP/1.1 503 Service Unavailable\r\n\r\n")
	var asked atomic.Int64
	target := servers.Listen(t, func(c net.Conn) {
		b := make([]byte, 1024)
		if n, _ := c.Read(b); strings.HasPrefix(string(b[:n]), "GET ") {
			_, _ = c.Write([]byte(answers.Load().(string)))
			return
		}
		asked.Add(1)
		_, _ = c.Write([]byte("served"))
	})
	if _, err := outlet.CreateOutlet(within(t), admin.OutletRequest{To: target, Check: "http", CheckInterval: "100ms"}); err != nil {
		t.Fatal(err)
	}
	at := outlet.targetOf("outlet")
	at.waits(0)
	settles(t, "found down", at.down)
	in, err := inlet.CreateInlet(within(t), admin.InletRequest{From: "127.0.0.1:0", To: outlet.route() + "/secure/api/service/outlet"})
	if err != nil {
		t.Fatal(err)
	}
	ask := func() string {
		c, err := net.Dial("tcp", in.Bind)
		if err != nil {
			return ""
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		_, _ = c.Write([]byte("hello"))
		b := make([]byte, 16)
		n, _ := c.Read(b)
		return string(b[:n])
	}
	settles(t, "the inlet knows", func() bool {
		i, _ := inlet.inlets.Get(in.Alias)
		return i.Status.State == resource.Degraded && strings.Contains(i.Status.Reason, "503")
	})
	if got := ask(); got != "" || asked.Load() != 0 {
		t.Errorf("answered %q, the target was asked %d times", got, asked.Load())
	}
	answers.Store("HTTP/1.1 200 OK\r\n\r\n")
	settles(t, "served", func() bool { return ask() == "served" })
	if at.down() {
		t.Error("down though it answers")
	}
}

// TestWhoStandsForThePinned: where an inlet expects who was there first, others are accepted as far as that one says, and nobody else's word counts.
func TestWhoStandsForThePinned(t *testing.T) {
	p := newProject(t, 0)
	m := p.join(nil, "")
	first, second, operator := numbered(1), numbered(2), numbered(3)
	m.access.learn(credential(second, p.self, time.Hour, identity.Attributes{"side": "bank"}))
	at := &pin{pins: &m.pins, inlet: "in", name: "in /x", accept: "accept"}
	both := func(what string, refusesSecond, refusesOperator bool) {
		t.Helper()
		for id, refuses := range map[identity.Identifier]bool{first: false, second: refusesSecond, operator: refusesOperator} {
			if err := at.check(id, nil); (err != nil) != refuses {
				t.Errorf("%s: %s: %v", what, id, err)
			}
		}
	}
	both("before anybody was there", false, false)
	at.shared(first, dbGroup)
	both("before anybody was kept", false, false)
	at.keep(first)
	both("it has said nothing", true, true)
	at.shared(second, dbGroup)
	at.shared(operator, `(= subject.identifier "`+operator.String()+`")`)
	both("others have said so", true, true)
	at.shared(first, dbGroup)
	both("by attribute", false, true)
	if err := at.check(second, []identity.Identifier{first}); err == nil {
		t.Error("whom a ticket does not name")
	}
	at.shared(first, `(= subject.identifier "`+operator.String()+`")`)
	both("by identifier", true, false)
	m.pins.mu.Lock()
	m.pins.loaded = false
	m.pins.mu.Unlock()
	both("read again", true, false)
	at.shared(first, "")
	both("it shares with nobody any more", true, true)
	at.shared(first, dbGroup)
	if at.check(operator, nil) == nil { // whoever was refused last is accepted
		t.Error("who is not of the group")
	}
	if _, err := m.AcceptOutlet(within(t), "in"); err != nil {
		t.Fatal(err)
	}
	at.keep(operator)
	if at.check(second, nil) == nil {
		t.Error("the word of one who was given up counts")
	}
}
