package node

import (
	"errors"
	"testing"

	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/policy"
)

// TestNamesAreAKindsOwn: what an inlet asks for with --allow decides about that inlet, and about no outlet that has the same name, and the other
// way round: when they are created, changed and deleted, after a restart, and with what an earlier version wrote down. A policy that decides
// about both is not replaced by what one of them asks for.
func TestNamesAreAKindsOwn(t *testing.T) {
	m := newMember(t)
	ctx := within(t)
	const x, y, z = `(= subject.x "1")`, `(= subject.y "1")`, `(= subject.z "1")`
	expect := func(when, outlet, inlet string) {
		t.Helper()
		for _, c := range []struct {
			kind string
			typ  policy.ResourceType
			want string
		}{{resource.KindOutlet, policy.TCPOutlet, outlet}, {resource.KindInlet, policy.TCPInlet, inlet}} {
			if got := m.policies.LookupOwn(policy.Own(c.kind, "db"), c.typ).String(); got != c.want {
				t.Errorf("%s: the %s has %s, not %s", when, c.kind, got, c.want)
			}
		}
	}
	byType := policy.DefaultExpr().String()
	outlet := resource.Outlet{Name: "db", To: "127.0.0.1:1", Allow: x}
	inlet := resource.Inlet{Alias: "db", From: "127.0.0.1:0", To: m.route() + "/secure/api/service/elsewhere", Allow: y}
	if _, err := m.CreateOutlet(ctx, outlet); err != nil {
		t.Fatal(err)
	}
	expect("an outlet alone", x, byType)
	create := func() error {
		r := inlet
		r.NoConnectionWait = true
		_, err := m.CreateInlet(ctx, r)
		return err
	}
	if err := create(); err != nil {
		t.Fatal(err)
	}
	expect("with an inlet of its name", x, y)
	m.restart()
	expect("after a restart", x, y)
	if err := m.DeleteInlet(ctx, "db"); err != nil {
		t.Fatal(err)
	}
	expect("without the inlet", x, byType)

	// An earlier version wrote the same, and the inlet's decided about both.
	list := []resource.Stored{stored(t, resource.KindOutlet, "db", outlet), stored(t, resource.KindInlet, "db", inlet)}
	m.restartWith(list...)
	expect("from an earlier version", x, y)
	outlet.Allow = z
	if a, err := m.set.Apply(ctx, admin.ApplyRequest{Resources: []resource.Stored{stored(t, resource.KindOutlet, "db", outlet)}}); err != nil || len(a.Faults) > 0 {
		t.Fatal(err, a.Faults)
	}
	expect("the outlet's changed", z, y)

	// A policy of the name is for both, and goes for both.
	if err := m.SetPolicy(ctx, resource.Policy{Resource: "db", Expression: x}); err != nil {
		t.Fatal(err)
	}
	expect("a policy of the name", x, x)
	if err := m.DeleteInlet(ctx, "db"); err != nil {
		t.Fatal(err)
	}
	if err := create(); !errors.Is(err, admin.ErrInvalid) {
		t.Errorf("an inlet that would take over the outlet's policy: %v", err)
	}
	expect("a command that was refused", x, x)
	m.restart()
	expect("after another restart", x, x)
	if err := m.DeletePolicy(ctx, "db"); err != nil {
		t.Fatal(err)
	}
	expect("the policy and what was asked for deleted", byType, byType)
	if err := create(); err != nil {
		t.Error(err)
	}
	expect("an inlet then", byType, y)
}
