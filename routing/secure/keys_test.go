package secure

import (
	"testing"

	"sallyport/crypto/channel"
	"sallyport/routing"
)

// TestKeysAreOfTheHandshake: what a channel seals opens with the other end's keys, and not with keys that anybody could know: none at all, its own, or those of
// another channel between the same two.
func TestKeysAreOfTheHandshake(t *testing.T) {
	a, b := newNode(t, 1, nil), newNode(t, 1, nil)
	first := a.connect(t, b).Sender
	c, other := a.dial(t, first, "api"), a.dial(t, first, "api")
	a.through(t, c, []byte("x"))
	a.through(t, other, []byte("x"))
	var sealed []byte
	on(t, c.shard, func() {
		plain := []byte("secret")
		sealed = make([]byte, len(plain)+channel.Overhead)
		if err := c.sealer.Seal(sealed, plain); err != nil {
			t.Error(err)
		}
	})
	copyOf := func() []byte { return append([]byte(nil), sealed...) }
	var none channel.Opener
	none.Init(&[32]byte{})
	if plain, err := none.Open(copyOf()); err == nil {
		t.Errorf("opened with no key at all: %q", plain)
	}
	on(t, c.shard, func() {
		if plain, err := c.opener.Open(copyOf()); err == nil {
			t.Errorf("opened by who sealed it: %q", plain)
		}
		if plain, err := other.opener.Open(copyOf()); err == nil {
			t.Errorf("opened by another channel: %q", plain)
		}
	})
	for _, d := range b.channels.List() {
		mine := d.Encryptor.Text() == c.remote.Last().Value || d.Decryptor.Text() == c.remote.Last().Value
		on(t, d.shard, func() {
			if plain, err := d.opener.Open(copyOf()); (err == nil) != mine {
				t.Errorf("at the other end, its channel %v: %q, %v", mine, plain, err)
			}
		})
	}
	for n, want := range map[int]int{0: keptOverhead + 10, 1: keptOverhead + 10 + 36, 3: keptOverhead + 10 + 108} {
		if got := keptSize(routing.Reply{Payload: make([]byte, 10), Return: routing.LocalRoute(make([]string, n)...)}); got != want {
			t.Errorf("a message with %d addresses counts %d, want %d", n, got, want)
		}
	}
}
