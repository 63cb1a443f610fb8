package identity_test

import (
	"context"
	"fmt"
	"time"

	"sallyport/crypto/identity"
	"sallyport/crypto/vault"
)

// An authority issues a credential, and somebody who knows the authority verifies it.
func Example() {
	ctx := context.Background()
	node := func() *identity.Manager {
		return identity.New(identity.Options{Vault: vault.NewMemory(), Store: identity.NewMemoryStore()})
	}
	home, away := node(), node()
	authority, err := home.Create(ctx, identity.CreateOptions{})
	check(err)
	member, err := away.Create(ctx, identity.CreateOptions{})
	check(err)
	subject := member.Identifier()

	_, err = home.Import(ctx, member.History(), nil)
	check(err)
	raw, err := home.IssueCredential(ctx, authority.Identifier(), subject, identity.Attributes{"role": "member"}, time.Hour)
	check(err)

	_, err = away.Import(ctx, authority.History(), nil)
	check(err)
	credential, err := away.VerifyCredential(ctx, raw, &subject, []identity.Identifier{authority.Identifier()})
	check(err)
	fmt.Println(credential.Attributes["role"], credential.ExpiresAt-credential.CreatedAt)
	// Output: member 3600
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
