package registry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sallyport/internal/await"
	"sallyport/internal/servers"
	"sallyport/routing"
	"sallyport/routing/registrytest"
)

var (
	cluster    *servers.Postgres
	clusterErr error
	schemas    atomic.Int64
)

func TestMain(m *testing.M) {
	cluster, clusterErr = servers.NewPostgres()
	code := m.Run()
	if cluster != nil {
		_ = cluster.Close()
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// newURL makes an empty schema.
func newURL(t *testing.T) string {
	t.Helper()
	if errors.Is(clusterErr, servers.ErrNotInstalled) {
		t.Skip(clusterErr)
	}
	if clusterErr != nil {
		t.Fatal(clusterErr)
	}
	name := fmt.Sprintf("r%d", schemas.Add(1))
	if err := cluster.Execute("postgres", "CREATE SCHEMA "+name); err != nil {
		t.Fatal(err)
	}
	return cluster.PatientURL("", "", "postgres", "search_path", name)
}

var eventually = await.True

// newFleet opens n relays' registries, and waits until all know each other.
func newFleet(t *testing.T, n int) (list []*Registry) { return fleetWith(t, n, time.Hour) }

func fleetWith(t *testing.T, n int, lease time.Duration) (list []*Registry) {
	t.Helper()
	url := newURL(t)
	for i := range n {
		r, err := open(url, routing.RelayNode{ID: fmt.Sprintf("relay%d", i), Address: fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", 4000+i)}, nil, 12*time.Hour, lease)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = r.Close() })
		list = append(list, r)
	}
	for i, r := range list {
		eventually(t, fmt.Sprintf("relay %d's knowledge of the others", i), func() bool { return len(r.Relays()) == n-1 })
	}
	return list
}

func identity(n int) (id [32]byte) {
	id[0], id[1] = 1, byte(n)
	return id
}

func member(n int) routing.RemoteMember {
	return routing.RemoteMember{Member: routing.MemberID{byte(n)}, Identity: identity(n), Priority: uint32(n), Connections: 3, Reports: true, Since: time.Unix(int64(1000+n), 0)}
}

// TestRegistry: a registry in PostgreSQL keeps the rules of all registries.
func TestRegistry(t *testing.T) {
	registrytest.Run(t, func(t *testing.T) func(routing.RelayNode) routing.Registry {
		url := newURL(t)
		return func(self routing.RelayNode) routing.Registry {
			r, err := open(url, self, nil, time.Second, time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = r.Close() })
			eventually(t, "the database", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.known && r.err == nil })
			return r
		}
	})
}

// TestRelayStartsAgain: of a relay that was killed nothing is left as soon as it has been started again, though it would count as alive for long.
func TestRelayStartsAgain(t *testing.T) {
	t.Parallel()
	fleet := newFleet(t, 2)
	other, killed := fleet[0], fleet[1]
	killed.Put("db", []routing.RemoteMember{member(1)})
	eventually(t, "the member", func() bool { return len(other.Members("db")) == 1 })
	killed.stop()
	killed.all.Wait()
	again, err := open(killed.db.Config().ConnString(), routing.RelayNode{ID: "again", Address: killed.self.Address}, nil, claimHolds, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = again.Close() })
	eventually(t, "only the new one", func() bool { list := other.Relays(); return len(list) == 1 && list[0].ID == "again" })
	eventually(t, "no member", func() bool { return len(other.Members("db")) == 0 && len(again.Members("db")) == 0 })
	again.Put("db", []routing.RemoteMember{member(1)})
	eventually(t, "the member again", func() bool { list := other.Members("db"); return len(list) == 1 && list[0].Relay == "again" })
	if list := again.Relays(); len(list) != 1 || list[0].ID != other.self.ID {
		t.Errorf("it knows %v", list)
	}
}

// TestClaims: of many who claim a name at once through several relays one is the owner, all are told the same, and the owner's claim changes the rule.
func TestClaims(t *testing.T) {
	t.Parallel()
	fleet := newFleet(t, 3)
	ctx := t.Context()
	answers := make([]routing.Ownership, 60)
	var all sync.WaitGroup
	for i := range answers {
		all.Go(func() {
			for end := time.Now().Add(90 * time.Second); ; {
				var err error
				answers[i], err = fleet[i%3].Claim(ctx, routing.Ownership{Name: "postgres", Owner: identity(i), Rule: routing.RuleSpread, Share: "true"})
				if err == nil || time.Now().After(end) { // a busy machine
					if err != nil {
						t.Error(err)
					}
					return
				}
			}
		})
	}
	all.Wait()
	first := answers[0]
	for i, o := range answers {
		if o != first || o.Name != "postgres" || o.Rule != routing.RuleSpread || o.Share != "true" {
			t.Errorf("%d is told %+v, and the first %+v", i, o, first)
		}
	}
	if o, err := fleet[0].Claim(ctx, routing.Ownership{Name: "postgres", Owner: first.Owner, Rule: routing.RuleFailover}); err != nil || o.Rule != routing.RuleFailover || o.Share != "" {
		t.Errorf("%+v, %v", o, err)
	}
	for i, r := range fleet {
		eventually(t, fmt.Sprintf("the new rule at relay %d", i), func() bool { o, ok := r.Owner("postgres"); return ok && o.Rule == routing.RuleFailover })
	}
	if o, ok := fleet[0].Owner("other"); ok {
		t.Errorf("%+v", o)
	}
	for _, name := range []string{"a\x00b", "\xff", strings.Repeat("x", maxName+1)} {
		if _, err := fleet[0].Claim(ctx, routing.Ownership{Name: name}); err == nil || errors.Is(err, routing.ErrRegistryAway) {
			t.Errorf("%.10q: %v", name, err)
		}
	}
}

// TestFreeNames: a name goes to another identity when nobody has been registered under it for a while, and not before.
func TestFreeNames(t *testing.T) {
	t.Parallel()
	fleet := newFleet(t, 2)
	claim := func(r *Registry, who int) routing.Ownership {
		t.Helper()
		o, err := r.Claim(t.Context(), routing.Ownership{Name: "n", Owner: identity(who)})
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	if o := claim(fleet[0], 1); o.Owner != identity(1) {
		t.Errorf("%+v", o)
	}
	fleet[0].Put("n", []routing.RemoteMember{member(1)})
	eventually(t, "the member", func() bool { return len(fleet[1].Members("n")) == 1 })
	// As if the claim were old.
	old := func() {
		t.Helper()
		if _, err := fleet[0].db.Pool.Exec(t.Context(), "UPDATE relay_names SET claimed = now() - interval '1 day'"); err != nil {
			t.Fatal(err)
		}
	}
	old()
	if o := claim(fleet[1], 2); o.Owner != identity(1) {
		t.Errorf("a name with a member goes to another one: %+v", o)
	}
	fleet[0].Put("n", nil)
	eventually(t, "the member's end", func() bool { return len(fleet[1].Members("n")) == 0 })
	claim(fleet[0], 1)
	if o := claim(fleet[1], 2); o.Owner != identity(1) {
		t.Errorf("a name that was just claimed goes to another one: %+v", o)
	}
	old()
	if o := claim(fleet[1], 2); o.Owner != identity(2) {
		t.Errorf("a free name stays: %+v", o)
	}
}

// TestForgottenNames: a name that nobody has had for long is removed, and all relays forget it. One that somebody has is not, however long ago it was claimed, nor is it at once when that one has
// gone; and none that was claimed a while ago.
func TestForgottenNames(t *testing.T) {
	t.Parallel()
	fleet := newFleet(t, 2)
	for i, name := range []string{"left", "held", "recent"} {
		if _, err := fleet[0].Claim(t.Context(), routing.Ownership{Name: name, Owner: identity(i)}); err != nil {
			t.Fatal(err)
		}
	}
	fleet[0].Put("held", []routing.RemoteMember{member(1)})
	eventually(t, "the member, and all names", func() bool {
		fleet[1].mu.Lock()
		defer fleet[1].mu.Unlock()
		return len(fleet[1].members["held"]) == 1 && len(fleet[1].owners) == 3
	})
	const keep = 30 * 24 * time.Hour
	sweep := func(r *Registry, want int64) {
		t.Helper()
		if n, err := r.sweep(t.Context(), keep); err != nil || n != want {
			t.Errorf("%d names were removed, %v", n, err)
		}
	}
	sweep(fleet[1], 0)
	set := func(name, claimed string) {
		t.Helper()
		if _, err := fleet[0].db.Pool.Exec(t.Context(), "UPDATE relay_names SET claimed = now() - $2::interval WHERE name = $1", name, claimed); err != nil {
			t.Fatal(err)
		}
	}
	set("left", "31 days")
	set("held", "1 year")
	set("recent", "29 days")
	sweep(fleet[1], 1)
	for i, r := range fleet {
		eventually(t, fmt.Sprintf("relay %d has forgotten it", i), func() bool { _, ok := r.Owner("left"); return !ok })
		for _, name := range []string{"held", "recent"} {
			if _, ok := r.Owner(name); !ok {
				t.Errorf("relay %d has forgotten %s", i, name)
			}
		}
	}
	fleet[0].Put("held", nil)
	eventually(t, "the member's end", func() bool { return len(fleet[1].Members("held")) == 0 })
	sweep(fleet[1], 0) // it was held a moment ago
	// As before another identity may have what is free, and what was removed.
	for _, name := range []string{"held", "left"} {
		if o, err := fleet[1].Claim(t.Context(), routing.Ownership{Name: name, Owner: identity(7)}); err != nil || o.Owner != identity(7) {
			t.Errorf("%s: %+v, %v", name, o, err)
		}
	}
}

// TestMembers: what a relay has is known to the others, who are told of it, and goes with it.
func TestMembers(t *testing.T) {
	t.Parallel()
	fleet := newFleet(t, 3)
	ctx, stop := context.WithCancel(t.Context())
	var told sync.Map
	var watching sync.WaitGroup
	defer watching.Wait()
	defer stop()
	watching.Go(func() {
		fleet[2].Watch(ctx, func(name string) {
			if name == "" && len(fleet[2].Members("postgres")) == 4 { // one word for all: the tests share a database, and so its channel
				name = "postgres"
			}
			told.Store(name, true)
		})
	})
	eventually(t, "the first word", func() bool { _, ok := told.Load(""); return ok })
	for i, r := range fleet[:2] {
		r.Put("postgres", []routing.RemoteMember{member(2*i + 1), member(2*i + 2)})
		r.Put(fmt.Sprint("only", i), []routing.RemoteMember{member(9)})
	}
	eventually(t, "four members", func() bool { return len(fleet[2].Members("postgres")) == 4 && len(fleet[2].Members("only1")) == 1 })
	for i, m := range fleet[2].Members("postgres") {
		want := member(i + 1)
		want.Name, want.Relay = "postgres", fmt.Sprint("relay", i/2)
		if since := m.Since; !since.Equal(want.Since) {
			t.Errorf("since %v", since)
		}
		if m.Since = want.Since; m != want {
			t.Errorf("%+v, not %+v", m, want)
		}
	}
	eventually(t, "two members elsewhere", func() bool { return len(fleet[0].Members("postgres")) == 2 })
	for _, m := range fleet[0].Members("postgres") {
		if m.Relay != "relay1" {
			t.Errorf("a relay is told of its own: %+v", m)
		}
	}
	eventually(t, "word of it", func() bool { _, ok := told.Load("postgres"); return ok })
	changed := member(1)
	changed.Down, changed.Connections = true, 7
	fleet[0].Put("postgres", []routing.RemoteMember{changed})
	eventually(t, "the change", func() bool {
		l := fleet[2].Members("postgres")
		return len(l) == 3 && l[0].Down && l[0].Connections == 7
	})
	if err := fleet[0].Close(); err != nil {
		t.Error(err)
	}
	eventually(t, "the end of a relay that was stopped", func() bool {
		return len(fleet[2].Members("postgres")) == 2 && len(fleet[2].Members("only0")) == 0 && len(fleet[2].Relays()) == 1
	})
}

// TestToldAndLook: who waits until a registry has told of a name finds it in the database then, and another relay that asks for it has it, without having been told.
func TestToldAndLook(t *testing.T) {
	t.Parallel()
	fleet := newFleet(t, 2)
	look := func(want int, names ...string) {
		t.Helper()
		fleet[1].Look(t.Context(), names)
		if got := len(fleet[1].Members(names[0])); got != want {
			t.Errorf("%d members of %s, want %d", got, names[0], want)
		}
	}
	for i := range 20 {
		name, told := fmt.Sprint("n", i), make(chan struct{})
		fleet[0].Put(name, []routing.RemoteMember{member(i)})
		fleet[0].Told(name, func() { close(told) })
		<-told
		look(1, name, "none of "+name, "\xff\x00")
	}
	told := make(chan struct{}, 1)
	fleet[0].Told("n0", func() { told <- struct{}{} }) // it is since long
	<-told
	ctx := t.Context()
	for _, statement := range []string{"DELETE FROM relay_members WHERE name = 'n0'", "INSERT INTO relay_members SELECT 'n20', relay, member, identity, priority, down, connections, reports, since FROM relay_members WHERE name = 'n1'"} {
		if _, err := fleet[0].db.Pool.Exec(ctx, statement); err != nil {
			t.Fatal(err)
		}
	}
	look(1, "n20", "n1")
	look(0, "n0")
}

// TestDead: a relay that says nothing any more is left out, with its members, and its names are free.
func TestDead(t *testing.T) {
	t.Parallel()
	fleet := fleetWith(t, 2, 10*alive) // a busy machine
	if _, err := fleet[0].Claim(t.Context(), routing.Ownership{Name: "n", Owner: identity(1)}); err != nil {
		t.Fatal(err)
	}
	if _, err := fleet[0].db.Pool.Exec(t.Context(), "UPDATE relay_names SET claimed = 'epoch'"); err != nil {
		t.Fatal(err)
	}
	fleet[0].Put("n", []routing.RemoteMember{member(1)})
	eventually(t, "the member", func() bool { return len(fleet[1].Members("n")) == 1 })
	fleet[0].stop()
	fleet[0].all.Wait()
	if _, err := fleet[1].db.Pool.Exec(t.Context(), "UPDATE relay_nodes SET alive_until = now() WHERE id = $1", fleet[0].self.ID); err != nil { // its lease ends
		t.Fatal(err)
	}
	began := time.Now()
	eventually(t, "the end of a dead relay", func() bool { return len(fleet[1].Members("n")) == 0 && len(fleet[1].Relays()) == 0 })
	t.Logf("after %v", time.Since(began))
	eventually(t, "its name", func() bool {
		o, err := fleet[1].Claim(t.Context(), routing.Ownership{Name: "n", Owner: identity(2)})
		return err == nil && o.Owner == identity(2)
	})
}

// TestRegistryAway: while the database is away all is as it was, a claim of what is known is answered from memory, and what is said meanwhile is told later.
func TestRegistryAway(t *testing.T) { // not parallel: it stops the server
	fleet := newFleet(t, 2)
	if _, err := fleet[0].Claim(t.Context(), routing.Ownership{Name: "n", Owner: identity(1), Rule: routing.RuleSpread}); err != nil {
		t.Fatal(err)
	}
	fleet[0].Put("n", []routing.RemoteMember{member(1)})
	eventually(t, "the member", func() bool { _, ok := fleet[1].Owner("n"); return ok && len(fleet[1].Members("n")) == 1 })
	cluster.Stop()
	for i, r := range fleet {
		eventually(t, fmt.Sprintf("relay %d's notice", i), func() bool { _, away := r.State(); return away != nil })
		if o, err := r.Claim(t.Context(), routing.Ownership{Name: "n", Owner: identity(2)}); !errors.Is(err, routing.ErrRegistryAway) || o.Owner != identity(1) || o.Rule != routing.RuleSpread {
			t.Errorf("relay %d: %+v, %v", i, o, err)
		}
		if o, err := r.Claim(t.Context(), routing.Ownership{Name: "unknown", Owner: identity(2)}); !errors.Is(err, routing.ErrRegistryAway) || o != (routing.Ownership{}) {
			t.Errorf("relay %d: %+v, %v", i, o, err)
		}
	}
	if n := len(fleet[1].Members("n")); n != 1 || len(fleet[1].Relays()) != 1 {
		t.Errorf("%d members are left", n)
	}
	fleet[0].Put("n", []routing.RemoteMember{member(1), member(2)})
	told := make(chan struct{}, 1)
	fleet[0].Told("n", func() { told <- struct{}{} })
	if len(told) == 0 {
		t.Error("a registration waits for a database that is away")
	}
	fleet[1].Look(t.Context(), []string{"n"})
	if n := len(fleet[1].Members("n")); n != 1 {
		t.Errorf("%d members are left", n)
	}
	late, err := open(fleet[0].db.Config().ConnString(), routing.RelayNode{ID: "late"}, nil, claimHolds, time.Hour) // a relay that starts meanwhile
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	if err := cluster.Begin(); err != nil {
		t.Fatal(err)
	}
	for i, r := range []*Registry{fleet[1], late} {
		eventually(t, fmt.Sprintf("what was said meanwhile, %d", i), func() bool { return len(r.Members("n")) == 2 && len(r.Relays()) == 2 })
		if _, away := r.State(); away != nil {
			t.Error(away)
		}
	}
}
