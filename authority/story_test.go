package authority

import (
	"reflect"
	"testing"
	"time"

	"sallyport/crypto/identity"
	"sallyport/crypto/vault"
)

// From nothing to a credential that another party verifies, with real identities.
func TestStory(t *testing.T) {
	ctx := t.Context()
	now := func() time.Time { return time.Unix(1_800_000_000, 0) }
	manager := func() *identity.Manager {
		return identity.New(identity.Options{Vault: vault.NewMemory(), Store: identity.NewMemoryStore(), Now: now})
	}
	home, away := manager(), manager()
	create := func(m *identity.Manager) *identity.Identity {
		t.Helper()
		i, err := m.Create(ctx, identity.CreateOptions{Algorithm: vault.Ed25519})
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	authority, admin, member := create(home), create(away), create(away)
	// What the secure channel does when the member connects.
	if _, err := home.Import(ctx, member.History(), nil); err != nil {
		t.Fatal(err)
	}
	f := newFixture(t, func(o *Options) {
		o.Identities, o.Self, o.Now, o.CredentialTTL = home, authority.Identifier(), now, time.Hour
		o.TrustedIdentities = map[identity.Identifier]map[string]string{admin.Identifier(): {RoleAttribute: RoleEnroller}}
	})
	code, err := f.client(admin.Identifier()).CreateToken(ctx, Attributes{RelayAttribute: "blue"}, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	c := f.client(member.Identifier())
	if already, err := c.Redeem(ctx, code); err != nil || already {
		t.Fatal(already, err)
	}
	raw, err := c.Credential(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := away.Import(ctx, authority.History(), nil); err != nil {
		t.Fatal(err)
	}
	id := member.Identifier()
	got, err := away.VerifyCredential(ctx, raw, &id, []identity.Identifier{authority.Identifier()})
	if err != nil {
		t.Fatal(err)
	}
	want := Attributes{RelayAttribute: "blue", TrustContextAttribute: projectID}
	if !reflect.DeepEqual(got.Attributes, want) || int64(got.ExpiresAt-got.CreatedAt) != 3600 || got.Issuer != authority.Identifier() {
		t.Errorf("%+v", got)
	}
	if err := f.client(admin.Identifier()).DeleteMember(ctx, id); err != nil {
		t.Fatal(err)
	}
	_, err = c.Credential(ctx)
	refused(t, "credential of a former member", err, "unauthorized member")
}
