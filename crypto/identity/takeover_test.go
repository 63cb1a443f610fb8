package identity

import (
	"crypto/sha256"
	"testing"

	"sallyport/crypto/vault"
)

// TestRotationNeedsBothKeys: a change is the old key's and the new key's word. With one of them alone, or somebody else's, it would be a takeover.
func TestRotationNeedsBothKeys(t *testing.T) {
	ctx := t.Context()
	for _, algorithm := range []vault.KeyAlgorithm{vault.Ed25519, vault.P256} {
		n := newNode(t)
		one := n.create(t, CreateOptions{Algorithm: algorithm})
		old := vault.HandleOf(one.Latest().Key.Bytes)
		fresh, key, err := n.vault.GenerateSigningKey(ctx, algorithm)
		must(t, err)
		stranger, _, err := n.vault.GenerateSigningKey(ctx, algorithm)
		must(t, err)
		c := &Change{Key: key, ValidFrom: one.Latest().ValidFrom, ValidUntil: one.Latest().ValidUntil}
		data := encodeChange(&one.Latest().Hash, c)
		digest := sha256.Sum256(data)
		sign := func(h vault.Handle) vault.Signature {
			s, err := n.vault.Sign(ctx, h, digest[:])
			must(t, err)
			return s
		}
		for _, c := range []struct {
			name            string
			by, previous    vault.Handle
			good, noPrevous bool
		}{
			{name: "both", by: fresh, previous: old, good: true},
			{name: "the new key for both", by: fresh, previous: fresh},
			{name: "the old key for both", by: old, previous: old},
			{name: "a stranger for the old", by: fresh, previous: stranger},
			{name: "a stranger for the new", by: stranger, previous: old},
			{name: "exchanged", by: old, previous: fresh},
			{name: "no old one", by: fresh, noPrevous: true},
		} {
			var previous *vault.Signature
			if !c.noPrevous {
				s := sign(c.previous)
				previous = &s
			}
			got, err := Import(appendChange(one, data, sign(c.by), previous), nil)
			if c.good {
				must(t, err)
				if got.Identifier() != one.Identifier() || len(got.Changes()) != 2 {
					t.Errorf("%s: %+v", c.name, got)
				}
				continue
			}
			wantIs(t, algorithm.String()+" "+c.name, err, ErrVerification)
		}
	}
}

// TestReplacedKeysAreWiped: a purpose key that was made anew is kept for handshakes under way, for a minute.
func TestReplacedKeysAreWiped(t *testing.T) {
	ctx := t.Context()
	n := newNode(t)
	id := n.create(t, CreateOptions{}).Identifier()
	channel, err := n.SecureChannelKey(ctx, id)
	must(t, err)
	signing, err := n.CredentialKey(ctx, id, vault.Ed25519)
	must(t, err)
	_, err = n.Rotate(ctx, id, RotateOptions{})
	must(t, err)
	newChannel, err := n.SecureChannelKey(ctx, id)
	must(t, err)
	newSigning, err := n.CredentialKey(ctx, id, vault.P256)
	must(t, err)
	n.now += retirement - 1
	must(t, n.RenewKeys(ctx))
	_, err = n.keys.PublicX25519(ctx, channel.Handle)
	must(t, err)
	n.now++
	must(t, n.RenewKeys(ctx))
	_, err = n.keys.PublicX25519(ctx, channel.Handle)
	wantIs(t, "the replaced key for channels", err, vault.ErrNotFound)
	_, err = n.keys.VerifyingKey(ctx, signing.Handle)
	wantIs(t, "the replaced key for credentials", err, vault.ErrNotFound)
	_, err = n.keys.PublicX25519(ctx, newChannel.Handle)
	must(t, err)
	_, err = n.keys.VerifyingKey(ctx, newSigning.Handle)
	must(t, err)
}
