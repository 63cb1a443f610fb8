package identity

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"sallyport/crypto/vault"
)

// fakeKeeper is a keeper whose answers a test chooses.
type fakeKeeper struct {
	real  Keeper
	err   error                     // in place of an answer
	most  time.Duration             // the longest lifetime given; 0 is any
	alter func(*AttestationRequest) // before it is answered
	asked int
}

func (k *fakeKeeper) Attest(ctx context.Context, r AttestationRequest) ([]byte, []byte, error) {
	k.asked++
	if k.err != nil {
		return nil, nil, k.err
	}
	if k.most > 0 {
		r.Lifetime = min(r.Lifetime, k.most)
	}
	if k.alter != nil {
		k.alter(&r)
	}
	return k.real.Attest(ctx, r)
}

// fleet is a keeper, a delegate that acts as the keeper's identity, and a peer. All three have one clock.
type fleet struct {
	keeper, delegate, peer *node
	answers                *fakeKeeper
	id                     Identifier
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{keeper: newNode(t), peer: newNode(t), delegate: &node{vault: vault.NewMemory(), store: NewMemoryStore(), now: start}}
	i := f.keeper.create(t, CreateOptions{})
	f.id, f.answers = i.Identifier(), &fakeKeeper{real: f.keeper}
	f.delegate.Manager = New(Options{Store: f.delegate.store, Keeper: f.answers, Now: func() time.Time { return time.Unix(int64(f.delegate.now), 0) }})
	f.delegate.knows(t, i)
	return f
}

func (f *fleet) at(now Timestamp) { f.keeper.now, f.delegate.now, f.peer.now = now, now, now }

// meets has the peer verify what the delegate shows in a handshake, as the reference does (docs/protocol/02 §3.3).
func (f *fleet) meets(t *testing.T) error {
	t.Helper()
	payload, key, err := f.delegate.Payload(t.Context(), f.id, nil)
	if err != nil {
		return err
	}
	p, err := f.peer.VerifyPeer(t.Context(), payload, key.Public)
	if err == nil && p.Identity.Identifier() != f.id {
		t.Fatalf("the peer met %s", p.Identity.Identifier())
	}
	return err
}

// TestDelegate: a node without the primary key acts as the identity while the keeper attests its keys; it goes on until they end while the keeper is
// away, and ends at once when the keeper says that it is no delegate any more.
func TestDelegate(t *testing.T) {
	ctx := t.Context()
	day, half := Timestamp(AttestationTTL/time.Second), Timestamp(AttestationTTL/2/time.Second)
	away := fmt.Errorf("no route: %w", ErrKeeperAway)

	t.Run("renewed at half life", func(t *testing.T) {
		f := newFleet(t)
		must(t, f.meets(t))
		first, err := f.delegate.SecureChannelKey(ctx, f.id)
		must(t, err)
		if first.ExpiresAt != start+day {
			t.Errorf("attested until %d, %d seconds from now", first.ExpiresAt, first.ExpiresAt-start)
		}
		f.at(start + half - 1)
		must(t, f.delegate.RenewKeys(ctx))
		if k, _ := f.delegate.SecureChannelKey(ctx, f.id); k != first {
			t.Error("replaced before half of its life")
		}
		f.at(start + half + half/5 + 1) // a fifth later at the latest
		must(t, f.delegate.RenewKeys(ctx))
		second, err := f.delegate.SecureChannelKey(ctx, f.id)
		must(t, err)
		if second == first || second.ExpiresAt != f.delegate.now+day {
			t.Errorf("not replaced after half of its life: until %d", second.ExpiresAt)
		}
		must(t, f.meets(t))
		if f.answers.asked != 2 {
			t.Errorf("the keeper was asked %d times, not 2", f.answers.asked)
		}
	})

	t.Run("keeper away", func(t *testing.T) {
		f := newFleet(t)
		must(t, f.meets(t))
		f.answers.err = away
		f.at(start + half + half/5 + 1)
		wantIs(t, "renewal", f.delegate.RenewKeys(ctx), ErrKeeperAway)
		if s, ok := f.delegate.KeyState(f.id); !ok || !errors.Is(s.Err, ErrKeeperAway) {
			t.Errorf("state %+v", s)
		}
		must(t, f.meets(t))
		f.at(start + day) // the last second
		must(t, f.meets(t))
		f.at(start + day + 1)
		wantIs(t, "a handshake with an attestation that has ended", f.meets(t), ErrKeeperAway)
		// The peer refuses what the delegate had, whatever the delegate does.
		f.at(start + day)
		f.delegate.Reread(f.id)
		payload, key, err := f.delegate.Payload(ctx, f.id, nil)
		must(t, err)
		f.at(start + day + 1)
		_, err = f.peer.VerifyPeer(ctx, payload, key.Public)
		wantIs(t, "the peer", err, ErrAttestation, ErrExpired)
		// The keeper comes back.
		f.answers.err = nil
		f.at(start + day + 1 + Timestamp(keeperPause/time.Second))
		must(t, f.meets(t))
	})

	t.Run("checked", func(t *testing.T) {
		f := newFleet(t)
		must(t, f.delegate.CheckKeys(ctx, f.id))
		if _, ok := f.delegate.KeyState(f.id); !ok || f.answers.asked != 1 {
			t.Errorf("the keeper was asked %d times", f.answers.asked)
		}
		g := newFleet(t)
		g.answers.err = away
		wantIs(t, "no key", g.delegate.CheckKeys(ctx, g.id), ErrKeeperAway)
	})

	t.Run("not asked by each handshake", func(t *testing.T) {
		f := newFleet(t)
		f.answers.err = away
		for range 100 {
			wantIs(t, "a handshake", f.meets(t), ErrKeeperAway)
		}
		if f.answers.asked != 1 {
			t.Errorf("the keeper was asked %d times at once", f.answers.asked)
		}
	})

	t.Run("ready", func(t *testing.T) {
		f := newFleet(t)
		f.answers.err = away
		if f.delegate.Ready(f.id) || !f.keeper.Ready(f.id) {
			t.Error("a delegate is ready without a key, or the keeper is not")
		}
		wantIs(t, "no key", f.meets(t), ErrKeeperAway)
		for i, pause := range []Timestamp{1, 1, 1, 2, 4, 5, 5} { // it is asked after a quarter of a second, then twice as late each time
			for asked, more := range []Timestamp{pause - 1, 1} {
				f.at(f.delegate.now + more)
				if wantIs(t, "away", f.meets(t), ErrKeeperAway); f.answers.asked != i+1+asked {
					t.Fatalf("the keeper was asked %d times, pause %d", f.answers.asked, i)
				}
			}
		}
		f.answers.err = nil
		f.at(f.delegate.now + 5)
		must(t, f.meets(t))
		if !f.delegate.Ready(f.id) {
			t.Error("a delegate with a key is not ready")
		}
		f.at(f.delegate.now + day + 1)
		if f.delegate.Ready(f.id) {
			t.Error("ready with a key that has ended")
		}
	})

	t.Run("removed", func(t *testing.T) {
		f := newFleet(t)
		must(t, f.meets(t))
		k, err := f.delegate.SecureChannelKey(ctx, f.id)
		must(t, err)
		f.answers.err = fmt.Errorf("gone: %w", ErrNotDelegate)
		f.at(start + half + half/5 + 1)
		wantIs(t, "renewal", f.delegate.RenewKeys(ctx), ErrNotDelegate)
		wantIs(t, "a handshake after that", f.meets(t), ErrNotDelegate)
		if _, err := f.delegate.DH(ctx, k, k.Public); err == nil {
			t.Error("the key is still there")
		}
	})

	t.Run("rotated", func(t *testing.T) {
		f := newFleet(t)
		must(t, f.meets(t))
		rotated, err := f.keeper.Rotate(ctx, f.id, RotateOptions{})
		must(t, err)
		f.peer.knows(t, rotated)
		f.at(start + 2)
		wantIs(t, "the peer knows the new key", f.meets(t), ErrConsistency)
		f.delegate.knows(t, rotated) // as the keeper tells its delegates
		f.delegate.Reread(f.id)
		must(t, f.meets(t))
		// A delegate that has not heard of it hears of it when its key is renewed.
		_, err = f.keeper.Rotate(ctx, f.id, RotateOptions{})
		must(t, err)
		f.at(start + day)
		must(t, f.delegate.RenewKeys(ctx))
		must(t, f.meets(t))
	})
}

// TestDelegateCredentials: a delegate signs credentials too, and those end with its key if the keeper gives less than was asked for.
func TestDelegateCredentials(t *testing.T) {
	ctx := t.Context()
	f := newFleet(t)
	f.answers.most = AttestationTTL
	member := f.peer.create(t, CreateOptions{})
	f.delegate.knows(t, member)
	i, err := f.keeper.Identity(ctx, f.id)
	must(t, err)
	f.peer.knows(t, i)
	issue := func(ttl time.Duration) *Credential {
		t.Helper()
		raw, err := f.delegate.IssueCredential(ctx, f.id, member.Identifier(), Attributes{"a": "b"}, ttl)
		must(t, err)
		c, err := f.peer.VerifyCredential(ctx, raw, nil, []Identifier{f.id})
		must(t, err)
		return c
	}
	for range 10 {
		if c := issue(time.Hour); c.ExpiresAt != start+3600 {
			t.Errorf("a credential of an hour lasts %d s", c.ExpiresAt-start)
		}
	}
	if f.answers.asked != 1 {
		t.Errorf("ten credentials: the keeper was asked %d times", f.answers.asked)
	}
	for range 10 { // as for a member of the reference
		if c := issue(30 * 24 * time.Hour); c.ExpiresAt != start+Timestamp(AttestationTTL/time.Second) {
			t.Errorf("a credential of 30 days lasts %d s", c.ExpiresAt-start)
		}
	}
	if f.answers.asked != 2 {
		t.Errorf("twenty credentials: the keeper was asked %d times", f.answers.asked)
	}
	// With the keeper away what there is has to do, even for one that lasts longer than any before.
	f.answers.err = ErrKeeperAway
	issue(60 * 24 * time.Hour)
	if _, err := f.delegate.CredentialKey(ctx, f.id, vault.P256); !errors.Is(err, ErrKeeperAway) {
		t.Errorf("a key of another algorithm: %v", err)
	}
}

// TestKeeperIsNotBelieved: what a keeper answers is verified as peers verify it.
func TestKeeperIsNotBelieved(t *testing.T) {
	ctx := t.Context()
	for name, c := range map[string]struct {
		alter func(f *fleet, r *AttestationRequest)
		want  error
	}{
		"another key": {func(_ *fleet, r *AttestationRequest) { r.X25519[0] ^= 1 }, ErrKeyData},
		"another purpose": {func(_ *fleet, r *AttestationRequest) {
			r.Purpose = CredentialSigning
			r.Key = vault.VerifyingKey{Bytes: make([]byte, 32)}
		}, ErrKeyType},
		"another subject": {func(f *fleet, r *AttestationRequest) { r.Subject = mustCreate(f.keeper).Identifier() }, ErrVerification},
		"expired":         {func(f *fleet, r *AttestationRequest) { r.Lifetime = time.Second; f.delegate.now += 100 }, ErrExpired},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t)
			f.answers.alter = func(r *AttestationRequest) { c.alter(f, r) }
			_, err := f.delegate.SecureChannelKey(ctx, f.id)
			wantIs(t, "the keeper's answer", err, c.want)
		})
	}
	f := newFleet(t) // an impostor, who has another primary key
	other := newNode(t)
	i, err := f.keeper.Identity(ctx, f.id)
	must(t, err)
	other.knows(t, i)
	f.answers.real = other
	if _, err := f.delegate.SecureChannelKey(ctx, f.id); !errors.Is(err, ErrWrongSecretKey) {
		t.Errorf("a keeper without the key: %v", err)
	}
}

func mustCreate(n *node) *Identity {
	i, err := n.Create(context.Background(), CreateOptions{})
	if err != nil {
		panic(err)
	}
	return i
}

// TestDelegateHasNoPrimaryKey: a delegate makes and rotates nothing.
func TestDelegateHasNoPrimaryKey(t *testing.T) {
	ctx := t.Context()
	f := newFleet(t)
	must(t, f.delegate.CheckKeys(ctx, f.id))
	_, err := f.delegate.Create(ctx, CreateOptions{})
	wantIs(t, "Create", err, ErrWrongSecretKey)
	_, err = f.delegate.Rotate(ctx, f.id, RotateOptions{})
	wantIs(t, "Rotate", err, ErrWrongSecretKey)
	_, _, err = f.delegate.Attest(ctx, AttestationRequest{Subject: f.id, Lifetime: time.Hour})
	wantIs(t, "Attest", err, ErrWrongSecretKey)
	must(t, f.delegate.Delete(ctx, f.id))
	f.answers.err = ErrKeeperAway
	_, err = f.delegate.SecureChannelKey(ctx, f.id)
	wantIs(t, "after Delete", err, ErrKeeperAway)
}
