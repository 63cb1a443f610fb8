package identity

import (
	"context"
	"encoding/binary"
	"testing"
	"time"

	"sallyport/crypto/vault"
)

func (p *Proofs) remembered() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.young) + len(p.old)
}

// TestProofs: a good signature is remembered, with exactly that key and that data; a bad one never is.
func TestProofs(t *testing.T) {
	n := newNode(t)
	for _, algorithm := range []vault.KeyAlgorithm{vault.Ed25519, vault.P256} {
		p := &Proofs{}
		handle, key, err := n.vault.GenerateSigningKey(t.Context(), algorithm)
		must(t, err)
		data := []byte("what was signed")
		sig, err := n.vault.Sign(t.Context(), handle, data)
		must(t, err)
		for range 2 {
			must(t, p.verify(key, data, sig))
			if k := p.remembered(); k != 1 {
				t.Fatalf("%s: %d are remembered", algorithm, k)
			}
		}
		must(t, (*Proofs)(nil).verify(key, data, sig))
		wrong := sig
		wrong.Bytes[0] ^= 1
		marked := &Proofs{}
		marked.add(proofOf(key, data, wrong))
		if err := marked.verify(key, data, wrong); err != nil {
			t.Errorf("%s: what is remembered is computed again: %v", algorithm, err)
		}
		for name, change := range map[string]func(k *vault.VerifyingKey, data []byte, sig *vault.Signature){
			"another signature":                  func(_ *vault.VerifyingKey, _ []byte, sig *vault.Signature) { sig.Bytes[63] ^= 1 },
			"other data":                         func(_ *vault.VerifyingKey, data []byte, _ *vault.Signature) { data[0] ^= 1 },
			"another key":                        func(k *vault.VerifyingKey, _ []byte, _ *vault.Signature) { k.Bytes[5] ^= 1 },
			"another algorithm of the key":       func(k *vault.VerifyingKey, _ []byte, _ *vault.Signature) { k.Algorithm ^= 1 },
			"another algorithm of the signature": func(_ *vault.VerifyingKey, _ []byte, sig *vault.Signature) { sig.Algorithm ^= 1 },
			"another algorithm of both":          func(k *vault.VerifyingKey, _ []byte, sig *vault.Signature) { k.Algorithm ^= 1; sig.Algorithm ^= 1 },
		} {
			k, d, s := vault.VerifyingKey{Algorithm: key.Algorithm, Bytes: append([]byte(nil), key.Bytes...)}, append([]byte(nil), data...), sig
			change(&k, d, &s)
			for range 2 {
				if p.verify(k, d, s) == nil || p.remembered() != 1 {
					t.Errorf("%s: %s is good, or remembered", algorithm, name)
				}
			}
		}
	}
}

// TestProofsAreBounded: what is used stays, what is not is forgotten, and there is a bound.
func TestProofsAreBounded(t *testing.T) {
	p := &Proofs{}
	number := func(i int) (proof [32]byte) {
		binary.BigEndian.PutUint64(proof[:], uint64(i))
		return proof
	}
	for i := range 5 * proofsKept {
		p.add(number(i))
		if !p.has(number(0)) || !p.has(number(max(i-proofsKept/4, 0))) {
			t.Fatalf("of %d one is forgotten that is in use, or young", i+1)
		}
		if k := p.remembered(); k > 2*proofsKept {
			t.Fatalf("%d are remembered", k)
		}
	}
	if p.has(number(1)) {
		t.Error("one is remembered that nobody has used for long")
	}
}

// TestProofsAreNotTrust: a peer whose signatures are remembered is refused all the same when what it shows has ended, or was replaced.
func TestProofsAreNotTrust(t *testing.T) {
	ctx := context.Background()
	member, issuer, other := newNode(t), newNode(t), newNode(t)
	who, authority := member.create(t, CreateOptions{}), issuer.create(t, CreateOptions{})
	issuer.knows(t, who)
	other.knows(t, authority)
	credential, err := issuer.IssueCredential(ctx, authority.id, who.id, Attributes{"a": "b"}, time.Hour)
	must(t, err)
	payload, key, err := member.Payload(ctx, who.id, nil)
	must(t, err)
	issuers := []Identifier{authority.id}
	look := func() (peer, credentialErr error) {
		_, peer = other.VerifyPeer(ctx, payload, key.Public)
		_, credentialErr = other.VerifyCredential(ctx, credential, &who.id, issuers)
		return peer, credentialErr
	}
	for range 2 {
		peer, err := look()
		must(t, peer)
		must(t, err)
	}
	before := other.proofs.remembered()
	peer, err := look()
	must(t, peer)
	must(t, err)
	if k := other.proofs.remembered(); k != before {
		t.Errorf("%d signatures are remembered, then %d: those of one who comes back are verified anew", before, k)
	}
	other.now += 2 * 3600
	if peer, err = look(); peer != nil {
		t.Errorf("the peer: %v", peer)
	}
	wantIs(t, "a credential that has ended", err, ErrCredential, ErrExpired)
	other.now = start
	member.now++ // the identity gets another key, and the peer hears of it
	rotated, err := member.Rotate(ctx, who.id, RotateOptions{})
	must(t, err)
	other.knows(t, rotated)
	peer, err = look()
	wantIs(t, "the history of before", peer, ErrConsistency)
	must(t, err)
	other.now += Timestamp(10 * AttestationTTL / time.Second)
	_, err = look()
	wantIs(t, "an authority's key that has ended", err, ErrAttestation, ErrExpired)
}

// BenchmarkVerifyPeer is what one side of a handshake computes about who the other one is: a stranger, and one that comes back.
func BenchmarkVerifyPeer(b *testing.B) {
	ctx := context.Background()
	member, issuer, other := newNode(b), newNode(b), newNode(b)
	who, authority := member.create(b, CreateOptions{}), issuer.create(b, CreateOptions{})
	issuer.knows(b, who)
	other.knows(b, authority)
	credential, err := issuer.IssueCredential(ctx, authority.id, who.id, Attributes{"a": "b"}, time.Hour)
	must(b, err)
	payload, key, err := member.Payload(ctx, who.id, [][]byte{credential})
	must(b, err)
	for _, name := range []string{"stranger", "again"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if name == "stranger" {
					other.proofs = Proofs{}
				}
				_, err := other.VerifyPeer(ctx, payload, key.Public)
				must(b, err)
				_, err = other.VerifyCredential(ctx, credential, &who.id, []Identifier{authority.id})
				must(b, err)
			}
		})
	}
}
