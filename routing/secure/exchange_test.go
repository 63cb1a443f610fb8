package secure

import (
	"bytes"
	"context"
	"testing"
	"time"

	"sallyport/crypto/channel"
	"sallyport/crypto/identity"
	"sallyport/routing"
)

// TestExchange: both sides get the same keys under the same name, and nothing can be sent where they were agreed on.
func TestExchange(t *testing.T) {
	got := make(chan Exchanged, 1)
	a, b := newNode(t, 2, nil), newNode(t, 2, nil)
	o := b.options()
	o.Exchanged = func(e Exchanged) { got <- e }
	if _, err := b.channels.Listen(limited(t), "keys", o, false, b.ln.Flow, b.api.Flow); err != nil {
		t.Fatal(err)
	}
	tcp := a.connect(t, b)
	ch := a.dial(t, tcp.Sender, "api")
	for name, route := range map[string]routing.Route{
		"over TCP":         routing.RouteOf(tcp.Sender).Concat(routing.LocalRoute("keys")),
		"inside a channel": routing.RouteOf(ch.Encryptor).Concat(routing.LocalRoute("keys")),
	} {
		mine, err := a.channels.Exchange(limited(t), route, a.options())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		theirs := <-got
		if mine.Theirs != theirs.Own || theirs.Theirs != mine.Own || mine.Peer != b.self || theirs.Peer != a.self || mine.Self != a.self || theirs.Self != b.self {
			t.Errorf("%s: %+v and %+v", name, mine, theirs)
		}
		var s channel.Sealer
		var o channel.Opener
		s.InitKeyExchangeOnly(&mine.Keys.Send)
		o.InitKeyExchangeOnly(&theirs.Keys.Receive)
		for range 2 * 32 { // no rekeying
			sealed := make([]byte, 5+channel.Overhead)
			if err := s.Seal(sealed, []byte("value")); err != nil {
				t.Fatal(err)
			}
			for range 2 { // any number of times
				if plain, err := o.Open(bytes.Clone(sealed)); err != nil || string(plain) != "value" {
					t.Fatalf("%s: %q, %v", name, plain, err)
				}
			}
		}
		for _, s := range b.router.Shards() {
			if err := s.Do(limited(t), func() {
				if s.Worker(theirs.Own) != nil {
					t.Errorf("%s: a worker is left at the key's address", name)
				}
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(b.channels.List()) != 1 {
		t.Errorf("%d channels, there is one", len(b.channels.List()))
	}
}

// TestExchangeRefused: a side that does not trust the other gives no keys.
func TestExchangeRefused(t *testing.T) {
	got := make(chan Exchanged, 1)
	a, b := newNode(t, 1, nil), newNode(t, 1, nil)
	o := b.options()
	o.Exchanged = func(e Exchanged) { got <- e }
	o.Trust = func(identity.Identifier) error { return ErrRefused }
	if _, err := b.channels.Listen(limited(t), "keys", o, false, b.ln.Flow); err != nil {
		t.Fatal(err)
	}
	route := routing.RouteOf(a.connect(t, b).Sender).Concat(routing.LocalRoute("keys"))
	if _, err := a.channels.Exchange(limited(t), route, a.options()); err != nil {
		t.Errorf("the initiator cannot know: %v", err)
	}
	mine := a.options()
	mine.Trust = func(identity.Identifier) error { return ErrRefused }
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := a.channels.Exchange(ctx, route, mine); err == nil {
		t.Error("keys with an untrusted peer")
	}
	for end := time.Now().Add(90 * time.Second); b.channels.Stats.HandshakeFailed.Load() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the refusal was not counted")
		}
	}
	select {
	case e := <-got:
		t.Errorf("keys for %s", e.Peer)
	default:
	}
}
