// Package registrytest has the rules that every routing.Registry keeps, as a suite of tests, and a registry of relays within one process that keeps them.
package registrytest

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"sallyport/routing"
)

// Shared is what the relays of one process know together. The zero value is empty.
type Shared struct {
	mu     sync.Mutex
	owners map[string]routing.Ownership
	list   map[string][]routing.RemoteMember
	relays []*Registry
	away   bool
}

// SetAway makes the store one that cannot be reached, or one that can.
func (s *Shared) SetAway(away bool) {
	s.mu.Lock()
	s.away = away
	pending := map[*Registry]map[string][]routing.RemoteMember{}
	if !away {
		for _, r := range s.relays {
			pending[r], r.pending = r.pending, nil
		}
	}
	s.mu.Unlock()
	for r, puts := range pending {
		for name, list := range puts {
			r.Put(name, list)
		}
	}
}

// Registry is one relay's part of a Shared.
type Registry struct {
	shared  *Shared
	self    routing.RelayNode
	watches []func(string)
	pending map[string][]routing.RemoteMember // puts while the store was away
}

// Join adds a relay.
func (s *Shared) Join(self routing.RelayNode) *Registry {
	r := &Registry{shared: s, self: self}
	s.mu.Lock()
	s.relays = append(s.relays, r)
	s.mu.Unlock()
	s.tell("", nil)
	return r
}

// Leave removes a relay, with its members.
func (s *Shared) Leave(r *Registry) {
	s.mu.Lock()
	s.relays = slices.DeleteFunc(s.relays, func(o *Registry) bool { return o == r })
	for name, list := range s.list {
		s.list[name] = slices.DeleteFunc(list, func(m routing.RemoteMember) bool { return m.Relay == r.self.ID })
	}
	s.mu.Unlock()
	s.tell("", nil)
}

// tell tells all relays but one of a name.
func (s *Shared) tell(name string, but *Registry) {
	s.mu.Lock()
	var list []func(string)
	for _, r := range s.relays {
		if r != but {
			list = append(list, r.watches...)
		}
	}
	s.mu.Unlock()
	for _, f := range list {
		f(name)
	}
}

// Claim implements routing.Registry.
func (r *Registry) Claim(_ context.Context, o routing.Ownership) (routing.Ownership, error) {
	s := r.shared
	s.mu.Lock()
	had, owned := s.owners[o.Name]
	if s.away {
		s.mu.Unlock()
		return had, routing.ErrRegistryAway
	}
	if owned && had.Owner != o.Owner && len(s.list[o.Name]) > 0 {
		s.mu.Unlock()
		return had, nil
	}
	if s.owners == nil {
		s.owners = map[string]routing.Ownership{}
	}
	s.owners[o.Name] = o
	s.mu.Unlock()
	if o != had {
		s.tell(o.Name, r)
	}
	return o, nil
}

// Put implements routing.Registry.
func (r *Registry) Put(name string, members []routing.RemoteMember) {
	s := r.shared
	s.mu.Lock()
	if s.away {
		if r.pending == nil {
			r.pending = map[string][]routing.RemoteMember{}
		}
		r.pending[name] = members
		s.mu.Unlock()
		return
	}
	if s.list == nil {
		s.list = map[string][]routing.RemoteMember{}
	}
	list := slices.DeleteFunc(slices.Clone(s.list[name]), func(m routing.RemoteMember) bool { return m.Relay == r.self.ID })
	for _, m := range members {
		m.Name, m.Relay = name, r.self.ID
		list = append(list, m)
	}
	if s.list[name] = list; len(list) == 0 {
		delete(s.list, name)
	}
	s.mu.Unlock()
	s.tell(name, r)
}

// Told implements routing.Registry.
func (r *Registry) Told(_ string, then func()) { then() }

// Look implements routing.Registry.
func (r *Registry) Look(context.Context, []string) {}

// Members implements routing.Registry.
func (r *Registry) Members(name string) []routing.RemoteMember {
	r.shared.mu.Lock()
	defer r.shared.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(r.shared.list[name]), func(m routing.RemoteMember) bool { return m.Relay == r.self.ID })
}

// Names implements routing.Registry.
func (r *Registry) Names() (names []string) {
	r.shared.mu.Lock()
	defer r.shared.mu.Unlock()
	for name, list := range r.shared.list {
		if slices.ContainsFunc(list, func(m routing.RemoteMember) bool { return m.Relay != r.self.ID }) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Owner implements routing.Registry.
func (r *Registry) Owner(name string) (routing.Ownership, bool) {
	r.shared.mu.Lock()
	defer r.shared.mu.Unlock()
	o, ok := r.shared.owners[name]
	return o, ok
}

// Relays implements routing.Registry.
func (r *Registry) Relays() (list []routing.RelayNode) {
	r.shared.mu.Lock()
	defer r.shared.mu.Unlock()
	for _, o := range r.shared.relays {
		if o != r {
			list = append(list, o.self)
		}
	}
	return list
}

// Watch implements routing.Registry.
func (r *Registry) Watch(ctx context.Context, changed func(name string)) {
	r.shared.mu.Lock()
	r.watches = append(r.watches, changed)
	r.shared.mu.Unlock()
	changed("")
	<-ctx.Done()
	r.shared.mu.Lock()
	r.watches = nil
	r.shared.mu.Unlock()
}

// Run tests that registries keep the rules. join makes a relay's part of a registry that is new for each test and that others of the test
// share; it is ended with the test.
func Run(t *testing.T, newShared func(t *testing.T) (join func(routing.RelayNode) routing.Registry)) {
	one, two := [32]byte{1}, [32]byte{2}
	eventually := func(t *testing.T, what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(90 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("not in time: %s", what)
			}
		}
	}
	member := func(identity [32]byte, priority uint32) routing.RemoteMember {
		return routing.RemoteMember{Member: routing.MemberID{9}, Identity: identity, Priority: priority, Reports: true, Connections: 3, Since: time.Unix(1000, 0)}
	}
	t.Run("relays know each other", func(t *testing.T) {
		join := newShared(t)
		a, b := join(routing.RelayNode{ID: "a", Address: "/ip4/127.0.0.1/tcp/1"}), join(routing.RelayNode{ID: "b", Address: "/ip4/127.0.0.1/tcp/2"})
		for r, want := range map[routing.Registry]routing.RelayNode{a: {ID: "b", Address: "/ip4/127.0.0.1/tcp/2"}, b: {ID: "a", Address: "/ip4/127.0.0.1/tcp/1"}} {
			eventually(t, "the other relay", func() bool { return slices.Equal(r.Relays(), []routing.RelayNode{want}) })
		}
	})
	t.Run("members", func(t *testing.T) {
		join := newShared(t)
		a, b := join(routing.RelayNode{ID: "a", Address: "/ip4/127.0.0.1/tcp/1"}), join(routing.RelayNode{ID: "b", Address: "/ip4/127.0.0.1/tcp/2"})
		ctx, cancel := context.WithCancel(t.Context())
		told := make(chan string, 1000)
		var watching sync.WaitGroup
		watching.Go(func() { b.Watch(ctx, func(name string) { told <- name }) })
		defer func() { cancel(); watching.Wait() }()
		if got, err := a.Claim(t.Context(), routing.Ownership{Name: "n", Owner: one}); err != nil || got.Owner != one {
			t.Fatalf("%+v, %v", got, err)
		}
		a.Put("n", []routing.RemoteMember{member(one, 0), member(two, 5)})
		eventually(t, "members at the other relay", func() bool {
			list := b.Members("n")
			return len(list) == 2 && list[0].Relay == "a" && list[0].Name == "n" && list[0].Reports && list[0].Connections == 3 && list[0].Since.Equal(time.Unix(1000, 0)) &&
				list[0].Member == routing.MemberID{9} && list[0].Priority+list[1].Priority == 5
		})
		eventually(t, "told of it", func() bool { name := <-told; return name == "n" || name == "" && len(b.Members("n")) == 2 })
		if got := b.Names(); !slices.Equal(got, []string{"n"}) {
			t.Errorf("names %v", got)
		}
		if len(a.Members("n")) != 0 || len(a.Names()) != 0 {
			t.Error("a relay's own members are not elsewhere")
		}
		a.Put("n", []routing.RemoteMember{{Identity: one, Down: true}})
		eventually(t, "replaced", func() bool { list := b.Members("n"); return len(list) == 1 && list[0].Down })
		a.Put("n", nil)
		eventually(t, "removed", func() bool { return len(b.Members("n")) == 0 && len(b.Names()) == 0 })
	})
	t.Run("ownership", func(t *testing.T) {
		join := newShared(t)
		a, b := join(routing.RelayNode{ID: "a", Address: "/ip4/127.0.0.1/tcp/1"}), join(routing.RelayNode{ID: "b", Address: "/ip4/127.0.0.1/tcp/2"})
		claim := func(r routing.Registry, o routing.Ownership, want [32]byte) routing.Ownership {
			t.Helper()
			got, err := r.Claim(t.Context(), o)
			if err != nil || got.Owner != want || got.Name != o.Name {
				t.Fatalf("%+v, %v", got, err)
			}
			return got
		}
		if _, ok := a.Owner("n"); ok {
			t.Error("a name that nobody has claimed is owned")
		}
		claim(a, routing.Ownership{Name: "n", Owner: one, Rule: routing.RuleSpread, Share: "x"}, one)
		a.Put("n", []routing.RemoteMember{member(one, 0)})
		eventually(t, "the owner is known, and its member", func() bool { o, ok := b.Owner("n"); return ok && o.Owner == one && len(b.Members("n")) == 1 })
		if got := claim(b, routing.Ownership{Name: "n", Owner: two, Share: "y"}, one); got.Rule != routing.RuleSpread || got.Share != "x" {
			t.Errorf("terms of the other one: %+v", got)
		}
		claim(b, routing.Ownership{Name: "n", Owner: one, Share: "z"}, one)
		eventually(t, "other terms of the owner", func() bool { o, _ := a.Owner("n"); return o.Share == "z" && o.Rule == routing.RuleNone })
		a.Put("n", nil)
		eventually(t, "without members it can be had", func() bool {
			got, err := b.Claim(t.Context(), routing.Ownership{Name: "n", Owner: two})
			return err == nil && got.Owner == two
		})
	})
}
