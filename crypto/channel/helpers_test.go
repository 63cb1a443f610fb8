package channel

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/flynn/noise"
)

const standardName = "Noise_XX_25519_AESGCM_SHA256"

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

func wantErr(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func wantBytes(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s: %x, want %x", what, got, want)
	}
}

// raw is bytes that are hex in a vector file.
type raw []byte

func (r *raw) UnmarshalText(text []byte) (err error) {
	*r, err = hex.AppendDecode(nil, text)
	return err
}

func (r raw) key() [32]byte { return [32]byte(r) }

// side makes a Config from private keys. The peer's payload is left in *heard.
func side(t testing.TB, static, ephemeral, payload []byte, heard *[]byte) Config {
	t.Helper()
	k, err := noise.DH25519.GenerateKeypair(bytes.NewReader(static))
	must(t, err)
	return Config{
		Static: [32]byte(k.Public),
		DH: func(peer [32]byte) ([32]byte, error) {
			secret, err := noise.DH25519.DH(k.Private, peer[:])
			if err != nil {
				return [32]byte{}, err
			}
			return [32]byte(secret), nil
		},
		Rand:    bytes.NewReader(ephemeral),
		Payload: func() ([]byte, error) { return payload, nil },
		VerifyPeer: func(_ [32]byte, payload []byte) error {
			if heard != nil {
				*heard = payload
			}
			return nil
		},
	}
}

// seeded returns reproducible random bytes.
func seeded(seed byte) *rand.ChaCha8 { return rand.NewChaCha8([32]byte{seed}) }

func random(r *rand.ChaCha8, n int) []byte {
	b := make([]byte, n)
	r.Read(b)
	return b
}

// randomSide is side with random keys, and enough randomness for repeated message 1.
func randomSide(t testing.TB, r *rand.ChaCha8, payload []byte) Config {
	t.Helper()
	c := side(t, random(r, 32), nil, payload, nil)
	c.Rand = r
	return c
}

// run takes both sides from their start to the end and returns the messages.
func run(t testing.TB, i, r *Handshake) (m1, m2, m3 []byte) {
	t.Helper()
	m1, err := i.Start()
	must(t, err)
	m2, done, err := r.Handle(m1)
	must(t, err)
	if done {
		t.Fatal("responder done after message 1")
	}
	m3, done, err = i.Handle(m2)
	must(t, err)
	if !done {
		t.Fatal("initiator not done after message 2")
	}
	reply, done, err := r.Handle(m3)
	must(t, err)
	if !done || reply != nil {
		t.Fatalf("responder after message 3: done %v, reply %x", done, reply)
	}
	return m1, m2, m3
}

// wantMatch checks that both sides have each other's keys.
func wantMatch(t testing.TB, i, r Keys) {
	t.Helper()
	if i.Send != r.Receive || i.Receive != r.Send || i.Hash != r.Hash || i.Send == i.Receive || i.Send == ([32]byte{}) {
		t.Errorf("keys do not match: %x and %x", i, r)
	}
}
