package identity

import (
	"context"
	"errors"
	"testing"

	"sallyport/crypto/vault"
)

// An Overlay writes nothing of strangers to its base, keeps what the base knows up to date there, and never goes back behind
// what either of them knows.
func TestOverlay(t *testing.T) {
	ctx := t.Context()
	maker := newNode(t)
	one := maker.create(t, CreateOptions{})
	two, err := maker.Rotate(ctx, one.Identifier(), RotateOptions{})
	must(t, err)
	three, err := maker.Rotate(ctx, one.Identifier(), RotateOptions{})
	must(t, err)
	base := NewMemoryStore()
	o := NewOverlay(base, 10)
	changes := func(s Store, want int) {
		t.Helper()
		i, err := s.Identity(ctx, one.Identifier())
		if want == 0 {
			wantIs(t, "unknown", err, ErrNotFound)
		} else if err != nil || len(i.Changes()) != want {
			t.Errorf("%v, %v; want %d changes", i, err, want)
		}
	}
	changes(o, 0)
	must(t, o.PutIdentity(ctx, one))
	changes(o, 1)
	changes(base, 0)
	// Another process imports a newer one: the memory's is outdated.
	must(t, base.PutIdentity(ctx, two))
	changes(o, 2)
	wantIs(t, "older than the base's", o.PutIdentity(ctx, one), ErrConsistency)
	must(t, o.PutIdentity(ctx, two))
	must(t, o.PutIdentity(ctx, three))
	changes(base, 3)
	changes(o, 3)

	// A stranger's newer history is not forgotten when an older one appears in the base.
	base = NewMemoryStore()
	o = NewOverlay(base, 10)
	must(t, o.PutIdentity(ctx, two))
	must(t, base.PutIdentity(ctx, one))
	changes(o, 2)
	wantIs(t, "older than the memory's", o.PutIdentity(ctx, one), ErrConsistency)
}

// broken is a Store that cannot be read.
type broken struct{ Store }

var errBroken = errors.New("disk broken")

func (broken) Identity(context.Context, Identifier) (*Identity, error) { return nil, errBroken }

func TestOverlayBounds(t *testing.T) {
	ctx := t.Context()
	maker := newNode(t)
	o := NewOverlay(NewMemoryStore(), 8)
	for range 20 {
		i := maker.create(t, CreateOptions{})
		must(t, o.PutIdentity(ctx, i))
		if _, err := o.Identity(ctx, i.Identifier()); err != nil {
			t.Fatal("the newest was forgotten")
		}
	}
	if len(o.peers) != 8 || o.bytes != 8*len(maker.create(t, CreateOptions{}).History()) {
		t.Errorf("%d strangers with %d bytes", len(o.peers), o.bytes)
	}
	// A few with long histories take the room of many.
	long := maker.create(t, CreateOptions{})
	for range 15 {
		var err error
		long, err = maker.Rotate(ctx, long.Identifier(), RotateOptions{})
		must(t, err)
	}
	must(t, o.PutIdentity(ctx, long))
	if o.bytes > 8*strangerBytes || len(o.peers) >= 8 {
		t.Errorf("%d strangers with %d bytes", len(o.peers), o.bytes)
	}
	if _, err := o.Identity(ctx, long.Identifier()); err != nil {
		t.Error(err)
	}
	o = NewOverlay(broken{}, 8)
	_, err := o.Identity(ctx, long.Identifier())
	wantIs(t, "broken base", err, errBroken)
	wantIs(t, "broken base", o.PutIdentity(ctx, long), errBroken)
	m := New(Options{Vault: vault.NewMemory(), Store: o})
	_, err = m.Import(ctx, long.History(), nil)
	wantIs(t, "broken base", err, errBroken)
}

// TestStrangerThatRotates: a history that grows is counted once, however often it is renewed.
func TestStrangerThatRotates(t *testing.T) {
	ctx := t.Context()
	maker := newNode(t)
	o := NewOverlay(NewMemoryStore(), 8)
	stranger := maker.create(t, CreateOptions{})
	for range 10 {
		must(t, o.PutIdentity(ctx, stranger))
		if o.bytes != len(stranger.History()) || len(o.peers) != 1 {
			t.Fatalf("%d bytes counted for one of %d", o.bytes, len(stranger.History()))
		}
		var err error
		stranger, err = maker.Rotate(ctx, stranger.Identifier(), RotateOptions{})
		must(t, err)
	}
	o.forget(stranger.Identifier())
	o.forget(stranger.Identifier())
	if o.bytes != 0 || len(o.peers) != 0 {
		t.Errorf("%d bytes of %d strangers are left", o.bytes, len(o.peers))
	}
}
