package vault

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
)

// vaults runs a test against every kind of vault.
func vaults(t *testing.T, test func(t *testing.T, v *Software)) {
	t.Run("memory", func(t *testing.T) { test(t, NewMemory()) })
	t.Run("file", func(t *testing.T) { test(t, openDir(t, t.TempDir())) })
	t.Run("encrypted file", func(t *testing.T) {
		dir := t.TempDir() + "/vault"
		must(t, Lock(dir, nil, randomKey(3)))
		v, err := OpenLocked(dir, randomKey(3))
		must(t, err)
		test(t, v)
	})
}

func openDir(t *testing.T, parent string) *Software {
	t.Helper()
	v, err := OpenFile(parent + "/vault")
	must(t, err)
	return v
}

func wantIs(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func TestSigningKeys(t *testing.T) {
	sizes := map[KeyAlgorithm]int{Ed25519: 32, P256: 65}
	vaults(t, func(t *testing.T, v *Software) {
		ctx := t.Context()
		for a, size := range sizes {
			h, key, err := v.GenerateSigningKey(ctx, a)
			must(t, err)
			if key.Algorithm != a || len(key.Bytes) != size || h != HandleOf(key.Bytes) {
				t.Errorf("%s: handle %s of key %x", a, h, key.Bytes)
			}
			again, err := v.VerifyingKey(ctx, h)
			must(t, err)
			if string(again.Bytes) != string(key.Bytes) || again.Algorithm != a {
				t.Errorf("%s: key %x became %x", a, key.Bytes, again.Bytes)
			}
			data := []byte("some data")
			sig, err := v.Sign(ctx, h, data)
			must(t, err)
			must(t, Verify(key, data, sig))
			wantIs(t, "other data", Verify(key, []byte("some dat"), sig), ErrSignature)
			flipped := sig
			flipped.Bytes[40] ^= 1
			wantIs(t, "a bit of the signature", Verify(key, data, flipped), ErrSignature)
			for other := range sizes {
				if other != a {
					wantIs(t, "algorithm", Verify(VerifyingKey{other, key.Bytes}, data, sig), ErrAlgorithm)
				}
			}
			wantIs(t, "short key", Verify(VerifyingKey{a, key.Bytes[1:]}, data, sig), ErrKey)

			must(t, v.DeleteSigningKey(ctx, h))
			must(t, v.DeleteSigningKey(ctx, h))
			_, err = v.Sign(ctx, h, data)
			wantIs(t, "deleted", err, ErrNotFound)
			_, err = v.VerifyingKey(ctx, h)
			wantIs(t, "deleted", err, ErrNotFound)
		}
		_, _, err := v.GenerateSigningKey(ctx, 2)
		wantIs(t, "unknown algorithm", err, ErrAlgorithm)
		_, _, err = v.ImportSigningKey(ctx, 2, make([]byte, 32))
		wantIs(t, "unknown algorithm", err, ErrAlgorithm)
		_, _, err = v.ImportSigningKey(ctx, Ed25519, make([]byte, 31))
		wantIs(t, "short secret", err, ErrKey)
		_, _, err = v.ImportSigningKey(ctx, P256, make([]byte, 32)) // zero is no scalar
		wantIs(t, "zero secret", err, ErrKey)
	})
	wantIs(t, "unknown algorithm", Verify(VerifyingKey{2, make([]byte, 32)}, nil, Signature{Algorithm: 2}), ErrAlgorithm)
}

// TestKnownKeys are keys whose public halves and handles are published (docs/protocol/vectors, files 02-identities and 02-credentials) or in RFCs.
func TestKnownKeys(t *testing.T) {
	vaults(t, func(t *testing.T, v *Software) {
		ctx := t.Context()
		h, key, err := v.ImportSigningKey(ctx, Ed25519, unhex(t, "31ff4e1cd55f17735a633fbab4b838cf88d1252d164735cb3185a6e315438c2c"))
		must(t, err)
		if h != "45391088bbb6190009082d129d648d6c29bd1dd1ac7aa19109ce3e6a325dfd24" ||
			fmt.Sprintf("%x", key.Bytes) != "530d1c2e9822433b679a66a60b9c2ed47c370cd0ce51cbe1a7ad847b5835a963" {
			t.Errorf("Ed25519: %s, %x", h, key.Bytes)
		}
		// RFC 6979 A.2.5.
		_, key, err = v.ImportSigningKey(ctx, P256, unhex(t, "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721"))
		must(t, err)
		if fmt.Sprintf("%x", key.Bytes) != "0460fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6"+
			"7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299" {
			t.Errorf("P-256: %x", key.Bytes)
		}
		sig := Signature{Algorithm: P256, Bytes: [64]byte(unhex(t, "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716"+
			"f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8"))}
		must(t, Verify(key, []byte("sample"), sig))
		h, pub, err := v.ImportX25519(ctx, [32]byte(unhex(t, "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20")))
		must(t, err)
		if fmt.Sprintf("%x", pub) != "07a37cbc142093c8b755dc1b10e86cb426374ad16aa853ed0bdfc0b2b86d1c7c" || h != HandleOf(pub[:]) {
			t.Errorf("X25519: %s, %x", h, pub)
		}
	})
}

func TestX25519(t *testing.T) {
	vaults(t, func(t *testing.T, v *Software) {
		ctx := t.Context()
		a, aPub, err := v.GenerateX25519(ctx)
		must(t, err)
		b, bPub, err := v.GenerateX25519(ctx)
		must(t, err)
		if a != HandleOf(aPub[:]) || a == b {
			t.Errorf("handle %s of key %x", a, aPub)
		}
		ab, err := v.DH(ctx, a, bPub)
		must(t, err)
		ba, err := v.DH(ctx, b, aPub)
		must(t, err)
		if ab != ba || ab == [32]byte{} {
			t.Errorf("%x and %x", ab, ba)
		}
		got, err := v.PublicX25519(ctx, a)
		must(t, err)
		if got != aPub {
			t.Errorf("public key %x became %x", aPub, got)
		}
		_, err = v.Sign(ctx, a, nil)
		wantIs(t, "signing with a key for agreement", err, ErrNotFound)
		must(t, v.DeleteX25519(ctx, a))
		must(t, v.DeleteX25519(ctx, a))
		_, err = v.DH(ctx, a, bPub)
		wantIs(t, "deleted", err, ErrNotFound)
		_, err = v.PublicX25519(ctx, a)
		wantIs(t, "deleted", err, ErrNotFound)
	})
}

// Handles come from users and become names of files: nothing but a handle gets that far.
func TestHandles(t *testing.T) {
	vaults(t, func(t *testing.T, v *Software) {
		ctx := t.Context()
		for _, h := range []Handle{"", "x", "../../etc/passwd", Handle(strings.Repeat("A", 64)), Handle(strings.Repeat("/", 64)), Handle(strings.Repeat("a", 65))} {
			_, err := v.Sign(ctx, h, nil)
			wantIs(t, string(h), err, ErrNotFound)
			_, err = v.DH(ctx, h, [32]byte{9})
			wantIs(t, string(h), err, ErrNotFound)
			must(t, v.DeleteSigningKey(ctx, h))
			must(t, v.DeleteX25519(ctx, h))
		}
	})
}

// TestConcurrent has several users of a vault at once; the race detector and the signatures judge.
func TestConcurrent(t *testing.T) {
	vaults(t, func(t *testing.T, v *Software) {
		ctx := context.Background()
		shared, key, err := v.GenerateSigningKey(ctx, Ed25519)
		must(t, err)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 5 {
					h, _, err := v.GenerateX25519(ctx)
					if err == nil {
						_, err = v.DH(ctx, h, [32]byte{9})
					}
					if err == nil {
						err = v.DeleteX25519(ctx, h)
					}
					var sig Signature
					if err == nil {
						sig, err = v.Sign(ctx, shared, []byte("x"))
					}
					if err == nil {
						err = Verify(key, []byte("x"), sig)
					}
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
	})
}
