package channel

import (
	"bytes"
	"testing"

	"sallyport/crypto/aead"
)

// TestData: a message with associated data opens with the same data only, and neither as one without nor the other way round.
func TestData(t *testing.T) {
	key := [32]byte{9}
	var s Sealer
	var o Opener
	s.InitKeyExchangeOnly(&key)
	o.InitKeyExchangeOnly(&key)
	bound, plain := make([]byte, 5+Overhead), make([]byte, 5+Overhead)
	must(t, s.SealData(bound, []byte("value"), []byte("here")))
	must(t, s.Seal(plain, []byte("value")))
	if s.Counter() != 2 {
		t.Errorf("counter %d, want 2", s.Counter())
	}
	for range 2 { // records are read again
		got, err := o.OpenData(bytes.Clone(bound), []byte("here"))
		must(t, err)
		wantBytes(t, "plaintext", got, []byte("value"))
	}
	_, err := o.OpenData(bytes.Clone(bound), []byte("there"))
	wantErr(t, "other data", err, aead.ErrOpen)
	_, err = o.Open(bytes.Clone(bound))
	wantErr(t, "without data", err, aead.ErrOpen)
	_, err = o.OpenData(bytes.Clone(plain), []byte("here"))
	wantErr(t, "data for a message without", err, aead.ErrOpen)
	_, err = o.OpenData(bound[:Overhead-1], nil)
	wantErr(t, "short", err, ErrShort)
	bound[CounterSize]++
	_, err = o.OpenData(bound, []byte("here"))
	wantErr(t, "altered", err, aead.ErrOpen)
	s.Wipe()
	wantErr(t, "after Wipe", s.SealData(bound, []byte("value"), nil), ErrExhausted)
}
