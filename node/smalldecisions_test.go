package node

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/logging"
	"sallyport/node/resource"
	"sallyport/policy"
	"sallyport/routing"
	"sallyport/routing/fair"
	"sallyport/routing/multiaddr"
)

// countingLog is a log that counts what it lost.
type countingLog struct{ slog.Handler }

func (countingLog) Counts() logging.Counts { return logging.Counts{Dropped: 7} }

// TestEventsKept: the last records of the log are kept in their order, what is said again and again as one; long ones are cut.
func TestEventsKept(t *testing.T) {
	inner := slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelDebug})
	n := &Node{events: &events{}}
	log := slog.New(&eventHandler{inner: inner, to: n.events})
	log.Debug("nobody asks")
	if len(n.Events()) != 0 {
		t.Errorf("%+v", n.Events())
	}
	log.With("a", "1").WithGroup("g").Info("first", "b", 2)
	log.Warn("first")
	log.Warn("first", "b", 3)
	log.Error("other")
	got := n.Events()
	if len(got) != 3 || got[0].Times != 1 || got[0].Level != "INFO" || got[0].With["a"] != "1" || got[0].With["b"] != "2" || got[1].Times != 2 || got[1].Level != "WARN" || got[1].With["b"] != "3" || got[2].Text != "other" {
		t.Errorf("%+v", got)
	}
	long, many := strings.Repeat("x", maxEventText), []any{"stack", "of calls"}
	for i := range maxEventWith + 3 {
		many = append(many, fmt.Sprint("k", i), long+"y")
	}
	log.Info(long+"y", many...)
	log.Info(long)
	got = n.Events()
	if e := got[3]; len(got) != 4 || e.Text != long || e.Times != 2 {
		t.Errorf("%d events, %d bytes of text, %d times", len(got), len(e.Text), e.Times)
	}
	log.Info("with", many...)
	if e := n.Events()[4]; len(e.With) != maxEventWith || e.With["k0"] != long || e.With["stack"] != "" {
		t.Errorf("with %d values", len(e.With))
	}
	for i := range maxEvents + 10 {
		log.Info(fmt.Sprint(i))
	}
	log.Info(fmt.Sprint(maxEvents + 9))
	got = n.Events()
	if len(got) != maxEvents || got[0].Text != "10" || got[maxEvents-1].Text != fmt.Sprint(maxEvents+9) || got[maxEvents-1].Times != 2 {
		t.Errorf("%d events from %q to %+v", len(got), got[0].Text, got[len(got)-1])
	}
	for i, e := range got {
		if e.Text != fmt.Sprint(10+i) {
			t.Fatalf("%q in place %d", e.Text, i)
		}
	}
	if c := (&eventHandler{inner: inner}).Counts(); c != (logging.Counts{}) {
		t.Errorf("of a log that does not count: %+v", c)
	}
	if c := (&eventHandler{inner: countingLog{inner}}).Counts(); c.Dropped != 7 {
		t.Errorf("%+v", c)
	}
}

// TestPolicyThatIsNotInEffect: a resource is not opened while the policy that would decide about it could not be: that of its name, of its type, or of what the
// type is one of. One that does not decide is not asked.
func TestPolicyThatIsNotInEffect(t *testing.T) {
	const good = `(= subject.a "b")`
	for _, c := range []struct {
		broken, allow string
		kind          policy.ResourceType
		refused       bool
	}{
		{"db", "", policy.TCPOutlet, true}, {"db", good, policy.TCPOutlet, true}, {"other", "", policy.TCPOutlet, false},
		{"tcp-outlet", "", policy.TCPOutlet, true}, {"tcp-outlet", good, policy.TCPOutlet, false}, {"tcp-inlet", "", policy.TCPOutlet, false},
		{"udp-outlet", "", policy.UDPOutlet, true}, {"tcp-outlet", "", policy.UDPOutlet, true}, {"tcp-outlet", "", policy.UDPInlet, false}, {"tcp-inlet", "", policy.UDPInlet, true},
	} {
		m := newMember(t)
		m.Stop()
		if err := NewHome(m.dir, "n", true).Save([]resource.Stored{stored(t, resource.KindPolicy, c.broken, resource.Policy{Resource: c.broken, Expression: "(no policy"})}); err != nil {
			t.Fatal(err)
		}
		m.start("127.0.0.1:0")
		err := m.policyReady(policy.Own(resource.KindOutlet, "db"), c.kind, c.allow)
		if errors.Is(err, errNoPolicy) != c.refused || (err != nil) != c.refused || c.refused && !strings.Contains(err.Error(), "policy "+c.broken) {
			t.Errorf("%+v: %v", c, err)
		}
		m.Stop()
	}
	m := newMember(t)
	if err := m.policyReady(policy.Own(resource.KindOutlet, "db"), policy.TCPOutlet, "(no policy"); err == nil {
		t.Error("a policy of its own that is none")
	}
}

// TestPublicByNobody: who is not connected over TCP, or has said that it does not know, is not asked where datagrams come from.
func TestPublicByNobody(t *testing.T) {
	m := newMember(t)
	unknowing := &connection{router: m.router, closed: make(chan struct{})}
	unknowing.unseeing.Store(true)
	for what, c := range map[string]*connection{"no connection": nil, "no transport": {router: m.router, closed: make(chan struct{})}, "one that does not know": unknowing} {
		if at, asked, err := m.publicBy(within(t), c, nil); at.IsValid() || asked || err != nil {
			t.Errorf("%s: %v, %v, %v", what, at, asked, err)
		}
	}
}

// TestNewsroomForgets: who has not asked for a while is forgotten, and its place is another's.
func TestNewsroomForgets(t *testing.T) {
	p := newProject(t, 0)
	r := newNewsroom(p.Node, p.auth)
	r.places = fair.NewShares[string](2)
	for key, until := range map[string]time.Time{"late": time.Now().Add(-time.Second), "asks": time.Now().Add(time.Hour)} {
		sub := &subscriber{back: routing.LocalRoute("ear"), until: until}
		sub.place, _, _ = r.places.Take(fair.Source{key}, key)
		r.subscribers[key] = sub
	}
	r.forget()
	if len(r.subscribers) != 1 || r.subscribers["asks"] == nil {
		t.Errorf("%v", r.subscribers)
	}
	if _, oldest, evicted := r.places.Take(fair.Source{"new"}, "new"); evicted {
		t.Errorf("%s has to leave though there is a place", oldest)
	}
	all, beats := r.listening(false), r.listening(true)
	if len(all) != 1 || len(beats) != 0 {
		t.Errorf("%d listen, %d to beats", len(all), len(beats))
	}
}

// TestAuthorityRoutes: the authority's nodes are tried in an order that is the member's own, from the one that is asked for; what one has told of the others is
// in place of what was known at the start.
func TestAuthorityRoutes(t *testing.T) {
	at := func(port int) multiaddr.Addr {
		return mustRoute(t, fmt.Sprintf("/ip4/127.0.0.1/tcp/%d/service/api", port))
	}
	n := &Node{}
	n.opts.Trust.Route, n.opts.Trust.Routes = at(1), []multiaddr.Addr{at(2), at(3)}
	text := func(list []multiaddr.Addr) (out []string) {
		for _, a := range list {
			out = append(out, a.String())
		}
		return out
	}
	first := text(n.authorityRoutes(numbered(1), 0))
	if len(first) != 3 || !slices.Equal(text(n.authorityRoutes(numbered(1), 3)), first) ||
		!slices.Equal(text(n.authorityRoutes(numbered(1), 4)), append(slices.Clone(first[1:]), first[0])) || !slices.Equal(text(n.authorityRoutes(numbered(1), 1)), append(slices.Clone(first[1:]), first[0])) {
		t.Errorf("%v, then %v", first, text(n.authorityRoutes(numbered(1), 1)))
	}
	other := false
	for i := range 20 {
		other = other || !slices.Equal(text(n.authorityRoutes(numbered(i), 0)), first)
	}
	if !other {
		t.Error("all members have one order")
	}
	n.routes.authorities = []multiaddr.Addr{at(4)}
	if got := text(n.authorityRoutes(numbered(1), 0)); slices.Contains(got, at(4).String()) {
		t.Errorf("nobody has told: %v", got)
	}
	n.routes.told = true
	if got := text(n.authorityRoutes(numbered(1), 0)); len(got) != 2 || !slices.Contains(got, at(4).String()) || !slices.Contains(got, at(1).String()) {
		t.Errorf("%v", got)
	}
}
