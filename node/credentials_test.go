package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/authority"
	"sallyport/crypto/identity"
	"sallyport/node/admin"
	"sallyport/routing"
	"sallyport/routing/multiaddr"
	"sallyport/routing/rpc"
)

// TestFirstAnswer: an authority that does not answer has the next one asked beside it after a while, one that cannot be reached at once; the first that answers counts, also where it refuses,
// and the others are left.
func TestFirstAnswer(t *testing.T) {
	var routes []multiaddr.Addr
	for i := range 3 {
		routes = append(routes, mustRoute(t, fmt.Sprintf("/dnsaddr/authority%d/tcp/4000/service/api", i)))
	}
	unreachable := errors.New("connection refused")
	refusal := &rpc.StatusError{Status: rpc.Forbidden}
	type answer struct {
		after time.Duration
		err   error
	}
	const never = time.Hour
	for name, c := range map[string]struct {
		answers []answer
		want    string // which answered
		err     error
		took    time.Duration
	}{
		"the first answers":             {[]answer{{0, nil}, {0, nil}, {0, nil}}, "0", nil, 0},
		"the first is slow":             {[]answer{{askAuthorityDelay / 2, nil}, {0, nil}, {0, nil}}, "0", nil, askAuthorityDelay / 2},
		"the first is silent":           {[]answer{{never, nil}, {0, nil}, {0, nil}}, "1", nil, askAuthorityDelay},
		"two are silent":                {[]answer{{never, nil}, {never, nil}, {0, nil}}, "2", nil, 2 * askAuthorityDelay},
		"the first cannot be reached":   {[]answer{{0, unreachable}, {0, nil}, {0, nil}}, "1", nil, 0},
		"the first answers after all":   {[]answer{{3 * askAuthorityDelay / 2, nil}, {never, nil}, {0, nil}}, "0", nil, 3 * askAuthorityDelay / 2},
		"the first refuses":             {[]answer{{0, refusal}, {0, nil}, {0, nil}}, "0", refusal, 0},
		"none can be reached":           {[]answer{{0, unreachable}, {0, unreachable}, {0, unreachable}}, "", unreachable, 0},
		"all are silent":                {[]answer{{never, nil}, {never, nil}, {never, nil}}, "", context.DeadlineExceeded, askAuthorityTimeout},
		"one is silent, two are absent": {[]answer{{never, nil}, {0, unreachable}, {0, unreachable}}, "", context.DeadlineExceeded, askAuthorityTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), askAuthorityTimeout)
				defer cancel()
				began := time.Now()
				resp, err := firstAnswer(ctx, routes, func(ctx context.Context, a multiaddr.Addr) (*rpc.Response, error) {
					i := slices.IndexFunc(routes, func(r multiaddr.Addr) bool { return r.String() == a.String() })
					select {
					case <-time.After(c.answers[i].after):
						return &rpc.Response{Body: fmt.Append(nil, i)}, c.answers[i].err
					case <-ctx.Done():
						return nil, ctx.Err()
					}
				})
				took := time.Since(began)
				if !errors.Is(err, c.err) || (c.want == "") != (resp == nil) || resp != nil && string(resp.Body) != c.want || took != c.took {
					t.Errorf("%+v, %v, after %v", resp, err, took)
				}
			})
		})
	}
}

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

// TestCallEndsWithItsPath: who asks a node that is killed before it answers hears so at once.
func TestCallEndsWithItsPath(t *testing.T) {
	server, client := newMember(t), newMember(t)
	asked := make(chan struct{})
	hold := serverFunc(func(ctx context.Context, _ *rpc.Request) *rpc.Response {
		close(asked)
		<-ctx.Done()
		return nil
	})
	if err := server.router.StartNamed(within(t), "s", func(*routing.Shard) routing.Worker { return server.rpcWorker("s", hold) }, server.api.Flow); err != nil {
		t.Fatal(err)
	}
	c, err := client.connectListener(within(t), mustRoute(t, server.route()+"/service/api"), connectOptions{self: client.self})
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	go func() {
		<-asked
		server.Stop()
	}()
	if _, err := client.callAlong(t.Context(), c, "s", rpc.NewRequest(rpc.Get, "/", nil)); !errors.Is(err, errPathClosed) {
		t.Errorf("%v", err)
	}
}
