package node

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"sallyport/authority"
	"sallyport/crypto/identity"
	"sallyport/node/admin"
)

func TestWhenCredentialsAreRenewed(t *testing.T) {
	made := time.Now()
	for _, c := range []struct{ life, margin, earliest, latest time.Duration }{
		{time.Hour, time.Minute, 37 * time.Minute, 43 * time.Minute},
		{30 * 24 * time.Hour, time.Minute, 18 * 24 * time.Hour, 22 * 24 * time.Hour},
		{60 * time.Second, 6 * time.Second, 37 * time.Second, 43 * time.Second},
		{10 * time.Second, time.Second, 6 * time.Second, 8 * time.Second},
	} {
		o := ownCredential{created: made, expires: made.Add(c.life)}
		if o.margin() != c.margin {
			t.Errorf("%v: margin %v, want %v", c.life, o.margin(), c.margin)
		}
		first, last := o.renewal(0).Sub(made), o.renewal(1).Sub(made)
		if first < c.earliest || last > c.latest || last-first != c.life/10 {
			t.Errorf("%v: renewed after %v to %v", c.life, first, last)
		}
		if last > c.life-c.margin {
			t.Errorf("%v: renewed when it has ended", c.life)
		}
	}
}

// TestShortCredentials: with a lifetime below a minute paths come up and stay, and nobody asks more than once in ten seconds.
func TestShortCredentials(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 16 s")
	}
	p := newProject(t, 14*time.Second)
	bank, client := p.join(authority.Attributes{"side": "bank"}, "p"), p.join(authority.Attributes{"side": "client"}, "p")
	if _, err := bank.CreateOutlet(within(t), admin.OutletRequest{To: echoServer(t)}); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	_, c := client.inlet(bank.route() + "/secure/api/service/outlet")
	for time.Since(start) < 16*time.Second { // longer than the first ones live
		if err := says(c); err != nil {
			t.Fatalf("after %v: %v", time.Since(start), err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	issued := uint64(0)
	p.opts.Authority.Events.each(func(event, _ string, n uint64) {
		if event == "credential_issued" {
			issued = n
		}
	})
	// Each of the two asks at the beginning and once in ten seconds.
	if most := uint64(2 * (1 + int(time.Since(start)/credentialPause) + 1)); issued < 4 || issued > most {
		t.Errorf("%d credentials in %v, want 4 to %d", issued, time.Since(start), most)
	}
}

// TestRefusedMemberDoesNotInsist: a node that is no member asks once, however many channels it wants to open.
func TestRefusedMemberDoesNotInsist(t *testing.T) {
	p := newProject(t, 0)
	stranger := p.join(nil, "p")
	for range 20 {
		if _, err := stranger.creds.get(within(t)); err == nil || !strings.Contains(err.Error(), "unauthorized member") {
			t.Fatal(err)
		}
	}
	refused := uint64(0)
	p.opts.Authority.Events.each(func(event, reason string, n uint64) {
		if event == "credential_refused" && reason == authority.ReasonNotMember {
			refused = n
		}
	})
	if refused != 1 {
		t.Errorf("asked %d times", refused)
	}
}

// brokenStore is a Store whose credential cannot be read.
type brokenStore struct{ Store }

func (brokenStore) Credential(ctx context.Context, subject, issuer identity.Identifier, scope string) ([]byte, error) {
	return nil, errors.New("the file is damaged")
}

// TestBrokenCredentialIsFetchedAnew: what is stored of a credential cannot keep a node from getting another one.
func TestBrokenCredentialIsFetchedAnew(t *testing.T) {
	p := newProject(t, 0)
	for name, spoil := range map[string]func(m *member){
		"unreadable": func(m *member) {
			m.store = func(s Store) Store { return brokenStore{s} }
			m.restart()
		},
		"junk": func(m *member) {
			if err := m.opts.Store.PutCredential(within(t), m.self, p.self, "p", []byte("junk"), time.Now().Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
		},
		"of another member": func(m *member) {
			other := p.join(authority.Attributes{}, "p")
			raw, err := other.creds.get(within(t))
			if err == nil {
				err = m.opts.Store.PutCredential(within(t), m.self, p.self, "p", raw, time.Now().Add(time.Hour))
			}
			if err != nil {
				t.Fatal(err)
			}
		},
	} {
		m := p.join(authority.Attributes{"name": "m"}, "p")
		spoil(m)
		raw, err := m.creds.get(within(t))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		c, err := m.ids.VerifyCredential(within(t), raw, &m.self, []identity.Identifier{p.self})
		if err != nil || c.Attributes["name"] != "m" {
			t.Errorf("%s: %v, %v", name, c, err)
		}
	}
}

// TestStoredCredentialIsUsed: a node that starts again asks for none, unless the one that it has was taken back.
func TestStoredCredentialIsUsed(t *testing.T) {
	p := newProject(t, 0)
	m := p.join(authority.Attributes{"name": "m"}, "p")
	first, err := m.creds.get(within(t))
	if err != nil {
		t.Fatal(err)
	}
	m.restart()
	second, err := m.creds.get(within(t))
	if err != nil || string(first) != string(second) {
		t.Errorf("another credential after a restart (%v)", err)
	}
	m.creds.takenBack(time.Now().Add(-time.Hour))
	if again, err := m.creds.get(within(t)); err != nil || string(again) != string(second) {
		t.Errorf("an older revocation took it back (%v)", err)
	}
	time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second))) // times are in seconds
	m.creds.takenBack(time.Now().Add(-time.Second))
	settles(t, "replaced", func() bool {
		third, err := m.creds.get(within(t))
		return err == nil && string(third) != string(second)
	})
}
