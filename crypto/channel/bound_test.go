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
	empty := make([]byte, Overhead)
	must(t, s.SealData(empty, nil, []byte("here")))
	got, err := o.OpenData(bytes.Clone(empty), []byte("here"))
	must(t, err)
	wantBytes(t, "empty plaintext", got, nil)
	if o.Last() != 2 {
		t.Errorf("the last one opened was %d, not 2", o.Last())
	}
	_, err = o.OpenData(bytes.Clone(bound), []byte("there"))
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

// TestDataOfMany: every message has its own number, so none is sealed like another, and each opens wherever it comes.
func TestDataOfMany(t *testing.T) {
	key := [32]byte{9}
	var s Sealer
	var o Opener
	s.InitKeyExchangeOnly(&key)
	o.InitKeyExchangeOnly(&key)
	var list [][]byte
	for i := range 5 {
		msg := make([]byte, 5+Overhead)
		must(t, s.SealData(msg, []byte("value"), []byte("here")))
		if i > 0 && bytes.Equal(msg[CounterSize:], list[i-1][CounterSize:]) {
			t.Errorf("message %d is the same as the one before", i)
		}
		list = append(list, msg)
	}
	for _, i := range []int{4, 0, 2, 1, 3} {
		got, err := o.OpenData(bytes.Clone(list[i]), []byte("here"))
		must(t, err)
		wantBytes(t, "plaintext", got, []byte("value"))
	}
}

// TestDataOnAChannel: a channel's messages have no associated data, and its keys do not make any.
func TestDataOnAChannel(t *testing.T) {
	for name, f := range map[string]func(s *Sealer, o *Opener){
		"seal": func(s *Sealer, _ *Opener) { _ = s.SealData(make([]byte, 100), []byte("value"), []byte("here")) },
		"open": func(_ *Sealer, o *Opener) { _, _ = o.OpenData(make([]byte, 100), []byte("here")) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Error(name, "with associated data on a channel")
				}
			}()
			key := [32]byte{9}
			var s Sealer
			var o Opener
			s.Init(&key)
			o.Init(&key)
			f(&s, &o)
		}()
	}
}
