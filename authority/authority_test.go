package authority

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"sallyport/crypto/identity"
	"sallyport/routing/rpc"
)

const projectID = "1d0c1a9f-7a51-4a2b-9b1a-3f0a6d2f0001"

func load(t testing.TB, name string, v any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, v); err != nil {
		t.Fatal(name, err)
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func ident(t testing.TB, s string) identity.Identifier {
	t.Helper()
	id, err := identity.ParseIdentifier(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// some makes an identifier for a test.
func some(n byte) (id identity.Identifier) {
	for i := range id {
		id[i] = n
	}
	return id
}

// issuer is an Issuer that returns what it was told.
type issuer struct {
	mu         sync.Mutex
	fail       error
	issuer     identity.Identifier
	attributes Attributes
	ttl        time.Duration
}

func (i *issuer) IssueCredential(_ context.Context, by, subject identity.Identifier, a Attributes, ttl time.Duration) ([]byte, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.issuer, i.attributes, i.ttl = by, a, ttl
	return append([]byte{0x58, 32}, subject[:]...), i.fail
}

// counts is an Events that counts.
type counts struct {
	mu sync.Mutex
	n  map[string]int
}

func (c *counts) add(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n[what]++
}
func (c *counts) TicketIssued()              { c.add("issued") }
func (c *counts) TicketRedeemed()            { c.add("redeemed") }
func (c *counts) TicketRefused(r string)     { c.add("ticket " + r) }
func (c *counts) CredentialIssued()          { c.add("credential") }
func (c *counts) CredentialRefused(r string) { c.add("credential " + r) }
func (c *counts) SignIn(r string)            { c.add("sign-in " + r) }

// fixture is an authority with a store in a temporary directory and a clock that tests move.
type fixture struct {
	*Authority
	store    Store
	issuer   *issuer
	counts   *counts
	now      time.Time
	services map[string]rpc.Server
}

func newFixture(t testing.TB, change func(*Options)) *fixture {
	t.Helper()
	store, err := OpenStore(filepath.Join(t.TempDir(), "authority.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	f := &fixture{store: store, issuer: &issuer{}, counts: &counts{n: map[string]int{}}, now: time.Unix(1_800_000_000, 0)}
	o := Options{
		Store: store, Identities: f.issuer, Self: some(0xaa), ProjectID: projectID, Events: f.counts,
		Now: func() time.Time { return f.now },
	}
	if change != nil {
		change(&o)
	}
	if f.Authority, err = New(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	f.services = f.Services()
	return f
}

// client is a Client of the authority in the name of id, through the codec both ways.
func (f *fixture) client(id identity.Identifier) *Client {
	return &Client{Call: func(ctx context.Context, service string, req *rpc.Request) (*rpc.Response, error) {
		read, err := rpc.DecodeRequest(req.Encode())
		if err != nil {
			return nil, err
		}
		res := f.services[service].Serve(ctx, &id, read)
		if res == nil {
			return nil, errors.New("no answer")
		}
		return rpc.DecodeResponse(res.Encode())
	}}
}

// refused checks that err is a refusal with status 403 and the given text.
func refused(t *testing.T, what string, err error, text string) {
	t.Helper()
	var status *rpc.StatusError
	if !errors.As(err, &status) || status.Status != rpc.Forbidden || status.Body.Message != text {
		t.Errorf("%s: %v, want 403 %q", what, err, text)
	}
}

type exchange struct{ Name, Service, Request, Response string }

type captures struct {
	Admin      []exchange `json:"authority_admin_api"`
	Enrollment []exchange `json:"authority_enrollment"`
	Initiator  string     `json:"initiator_identifier"`
	Authority  string     `json:"responder_identifier"`
}

// replay sends a captured request to the service it went to and compares the answer with the captured one: everything but the
// answer's own id, the order of lists, and what is random or signed.
func (f *fixture) replay(t *testing.T, caller identity.Identifier, x exchange) {
	t.Helper()
	req, err := rpc.DecodeRequest(unhex(t, x.Request))
	if err != nil {
		t.Fatal(x.Name, err)
	}
	got := f.services[x.Service].Serve(t.Context(), &caller, req)
	if x.Response == "" {
		if got != nil {
			t.Errorf("%s: answered %+v, want no answer", x.Name, got)
		}
		return
	}
	if got == nil {
		t.Errorf("%s: no answer", x.Name)
		return
	}
	want, err := rpc.DecodeResponse(unhex(t, x.Response))
	if err != nil {
		t.Fatal(x.Name, err)
	}
	if got.Re != want.Re || got.Status != want.Status || got.HasBody != want.HasBody || got.ID == 0 {
		t.Errorf("%s: %+v, want %+v", x.Name, got, want)
		return
	}
	switch {
	case x.Service == EnrollmentTokenIssuer && want.Status == rpc.OK:
		if !bytes.Equal(got.Body[:4], want.Body[:4]) || len(got.Body) != len(want.Body) {
			t.Errorf("%s: body %x, want the form of %x", x.Name, got.Body, want.Body)
		}
	case x.Service == CredentialIssuer && want.Status == rpc.OK:
		if !bytes.Equal(got.Body[2:], caller[:]) {
			t.Errorf("%s: credential about %x", x.Name, got.Body)
		}
	case x.Name == "list members":
		a, err1 := decodeMembers(got.Body)
		b, err2 := decodeMembers(want.Body)
		if err1 != nil || err2 != nil || !reflect.DeepEqual(a, b) {
			t.Errorf("%s: %v %v\n%v, want\n%v", x.Name, err1, err2, a, b)
		}
	case x.Name == "member ids" || x.Name == "ids":
		a, err1 := decodeMemberIDs(got.Body)
		b, err2 := decodeMemberIDs(want.Body)
		order := func(x, y identity.Identifier) int { return bytes.Compare(x[:], y[:]) }
		slices.SortFunc(b, order)
		if err1 != nil || err2 != nil || !slices.Equal(a, b) {
			t.Errorf("%s: %v %v\n%v, want\n%v", x.Name, err1, err2, a, b)
		}
	default:
		if !bytes.Equal(got.Body, want.Body) {
			t.Errorf("%s: body %x, want %x", x.Name, got.Body, want.Body)
		}
	}
}

// ticket puts the code of a captured redemption into the store.
func (f *fixture) ticket(t *testing.T, x exchange, a Attributes, by identity.Identifier) {
	t.Helper()
	req, err := rpc.DecodeRequest(unhex(t, x.Request))
	if err != nil {
		t.Fatal(err)
	}
	code, err := decodeCode(req.Body)
	if err != nil {
		t.Fatal(err)
	}
	token := Token{Hash: code.Hash(), Reference: "captured", Attributes: a, IssuedBy: by, ExpiresAt: f.now.Add(time.Minute), Uses: 1}
	if err := f.store.AddToken(t.Context(), token, f.now); err != nil {
		t.Fatal(err)
	}
}

func TestCapturedAdminSession(t *testing.T) {
	var c captures
	load(t, "captures.json", &c)
	if len(c.Admin) < 22 {
		t.Fatal("captures missing")
	}
	var before []Entry // what the listing shows was there already
	for _, x := range c.Admin {
		if x.Name == "list members" {
			res, err := rpc.DecodeResponse(unhex(t, x.Response))
			if err != nil {
				t.Fatal(err)
			}
			if before, err = decodeMembers(res.Body); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(before) != 8 {
		t.Fatalf("the captured list has %d members", len(before))
	}
	authority := ident(t, c.Authority)
	enroller := ident(t, "I3846b29674e6d7051f482c0ae51ca0928fbc8492b175b1ef978811d5d5cfa197")
	caller := ident(t, "I3f2e29916c5b23fc73fbbe1644d0f885da5529411c711b9eaedca126cb52cc4d")
	at := map[identity.Identifier]time.Time{}
	for _, e := range before {
		at[e.ID] = e.AddedAt
	}
	start := at[enroller]
	now := &start
	f := newFixture(t, func(o *Options) {
		o.Self = authority
		o.TrustedIdentities = map[identity.Identifier]map[string]string{enroller: {RoleAttribute: RoleEnroller}}
		o.Now = func() time.Time { return *now }
	})
	for _, e := range before {
		// Those that the session adds itself come from it.
		if e.ID == enroller || e.ID == caller || e.AddedBy == caller {
			continue
		}
		m := Member{ID: e.ID, Attributes: e.Attributes, AddedBy: e.AddedBy, AddedAt: e.AddedAt}
		if err := f.store.PutMember(t.Context(), m, nil); err != nil {
			t.Fatal(err)
		}
	}
	f.now = at[caller]
	*now = f.now
	f.ticket(t, c.Admin[0], Attributes{RoleAttribute: RoleEnroller}, enroller)
	for i, x := range c.Admin {
		if i == 1 {
			*now = at[ident(t, "Ib322f8bdf4039b00b64f9757ef3414c7579c5fe60af3327f639733cab92563e9")]
		}
		f.replay(t, caller, x)
	}
	want := Attributes{RoleAttribute: RoleEnroller, TrustContextAttribute: projectID}
	if !reflect.DeepEqual(f.issuer.attributes, want) || f.issuer.issuer != authority || f.issuer.ttl != 30*24*time.Hour {
		t.Errorf("credential %+v", f.issuer)
	}
}

func TestCapturedEnrollment(t *testing.T) {
	var c captures
	load(t, "captures.json", &c)
	if len(c.Enrollment) < 11 {
		t.Fatal("captures missing")
	}
	f := newFixture(t, nil)
	for _, x := range c.Enrollment {
		if x.Name == "token ok" {
			f.ticket(t, x, Attributes{"company": "beta", RelayAttribute: "*"}, some(1))
		}
	}
	for _, x := range c.Enrollment {
		f.replay(t, ident(t, c.Initiator), x)
	}
	want := Attributes{"company": "beta", RelayAttribute: "*", TrustContextAttribute: projectID}
	if !reflect.DeepEqual(f.issuer.attributes, want) {
		t.Errorf("credential attributes %v", f.issuer.attributes)
	}
	wantCounts := map[string]int{
		"redeemed": 1, "ticket unknown": 1, "ticket already_member": 1, "ticket not_enroller": 1,
		"credential": 2, "credential not_member": 1,
	}
	if !reflect.DeepEqual(f.counts.n, wantCounts) {
		t.Errorf("events %v", f.counts.n)
	}
}

func TestNewRefusesIncompleteOptions(t *testing.T) {
	f := newFixture(t, nil)
	good := Options{Store: f.store, Identities: f.issuer, Self: some(1)}
	for name, change := range map[string]func(*Options){
		"store": func(o *Options) { o.Store = nil }, "issuer": func(o *Options) { o.Identities = nil },
		"self": func(o *Options) { o.Self = identity.Identifier{} }, "ttl": func(o *Options) { o.CredentialTTL = -1 },
	} {
		o := good
		change(&o)
		if _, err := New(t.Context(), o); err == nil {
			t.Errorf("no error about %s", name)
		}
	}
	if a, err := New(t.Context(), good); err != nil || a.o.CredentialTTL != 0 {
		t.Errorf("%v", err)
	}
}

func TestServicesFollowOptions(t *testing.T) {
	for _, c := range []struct {
		direct, tokens bool
		want           []string
	}{
		{false, false, []string{CredentialIssuer, DirectAuthenticator, EnrollmentTokenAcceptor, EnrollmentTokenIssuer, Administration}},
		{true, false, []string{CredentialIssuer, EnrollmentTokenAcceptor, EnrollmentTokenIssuer, Administration}},
		{false, true, []string{CredentialIssuer, DirectAuthenticator, Administration}},
		{true, true, []string{CredentialIssuer, Administration}},
	} {
		f := newFixture(t, func(o *Options) { o.NoDirectAuthentication, o.NoTokenEnrollment = c.direct, c.tokens })
		var got []string
		for name, service := range f.services {
			got = append(got, name)
			res := service.Serve(t.Context(), nil, rpc.NewRequest(rpc.Post, "/", nil))
			if res == nil || res.Re != 0 || res.Status != rpc.BadRequest || !bytes.Equal(res.Body, unhex(t, "a10377736563757265206368616e6e656c207265717569726564")) {
				t.Errorf("%s without a channel: %+v", name, res)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, c.want) {
			t.Errorf("services %v, want %v", got, c.want)
		}
	}
}

func TestUnknownPaths(t *testing.T) {
	f := newFixture(t, nil)
	who := some(1)
	for service, requests := range map[string][]*rpc.Request{
		DirectAuthenticator: {
			rpc.NewRequest(rpc.Put, "/", nil), rpc.NewRequest(rpc.Patch, "/members", nil), rpc.NewRequest(rpc.Post, "/x", nil),
			rpc.NewRequest(rpc.Get, "/a/b", nil), rpc.NewRequest(rpc.Get, "/a/b/c", nil), rpc.NewRequest(rpc.Delete, "/member_ids/x", nil),
			rpc.NewRequest(rpc.NoMethod, "/", nil),
		},
		EnrollmentTokenIssuer:   {rpc.NewRequest(rpc.Get, "/", nil), rpc.NewRequest(rpc.Post, "//", nil), rpc.NewRequest(rpc.Post, "/credential", nil)},
		EnrollmentTokenAcceptor: {rpc.NewRequest(rpc.Delete, "/", nil), rpc.NewRequest(rpc.Post, "", nil), rpc.NewRequest(rpc.Post, "/tokens", nil)},
		CredentialIssuer:        {rpc.NewRequest(rpc.Get, "/", nil), rpc.NewRequest(rpc.Post, "/x", nil)},
	} {
		for _, req := range requests {
			res := f.services[service].Serve(t.Context(), &who, req)
			if res == nil || res.Status != rpc.BadRequest || res.Re != req.ID {
				t.Errorf("%s %s %s: %+v", service, req.Method, req.Path, res)
				continue
			}
			e := rpc.DecodeError(res.Body)
			if e.Message != "unknown path" || e.Path != req.Path || e.Method != req.Method {
				t.Errorf("%s %s %s: %+v", service, req.Method, req.Path, e)
			}
		}
	}
	// No answer at all: a malformed identifier, an undecodable body.
	for service, requests := range map[string][]*rpc.Request{
		DirectAuthenticator: {
			rpc.NewRequest(rpc.Get, "/Ixyz", nil), rpc.NewRequest(rpc.Delete, "/members/I00", nil), rpc.NewRequest(rpc.Delete, "/", nil),
			rpc.NewRequest(rpc.Post, "/", nil), rpc.NewRequest(rpc.Post, "/", []byte{0xa0}), rpc.NewRequest(rpc.Post, "/", []byte{0xa2, 1, 0x41, 0, 2, 0xa0}),
		},
		EnrollmentTokenIssuer:   {rpc.NewRequest(rpc.Post, "/", nil), rpc.NewRequest(rpc.Post, "/tokens", []byte{0xa1, 1, 0xf6}), rpc.NewRequest(rpc.Post, "/", []byte{0xf6})},
		EnrollmentTokenAcceptor: {rpc.NewRequest(rpc.Post, "/", nil), rpc.NewRequest(rpc.Post, "/", []byte{0xa1, 1, 0x41, 1})},
	} {
		for _, req := range requests {
			if res := f.services[service].Serve(t.Context(), &who, req); res != nil {
				t.Errorf("%s %s %s %x: %+v, want no answer", service, req.Method, req.Path, req.Body, res)
			}
		}
	}
}
