package authority

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/crypto/identity"
	"sallyport/routing/rpc"
)

// The people of these tests.
var (
	preTrusted    = some(1) // enroller named in the configuration
	enroller      = some(2) // enroller by its row
	otherEnroller = some(3)
	plain         = some(4) // member
	accountAdmin  = some(5) // no row
	stranger      = some(6)
)

// withRoles is a fixture with all of them. account says whether there is an account authority, enforce is its flag.
func withRoles(t *testing.T, account, enforce bool) *fixture {
	t.Helper()
	f := newFixture(t, func(o *Options) {
		o.TrustedIdentities = map[identity.Identifier]map[string]string{preTrusted: {RoleAttribute: RoleEnroller}}
		o.EnforceAdminChecks = enforce
		if account {
			o.AccountAdmin = func(_ context.Context, id identity.Identifier) bool { return id == accountAdmin }
		}
	})
	f.rows(t)
	return f
}

func (f *fixture) rows(t *testing.T) {
	t.Helper()
	role := Attributes{RoleAttribute: RoleEnroller}
	for _, m := range []Member{
		{ID: enroller, Attributes: role, AddedBy: preTrusted, AddedAt: f.now},
		{ID: otherEnroller, Attributes: role, AddedBy: preTrusted, AddedAt: f.now},
		{ID: plain, Attributes: Attributes{"a": "b"}, AddedBy: enroller, AddedAt: f.now},
		{ID: preTrusted, Attributes: role, AddedBy: f.o.Self, AddedAt: f.now},
	} {
		if err := f.store.PutMember(t.Context(), m, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRoleMatrix(t *testing.T) {
	ctx := t.Context()
	role := Attributes{RoleAttribute: RoleEnroller}
	nonEnroller := func(who identity.Identifier, target identity.Identifier) string {
		return "Non-enroller " + who.String() + " is trying to add a member " + target.String()
	}
	const (
		makeEnroller = "Not pre trusted enroller is trying to create an enroller"
		changeTrust  = "Enroller is trying to change a pre trusted identity"
		changeRole   = "Not admin is trying to change an enroller"
		deleteTrust  = "Enroller is trying to delete a pre trusted identity"
		deleteRole   = "Not admin is trying to delete an enroller"
		deleteNon    = "Non-enroller is trying to delete a member"
		tokenNon     = "Non-enroller is trying to issue an enrollment token"
		tokenAdmin   = "Not admin is trying to issue an enrollment token for an enroller"
		listNon      = "Non-enroller is trying to list members"
		showNon      = "Non-enroller is trying to retrieve a member"
	)
	type do func(c *Client) error
	add := func(id identity.Identifier, a Attributes) do {
		return func(c *Client) error { return c.AddMember(ctx, id, a) }
	}
	remove := func(id identity.Identifier) do { return func(c *Client) error { return c.DeleteMember(ctx, id) } }
	token := func(a Attributes) do {
		return func(c *Client) error { _, err := c.CreateToken(ctx, a, time.Minute, 1); return err }
	}
	list := func(c *Client) error { _, err := c.Members(ctx); return err }
	ids := func(c *Client) error { _, err := c.MemberIDs(ctx); return err }
	show := func(c *Client) error { _, err := c.Member(ctx, plain); return err }
	all := func(c *Client) error { return c.DeleteMembers(ctx) }
	credential := func(c *Client) error { _, err := c.Credential(ctx); return err }

	for _, setting := range []struct {
		name             string
		account, enforce bool
		everyoneAdmin    bool
	}{
		{"no account authority", false, false, true},
		{"enforcing without account authority", false, true, true},
		{"account authority", true, false, true},
		{"account authority, enforced", true, true, false},
	} {
		// A plain enroller is an admin too, unless admins are enforced.
		unlessAdmin := func(text string) string {
			if setting.everyoneAdmin {
				return ""
			}
			return text
		}
		type step struct {
			name string
			who  identity.Identifier
			do   do
			text string // of the refusal, empty for success
		}
		steps := []step{
			{"add", enroller, add(some(9), nil), ""},
			{"add", plain, add(some(9), nil), nonEnroller(plain, some(9))},
			{"add", stranger, add(some(9), nil), nonEnroller(stranger, some(9))},
			{"add enroller", enroller, add(some(9), role), unlessAdmin(makeEnroller)},
			{"replace member", enroller, add(plain, Attributes{"x": "y"}), ""},
			{"replace self", enroller, add(enroller, Attributes{}), ""},
			{"replace enroller", enroller, add(otherEnroller, nil), unlessAdmin(changeRole)},
			{"replace pre-trusted", enroller, add(preTrusted, nil), changeTrust},
			{"replace self", preTrusted, add(preTrusted, nil), ""},
			{"replace enroller", preTrusted, add(enroller, nil), unlessAdmin(changeRole)},
			{"delete member", enroller, remove(plain), ""},
			{"delete member", plain, remove(plain), deleteNon},
			{"delete unknown", enroller, remove(some(8)), ""},
			{"delete enroller", enroller, remove(otherEnroller), unlessAdmin(deleteRole)},
			{"delete pre-trusted", enroller, remove(preTrusted), deleteTrust},
			{"delete pre-trusted", preTrusted, remove(preTrusted), deleteTrust},
			{"delete all", plain, all, deleteNon},
			{"delete all", enroller, all, ""},
			{"list", enroller, list, ""}, {"list", plain, list, listNon}, {"list", stranger, list, listNon},
			{"ids", enroller, ids, ""}, {"ids", plain, ids, listNon},
			{"show", enroller, show, ""}, {"show", plain, show, showNon},
			{"token", enroller, token(nil), ""}, {"token", plain, token(nil), tokenNon},
			{"enroller token", enroller, token(role), unlessAdmin(tokenAdmin)},
			{"credential", plain, credential, ""}, {"credential", stranger, credential, "unauthorized member"},
		}
		if setting.account {
			steps = append(steps, []step{
				{"add enroller", accountAdmin, add(some(9), role), ""},
				{"replace enroller", accountAdmin, add(enroller, nil), ""},
				{"replace pre-trusted", accountAdmin, add(preTrusted, nil), ""},
				{"delete pre-trusted", accountAdmin, remove(preTrusted), deleteTrust},
				{"delete enroller", accountAdmin, remove(enroller), ""},
				{"enroller token", accountAdmin, token(role), ""},
				{"list", accountAdmin, list, ""},
				{"credential", accountAdmin, credential, ""},
			}...)
		} else {
			steps = append(steps, step{"credential", accountAdmin, credential, "unauthorized member"})
		}
		f := withRoles(t, setting.account, setting.enforce)
		for _, s := range steps {
			f.rows(t)
			err := s.do(f.client(s.who))
			what := setting.name + ": " + s.name + " by " + s.who.String()[:3]
			if s.text == "" {
				if err != nil {
					t.Errorf("%s: %v", what, err)
				}
				continue
			}
			refused(t, what, err, s.text)
		}
	}
}

func TestMembersThroughClient(t *testing.T) {
	f := withRoles(t, false, false)
	ctx, c := t.Context(), f.client(enroller)
	f.now = time.Unix(1_800_000_777, 0)
	if err := c.AddMember(ctx, some(9), Attributes{"k": "v", "ü": ""}); err != nil {
		t.Fatal(err)
	}
	want := Entry{ID: some(9), Attributes: Attributes{"k": "v", "ü": ""}, AddedAt: f.now, AddedBy: enroller}
	if e, err := c.Member(ctx, some(9)); err != nil || !reflect.DeepEqual(e, want) {
		t.Errorf("%+v, %v", e, err)
	}
	_, err := c.Member(ctx, some(8))
	refused(t, "unknown member", err, "Member "+some(8).String()+" not found")
	all, err := c.Members(ctx)
	if err != nil || len(all) != 5 || !reflect.DeepEqual(all[4], want) {
		t.Errorf("%+v, %v", all, err)
	}
	ids, err := c.MemberIDs(ctx)
	if err != nil || !slices.Equal(ids, []identity.Identifier{preTrusted, enroller, otherEnroller, plain, some(9)}) {
		t.Errorf("%v, %v", ids, err)
	}
	// Deleting all spares the caller and the pre-trusted.
	if err := c.DeleteMembers(ctx); err != nil {
		t.Fatal(err)
	}
	if ids, err = c.MemberIDs(ctx); err != nil || !slices.Equal(ids, []identity.Identifier{preTrusted, enroller}) {
		t.Errorf("%v, %v", ids, err)
	}
	// An overwritten pre-trusted row keeps its mark.
	if err := f.client(preTrusted).AddMember(ctx, preTrusted, Attributes{RoleAttribute: RoleEnroller, "x": "y"}); err != nil {
		t.Fatal(err)
	}
	refused(t, "delete", c.DeleteMember(ctx, preTrusted), "Enroller is trying to delete a pre trusted identity")
}

func TestCredentialAttributes(t *testing.T) {
	f := withRoles(t, true, false)
	ctx := t.Context()
	check := func(who identity.Identifier, want Attributes) {
		t.Helper()
		if _, err := f.client(who).Credential(ctx); err != nil || !reflect.DeepEqual(f.issuer.attributes, want) {
			t.Errorf("%v, %v; want %v", f.issuer.attributes, err, want)
		}
	}
	check(plain, Attributes{"a": "b", TrustContextAttribute: projectID})
	admin := Attributes{TrustContextAttribute: projectID, RelayAttribute: "*", TLSAttribute: "true"}
	check(accountAdmin, admin)
	// The own row of an account admin is ignored, and a member's row wins over the project's id.
	own := Attributes{"own": "row", TrustContextAttribute: "other"}
	for _, id := range []identity.Identifier{accountAdmin, plain} {
		if err := f.store.PutMember(ctx, Member{ID: id, Attributes: own}, nil); err != nil {
			t.Fatal(err)
		}
	}
	check(accountAdmin, admin)
	check(plain, own)
	f.o.DisableTrustContextID = true
	f.o.CredentialTTL = 130 * time.Second
	check(enroller, Attributes{RoleAttribute: RoleEnroller})
	if f.issuer.ttl != 130*time.Second || f.issuer.issuer != f.o.Self {
		t.Errorf("ttl %v, issuer %v", f.issuer.ttl, f.issuer.issuer)
	}
	f.issuer.fail = errors.New("the vault is on fire")
	_, err := f.client(plain).Credential(ctx)
	var status *rpc.StatusError
	if !errors.As(err, &status) || status.Status != rpc.InternalServerError || strings.Contains(err.Error(), "vault") {
		t.Errorf("%v", err)
	}
	if f.counts.n["credential error"] != 1 {
		t.Errorf("%v", f.counts.n)
	}
}

// The wire says the same for every bad code; log, audit and counters do not. The code itself appears nowhere.
func TestTicketLife(t *testing.T) {
	f := withRoles(t, false, false)
	var log bytes.Buffer
	f.o.Log = slog.New(slog.NewTextHandler(&log, nil))
	ctx := t.Context()
	code, err := f.client(enroller).CreateToken(ctx, Attributes{"company": "beta"}, time.Minute, 2)
	if err != nil {
		t.Fatal(err)
	}
	short, err := f.client(enroller).CreateToken(ctx, nil, 10*time.Second, 5)
	if err != nil {
		t.Fatal(err)
	}
	for n := byte(10); n < 12; n++ {
		if already, err := f.client(some(n)).Redeem(ctx, code); err != nil || already {
			t.Fatalf("%v %v", already, err)
		}
	}
	if already, err := f.client(some(10)).Redeem(ctx, short); err != nil || !already {
		t.Errorf("again: %v %v", already, err)
	}
	const text = "Unknown enrollment token"
	redeem := func(code Code) error { _, err := f.client(stranger).Redeem(ctx, code); return err }
	refused(t, "used", redeem(code), text)
	refused(t, "unknown", redeem(Code{1}), text)
	f.now = f.now.Add(10 * time.Second)
	refused(t, "expired", redeem(short), text)
	refused(t, "expired, again", redeem(short), text)
	f.now = f.now.Add(SpentRetention + time.Second)
	refused(t, "forgotten", redeem(code), text)

	f.now = f.now.Add(denialPause)
	entries, err := f.client(enroller).Audit(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		if e.Event != EventTicketUsed && e.Event != EventTicketRefused {
			continue
		}
		got = append(got, e.Event+" "+e.Reason)
		if (e.Reason == ReasonUnknown) != (e.Ticket == "") || len(e.Ticket) != 0 && len(e.Ticket) != referenceSize {
			t.Errorf("%+v", e)
		}
		if e.Event == EventTicketUsed && (e.Subject != e.Actor || e.Subject[0] < 10 || !e.Time.Equal(time.Unix(1_800_000_000, 0))) {
			t.Errorf("%+v", e)
		}
	}
	want := []string{
		EventTicketUsed + " ", EventTicketUsed + " ", EventTicketRefused + " used", EventTicketRefused + " unknown",
		EventTicketRefused + " expired", EventTicketRefused + " expired", EventTicketRefused + " unknown",
	}
	if !slices.Equal(got, want) {
		t.Errorf("audit %v, want %v", got, want)
	}
	wantCounts := map[string]int{
		"issued": 2, "redeemed": 2, "ticket used": 1, "ticket unknown": 2, "ticket expired": 2, "ticket already_member": 1,
	}
	if !reflect.DeepEqual(f.counts.n, wantCounts) {
		t.Errorf("events %v", f.counts.n)
	}
	m, ok, err := f.store.Member(ctx, some(11))
	if err != nil || !ok || m.AddedBy != enroller || m.PreTrusted || !reflect.DeepEqual(m.Attributes, Attributes{"company": "beta"}) {
		t.Errorf("%+v, %v, %v", m, ok, err)
	}
	for _, secret := range []Code{code, short} {
		hash := secret.Hash()
		for _, s := range []string{secret.Hex(), string(secret[:]), Code(hash).Hex()} {
			if strings.Contains(log.String(), s) {
				t.Error("a code is in the log")
			}
		}
	}
	for _, outcome := range []string{"ok", "used", "expired"} {
		if !strings.Contains(log.String(), "outcome="+string(outcome)) {
			t.Errorf("the log does not say %q:\n%s", outcome, log.String())
		}
	}
}

// Numbers of a request that would overflow, and the ends of what is allowed.
func TestTokenBounds(t *testing.T) {
	f := withRoles(t, false, false)
	ctx := t.Context()
	who := enroller
	issue := func(body []byte) Code {
		t.Helper()
		res := f.services[EnrollmentTokenIssuer].Serve(ctx, &who, rpc.NewRequest(rpc.Post, "/", body))
		if res == nil || res.Status != rpc.OK {
			t.Fatalf("%+v", res)
		}
		code, err := decodeCode(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return code
	}
	forever := issue(unhex(t, "a301a0021bffffffffffffffff031bffffffffffffffff"))
	never := issue(unhex(t, "a201a00200"))
	noUses := issue(unhex(t, "a201a00300"))
	standard := issue(unhex(t, "a101a0"))
	n := byte(20)
	outcome := func(code Code) Outcome {
		t.Helper()
		n++
		r, err := f.store.Redeem(ctx, code.Hash(), some(n), f.now)
		if err != nil {
			t.Fatal(err)
		}
		return r.Outcome
	}
	if got := outcome(never); got != CodeExpired {
		t.Errorf("no lifetime: %s", got)
	}
	if a, b := outcome(noUses), outcome(noUses); a != Redeemed || b != CodeUsed {
		t.Errorf("0 uses: %s, %s", a, b)
	}
	f.now = f.now.Add(DefaultTokenTTL - time.Millisecond)
	if got := outcome(standard); got != Redeemed {
		t.Errorf("within the default lifetime: %s", got)
	}
	f.now = f.now.Add(50 * 365 * 24 * time.Hour)
	if a, b := outcome(forever), outcome(forever); a != Redeemed || b != Redeemed {
		t.Errorf("longest lifetime: %s, %s", a, b)
	}
}
