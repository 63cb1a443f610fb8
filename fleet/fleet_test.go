package fleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/crypto/identity"
	"sallyport/crypto/vault"
	"sallyport/project"
	"sallyport/routing/rpc"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// place is a keeper with what it stores, and a clock that the test sets.
type place struct {
	*Keeper
	primary *identity.Manager
	id      identity.Identifier
	log     bytes.Buffer

	mu      sync.Mutex
	now     time.Time
	stored  []byte
	told    []string // where the delegates are
	saves   int
	failing error
}

func (p *place) clock() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now
}

func (p *place) after(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now = p.now.Add(d)
}

func (p *place) options(k Kind) Options {
	return Options{
		Self: p.id, Kind: k, Identities: p.primary, Now: p.clock, Log: slog.New(slog.NewTextHandler(&p.log, nil)),
		History: func(ctx context.Context) ([]byte, error) { return p.primary.History(ctx, p.id) },
		Changed: func(routes []string) { p.told = routes },
		Load:    func() ([]byte, error) { return p.stored, nil },
		Save: func(b []byte) error {
			if p.failing == nil {
				p.stored, p.saves = b, p.saves+1
			}
			return p.failing
		},
	}
}

func newPlace(t *testing.T, k Kind) *place {
	t.Helper()
	p := &place{now: time.Unix(1_800_000_000, 0)}
	p.primary = identity.New(identity.Options{Vault: vault.NewMemory(), Store: identity.NewMemoryStore(), Now: p.clock})
	i, err := p.primary.Create(t.Context(), identity.CreateOptions{})
	must(t, err)
	p.id = i.Identifier()
	p.Keeper, err = NewKeeper(p.options(k))
	must(t, err)
	return p
}

// box is a client with an identity, over what channels do: requests and answers are encoded, and who asks is known.
func (p *place) box(n byte) *Client { return p.boxFrom(n, "192.0.2.1") }

func (p *place) boxFrom(n byte, source string) *Client {
	id := identity.Identifier{n}
	return &Client{Call: func(ctx context.Context, req *rpc.Request) (*rpc.Response, error) {
		r, err := rpc.DecodeRequest(req.Encode())
		if err != nil {
			return nil, err
		}
		resp, err := rpc.DecodeResponse(p.Serve(rpc.WithSource(ctx, source), &id, r).Encode())
		if err != nil {
			return nil, err
		}
		return resp, resp.Err()
	}}
}

// delegate is what acts as the keeper's identity with attestations that a box gets.
func (p *place) delegate(t *testing.T, box *Client) *identity.Manager {
	t.Helper()
	m := identity.New(identity.Options{Store: identity.NewMemoryStore(), Keeper: box, Now: p.clock})
	i, err := p.primary.Identity(t.Context(), p.id)
	must(t, err)
	_, err = m.Import(t.Context(), i.History(), nil)
	must(t, err)
	return m
}

const route = "/dnsaddr/relay.example.com/tcp/4001/service/api"

func (p *place) ticket(t *testing.T) project.Code {
	t.Helper()
	code, _, err := p.NewTicket(0, 10*time.Minute, 1)
	must(t, err)
	return code
}

// refusedWith checks a refusal's text.
func refusedWith(t *testing.T, what string, err error, text string) {
	t.Helper()
	var status *rpc.StatusError
	if !errors.As(err, &status) || status.Body.Message != text {
		t.Errorf("%s: %v, want %q", what, err, text)
	}
}

// TestTicket: a code makes one node a delegate, within its time, and nobody who has not the code.
func TestTicket(t *testing.T) {
	ctx := t.Context()
	p := newPlace(t, Relay)
	code := p.ticket(t)
	life, err := p.box(1).Redeem(ctx, code, "two", route)
	must(t, err)
	if life != DefaultLifetime {
		t.Errorf("lifetime %v", life)
	}
	_, err = p.box(2).Redeem(ctx, code, "three", route)
	refusedWith(t, "the same code again", err, textUnknown)
	late := p.ticket(t)
	p.after(10*time.Minute + time.Second)
	_, err = p.box(2).Redeem(ctx, late, "three", route)
	refusedWith(t, "after its time", err, textUnknown)
	other := p.ticket(t)
	_, err = p.box(2).Redeem(ctx, other, "two", route)
	refusedWith(t, "a name that is taken", err, "Another node has this name")
	if _, err := p.box(2).Redeem(ctx, other, "a b", route); !errors.Is(err, ErrInvalid) {
		t.Errorf("a bad name: %v", err)
	}
	if _, err := p.box(2).Redeem(ctx, other, "b", "/service/api"); !errors.Is(err, ErrInvalid) {
		t.Errorf("a bad route: %v", err)
	}
	// Asked again by a node that has lost the answer, and moved: nothing is spent.
	_, err = p.box(1).Redeem(ctx, other, "two", strings.ReplaceAll(route, "4001", "4002"))
	must(t, err)
	_, err = p.box(2).Redeem(ctx, other, "three", route)
	must(t, err)
	if got := fmt.Sprint(p.Routes()); got != "["+route+" "+strings.ReplaceAll(route, "4001", "4002")+"]" {
		t.Errorf("routes %s", got)
	}
	if fmt.Sprint(p.told) != fmt.Sprint(p.Routes()) {
		t.Errorf("told of %v", p.told)
	}
	// Without a channel nobody is anybody.
	if resp := p.Serve(ctx, nil, rpc.NewRequest(rpc.Post, pathRedeem, nil)); resp.Status != rpc.BadRequest {
		t.Errorf("without a channel: %v", resp.Status)
	}
	if text := p.log.String(); strings.Contains(text, code.Reveal()) || bytes.Contains(p.stored, []byte(code.Reveal())) {
		t.Error("a code is in the log or on the disk")
	}
	for _, want := range []string{"ticket_issued", "ticket_redeemed", "192.0.2.1"} {
		if !bytes.Contains(p.stored, []byte(want)) {
			t.Errorf("the record has no %q", want)
		}
	}
}

// TestTicketOnce: of a hundred at once one gets in.
func TestTicketOnce(t *testing.T) {
	p := newPlace(t, Relay)
	code := p.ticket(t)
	var wg sync.WaitGroup
	got := make(chan error, 100)
	for i := range 100 {
		wg.Go(func() {
			_, err := p.boxFrom(byte(i+1), fmt.Sprint(i)).Redeem(t.Context(), code, fmt.Sprint("n", i), route)
			got <- err
		})
	}
	wg.Wait()
	close(got)
	in := 0
	for err := range got {
		if err == nil {
			in++
		}
	}
	if in != 1 || len(p.Nodes()) != 1 {
		t.Errorf("%d got in, %d are on the list", in, len(p.Nodes()))
	}
}

// TestAttest: who is on the list gets what its kind may have, for as long as its ticket said, until it is deleted; and peers believe it.
func TestAttest(t *testing.T) {
	ctx := t.Context()
	for _, kind := range []Kind{Relay, Authority} {
		t.Run(string(kind), func(t *testing.T) {
			p := newPlace(t, kind)
			box := p.box(1)
			m := p.delegate(t, box)
			if _, err := m.SecureChannelKey(ctx, p.id); !errors.Is(err, identity.ErrNotDelegate) {
				t.Fatalf("a stranger: %v", err)
			}
			code, _, err := p.NewTicket(2*time.Hour, time.Minute, 1)
			must(t, err)
			_, err = box.Redeem(ctx, code, "two", route)
			must(t, err)
			m = p.delegate(t, box)
			payload, key, err := m.Payload(ctx, p.id, nil)
			must(t, err)
			if until := time.Unix(int64(key.ExpiresAt), 0); !until.Equal(p.now.Add(2 * time.Hour)) {
				t.Errorf("attested for %v", until.Sub(p.now))
			}
			peer := identity.New(identity.Options{Vault: vault.NewMemory(), Store: identity.NewMemoryStore(), Now: p.clock})
			met, err := peer.VerifyPeer(ctx, payload, key.Public)
			must(t, err)
			if met.Identity.Identifier() != p.id {
				t.Errorf("the peer met %s", met.Identity.Identifier())
			}
			_, err = m.CredentialKey(ctx, p.id, vault.Ed25519)
			if (err == nil) != (kind == Authority) {
				t.Errorf("a key for credentials: %v", err)
			}
			// Deleted: no attestation any more, and the keeper says until when those there are last.
			n, err := p.Delete("two")
			must(t, err)
			if !n.ValidUntil.Equal(p.now.Add(2 * time.Hour)) {
				t.Errorf("valid for %v", n.ValidUntil.Sub(p.now))
			}
			if got := p.Nodes(); len(got) != 1 || got[0].Deleted.IsZero() || len(p.Routes()) != 0 {
				t.Errorf("%+v", got)
			}
			p.after(time.Hour + 20*time.Minute)
			if err := m.RenewKeys(ctx); !errors.Is(err, identity.ErrNotDelegate) {
				t.Errorf("renewal: %v", err)
			}
			_, err = peer.VerifyPeer(ctx, payload, key.Public)
			must(t, err) // the figure: until its end, unless the node itself has heard of it
			p.after(40*time.Minute + time.Second)
			if _, err = peer.VerifyPeer(ctx, payload, key.Public); !errors.Is(err, identity.ErrExpired) {
				t.Errorf("after its end: %v", err)
			}
			if len(p.Nodes()) != 0 {
				t.Error("it is remembered longer than it can matter")
			}
			if _, err := p.Delete("two"); !errors.Is(err, ErrNoNode) {
				t.Errorf("deleted twice: %v", err)
			}
		})
	}
}

// TestKeyOfAnother: a delegate cannot have a key attested that another has.
func TestKeyOfAnother(t *testing.T) {
	ctx := t.Context()
	p := newPlace(t, Relay)
	for n, name := range []string{"", "one", "two"} {
		if n > 0 {
			_, err := p.box(byte(n)).Redeem(ctx, p.ticket(t), name, route)
			must(t, err)
		}
	}
	r := identity.AttestationRequest{Purpose: identity.SecureChannel, X25519: [32]byte{9}, Lifetime: time.Hour}
	_, _, err := p.box(1).Attest(ctx, r)
	must(t, err)
	_, _, err = p.box(2).Attest(ctx, r)
	refusedWith(t, "another's key", err, "This key is not attested for this node")
	for what, bad := range map[string]identity.AttestationRequest{
		"no time":            {Purpose: identity.SecureChannel, X25519: [32]byte{8}},
		"an unknown purpose": {Purpose: 7, X25519: [32]byte{8}, Lifetime: time.Hour},
		"signing, for relay": {Purpose: identity.CredentialSigning, Key: vault.VerifyingKey{Bytes: make([]byte, 32)}, Lifetime: time.Hour},
		"a short key":        {Purpose: identity.CredentialSigning, Key: vault.VerifyingKey{Bytes: make([]byte, 31)}, Lifetime: time.Hour},
	} {
		var status *rpc.StatusError
		if _, _, err := p.box(1).Attest(ctx, bad); !errors.As(err, &status) || status.Status != rpc.BadRequest {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestStored: the list outlives the keeper's process, and what is not stored has not happened.
func TestStored(t *testing.T) {
	ctx := t.Context()
	p := newPlace(t, Relay)
	code := p.ticket(t)
	p.failing = errors.New("disk full")
	if _, err := p.box(1).Redeem(ctx, code, "two", route); err == nil || errors.Is(err, identity.ErrNotDelegate) {
		t.Errorf("redeemed with a full disk: %v", err)
	}
	if _, _, err := p.NewTicket(0, time.Minute, 1); err == nil {
		t.Error("a ticket with a full disk")
	}
	p.failing = nil
	_, err := p.box(1).Redeem(ctx, code, "two", route) // the code was not spent
	must(t, err)
	p.failing = errors.New("disk full")
	if _, _, err := p.box(1).Attest(ctx, identity.AttestationRequest{X25519: [32]byte{1}, Lifetime: time.Hour}); !errors.Is(err, identity.ErrKeeperAway) {
		t.Errorf("attested with a full disk, so that nobody knows until when: %v", err)
	}
	p.failing = nil
	again, err := NewKeeper(p.options(Relay))
	must(t, err)
	if n := again.Nodes(); len(n) != 1 || n[0].Name != "two" || n[0].Box != (identity.Identifier{1}) {
		t.Errorf("after a restart: %+v", n)
	}
	for _, broken := range []string{"{", `{"version":2}`} {
		p.stored = []byte(broken)
		if _, err := NewKeeper(p.options(Relay)); err == nil {
			t.Errorf("a list %q was read", broken)
		}
	}
}

// TestRates: codes are not guessed quickly, and a delegate does not keep the primary key busy.
func TestRates(t *testing.T) {
	ctx := t.Context()
	p := newPlace(t, Relay)
	code := p.ticket(t)
	for range 5 {
		_, err := p.boxFrom(1, "a").Redeem(ctx, project.Code{1}, "x", route)
		refusedWith(t, "a guess", err, textUnknown)
	}
	_, err := p.boxFrom(1, "a").Redeem(ctx, code, "x", route)
	refusedWith(t, "a sixth, even right", err, textSlowed)
	_, err = p.boxFrom(1, "b").Redeem(ctx, code, "x", route)
	must(t, err) // others are not held up
	p.after(10 * time.Second)
	_, err = p.boxFrom(1, "a").Redeem(ctx, project.Code{1}, "x", route)
	refusedWith(t, "later", err, textUnknown)

	key := byte(0)
	ask := func() error {
		key++
		_, _, err := p.box(1).Attest(ctx, identity.AttestationRequest{X25519: [32]byte{key}, Lifetime: time.Hour})
		return err
	}
	for range 10 {
		must(t, ask())
	}
	if err := ask(); !errors.Is(err, identity.ErrKeeperAway) || errors.Is(err, identity.ErrNotDelegate) {
		t.Errorf("an eleventh: %v", err)
	}
	p.after(10 * time.Second)
	must(t, ask())

	var b buckets
	b.most, b.refill = 1, time.Hour
	for i := range 3 * maxBuckets {
		b.take(fmt.Sprint(i), p.now)
	}
	if len(b.of) > maxBuckets+1 {
		t.Errorf("%d sources are remembered", len(b.of))
	}
}

// TestBounds: tickets and nodes are bounded.
func TestBounds(t *testing.T) {
	p := newPlace(t, Relay)
	for what, f := range map[string]func() error{
		"a lifetime of a second": func() error { _, _, err := p.NewTicket(time.Second, time.Hour, 1); return err },
		"a lifetime of a year":   func() error { _, _, err := p.NewTicket(365*24*time.Hour, time.Hour, 1); return err },
		"for ever":               func() error { _, _, err := p.NewTicket(0, 365*24*time.Hour, 1); return err },
		"no uses":                func() error { _, _, err := p.NewTicket(0, time.Hour, 0); return err },
		"many uses":              func() error { _, _, err := p.NewTicket(0, time.Hour, maxNodes+1); return err },
	} {
		if err := f(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for range maxTickets {
		p.ticket(t)
	}
	if _, _, err := p.NewTicket(0, time.Minute, 1); !errors.Is(err, ErrFull) {
		t.Errorf("one too many: %v", err)
	}
	p.after(time.Hour)
	p.ticket(t)
	if n := len(p.Events()); n > maxEvents {
		t.Errorf("%d events are remembered", n)
	}
	code, _, err := p.NewTicket(0, time.Hour, maxNodes)
	must(t, err)
	for i := range maxNodes {
		_, err := p.box(byte(i+1)).Redeem(t.Context(), code, fmt.Sprint("n", i), route)
		must(t, err)
	}
	_, err = p.box(200).Redeem(t.Context(), p.ticket(t), "more", route)
	refusedWith(t, "one node too many", err, "There are too many nodes")
}

// TestLook: a delegate hears from its keeper where the others are, that the identity was rotated, and that it is no delegate any more.
func TestLook(t *testing.T) {
	ctx := t.Context()
	p := newPlace(t, Relay)
	box := p.box(1)
	_, err := box.Redeem(ctx, p.ticket(t), "one", route)
	must(t, err)
	m := p.delegate(t, box)
	d := NewDelegate(box, p.id, func(ctx context.Context, history []byte) error {
		_, err := m.ImportIgnoreOlder(ctx, history)
		return err
	})
	member := identity.Identifier{99}
	ask := &Client{Call: func(ctx context.Context, req *rpc.Request) (*rpc.Response, error) {
		resp := d.Serve(ctx, &member, req)
		return resp, resp.Err()
	}}
	// It may have missed a node while it was away: what members hear is what is so.
	if n, err := ask.Nodes(ctx); !errors.Is(err, identity.ErrKeeperAway) {
		t.Errorf("a delegate that has not asked its keeper tells a member %+v, %v", n, err)
	}
	must(t, d.Look(ctx))
	n, err := ask.Nodes(ctx)
	must(t, err)
	if len(n.Routes) != 1 || n.Keeper || n.History != nil {
		t.Errorf("a delegate tells a member %+v", n)
	}
	_, err = p.box(2).Redeem(ctx, p.ticket(t), "two", strings.ReplaceAll(route, "relay", "other"))
	must(t, err)
	must(t, d.Look(ctx))
	if n, err = ask.Nodes(ctx); err != nil || len(n.Routes) != 2 {
		t.Errorf("a delegate tells a member %+v, %v", n, err)
	}
	// What only the keeper can do, a delegate does not, and nobody takes its answer for the keeper's.
	if _, _, err := ask.Attest(ctx, identity.AttestationRequest{Lifetime: time.Hour}); !errors.Is(err, identity.ErrKeeperAway) || errors.Is(err, identity.ErrNotDelegate) {
		t.Errorf("asked to attest, a delegate says %v", err)
	}
	if err := NewDelegate(ask, p.id, nil).Look(ctx); !errors.Is(err, identity.ErrKeeperAway) {
		t.Errorf("asked in the keeper's place, a delegate says %v", err)
	}
	rotated, err := p.primary.Rotate(ctx, p.id, identity.RotateOptions{})
	must(t, err)
	must(t, d.Look(ctx))
	if i, err := m.Identity(ctx, p.id); err != nil || identity.Compare(i, rotated) != identity.Equal {
		t.Errorf("the rotation is not known: %v", err)
	}
	// The keeper has it look at once; who is not of the fleet does not.
	asked := func() bool {
		select {
		case <-d.Asked():
			return true
		default:
			return false
		}
	}
	if err := ask.Tell(ctx); err == nil || asked() {
		t.Errorf("a member has a delegate look: %v", err)
	}
	member = p.id
	for range 3 {
		must(t, ask.Tell(ctx))
	}
	if !asked() || asked() {
		t.Error("asked thrice it does not look once")
	}
	_, err = p.Delete("one")
	must(t, err)
	if err := d.Look(ctx); !errors.Is(err, identity.ErrNotDelegate) {
		t.Errorf("deleted: %v", err)
	}
}

// TestTicketText: tickets are read back, and what is none is refused without a word of the secret.
func TestTicketText(t *testing.T) {
	p := newPlace(t, Relay)
	i, err := p.primary.Identity(t.Context(), p.id)
	must(t, err)
	one := &Ticket{Code: p.ticket(t), Kind: Relay, Keeper: route, Identity: i, Project: &project.Project{ID: "p", Name: "p", AccessRoute: route}}
	text, err := one.Text()
	must(t, err)
	got, err := ParseTicket(" " + text[:100] + "\n" + text[100:] + "\n")
	must(t, err)
	if got.Code != one.Code || got.Kind != Relay || got.Keeper != route || got.Identity.Identifier() != p.id || got.Project.ID != "p" {
		t.Errorf("read back: %+v", got)
	}
	if strings.Contains(fmt.Sprintf("%v %+v", got, got.Code), one.Code.Reveal()) {
		t.Error("the code is printed")
	}
	long := *one
	long.Project = &project.Project{ID: "p", Name: strings.Repeat("n", project.MaxSize/2), AccessRoute: route}
	if _, err := long.Text(); !errors.Is(err, ErrInvalid) {
		t.Errorf("a ticket was written that nobody reads: %v", err)
	}
	if _, err := project.ParseTicket(text); err == nil {
		t.Error("a ticket for a member was read from one for a node")
	}
	for n := range len(text) {
		if _, err := ParseTicket(text[:n]); !errors.Is(err, ErrInvalid) || strings.Contains(err.Error(), one.Code.Reveal()[:16]) {
			t.Fatalf("cut off after %d: %v", n, err)
		}
	}
}
