package identity

import (
	"bytes"
	"testing"
	"time"

	"sallyport/crypto/vault"
)

// TestStatement: what an issuer says is read as it was said, from it alone, and not taken for anything else.
func TestStatement(t *testing.T) {
	ctx := t.Context()
	n, reader := newNode(t), newNode(t)
	issuer, other := n.create(t, CreateOptions{}), n.create(t, CreateOptions{Algorithm: vault.P256})
	for _, i := range []*Identity{issuer, other} {
		_, err := reader.Import(ctx, i.History(), nil)
		must(t, err)
	}
	trusted := []Identifier{issuer.Identifier()}
	raw, err := n.SignStatement(ctx, issuer.Identifier(), []byte("it rains"), time.Time{})
	must(t, err)
	got, err := reader.VerifyStatement(ctx, raw, trusted)
	must(t, err)
	if !bytes.Equal(got, []byte("it rains")) {
		t.Errorf("%q", got)
	}
	_, err = reader.VerifyStatement(ctx, raw, []Identifier{other.Identifier()})
	wantIs(t, "of somebody else", err, ErrUnknownAuthority)
	foreign, err := n.SignStatement(ctx, other.Identifier(), []byte("it rains"), time.Time{})
	must(t, err)
	_, err = reader.VerifyStatement(ctx, foreign, trusted)
	wantIs(t, "by somebody else", err, ErrUnknownAuthority)
	for i := range raw {
		bad := bytes.Clone(raw)
		bad[i] ^= 1
		if got, err := reader.VerifyStatement(ctx, bad, trusted); err == nil {
			t.Errorf("byte %d changed: %q", i, got)
		}
	}
	for i := range raw {
		if _, err := reader.VerifyStatement(ctx, raw[:i], trusted); err == nil {
			t.Errorf("cut to %d bytes", i)
		}
	}
	_, err = reader.VerifyStatement(ctx, make([]byte, maxStatement+1), trusted)
	wantIs(t, "too long", err, ErrEncoding)
	_, err = n.SignStatement(ctx, issuer.Identifier(), make([]byte, maxStatement), time.Time{})
	wantIs(t, "too long to be read", err, ErrEncoding)
	some, err := n.SignStatement(ctx, issuer.Identifier(), make([]byte, 5000), time.Time{})
	must(t, err)
	fits := 5000 + maxStatement - len(some)
	longest, err := n.SignStatement(ctx, issuer.Identifier(), make([]byte, fits), time.Time{})
	must(t, err)
	got, err = reader.VerifyStatement(ctx, longest, trusted)
	if must(t, err); len(got) != fits || len(longest) != maxStatement {
		t.Errorf("%d bytes in %d", len(got), len(longest))
	}
	_, err = n.SignStatement(ctx, issuer.Identifier(), make([]byte, fits+1), time.Time{})
	wantIs(t, "a byte too long", err, ErrEncoding)

	// A credential is no statement, and a statement no credential.
	member := n.create(t, CreateOptions{})
	id := member.Identifier()
	credential, err := n.IssueCredential(ctx, issuer.Identifier(), id, nil, time.Hour)
	must(t, err)
	_, err = reader.VerifyStatement(ctx, credential, trusted)
	wantIs(t, "a credential", err, ErrDataType)
	_, err = reader.VerifyCredential(ctx, raw, nil, trusted)
	wantIs(t, "a statement", err, ErrCredential)
	if _, err := n.VerifyStatement(ctx, mustPayloadKey(t, n, issuer), trusted); err == nil {
		t.Error("signed with the key for channels")
	}
}

// mustPayloadKey makes something of a statement's form whose attestation is for secure channels.
func mustPayloadKey(t *testing.T, n *node, i *Identity) []byte {
	t.Helper()
	key, err := n.SecureChannelKey(t.Context(), i.Identifier())
	must(t, err)
	raw, err := n.SignStatement(t.Context(), i.Identifier(), []byte("x"), time.Time{})
	must(t, err)
	parts, err := splitCredential(raw)
	must(t, err)
	return appendList(nil, [][]byte{appendSigned(parts.data, parts.signature), key.Attestation})
}
