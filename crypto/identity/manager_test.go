package identity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"sallyport/crypto/vault"
)

// TestRotation: peers that know the old history accept the new one, and what hung on the old key ends.
func TestRotation(t *testing.T) {
	for _, algorithm := range []vault.KeyAlgorithm{vault.Ed25519, vault.P256} {
		t.Run(algorithm.String(), func(t *testing.T) {
			ctx := t.Context()
			n, peer := newNode(t), newNode(t)
			one := n.create(t, CreateOptions{Algorithm: algorithm})
			self := one.Identifier()
			before, oldKey, err := n.Payload(ctx, self, nil)
			must(t, err)
			_, err = peer.VerifyPeer(ctx, before, oldKey.Public)
			must(t, err)

			n.now += 100
			two, err := n.Rotate(ctx, self, RotateOptions{})
			must(t, err)
			if two.Identifier() != self || len(two.Changes()) != 2 || two.Latest().Key.Algorithm != algorithm || two.Latest().ValidFrom != start+100 {
				t.Errorf("%+v", two.Latest())
			}
			_, err = n.vault.VerifyingKey(ctx, vault.HandleOf(one.Latest().Key.Bytes))
			wantIs(t, "old key", err, vault.ErrNotFound)
			_, err = n.VerifyAttestation(ctx, oldKey.Attestation, &self)
			wantIs(t, "old attestation", err, ErrAttestation)

			after, newKey, err := n.Payload(ctx, self, nil)
			must(t, err)
			if newKey.Handle == oldKey.Handle {
				t.Error("the purpose key was not made anew")
			}
			peer.now = n.now
			_, err = peer.VerifyPeer(ctx, after, newKey.Public)
			must(t, err)
			_, err = peer.VerifyPeer(ctx, before, oldKey.Public)
			wantIs(t, "outdated history", err, ErrConsistency)

			// A clock that was set back does not break the chain.
			n.now = start
			three, err := n.Rotate(ctx, self, RotateOptions{})
			must(t, err)
			if three.Latest().ValidFrom != start+100 {
				t.Errorf("valid from %d", three.Latest().ValidFrom)
			}
		})
	}
}

// An own history in another form of the encoding can be rotated, too.
func TestRotateIndefinite(t *testing.T) {
	ctx := t.Context()
	n := newNode(t)
	one := n.create(t, CreateOptions{})
	again := newNode(t)
	again.Manager.vault = n.vault
	raw := append(append([]byte{0x9f}, one.History()[1:]...), 0xff)
	_, err := again.Import(ctx, raw, nil)
	must(t, err)
	two, err := again.Rotate(ctx, one.Identifier(), RotateOptions{})
	must(t, err)
	if len(two.Changes()) != 2 || two.Identifier() != one.Identifier() {
		t.Errorf("%+v", two.Changes())
	}
}

// failing is a Store whose writes fail.
type failing struct {
	Store
	err error
}

func (f failing) PutIdentity(context.Context, *Identity) error { return f.err }

// counting counts keys made and deleted.
type counting struct {
	vault.Vault
	mu            sync.Mutex
	made, deleted int
}

func (c *counting) add(p *int) { c.mu.Lock(); *p++; c.mu.Unlock() }

func (c *counting) GenerateSigningKey(ctx context.Context, a vault.KeyAlgorithm) (vault.Handle, vault.VerifyingKey, error) {
	c.add(&c.made)
	return c.Vault.GenerateSigningKey(ctx, a)
}
func (c *counting) DeleteSigningKey(ctx context.Context, h vault.Handle) error {
	c.add(&c.deleted)
	return c.Vault.DeleteSigningKey(ctx, h)
}

// What fails leaves no key behind, unless the key may be in use.
func TestFailuresLeaveNoKeys(t *testing.T) {
	ctx := t.Context()
	n := newNode(t)
	me := n.create(t, CreateOptions{})
	broken := errors.New("disk full")
	for _, c := range []struct {
		name    string
		err     error
		run     func(m *Manager) error
		deleted int
	}{
		{"lost race of rotations", ErrConsistency, func(m *Manager) error { _, err := m.Rotate(ctx, me.Identifier(), RotateOptions{}); return err }, 1},
		{"history maybe stored", broken, func(m *Manager) error { _, err := m.Rotate(ctx, me.Identifier(), RotateOptions{}); return err }, 0},
	} {
		keys := &counting{Vault: n.vault}
		m := New(Options{Vault: keys, Store: failing{n.store, c.err}, Now: n.Manager.now})
		wantIs(t, c.name, c.run(m), c.err)
		if keys.made != 1 || keys.deleted != c.deleted {
			t.Errorf("%s: %d keys made, %d deleted", c.name, keys.made, keys.deleted)
		}
		if _, err := n.vault.VerifyingKey(ctx, vault.HandleOf(me.Latest().Key.Bytes)); err != nil {
			t.Fatalf("%s: the identity lost its key: %v", c.name, err)
		}
	}
}

func TestWithoutSecret(t *testing.T) {
	ctx := t.Context()
	n, peer := newNode(t), newNode(t)
	me := n.create(t, CreateOptions{})
	self := me.Identifier()
	key, err := n.SecureChannelKey(ctx, self)
	must(t, err)
	credentials, err := n.CredentialKey(ctx, self, vault.Ed25519)
	must(t, err)
	peer.knows(t, me)
	_, err = peer.SecureChannelKey(ctx, self)
	wantIs(t, "foreign identity", err, ErrWrongSecretKey)
	_, err = peer.Rotate(ctx, self, RotateOptions{})
	wantIs(t, "foreign identity", err, ErrWrongSecretKey)
	_, err = peer.SecureChannelKey(ctx, Identifier{})
	wantIs(t, "unknown identity", err, ErrNotFound)
	_, err = peer.Rotate(ctx, Identifier{}, RotateOptions{})
	wantIs(t, "unknown identity", err, ErrNotFound)

	must(t, n.Delete(ctx, self))
	_, err = n.keys.PublicX25519(ctx, key.Handle)
	wantIs(t, "deleted", err, vault.ErrNotFound)
	_, err = n.keys.VerifyingKey(ctx, credentials.Handle)
	wantIs(t, "deleted", err, vault.ErrNotFound)
	_, err = n.vault.VerifyingKey(ctx, vault.HandleOf(me.Latest().Key.Bytes))
	wantIs(t, "deleted", err, vault.ErrNotFound)
	_, err = n.SecureChannelKey(ctx, self)
	wantIs(t, "deleted", err, ErrWrongSecretKey)
	must(t, n.Delete(ctx, self))
	wantIs(t, "unknown", n.Delete(ctx, Identifier{}), ErrNotFound)
}

func TestLifetimes(t *testing.T) {
	ctx := t.Context()
	const day, year = 86400, 365 * 86400
	n := newNode(t)
	me := n.create(t, CreateOptions{})
	self := me.Identifier()
	if l := me.Latest(); l.ValidFrom != start || l.ValidUntil != start+10*year || l.RevokeAll {
		t.Errorf("%+v", l)
	}
	key := func() *PurposeKey {
		t.Helper()
		k, err := n.SecureChannelKey(ctx, self)
		must(t, err)
		if _, err := n.VerifyAttestation(ctx, k.Attestation, &self); err != nil {
			t.Fatal(err)
		}
		return k
	}
	first := key()
	if first.CreatedAt != start || first.ExpiresAt != start+day {
		t.Errorf("%d to %d", first.CreatedAt, first.ExpiresAt)
	}
	// It is replaced after half of its life and up to a tenth more, and says to be an hour older than it is.
	n.now = start + day/2 - 1
	must(t, n.RenewKeys(ctx))
	if key().Handle != first.Handle {
		t.Error("made anew too early")
	}
	n.now = start + day*6/10 + 1
	must(t, n.RenewKeys(ctx))
	second := key()
	if second.Handle == first.Handle || second.ExpiresAt != n.now+day || second.CreatedAt != n.now-3600 {
		t.Errorf("%+v", second)
	}
	// The old one is there for as long as a handshake lasts.
	held := n.current[purposeOf{self, SecureChannel}]
	for _, after := range []Timestamp{0, retirement - 1, retirement, retirement + 1} {
		n.now = held.made + after
		must(t, n.RenewKeys(ctx))
		if _, err := n.DH(ctx, first, second.Public); (err == nil) != (after < retirement) || len(n.retired) == 1 != (after < retirement) {
			t.Errorf("%d s after it was replaced: %v, %d are kept", after, err, len(n.retired))
		}
	}
	// It is due in its second, and not before it.
	n.now = held.renewAt - 1
	must(t, n.RenewKeys(ctx))
	if key().Handle != second.Handle {
		t.Error("made anew a second too early")
	}
	n.now++
	must(t, n.RenewKeys(ctx))
	if second = key(); second.Handle == held.Handle {
		t.Error("not made anew in the second when it is due")
	}
	// Who keeps nothing up to date gets a new one when the old one has ended.
	n.now = second.ExpiresAt
	if key().Handle != second.Handle {
		t.Error("the last second is included")
	}
	n.now++
	if key().Handle == second.Handle {
		t.Error("not made anew at its end")
	}
	// One that signs lasts for a life more than what it signs, whatever that is.
	other := n.create(t, CreateOptions{})
	for _, ttl := range []Timestamp{3600, 30 * day, 60} {
		raw, err := n.IssueCredential(ctx, self, other.Identifier(), nil, time.Duration(ttl)*time.Second)
		must(t, err)
		c, err := n.VerifyCredential(ctx, raw, nil, []Identifier{self})
		must(t, err)
		if c.ExpiresAt != n.now+ttl {
			t.Errorf("a credential of %d s ends after %d", ttl, c.ExpiresAt-n.now)
		}
	}
	// The primary key's end is everything's end.
	n.now = start + 10*year - 5
	third := key()
	if third.ExpiresAt != start+10*year {
		t.Errorf("expires at %d", third.ExpiresAt)
	}
	n.now = start + 10*year
	if key().Handle != third.Handle {
		t.Error("the last second is included")
	}
	n.now++
	_, err := n.SecureChannelKey(ctx, self)
	wantIs(t, "identity at its end", err, ErrExpired)
	_, err = n.Rotate(ctx, self, RotateOptions{})
	must(t, err)
	if key().ExpiresAt != n.now+day {
		t.Error("rotated identity")
	}

	// An identity of an hour works, too, and a clock far behind is told rather than making keys nobody accepts.
	short := n.create(t, CreateOptions{Lifetime: time.Hour})
	a, err := n.SecureChannelKey(ctx, short.Identifier())
	must(t, err)
	b, err := n.SecureChannelKey(ctx, short.Identifier())
	must(t, err)
	if a.Handle != b.Handle || a.ExpiresAt != n.now+3600 {
		t.Errorf("%s and %s until %d", a.Handle, b.Handle, a.ExpiresAt)
	}
	n.now -= 61
	_, err = n.CredentialKey(ctx, short.Identifier(), vault.Ed25519)
	wantIs(t, "clock behind", err, ErrAttestation)
	n.now++
	_, err = n.CredentialKey(ctx, short.Identifier(), vault.Ed25519)
	must(t, err)
	for _, l := range []time.Duration{-1, 999 * time.Millisecond} {
		if _, err := n.Create(ctx, CreateOptions{Lifetime: l}); err == nil {
			t.Errorf("lifetime %v", l)
		}
	}
}

// TestAttestation makes every kind of bad attestation with good signatures, and those at the edges of the clock.
func TestAttestation(t *testing.T) {
	ctx := t.Context()
	n := newNode(t)
	me, other := n.create(t, CreateOptions{Lifetime: 1000 * time.Second}), n.create(t, CreateOptions{})
	self := me.Identifier()
	good := Attestation{Subject: self, ChangeHash: me.Latest().Hash, CreatedAt: start, ExpiresAt: start + 1000}
	for _, c := range []struct {
		name   string
		change func(a *Attestation)
		now    Timestamp
		want   []error
	}{
		{"good", func(*Attestation) {}, 0, nil},
		{"last second", func(*Attestation) {}, 1000, nil},
		{"expired", func(*Attestation) {}, 1001, []error{ErrAttestation, ErrExpired}},
		{"other subject", func(a *Attestation) { a.Subject = other.Identifier() }, 0, []error{ErrAttestation}},
		{"other change", func(a *Attestation) { a.ChangeHash[0] ^= 1 }, 0, []error{ErrAttestation}},
		{"outlives the key", func(a *Attestation) { a.ExpiresAt++ }, 0, []error{ErrAttestation}},
		{"older than the key", func(a *Attestation) { a.CreatedAt-- }, 0, []error{ErrAttestation}},
		{"60 s ahead", func(a *Attestation) { a.CreatedAt += 60 }, 0, nil},
		{"61 s ahead", func(a *Attestation) { a.CreatedAt += 61 }, 0, []error{ErrAttestation}},
		{"far ahead", func(a *Attestation) { a.CreatedAt = 1<<64 - 1 }, 0, []error{ErrAttestation}},
	} {
		a := good
		c.change(&a)
		n.now = start + c.now
		_, err := n.VerifyAttestation(ctx, n.signWith(t, me.Latest().Key, a.data()), &self)
		if (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v", c.name, err)
		}
		wantIs(t, c.name, err, c.want...)
	}
	n.now = start
	data := good.data()
	raw := n.signWith(t, me.Latest().Key, data)
	a, err := n.VerifyAttestation(ctx, raw, nil)
	must(t, err)
	if a.Subject != self || a.CreatedAt != start || a.ExpiresAt != start+1000 || a.Purpose != SecureChannel {
		t.Errorf("%+v", a)
	}
	_, err = n.VerifyAttestation(ctx, n.signWith(t, other.Latest().Key, data), nil)
	wantIs(t, "signed by another", err, ErrAttestation, vault.ErrSignature)
	expected := other.Identifier()
	_, err = n.VerifyAttestation(ctx, raw, &expected)
	wantIs(t, "good, but not of whom it must be", err, ErrAttestation)
	_, err = newNode(t).VerifyAttestation(ctx, raw, nil)
	wantIs(t, "unknown subject", err, ErrAttestation, ErrNotFound)
	for at, want := range map[int]error{1: ErrVersion, 2: ErrDataType} {
		b := bytes.Clone(data)
		b[at] = 3
		_, err = n.VerifyAttestation(ctx, n.signWith(t, me.Latest().Key, b), nil)
		wantIs(t, "changed head", err, ErrAttestation, want)
	}
	// The purpose is a definite array of two, although well signed in another form.
	public := good.X25519[:]
	wrap := func(head, tail string) []byte {
		content := appendBytes(appendBytes(appendArray(nil, 5), self[:]), good.ChangeHash[:])
		content = append(append(content, head...), appendBytes(nil, public)...)
		content = appendUint(appendUint(append(content, tail...), uint64(start)), uint64(start+1000))
		return n.signWith(t, me.Latest().Key, appendVersioned(nil, typeAttestation, content))
	}
	_, err = n.VerifyAttestation(ctx, wrap("\x82\x00\x9f", "\xff"), nil)
	must(t, err)
	for _, form := range [][2]string{{"\x9f\x00\x81", "\xff"}, {"\x83\x00\x81", "\x00"}, {"\x82\x02\x81", ""}, {"\x82\x00", ""}} {
		_, err = n.VerifyAttestation(ctx, wrap(form[0], form[1]), nil)
		wantIs(t, fmt.Sprintf("purpose begins %x", form[0]), err, ErrAttestation, ErrEncoding)
	}
	for k := range raw {
		_, err := n.VerifyAttestation(ctx, raw[:k], nil)
		wantIs(t, fmt.Sprintf("first %d bytes", k), err, ErrAttestation, ErrEncoding)
		b := bytes.Clone(raw)
		b[k] ^= 0x80
		_, err = n.VerifyAttestation(ctx, b, nil)
		wantIs(t, fmt.Sprintf("byte %d changed", k), err, ErrAttestation)
	}
	_, err = n.VerifyAttestation(ctx, append(bytes.Clone(raw), 1, 2), nil)
	must(t, err)
	_, err = n.VerifyAttestation(ctx, append(raw, make([]byte, maxAttestation)...), nil)
	wantIs(t, "too long", err, ErrAttestation)
}

// TestPeer: two sides verify each other, and refuse what is not from the other one.
func TestPeer(t *testing.T) {
	ctx := t.Context()
	n, peer := newNode(t), newNode(t)
	me := n.create(t, CreateOptions{})
	payload, key, err := n.Payload(ctx, me.Identifier(), [][]byte{{0x01}, {0x41, 0x05}})
	must(t, err)
	got, err := peer.VerifyPeer(ctx, payload, key.Public)
	must(t, err)
	if got.Identity.Identifier() != me.Identifier() || len(got.Credentials) != 2 || !bytes.Equal(got.Credentials[1], []byte{0x41, 0x05}) {
		t.Errorf("%+v", got)
	}
	known, err := peer.Identity(ctx, me.Identifier())
	if err != nil || !bytes.Equal(known.History(), me.History()) {
		t.Errorf("the history was not stored: %v", err)
	}
	clear(payload) // VerifyPeer kept nothing of it
	if !bytes.Equal(known.History(), me.History()) || got.Credentials[0][0] != 1 {
		t.Error("VerifyPeer kept the payload")
	}

	refused := func(name string, history, attestation []byte, static [32]byte, want ...error) {
		t.Helper()
		_, err := peer.VerifyPeer(ctx, EncodePayload(Payload{History: history, Attestation: attestation}), static)
		wantIs(t, name, err, want...)
	}
	bad := key.Public
	bad[0] ^= 1
	refused("another static key", me.History(), key.Attestation, bad, ErrKeyData)
	credentialKey, err := n.CredentialKey(ctx, me.Identifier(), vault.Ed25519)
	must(t, err)
	refused("key of another purpose", me.History(), credentialKey.Attestation, [32]byte{}, ErrKeyType)
	other := n.create(t, CreateOptions{})
	refused("attestation of another", other.History(), key.Attestation, key.Public, ErrAttestation)
	claimed := Attestation{Subject: other.Identifier(), ChangeHash: me.Latest().Hash, X25519: key.Public, CreatedAt: start, ExpiresAt: start + 10}
	refused("attestation for another", me.History(), n.signWith(t, me.Latest().Key, claimed.data()), key.Public, ErrAttestation)
	refused("no history", []byte{0x80}, key.Attestation, key.Public, ErrVerification)
	refused("no attestation", me.History(), []byte{0xf6}, key.Public, ErrAttestation)
	_, err = peer.VerifyPeer(ctx, nil, key.Public)
	wantIs(t, "nothing", err, ErrEncoding)
	peer.now = key.ExpiresAt + 1
	refused("expired", me.History(), key.Attestation, key.Public, ErrAttestation, ErrExpired)
}

// Of many that need a purpose key at the same time, all get the same one.
func TestConcurrentKeys(t *testing.T) {
	n := newNode(t)
	me := n.create(t, CreateOptions{})
	keys := &signing{Vault: n.vault}
	m := New(Options{Vault: keys, Store: n.store, Now: n.Manager.now})
	handles := make([]vault.Handle, 16)
	var wg sync.WaitGroup
	for k := range handles {
		wg.Go(func() {
			key, err := m.SecureChannelKey(context.Background(), me.Identifier())
			if err != nil {
				t.Error(err)
				return
			}
			handles[k] = key.Handle
		})
	}
	wg.Wait()
	for _, h := range handles {
		if h != handles[0] {
			t.Fatal("different keys")
		}
	}
	if keys.count != 1 {
		t.Errorf("the primary key signed %d times", keys.count)
	}
	// Whoever gives up waiting does not make one.
	m.making <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := m.CredentialKey(ctx, me.Identifier(), vault.Ed25519)
	wantIs(t, "cancelled", err, context.Canceled)
	<-m.making
}

// signing counts signatures, and is away while err is set.
type signing struct {
	vault.Vault
	mu    sync.Mutex
	count int
	err   error
}

func (s *signing) Sign(ctx context.Context, h vault.Handle, data []byte) (vault.Signature, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return vault.Signature{}, s.err
	}
	s.count++
	return s.Vault.Sign(ctx, h, data)
}

// TestPrimaryKeyAway: everything goes on with one signature until the purpose key ends, and it is told for how long.
func TestPrimaryKeyAway(t *testing.T) {
	ctx := t.Context()
	n := newNode(t)
	home := &signing{Vault: n.vault}
	m := New(Options{Vault: home, Store: n.store, Now: n.Manager.now, PurposeLife: 10 * time.Hour})
	i, err := m.Create(ctx, CreateOptions{})
	must(t, err)
	self := i.Identifier()
	home.count = 0
	must(t, m.CheckKeys(ctx, self))
	first, err := m.SecureChannelKey(ctx, self)
	must(t, err)
	for range 100 {
		_, _, err := m.Payload(ctx, self, nil)
		must(t, err)
		_, err = m.DH(ctx, first, publicKey(t))
		must(t, err)
	}
	if home.count != 1 {
		t.Errorf("the primary key signed %d times", home.count)
	}
	home.err = errors.New("unplugged")
	n.now = start + 10*3600
	wantIs(t, "renewal", m.RenewKeys(ctx), home.err)
	if k, err := m.SecureChannelKey(ctx, self); err != nil || k.Handle != first.Handle {
		t.Errorf("not used until its end: %v", err)
	}
	s, ok := m.KeyState(self)
	if !ok || !errors.Is(s.Err, home.err) || s.ValidUntil.Unix() != int64(start+10*3600) || s.Since.Unix() != int64(n.now) {
		t.Errorf("%+v", s)
	}
	n.now++
	_, err = m.SecureChannelKey(ctx, self)
	wantIs(t, "after its end", err, home.err)
	home.err = nil
	must(t, m.RenewKeys(ctx))
	if s, _ := m.KeyState(self); s.Err != nil || s.ValidUntil.Unix() != int64(n.now+10*3600) {
		t.Errorf("%+v", s)
	}
	// What signs wrongly is found out before a peer does.
	bad := New(Options{Vault: wrong{n.vault}, Store: n.store, Now: n.Manager.now})
	_, err = bad.SecureChannelKey(ctx, self)
	wantIs(t, "a wrong signature", err, vault.ErrSignature)
}

type wrong struct{ vault.Vault }

func (w wrong) Sign(ctx context.Context, h vault.Handle, data []byte) (vault.Signature, error) {
	return w.Vault.Sign(ctx, h, append([]byte("x"), data...))
}

func publicKey(t *testing.T) [32]byte {
	t.Helper()
	_, public, err := vault.NewMemory().GenerateX25519(t.Context())
	must(t, err)
	return public
}
