package identity

import (
	"bytes"
	"maps"
	"testing"
)

// FuzzImport: what verifies is one of the histories that were signed with these seeds; the fuzzer cannot sign.
func FuzzImport(f *testing.F) {
	var v identityVectors
	load(f, "02-identities.json", &v)
	known := map[Identifier]int{}
	for _, c := range v.Vectors {
		known[id(f, c.ID)] = max(known[id(f, c.ID)], c.Changes)
		f.Add(unhex(f, c.History))
	}
	for _, c := range v.Negative {
		f.Add(unhex(f, c.History))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		i, err := Import(raw, nil)
		if err != nil {
			return
		}
		if n := known[i.Identifier()]; len(i.Changes()) > n {
			t.Errorf("%s with %d changes, known %d", i.Identifier(), len(i.Changes()), n)
		}
		expected := i.Identifier()
		again, err := Import(i.History(), &expected)
		if err != nil || Compare(i, again) != Equal || !bytes.Equal(i.History(), again.History()) {
			t.Errorf("%x: %v", i.History(), err)
		}
	})
}

func FuzzVerifyAttestation(f *testing.F) {
	_, c, _ := readCredentials(f)
	n := c.verifier(f)
	for _, seed := range []string{c.CredentialAttestation, c.ChannelAttestation} {
		f.Add(unhex(f, seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, err := n.VerifyAttestation(t.Context(), raw, nil)
		if err != nil {
			wantIs(t, "error", err, ErrAttestation)
			return
		}
		// Only the two can verify, whatever form they come in.
		if a.CreatedAt != c.AttestedAt || a.ExpiresAt != c.AttestedUntil ||
			(a.Purpose == SecureChannel) != (a.Subject == id(t, c.Subject)) {
			t.Errorf("%+v", a)
		}
	})
}

func FuzzVerifyCredential(f *testing.F) {
	s, c, _ := readCredentials(f)
	n := c.verifier(f)
	f.Add(unhex(f, c.Credential))
	f.Add(unhex(f, s.Credential))
	for _, bad := range c.Negative {
		if bad.Credential != "" {
			f.Add(unhex(f, bad.Credential))
		}
	}
	issuer := id(f, c.Issuer)
	f.Fuzz(func(t *testing.T, raw []byte) {
		_, _ = CredentialIssuer(raw)
		got, err := n.VerifyCredential(t.Context(), raw, nil, []Identifier{issuer})
		if err == nil && (got.Subject != id(t, c.Subject) || !maps.Equal(got.Attributes, c.Attributes) || got.ExpiresAt != c.ExpiresAt) {
			t.Errorf("%+v", got)
		}
		// The reader of what is signed, without a signature before it.
		if got, err := readCredential(raw); err == nil {
			again, err := readCredential(encodeCredential(got.Subject, [32]byte{}, got.Attributes, got.CreatedAt, got.ExpiresAt))
			if err != nil || again.Subject != got.Subject || !maps.Equal(again.Attributes, got.Attributes) || again.CreatedAt != got.CreatedAt {
				t.Errorf("%+v became %+v, %v", got, again, err)
			}
		}
	})
}

func FuzzDecodePayload(f *testing.F) {
	_, _, payload := readCredentials(f)
	f.Add(payload)
	f.Add([]byte{0x83, 0x80, 0xf6, 0x80})
	f.Add([]byte{0x9f, 0x80, 0xf6, 0x9f, 0x01, 0xff, 0xff, 0x00})
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := DecodePayload(raw)
		if err != nil {
			wantIs(t, "error", err, ErrEncoding)
			return
		}
		again, err := DecodePayload(EncodePayload(p))
		if err != nil || !bytes.Equal(again.History, p.History) || !bytes.Equal(again.Attestation, p.Attestation) || !same(again.Credentials, p.Credentials) {
			t.Errorf("%x became %x, %v", p, again, err)
		}
	})
}

func FuzzDecodeRefresh(f *testing.F) {
	s, _, _ := readCredentials(f)
	f.Add(unhex(f, s.Message)[4:])
	f.Add([]byte{0x82, 0x80, 0x80})
	f.Fuzz(func(t *testing.T, raw []byte) {
		history, credentials, err := DecodeRefresh(raw)
		if err != nil {
			wantIs(t, "error", err, ErrEncoding)
			return
		}
		h, c, err := DecodeRefresh(EncodeRefresh(history, credentials))
		if err != nil || !bytes.Equal(h, history) || !same(c, credentials) {
			t.Errorf("%x, %x became %x, %x, %v", history, credentials, h, c, err)
		}
	})
}

func FuzzParseIdentifier(f *testing.F) {
	f.Add("I923829d0397a06fa862be5a87b7966959b8ef99ab6455b843ca9131a747b4819")
	f.Add(" I\n")
	f.Fuzz(func(t *testing.T, text string) {
		if i, err := ParseIdentifier(text); err == nil {
			if again, err := ParseIdentifier(i.String()); err != nil || again != i {
				t.Errorf("%q: %s, %v", text, again, err)
			}
		}
	})
}

func same(a, b [][]byte) bool {
	if len(a) != len(b) {
		return false
	}
	for k := range a {
		if !bytes.Equal(a[k], b[k]) {
			return false
		}
	}
	return true
}
