package state

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"
)

// TestKafkaKeys: keys come back whole, only the owner can read them, and nothing but a key's address becomes a file's name.
func TestKafkaKeys(t *testing.T) {
	d := open(t)
	ctx := t.Context()
	if _, err := d.CreateNode(ctx, Node{Name: "n"}); err != nil {
		t.Fatal(err)
	}
	const address = "00112233445566778899aabbccddeeff"
	want := KafkaKey{Address: address, Self: "Ia", Peer: "Ib", Key: []byte("0123456789abcdef0123456789abcdef"), Attributes: map[string]string{"company": "acme"},
		AttestedBy: "Ic", ExpiresAt: time.Unix(1_700_000_000, 0).UTC(), CreatedAt: time.Unix(1_600_000_000, 0).UTC()}
	must(t, d.PutKafkaKey(ctx, "n", want))
	got, err := d.KafkaKey("n", address)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
	for path, mode := range map[string]os.FileMode{"kafka_keys": 0o700, "kafka_keys/" + address + ".json": 0o600} {
		info, err := os.Stat(filepath.Join(d.Path(), "nodes", "n", path))
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: mode %v, %v", path, info.Mode(), err)
		}
	}
	for _, bad := range []string{"", "x", "../../identities", address + "00", "00112233445566778899AABBCCDDEEFF", "00112233445566778899aabbccddee/f"} {
		if _, err := d.KafkaKey("n", bad); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %v", bad, err)
		}
		if err := d.PutKafkaKey(ctx, "n", KafkaKey{Address: bad}); err == nil {
			t.Errorf("%q was stored", bad)
		}
	}
	if err := d.PutKafkaKey(ctx, "none", want); err == nil {
		t.Error("a node that does not exist got a key")
	}
	if _, err := d.KafkaKey("n", "ffeeddccbbaa99887766554433221100"); !errors.Is(err, ErrNotFound) {
		t.Errorf("no key: %v", err)
	}
}
