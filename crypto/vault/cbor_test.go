package vault

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

func TestCBOR(t *testing.T) {
	k32, k65, s64 := strings.Repeat("11", 32), "04"+strings.Repeat("22", 64), strings.Repeat("33", 64)
	for _, c := range []struct {
		name, in string
		want     error
	}{
		{"Ed25519", "8200815820" + k32, nil},
		{"P-256", "8201815841" + k65, nil},
		{"long number", "821b0000000000000001815841" + k65, nil},
		{"long head", "980200815820" + k32, nil},
		{"indefinite fields", "82009f5820" + k32 + "ff", nil},
		{"further field", "8200825820" + k32 + "a10102", nil},
		{"P-256 as Ed25519", "8200815841" + k65, ErrKey},
		{"Ed25519 as P-256", "8201815820" + k32, ErrKey},
		{"short", "820081581f" + k32[2:], ErrKey},
		{"unknown algorithm", "8202815820" + k32, ErrAlgorithm},
		{"huge algorithm", "821bffffffffffffffff815820" + k32, ErrAlgorithm},
		{"negative algorithm", "8220815820" + k32, ErrKey},
		{"indefinite variant", "9f00815820" + k32 + "ff", ErrKey},
		{"three elements", "8300815820" + k32 + "00", ErrKey},
		{"one element", "8100", ErrKey},
		{"no field", "820080", ErrKey},
		{"indefinite bytes", "8200815f5820" + k32 + "ff", ErrKey},
		{"list of numbers", "8200819820" + k32, ErrKey},
		{"text", "8200817820" + k32, ErrKey},
		{"not an array", "00", ErrKey},
		{"null", "f6", ErrKey},
		{"empty", "", ErrKey},
		{"cut short", "82008158201111", ErrKey},
	} {
		var k VerifyingKey
		err := k.UnmarshalCBOR(unhex(t, c.in))
		if c.want != nil {
			wantIs(t, c.name, err, c.want)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if !strings.Contains(c.in, hex.EncodeToString(k.Bytes)) {
			t.Errorf("%s: %x", c.name, k.Bytes)
		}
	}
	for _, c := range []struct {
		in   string
		want error
	}{
		{"8200815840" + s64, nil}, {"8201815840" + s64, nil}, {"8202815840" + s64, ErrAlgorithm}, {"8200815820" + k32, ErrSignature}, {"80", ErrSignature},
	} {
		var s Signature
		err := s.UnmarshalCBOR(unhex(t, c.in))
		if c.want != nil {
			wantIs(t, c.in, err, c.want)
		} else if err != nil || hex.EncodeToString(s.AppendCBOR(nil)) != c.in {
			t.Errorf("%s became %x, %v", c.in, s.AppendCBOR(nil), err)
		}
	}
}

// FuzzCBOR: what is read is a key or signature whose one encoding reads back the same.
func FuzzCBOR(f *testing.F) {
	f.Add(VerifyingKey{Ed25519, make([]byte, 32)}.AppendCBOR(nil))
	f.Add(VerifyingKey{P256, make([]byte, 65)}.AppendCBOR(nil))
	f.Add(Signature{Algorithm: P256}.AppendCBOR(nil))
	f.Add([]byte{0x82, 0, 0x9f, 0x58, 0x20})
	f.Fuzz(func(t *testing.T, raw []byte) {
		var k, k2 VerifyingKey
		if k.UnmarshalCBOR(raw) == nil {
			b, err := k.MarshalCBOR()
			must(t, err)
			must(t, k2.UnmarshalCBOR(b))
			if k2.Algorithm != k.Algorithm || !bytes.Equal(k2.Bytes, k.Bytes) {
				t.Errorf("%x became %x", k, k2)
			}
		}
		var s, s2 Signature
		if s.UnmarshalCBOR(raw) == nil {
			b, err := s.MarshalCBOR()
			must(t, err)
			must(t, s2.UnmarshalCBOR(b))
			if s2 != s {
				t.Errorf("%x became %x", s, s2)
			}
		}
	})
}
