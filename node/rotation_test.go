package node

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"sallyport/authority"
	"sallyport/crypto/identity"
	"sallyport/node/admin"
)

// TestAuthorityRotates: the authority gets a new primary key while members are connected. All follow: what is open goes on, members that were there reach
// each other anew, new ones are let in, whichever of its histories they began with, and what is revoked is told.
func TestAuthorityRotates(t *testing.T) {
	p := newProject(t, 0)
	relay := p.join(nil, "")
	bank := p.join(authority.Attributes{"ockam-relay": "bank"}, "p")
	client := p.join(authority.Attributes{"side": "client"}, "p")
	if _, err := bank.CreateOutlet(within(t), admin.OutletRequest{To: echoServer(t)}); err != nil {
		t.Fatal(err)
	}
	if _, err := bank.CreateRelay(within(t), admin.RelayRequest{Name: "bank", At: relay.route() + "/secure/api"}); err != nil {
		t.Fatal(err)
	}
	through := relay.route() + "/secure/api/service/forward_to_bank/secure/api/service/outlet"
	settles(t, "relay up", func() bool { return len(relay.relaySvc.Names()) == 1 })
	_, open := client.inlet(through)
	for _, m := range []*member{relay, bank, client} {
		m.told(AuthorityUp)
	}
	first, err := p.ids.History(t.Context(), p.self)
	if err != nil {
		t.Fatal(err)
	}
	for round := range 2 {
		old, err := client.creds.get(within(t))
		if err != nil {
			t.Fatal(err)
		}
		rotated, err := p.ids.Rotate(t.Context(), p.self, identity.RotateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		settles(t, "members know the new key", func() bool {
			for _, m := range []*member{relay, bank, client} {
				if i, err := m.ids.Identity(t.Context(), p.self); err != nil || i.Latest().Hash != rotated.Latest().Hash {
					return false
				}
			}
			return true
		})
		t.Logf("members knew the new key after %.3f s", time.Since(began).Seconds())
		settles(t, "members have new credentials", func() bool {
			now, err := client.creds.get(within(t))
			return err == nil && string(now) != string(old)
		})
		if err := says(open); err != nil {
			t.Fatalf("what was open: %v", err)
		}
		// A member that comes with the history that the authority had at first, as in a ticket made then.
		late := p.join(authority.Attributes{"side": "late"}, "p", first)
		_, c := late.inlet(through)
		t.Logf("rotation %d: a new member was served after %.3f s", round+1, time.Since(began).Seconds())
		_ = c.Close()
		if round == 1 {
			bank.restart()
			settles(t, "relay up", func() bool { return len(relay.relaySvc.Names()) == 1 })
			relay.restart()
			settles(t, "relay up", func() bool { return len(relay.relaySvc.Names()) == 1 })
		}
	}
	at, c := client.inlet(through)
	if err := says(c); err != nil {
		t.Fatalf("after restarts: %v", err)
	}
	if err := p.client().DeleteMember(within(t), client.self); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(90 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil || err == io.EOF || isTimeout(err) {
		t.Errorf("a member deleted after the rotation: %v", err)
	}
	settles(t, "the member is not served", func() bool {
		c, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", at)
		if err != nil {
			return false
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Second))
		_, _ = c.Write([]byte("word"))
		_, err = io.ReadFull(c, make([]byte, 4))
		return err != nil
	})
}

// TestCredentialOfUnknownKey: a peer presents a credential before the node was told of the authority's new key. It is refused, and believed when the node
// knows, without being presented again.
func TestCredentialOfUnknownKey(t *testing.T) {
	p := newProject(t, 0)
	bank := p.join(authority.Attributes{"side": "bank"}, "p")
	bank.told(AuthorityUp)
	ids, early := newIdentities(t)
	history, err := ids.History(t.Context(), early)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.ids.Import(t.Context(), history, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := p.ids.Rotate(t.Context(), p.self, identity.RotateOptions{}); err != nil {
		t.Fatal(err)
	}
	raw, err := p.ids.IssueCredential(t.Context(), p.self, early, identity.Attributes{"side": "early"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	bank.acceptCredential(t.Context(), early, raw)
	settles(t, "what was presented early is believed", func() bool { return bank.access.record(early) != nil })
	for k := range maxPending + 10 { // who presents what nobody vouches for takes no more room than this
		bank.revoked.wait(numbered(k%256), raw)
		bank.revoked.wait(identity.Identifier{byte(k), byte(k >> 8), 1}, raw)
	}
	bank.revoked.mu.Lock()
	defer bank.revoked.mu.Unlock()
	if n := len(bank.revoked.pending); n > maxPending {
		t.Errorf("%d credentials wait", n)
	}
}
