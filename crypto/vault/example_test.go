package vault_test

import (
	"context"
	"fmt"

	"sallyport/crypto/vault"
)

func Example() {
	ctx := context.Background()
	keys := vault.NewMemory()
	handle, public, err := keys.GenerateSigningKey(ctx, vault.Ed25519)
	if err != nil {
		panic(err)
	}
	signature, err := keys.Sign(ctx, handle, []byte("a message"))
	if err != nil {
		panic(err)
	}
	fmt.Println(vault.Verify(public, []byte("a message"), signature))
	fmt.Println(vault.Verify(public, []byte("another one"), signature))
	// Output:
	// <nil>
	// vault: signature does not verify
}
