package vault

import (
	"bytes"
	"context"
	"encoding/asn1"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/big"
	"os"
	"slices"
	"testing"
)

// wycheproof is what the tests need of a file of vectors.
type wycheproof struct {
	NumberOfTests int
	TestGroups    []struct {
		PublicKey struct{ PK, Uncompressed string }
		Tests     []wycheproofCase
	}
}

type wycheproofCase struct {
	TcID            int
	Comment, Result string
	Flags           []string
	Msg, Sig        string
	Public, Private string
	Shared          string
}

func readVectors(t *testing.T, name string) wycheproof {
	t.Helper()
	raw, err := os.ReadFile("testdata/" + name)
	must(t, err)
	var v wycheproof
	must(t, json.Unmarshal(raw, &v))
	if v.NumberOfTests == 0 {
		t.Fatalf("%s has no tests", name)
	}
	return v
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	must(t, err)
	return b
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestWycheproofEd25519 checks Verify. Signatures of another length than 64 bytes cannot be expressed and are counted only.
func TestWycheproofEd25519(t *testing.T) {
	v := readVectors(t, "ed25519_test.json")
	ran, other := 0, 0
	for _, g := range v.TestGroups {
		key := VerifyingKey{Algorithm: Ed25519, Bytes: unhex(t, g.PublicKey.PK)}
		for _, c := range g.Tests {
			b := unhex(t, c.Sig)
			if len(b) != 64 {
				other++
				if c.Result != "invalid" {
					t.Errorf("%d: a valid signature of %d bytes", c.TcID, len(b))
				}
				continue
			}
			ran++
			err := Verify(key, unhex(t, c.Msg), Signature{Algorithm: Ed25519, Bytes: [64]byte(b)})
			if (err == nil) != (c.Result == "valid") {
				t.Errorf("%d %s: %s, got %v", c.TcID, c.Comment, c.Result, err)
			}
		}
	}
	if ran+other != v.NumberOfTests || ran < 130 {
		t.Errorf("%d of %d ran", ran, v.NumberOfTests)
	}
}

// TestWycheproofP256 checks Verify. The vectors have DER signatures; one that is not strict DER, or has a number that does not
// fit 32 bytes, cannot be written as r and s, so it never reaches Verify and has to be an invalid one. All others are verified.
func TestWycheproofP256(t *testing.T) {
	v := readVectors(t, "ecdsa_secp256r1_sha256_test.json")
	ran, other := 0, 0
	for _, g := range v.TestGroups {
		key := VerifyingKey{Algorithm: P256, Bytes: unhex(t, g.PublicKey.Uncompressed)}
		for _, c := range g.Tests {
			sig, ok := fromDER(unhex(t, c.Sig))
			if !ok {
				other++
				if c.Result != "invalid" {
					t.Errorf("%d %s: valid, but it has no r and s", c.TcID, c.Comment)
				}
				continue
			}
			ran++
			err := Verify(key, unhex(t, c.Msg), sig)
			if (err == nil) != (c.Result == "valid") {
				t.Errorf("%d %s: %s, got %v", c.TcID, c.Comment, c.Result, err)
			}
		}
	}
	if ran+other != v.NumberOfTests || ran < 240 {
		t.Errorf("%d of %d ran", ran, v.NumberOfTests)
	}
}

func fromDER(der []byte) (Signature, bool) {
	var n struct{ R, S *big.Int }
	rest, err := asn1.Unmarshal(der, &n)
	if err != nil || len(rest) != 0 || n.R.Sign() < 0 || n.S.Sign() < 0 || n.R.BitLen() > 256 || n.S.BitLen() > 256 {
		return Signature{}, false
	}
	if strict, err := asn1.Marshal(n); err != nil || !bytes.Equal(strict, der) {
		return Signature{}, false // package asn1 skips further elements of a sequence
	}
	s := Signature{Algorithm: P256}
	n.R.FillBytes(s.Bytes[:32])
	n.S.FillBytes(s.Bytes[32:])
	return s, true
}

// TestWycheproofX25519 checks DH through a vault. Points of small order give a secret of zeros, which is refused; other unusual
// ones (twist, not canonical) are worked with as in RFC 7748.
func TestWycheproofX25519(t *testing.T) {
	v := readVectors(t, "x25519_test.json")
	keys := NewMemory()
	ctx := context.Background()
	ran, zeros := 0, 0
	for _, g := range v.TestGroups {
		for _, c := range g.Tests {
			ran++
			h, _, err := keys.ImportX25519(ctx, [32]byte(unhex(t, c.Private)))
			must(t, err)
			got, err := keys.DH(ctx, h, [32]byte(unhex(t, c.Public)))
			if want := unhex(t, c.Shared); bytes.Equal(want, make([]byte, 32)) {
				zeros++
				if !errors.Is(err, ErrKey) || got != [32]byte{} {
					t.Errorf("%d %s: a shared secret of zeros gave %v", c.TcID, c.Comment, err)
				}
				if !slices.Contains(c.Flags, "ZeroSharedSecret") {
					t.Errorf("%d: %v", c.TcID, c.Flags)
				}
			} else if err != nil || !bytes.Equal(got[:], want) {
				t.Errorf("%d %s: %x, %v; want %x", c.TcID, c.Comment, got, err, want)
			}
		}
	}
	if ran != v.NumberOfTests || zeros == 0 {
		t.Errorf("%d of %d ran, %d with zeros", ran, v.NumberOfTests, zeros)
	}
}
