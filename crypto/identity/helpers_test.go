package identity

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"testing"
	"time"

	"sallyport/crypto/vault"
)

func load(t testing.TB, name string, v any) {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	must(t, err)
	must(t, json.Unmarshal(b, v))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantIs(t testing.TB, what string, err error, want ...error) {
	t.Helper()
	for _, w := range want {
		if !errors.Is(err, w) {
			t.Errorf("%s: %v, want %q", what, err, w)
		}
	}
}

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	must(t, err)
	return b
}

func id(t testing.TB, text string) Identifier {
	t.Helper()
	i, err := ParseIdentifier(text)
	must(t, err)
	return i
}

// node is a Manager with its parts and a clock that the test sets.
type node struct {
	*Manager
	vault *vault.Software
	store *MemoryStore
	now   Timestamp
}

const start Timestamp = 1_800_000_000

func newNode(t testing.TB) *node {
	t.Helper()
	n := &node{vault: vault.NewMemory(), store: NewMemoryStore(), now: start}
	n.Manager = New(Options{Vault: n.vault, Store: n.store, Now: func() time.Time { return time.Unix(int64(n.now), 0) }})
	return n
}

func (n *node) create(t testing.TB, o CreateOptions) *Identity {
	t.Helper()
	i, err := n.Create(context.Background(), o)
	must(t, err)
	return i
}

func (n *node) knows(t testing.TB, i *Identity) {
	t.Helper()
	_, err := n.Import(context.Background(), i.History(), nil)
	must(t, err)
}

func (n *node) seed(t testing.TB, text string) vault.Handle {
	t.Helper()
	h, _, err := n.vault.ImportSigningKey(context.Background(), vault.Ed25519, unhex(t, text))
	must(t, err)
	return h
}

// signWith makes [data, signature] with a key of the vault.
func (n *node) signWith(t testing.TB, key vault.VerifyingKey, data []byte) []byte {
	t.Helper()
	digest := sha(data)
	sig, err := n.vault.Sign(context.Background(), vault.HandleOf(key.Bytes), digest[:])
	must(t, err)
	return appendSigned(data, sig)
}
