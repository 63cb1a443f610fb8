package postgres

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/authority"
	"sallyport/crypto/identity"
	"sallyport/crypto/vault"
	"sallyport/internal/storetest"
	"sallyport/routing/rpc"
)

// TestAuthoritiesShareAStore: three authorities with one identity are one: a ticket of one use admits one of a hundred who come through all three, who is blocked through one is refused by
// all, those that listen to another one hear of it, and all have the same audit trail.
func TestAuthoritiesShareAStore(t *testing.T) {
	name := newSchema(t)
	ids := identity.New(identity.Options{Vault: vault.NewMemory(), Store: identity.NewMemoryStore()})
	self, err := ids.Create(t.Context(), identity.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	admin := someone(1)
	var all []*authority.Authority
	var stores []authority.Store
	ctx, stop := context.WithCancel(t.Context())
	var followers sync.WaitGroup
	defer followers.Wait()
	defer stop()
	for range 3 {
		s := authority.NewStore(opened(t, name))
		t.Cleanup(func() { _ = s.Close() })
		a, err := authority.New(t.Context(), authority.Options{Store: s, Identities: ids, Self: self.Identifier(), ProjectID: "p",
			TrustedIdentities: map[identity.Identifier]map[string]string{admin: {authority.RoleAttribute: authority.RoleEnroller}}})
		if err != nil {
			t.Fatal(err)
		}
		followers.Go(func() { a.Follow(ctx, 50*time.Millisecond) })
		all, stores = append(all, a), append(stores, s)
	}
	client := func(n int, who identity.Identifier) *authority.Client {
		services := all[n].Services()
		return &authority.Client{Call: func(ctx context.Context, service string, req *rpc.Request) (*rpc.Response, error) {
			return services[service].Serve(ctx, &who, req), nil
		}}
	}
	code, err := client(0, admin).CreateToken(t.Context(), authority.Attributes{"a": "b"}, time.Hour, 1)
	if err != nil {
		t.Fatal(err)
	}
	var won atomic.Int64
	var member identity.Identifier
	var callers sync.WaitGroup
	for i := range 100 {
		callers.Go(func() {
			_, err := client(i%3, someone(100+i)).Redeem(t.Context(), code)
			switch {
			case err == nil:
				won.Add(1)
				member = someone(100 + i)
			case !strings.Contains(err.Error(), "Unknown enrollment token"):
				t.Error(err)
			}
		})
	}
	callers.Wait()
	if won.Load() != 1 {
		t.Fatalf("%d were enrolled with one use", won.Load())
	}
	for n := range all {
		if list, err := client(n, admin).MemberIDs(t.Context()); err != nil || len(list) != 2 {
			t.Errorf("authority %d: %v, %v", n, list, err)
		}
		if m, err := client(n, admin).MemberInfo(t.Context(), member); err != nil || m.Ticket == "" {
			t.Errorf("authority %d: %+v, %v", n, m, err)
		}
	}
	// Who does not know whether the first authority got the code presents it to the others: all say yes, one use is spent, and others get nothing.
	if code, err = client(0, admin).CreateToken(t.Context(), authority.Attributes{"a": "b"}, time.Hour, 1); err != nil {
		t.Fatal(err)
	}
	var joined atomic.Int64
	for i := range 30 {
		callers.Go(func() {
			already, err := client(i%3, someone(300)).Redeem(t.Context(), code)
			if err != nil {
				t.Error(err)
			}
			if !already {
				joined.Add(1)
			}
		})
	}
	callers.Wait()
	if joined.Load() != 1 {
		t.Errorf("%d became a member with one use", joined.Load())
	}
	for n := range all {
		if _, err := client(n, someone(301)).Redeem(t.Context(), code); err == nil || !strings.Contains(err.Error(), "Unknown enrollment token") {
			t.Errorf("authority %d, to somebody else: %v", n, err)
		}
		if m, err := client(n, admin).MemberInfo(t.Context(), someone(300)); err != nil || m.Ticket == "" {
			t.Errorf("authority %d: %+v, %v", n, m, err)
		}
	}
	var heard []<-chan struct{}
	for _, a := range all {
		heard = append(heard, a.Changed())
	}
	if err := client(0, admin).Block(t.Context(), member); err != nil {
		t.Fatal(err)
	}
	for n := range all {
		if _, err := client(n, member).Credential(t.Context()); err == nil || !strings.Contains(err.Error(), "unauthorized member") {
			t.Errorf("authority %d to who is blocked: %v", n, err)
		}
		select {
		case <-heard[n]:
		case <-time.After(time.Minute):
			t.Fatalf("authority %d does not hear of it", n)
		}
		news, err := all[n].News(t.Context(), authority.Query{})
		if err != nil || news.Head != 1 || len(news.Statements) != 1 {
			t.Errorf("authority %d: %+v, %v", n, news, err)
		}
	}
	first := storetest.Trail(t, stores[0])
	if last := storetest.Trail(t, stores[2]); len(last) != len(first) || last[len(last)-1].Hash != first[len(first)-1].Hash {
		t.Errorf("%d entries, and %d", len(first), len(last))
	}
}
