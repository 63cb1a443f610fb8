package node

import (
	"errors"
	"io"
	"log/slog"
	"testing"

	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/policy"
)

// TestPolicyOfWhat: a policy is of a resource or of a type, not of both and not of nothing; a type's name means the type.
func TestPolicyOfWhat(t *testing.T) {
	const good = `(= subject.a "b")`
	for _, c := range []struct {
		r    resource.Policy
		ok   bool
		name string
	}{
		{resource.Policy{Resource: "db", Expression: good}, true, "db"}, {resource.Policy{ResourceType: "tcp-outlet", Expression: good}, true, "tcp-outlet"},
		{resource.Policy{Resource: "tcp-outlet", Expression: good}, true, "tcp-outlet"}, {resource.Policy{ResourceType: "db", Expression: good}, false, ""},
		{resource.Policy{Resource: "db", ResourceType: "tcp-outlet", Expression: good}, false, ""}, {resource.Policy{Expression: good}, false, ""},
		{resource.Policy{Resource: "db", Expression: "(no policy"}, false, ""}, {resource.Policy{Resource: "db"}, false, ""},
	} {
		r := c.r
		err := checkPolicy(&r)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, admin.ErrInvalid) || c.ok && *policyName(&r) != c.name {
			t.Errorf("%+v: %v, of %q", c.r, err, *policyName(&r))
		}
		if byType := r.ResourceType != ""; c.ok && byType != (c.name == "tcp-outlet") {
			t.Errorf("%+v: of a type: %v", c.r, byType)
		}
		n := &Node{policies: policy.NewSet()}
		if p, err := n.enact(&r); c.ok && (err != nil || n.policies.Get(p).String() != good) {
			t.Errorf("%+v: %v", c.r, err)
		}
	}
	n := &Node{policies: policy.NewSet()}
	if _, err := n.enact(&resource.Policy{Resource: "db", Expression: "(no policy"}); !errors.Is(err, admin.ErrInvalid) || n.policies.Get(policy.ByName("db")) != nil {
		t.Errorf("in effect though it is none: %v", err)
	}
}

// TestPolicyThatEnds: without a policy of its name a resource has that of its type, and a type has its default, or that of what it is one of.
func TestPolicyThatEnds(t *testing.T) {
	const good = `(= subject.a "b")`
	n := &Node{policies: policy.NewSet()}
	own := policy.Own(resource.KindOutlet, "db")
	now := func(what string, kind policy.ResourceType, want string) {
		t.Helper()
		if got := n.policies.LookupOwn(own, kind).String(); got != want {
			t.Errorf("%s: %s", what, got)
		}
	}
	byDefault := policy.DefaultExpr().String()
	for _, name := range []string{"db", "tcp-outlet", "udp-outlet"} {
		kind := policy.TCPOutlet
		if name == "udp-outlet" {
			kind = policy.UDPOutlet
		}
		p, err := n.enact(&resource.Policy{Resource: name, Expression: good})
		if err != nil {
			t.Fatal(err)
		}
		now(name, kind, good)
		n.repeal(p)
		now(name+", repealed", kind, byDefault)
		if there := n.policies.Get(p) != nil; there != (name == "tcp-outlet") {
			t.Errorf("%s has a policy of its own: %v", name, there)
		}
	}
	n.setPolicyOf(own, good)
	now("asked for", policy.TCPOutlet, good)
	n.setPolicyOf(own, "")
	now("not asked for any more", policy.TCPOutlet, byDefault)
	n.setPolicyOf(own, good)
	n.dropPolicyOf(own)
	now("closed", policy.TCPOutlet, byDefault)
	if err := checkAllow(""); err != nil {
		t.Error(err)
	}
	if err := checkAllow("(no policy"); !errors.Is(err, admin.ErrInvalid) {
		t.Error(err)
	}
}

// TestDeletedPolicyIsOne: who deletes a policy deletes what is of that name, and no other.
func TestDeletedPolicyIsOne(t *testing.T) {
	m := newMember(t)
	ctx := within(t)
	const x, y, z = `(= subject.x "1")`, `(= subject.y "1")`, `(= subject.z "1")`
	for _, p := range []resource.Policy{{Resource: "db", Expression: x}, {Resource: "other", Expression: y}, {ResourceType: "tcp-outlet", Expression: z}} {
		if err := m.SetPolicy(ctx, p); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"asks", "tcp-outlet"} { // a name may be that of a type
		if _, err := m.CreateOutlet(ctx, resource.Outlet{Name: name, To: "127.0.0.1:1", Allow: x}); err != nil {
			t.Fatal(err)
		}
	}
	now := func(name string) string {
		return m.policies.LookupOwn(policy.Own(resource.KindOutlet, name), policy.TCPOutlet).String()
	}
	expect := func(what, db, other, asks string) {
		t.Helper()
		if now("db") != db || now("other") != other || now("asks") != asks {
			t.Errorf("%s: %s, %s, %s", what, now("db"), now("other"), now("asks"))
		}
	}
	expect("before", x, y, x)
	if err := m.DeletePolicy(ctx, "db"); err != nil {
		t.Fatal(err)
	}
	expect("of a name", z, y, x)
	if err := m.DeletePolicy(ctx, "db"); !errors.Is(err, admin.ErrNotFound) {
		t.Errorf("twice: %v", err)
	}
	if err := m.DeletePolicy(ctx, "asks"); err != nil {
		t.Fatal(err)
	}
	expect("that a resource asked for", z, y, z)
	if err := m.DeletePolicy(ctx, "tcp-outlet"); err != nil {
		t.Fatal(err)
	}
	if m.policies.LookupOwn(policy.Own(resource.KindOutlet, "db"), policy.TCPOutlet) != nil || now("other") != y || now("tcp-outlet") != x {
		t.Error("of a type: it denies until the next start, and the policy of a name stays")
	}
	if m.policies.Get(policy.ByType(policy.TCPInlet)) == nil {
		t.Error("another type's is gone too")
	}
}

// TestAllowTakesThePolicysPlace: what a command asks for with --allow takes the place of the policy of that name, unless that decides about another kind too.
func TestAllowTakesThePolicysPlace(t *testing.T) {
	m := newMember(t)
	ctx := within(t)
	const x, y = `(= subject.x "1")`, `(= subject.y "1")`
	policies := func() int { return len(m.policyTable.List()) }
	for _, name := range []string{"db", "in"} {
		if err := m.SetPolicy(ctx, resource.Policy{Resource: name, Expression: x}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.CreateInlet(ctx, resource.Inlet{Alias: "in", From: "127.0.0.1:0", To: m.route() + "/secure/api/service/x", NoConnectionWait: true}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, allow string
		ok          bool
		left        int
	}{{"db", "", true, 2}, {"none", y, true, 2}, {"in", y, false, 2}, {"db", y, true, 1}} {
		err := m.overrulePolicy(ctx, resource.KindOutlet, c.name, c.allow)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, admin.ErrInvalid) || policies() != c.left {
			t.Errorf("%+v: %v, %d policies are left", c, err, policies())
		}
	}
	if err := m.overrulePolicy(ctx, resource.KindInlet, "in", y); err != nil || policies() != 0 {
		t.Errorf("of its own kind: %v", err)
	}
}

// TestOpenPortalIsSaid: a portal that everybody may use is told of in the log, another one is not.
func TestOpenPortalIsSaid(t *testing.T) {
	n := plainNode(t, "n", "127.0.0.1:0")
	said := func(allow string, own policy.Resource) int {
		t.Helper()
		n.events = &events{}
		n.log = slog.New(&eventHandler{inner: slog.NewTextHandler(io.Discard, nil), to: n.events})
		g, err := n.portalGuard(own, policy.TCPOutlet, n.authority(), allow)
		if err != nil || g.isOpen() != (allow == "") {
			t.Errorf("%q: open %v, %v", allow, g.isOpen(), err)
		}
		g.close()
		return len(n.Events())
	}
	if said("", policy.Own(resource.KindOutlet, "a")) != 1 || said(`(= subject.a "b")`, policy.Own(resource.KindOutlet, "b")) != 0 {
		t.Error("what is open, and that alone")
	}
	if _, err := n.portalGuard(policy.Own(resource.KindOutlet, "c"), policy.TCPOutlet, nil, "(no policy"); err == nil {
		t.Error("open without the policy that was asked for")
	}
}
