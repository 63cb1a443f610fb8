package identity

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"sallyport/crypto/vault"
)

type credentialVectors struct {
	Vectors []json.RawMessage `json:"vectors"`
}

// sample is the one credential of the reference whose issuer is not published.
type sample struct {
	Message     string            `json:"secure_channel_padded_message_hex"`
	Subject     string            `json:"subject"`
	History     string            `json:"subject_change_history_hex"`
	Credential  string            `json:"credential_and_purpose_key_hex"`
	Data        string            `json:"credential_versioned_data_hex"`
	Attributes  map[string]string `json:"attributes"`
	Issuer      string            `json:"issuer"`
	CreatedAt   Timestamp         `json:"created_at"`
	ExpiresAt   Timestamp         `json:"expires_at"`
	Attestation struct {
		Data      string    `json:"versioned_data_hex"`
		Key       string    `json:"verifying_key_hex"`
		CreatedAt Timestamp `json:"created_at"`
		ExpiresAt Timestamp `json:"expires_at"`
		Signature string    `json:"signature_hex"`
	} `json:"purpose_key_attestation"`
}

// chain is a whole chain made of published seeds.
type chain struct {
	Issuer                string            `json:"issuer"`
	IssuerSeed            string            `json:"issuer_seed_hex"`
	IssuerHistory         string            `json:"issuer_change_history_hex"`
	Subject               string            `json:"subject"`
	SubjectSeed           string            `json:"subject_seed_hex"`
	SubjectHistory        string            `json:"subject_change_history_hex"`
	CredentialSeed        string            `json:"credential_key_seed_hex"`
	X25519Secret          string            `json:"secure_channel_x25519_secret_hex"`
	X25519Public          string            `json:"secure_channel_x25519_public_hex"`
	CredentialAttestation string            `json:"credential_key_attestation_hex"`
	ChannelAttestation    string            `json:"secure_channel_attestation_hex"`
	Credential            string            `json:"credential_and_purpose_key_hex"`
	Attributes            map[string]string `json:"attributes"`
	AttestedAt            Timestamp         `json:"attestation_created_at"`
	AttestedUntil         Timestamp         `json:"attestation_expires_at"`
	CreatedAt             Timestamp         `json:"created_at"`
	ExpiresAt             Timestamp         `json:"expires_at"`
	VerifyAt              Timestamp         `json:"verify_at"`
	Negative              []struct {
		Case       string    `json:"case"`
		Now        Timestamp `json:"now"`
		Credential string    `json:"credential_and_purpose_key_hex"`
		Expect     string    `json:"expect"`
	} `json:"negative"`
}

func readCredentials(t testing.TB) (s sample, c chain, payload []byte) {
	t.Helper()
	var v credentialVectors
	load(t, "02-credentials.json", &v)
	if len(v.Vectors) != 3 {
		t.Fatalf("%d vectors", len(v.Vectors))
	}
	must(t, json.Unmarshal(v.Vectors[0], &s))
	must(t, json.Unmarshal(v.Vectors[1], &c))
	var p struct{ Hex string }
	must(t, json.Unmarshal(v.Vectors[2], &p))
	return s, c, unhex(t, p.Hex)
}

// verifier knows the chain's two identities.
func (c *chain) verifier(t testing.TB) *node {
	t.Helper()
	n := newNode(t)
	n.now = c.VerifyAt
	for _, history := range []string{c.IssuerHistory, c.SubjectHistory} {
		i, err := ImportHex(history, nil)
		must(t, err)
		n.knows(t, i)
	}
	return n
}

// TestCredentialOfReference takes apart a credential that the reference made. Its issuer's history is not known, so that all but
// the attestation's signature is checked.
func TestCredentialOfReference(t *testing.T) {
	s, _, _ := readCredentials(t)
	// A padded message [[1, [refresh]], padding].
	content, ok := bytes.CutPrefix(unhex(t, s.Message), []byte{0x82, 0x82, 0x01, 0x81})
	if !ok {
		t.Fatal("not a refresh message")
	}
	history, credentials, err := DecodeRefresh(content)
	must(t, err)
	if len(credentials) != 1 || hex.EncodeToString(history) != s.History || hex.EncodeToString(credentials[0]) != s.Credential {
		t.Errorf("%x, %x", history, credentials)
	}
	if again := EncodeRefresh(history, credentials); !bytes.HasPrefix(content, again) || len(content)-len(again) != 1 {
		t.Errorf("encoded as %x", again)
	}
	subject, err := Import(history, nil)
	must(t, err)
	if subject.Identifier() != id(t, s.Subject) {
		t.Error(subject.Identifier())
	}
	if issuer, err := CredentialIssuer(credentials[0]); err != nil || issuer != id(t, s.Issuer) {
		t.Errorf("%s, %v", issuer, err)
	}

	parts, err := splitCredential(credentials[0])
	must(t, err)
	a, err := decodeAttestation(parts.attestation)
	must(t, err)
	want := s.Attestation
	if a.Subject != id(t, s.Issuer) || a.Purpose != CredentialSigning || a.CreatedAt != want.CreatedAt || a.ExpiresAt != want.ExpiresAt ||
		hex.EncodeToString(a.Key.Bytes) != want.Key || hex.EncodeToString(a.signature.Bytes[:]) != want.Signature {
		t.Errorf("%+v", a)
	}
	if hex.EncodeToString(a.data()) != want.Data || a.digest != sha(unhex(t, want.Data)) {
		t.Errorf("attestation encoded as %x", a.data())
	}
	digest := sha(parts.data)
	must(t, vault.Verify(a.Key, digest[:], parts.signature))
	c, err := readCredential(parts.data)
	must(t, err)
	if c.Subject != subject.Identifier() || c.Schema != 1 || c.CreatedAt != s.CreatedAt || c.ExpiresAt != s.ExpiresAt ||
		!maps.Equal(c.Attributes, s.Attributes) {
		t.Errorf("%+v", c)
	}
	if got := encodeCredential(c.Subject, subject.Latest().Hash, c.Attributes, c.CreatedAt, c.ExpiresAt); hex.EncodeToString(got) != s.Data {
		t.Errorf("credential encoded as %x", got)
	}
	n := newNode(t)
	n.now = s.CreatedAt
	_, err = n.VerifyCredential(t.Context(), credentials[0], nil, []Identifier{id(t, s.Issuer)})
	wantIs(t, "unknown issuer", err, ErrAttestation, ErrNotFound)
}

// TestChain verifies a chain of published seeds and every broken form of it.
func TestChain(t *testing.T) {
	ctx := t.Context()
	_, c, _ := readCredentials(t)
	n := c.verifier(t)
	issuer, subject := id(t, c.Issuer), id(t, c.Subject)
	got, err := n.VerifyCredential(ctx, unhex(t, c.Credential), &subject, []Identifier{{1}, issuer})
	must(t, err)
	if got.Subject != subject || got.Issuer != issuer || got.Schema != 1 || got.CreatedAt != c.CreatedAt || got.ExpiresAt != c.ExpiresAt ||
		!maps.Equal(got.Attributes, c.Attributes) {
		t.Errorf("%+v", got)
	}
	if len(c.Negative) != 13 {
		t.Errorf("%d cases", len(c.Negative))
	}
	special := map[string]error{
		"credential outlives attestation": ErrCredential, "authorities list without issuer": ErrUnknownAuthority,
		"attestation is for a secure channel key": ErrKeyType, "data_type 1": ErrDataType, "version 2": ErrVersion,
		"subject null": ErrCredential, "now = 1702592601 (expires_at < now)": ErrExpired,
		"credential signed with issuer primary key instead of purpose key": vault.ErrSignature,
	}
	for _, bad := range c.Negative {
		raw, who, accepted := unhex(t, c.Credential), subject, []Identifier{issuer}
		n.now = c.VerifyAt
		if bad.Credential != "" {
			raw = unhex(t, bad.Credential)
		}
		if bad.Now != 0 {
			n.now = bad.Now
		}
		switch bad.Case {
		case "expected subject = issuer":
			who = issuer
		case "authorities list without issuer":
			accepted = []Identifier{subject}
		}
		_, err := n.VerifyCredential(ctx, raw, &who, accepted)
		if strings.HasPrefix(bad.Expect, "accept") {
			must(t, err)
			continue
		}
		if err == nil {
			t.Errorf("%s: accepted", bad.Case)
		}
		if want := special[bad.Case]; want != nil {
			wantIs(t, bad.Case, err, want)
		}
		delete(special, bad.Case)
	}
	if len(special) != 0 {
		t.Errorf("no such cases: %v", special)
	}
	_, err = n.VerifyCredential(ctx, unhex(t, c.Credential), nil, nil)
	wantIs(t, "nobody accepted", err, ErrUnknownAuthority)
}

// TestRebuildChain makes the chain anew of its seeds, byte for byte, through the same methods a node uses.
func TestRebuildChain(t *testing.T) {
	ctx := t.Context()
	_, c, payload := readCredentials(t)
	n := c.verifier(t)
	issuer, subject := id(t, c.Issuer), id(t, c.Subject)
	for _, seed := range []string{c.IssuerSeed, c.SubjectSeed, c.CredentialSeed} {
		n.seed(t, seed)
	}
	_, public, err := n.keys.ImportX25519(ctx, [32]byte(unhex(t, c.X25519Secret)))
	must(t, err)
	for _, a := range []struct {
		of      Identifier
		purpose Purpose
		want    string
	}{{issuer, CredentialSigning, c.CredentialAttestation}, {subject, SecureChannel, c.ChannelAttestation}} {
		i, err := n.Identity(ctx, a.of)
		must(t, err)
		made := Attestation{Subject: a.of, ChangeHash: i.Latest().Hash, Purpose: a.purpose, CreatedAt: c.AttestedAt, ExpiresAt: c.AttestedUntil}
		held := &heldKey{change: made.ChangeHash, PurposeKey: &PurposeKey{Handle: vault.HandleOf(public[:]), Public: public, CreatedAt: made.CreatedAt, ExpiresAt: made.ExpiresAt}}
		if made.X25519 = public; a.purpose == CredentialSigning {
			held.Public = [32]byte{}
			held.Handle, made.Key, err = n.keys.ImportSigningKey(ctx, vault.Ed25519, unhex(t, c.CredentialSeed))
			must(t, err)
		}
		held.Attestation = n.signWith(t, i.Latest().Key, made.data())
		if hex.EncodeToString(held.Attestation) != a.want {
			t.Errorf("%s attestation: %x", a.purpose, held.Attestation)
		}
		n.current[purposeOf{a.of, a.purpose}] = held
	}
	n.now = c.CreatedAt
	raw, err := n.IssueCredential(ctx, issuer, subject, c.Attributes, time.Duration(c.ExpiresAt-c.CreatedAt)*time.Second)
	must(t, err)
	if hex.EncodeToString(raw) != c.Credential {
		t.Errorf("credential: %x", raw)
	}
	got, key, err := n.Payload(ctx, subject, [][]byte{raw})
	must(t, err)
	if !bytes.Equal(got, payload) || hex.EncodeToString(key.Public[:]) != c.X25519Public {
		t.Errorf("payload: %x", got)
	}
	peer, err := c.verifier(t).VerifyPeer(ctx, payload, key.Public)
	must(t, err)
	if peer.Identity.Identifier() != subject || !bytes.Equal(peer.Credentials[0], raw) {
		t.Errorf("%+v", peer)
	}
}

// TestIssue: a credential of one node is verified by another one, with keys of either algorithm.
func TestIssue(t *testing.T) {
	ctx := t.Context()
	attributes := Attributes{"b": "2", "aa": "1", "": "", "\xff\x00": "\x00\xfe", "ockam-relay": "*"}
	for _, algorithm := range []vault.KeyAlgorithm{vault.Ed25519, vault.P256} {
		home, away := newNode(t), newNode(t)
		authority := home.create(t, CreateOptions{Algorithm: algorithm})
		member := away.create(t, CreateOptions{Algorithm: algorithm})
		self, issuers := member.Identifier(), []Identifier{authority.Identifier()}
		_, err := home.IssueCredential(ctx, authority.Identifier(), self, attributes, time.Hour)
		wantIs(t, "unknown subject", err, ErrNotFound)
		home.knows(t, member)
		away.knows(t, authority)
		key, err := home.CredentialKey(ctx, authority.Identifier(), algorithm)
		must(t, err)
		raw, err := home.IssueCredential(ctx, authority.Identifier(), self, attributes, time.Hour)
		must(t, err)
		c, err := away.VerifyCredential(ctx, raw, &self, issuers)
		must(t, err)
		if c.Subject != self || c.Issuer != issuers[0] || c.CreatedAt != start || c.ExpiresAt != start+3600 || !maps.Equal(c.Attributes, attributes) {
			t.Errorf("%s: %+v", algorithm, c)
		}
		if i := bytes.Index(raw, []byte("\x42aa\x411\x41b\x412")); i < 0 {
			t.Errorf("%s: keys are not in the order of their bytes: %x", algorithm, raw)
		}
		if same, err := home.CredentialKey(ctx, authority.Identifier(), algorithm); err != nil || same.Handle != key.Handle {
			t.Errorf("%s: the key was made again, %v", algorithm, err)
		}
		changed, err := home.CredentialKey(ctx, authority.Identifier(), 1-algorithm)
		if err != nil || changed.Handle == key.Handle {
			t.Errorf("%s: the key was not replaced, %v", algorithm, err)
		}
		home.now = start + 86400*6/10 + 1
		must(t, home.RenewKeys(ctx))
		if renewed := home.current[purposeOf{authority.Identifier(), CredentialSigning}]; renewed.Handle == changed.Handle || renewed.algorithm != 1-algorithm {
			t.Errorf("%s: the other key was replaced by one of %s", algorithm, renewed.algorithm)
		}
		for k := range raw {
			b := bytes.Clone(raw)
			b[k] ^= 0x80
			if _, err := away.VerifyCredential(ctx, b, &self, issuers); err == nil {
				t.Errorf("%s: accepted with byte %d changed", algorithm, k)
			}
		}
		away.now = start + 3601
		_, err = away.VerifyCredential(ctx, raw, &self, issuers)
		wantIs(t, "expired", err, ErrCredential, ErrExpired)
	}
}

func TestIssueBounds(t *testing.T) {
	ctx := t.Context()
	n := newNode(t)
	authority := n.create(t, CreateOptions{Lifetime: time.Hour})
	self := authority.Identifier()
	// A longer one than its issuer's key would be refused by everybody.
	raw, err := n.IssueCredential(ctx, self, self, nil, 30*24*time.Hour)
	must(t, err)
	c, err := n.VerifyCredential(ctx, raw, nil, []Identifier{self})
	must(t, err)
	if c.ExpiresAt != start+3600 || len(c.Attributes) != 0 {
		t.Errorf("%+v", c)
	}
	// A clock that was set back a little makes none that is older than its key.
	n.now = start - 30
	raw, err = n.IssueCredential(ctx, self, self, nil, time.Hour)
	must(t, err)
	_, err = n.VerifyCredential(ctx, raw, nil, []Identifier{self})
	must(t, err)
	_, err = n.IssueCredential(ctx, self, self, nil, time.Second)
	must(t, err)
	for _, ttl := range []time.Duration{-time.Hour, 0, time.Millisecond, time.Second - 1} {
		_, err = n.IssueCredential(ctx, self, self, nil, ttl)
		wantIs(t, ttl.String(), err, ErrCredential)
	}
	_, err = n.IssueCredential(ctx, self, self, Attributes{"a": strings.Repeat("x", maxCredential)}, time.Hour)
	wantIs(t, "large attribute", err, ErrCredential)
	raw, err = n.IssueCredential(ctx, self, self, Attributes{"a": strings.Repeat("x", 5000)}, time.Hour)
	must(t, err)
	fits := 5000 + maxCredential - len(raw)
	raw, err = n.IssueCredential(ctx, self, self, Attributes{"a": strings.Repeat("x", fits)}, time.Hour)
	must(t, err)
	_, err = n.VerifyCredential(ctx, raw, nil, []Identifier{self})
	if must(t, err); len(raw) != maxCredential {
		t.Errorf("%d bytes", len(raw))
	}
	_, err = n.IssueCredential(ctx, self, self, Attributes{"a": strings.Repeat("x", fits+1)}, time.Hour)
	wantIs(t, "a byte too large", err, ErrCredential)
	many := Attributes{}
	for k := range maxAttributes + 1 {
		many[string([]byte{byte(k >> 8), byte(k)})] = ""
	}
	_, err = n.IssueCredential(ctx, self, self, many, time.Hour)
	wantIs(t, "many attributes", err, ErrCredential)
	_, err = n.VerifyCredential(ctx, append(raw, make([]byte, maxCredential)...), nil, []Identifier{self})
	wantIs(t, "too long", err, ErrCredential)
}

// TestAttributes: any order and form of the map is read, the last of two equal keys counts, and the count is bounded.
func TestAttributes(t *testing.T) {
	read := func(text string) (Attributes, error) {
		c := &Credential{}
		r := &reader{b: unhex(t, text)}
		if c.readAttributes(r); r.err == nil && r.at != len(r.b) {
			t.Errorf("%s: %d bytes are left", text, len(r.b)-r.at)
		}
		return c.Attributes, r.err
	}
	for in, want := range map[string]Attributes{
		"8201a0":                     {},
		"8201a2416241324161 4131":    {"a": "1", "b": "2"},
		"8201bf41614131ff":           {"a": "1"},
		"9f01bf41614131ff00ff":       {"a": "1"},
		"8201a2416141314161 4132":    {"a": "2"},
		"821bffffffffffffffffa14040": {"": ""},
	} {
		got, err := read(strings.ReplaceAll(in, " ", ""))
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("%s: %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"80", "8101", "820180", "8201a1", "8201a1ff", "8201a16161 4131", "8201bf", "8201bf41614131", "8201bf4161", "8201bf4161ff", "8201bb00000000ffffffff",
		"8201a14161f6", "8201f6", "8220a0", "8201b903e9" + strings.Repeat("4040", 1001), "8201bf" + strings.Repeat("4040", 1001) + "ff"} {
		_, err := read(strings.ReplaceAll(in, " ", ""))
		wantIs(t, in[:min(len(in), 20)], err, ErrEncoding)
	}
}
