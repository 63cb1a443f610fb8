package identity

import (
	"bytes"
	"encoding/hex"
	"testing"
	"time"

	"sallyport/crypto/vault"
)

type captures struct {
	Handshakes map[string]struct {
		InitiatorStatic  string `json:"initiator_static_private"`
		InitiatorSeed    string `json:"initiator_identity_private"`
		Initiator        string `json:"initiator_identifier"`
		ResponderStatic  string `json:"responder_static_public"`
		ResponderPrivate string `json:"responder_static_private"`
		Responder        string `json:"responder_identifier"`
		Credentials      *int   `json:"responder_credentials"`
		Message2         string `json:"message2_payload"`
		Message3         string `json:"message3_payload"`
	} `json:"handshakes"`
	Credential string   `json:"credential_and_purpose_key"`
	Refreshes  []string `json:"refresh_plaintexts"`
	Decoded    struct {
		Subject    string            `json:"subject"`
		Attributes map[string]string `json:"attributes"`
		Created    Timestamp         `json:"created"`
		Expires    Timestamp         `json:"expires"`
	} `json:"credential_decoded"`
}

// at returns when a payload's attestation was made, and the key it attests.
func at(t *testing.T, payload []byte) (Timestamp, [32]byte) {
	t.Helper()
	p, err := DecodePayload(payload)
	must(t, err)
	if again := EncodePayload(p); !bytes.Equal(again, payload) {
		t.Errorf("%x encoded as %x", payload, again)
	}
	a, err := decodeAttestation(p.Attestation)
	must(t, err)
	return a.CreatedAt, a.X25519
}

// TestCaptures verifies the identity payloads of handshakes with the reference, from both sides.
func TestCaptures(t *testing.T) {
	ctx := t.Context()
	var v captures
	load(t, "04-captures.json", &v)
	if len(v.Handshakes) != 9 {
		t.Fatalf("%d handshakes", len(v.Handshakes))
	}
	for name, h := range v.Handshakes {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			check := func(raw string, who string, static *[32]byte) *Peer {
				t.Helper()
				payload := unhex(t, raw)
				made, attested := at(t, payload)
				if static == nil {
					static = &attested // the reference's own key as an initiator, which the capture does not tell
				}
				n.now = made
				peer, err := n.VerifyPeer(ctx, payload, *static)
				must(t, err)
				if who != "" && peer.Identity.Identifier() != id(t, who) {
					t.Errorf("%s, want %s", peer.Identity.Identifier(), who)
				}
				other := *static
				other[31] ^= 1
				_, err = n.VerifyPeer(ctx, payload, other)
				wantIs(t, "another static key", err, ErrKeyData)
				return peer
			}
			public := func(secret string) *[32]byte {
				if secret == "" {
					return nil
				}
				_, pub, err := n.vault.ImportX25519(ctx, [32]byte(unhex(t, secret)))
				must(t, err)
				return &pub
			}
			responder := public(h.ResponderPrivate)
			if h.ResponderStatic != "" {
				static := [32]byte(unhex(t, h.ResponderStatic))
				responder = &static
			}
			peer := check(h.Message2, h.Responder, responder)
			if h.Credentials != nil && len(peer.Credentials) != *h.Credentials {
				t.Errorf("%d credentials, want %d", len(peer.Credentials), *h.Credentials)
			}
			initiator := check(h.Message3, h.Initiator, public(h.InitiatorStatic))
			if h.InitiatorSeed == "" {
				return
			}
			// The initiator's history, made anew of its seed.
			c := initiator.Identity.Latest()
			maker := newNode(t)
			maker.now = c.ValidFrom
			again := maker.create(t, CreateOptions{Key: maker.seed(t, h.InitiatorSeed), Lifetime: time.Duration(c.ValidUntil-c.ValidFrom) * time.Second})
			if !bytes.Equal(again.History(), initiator.Identity.History()) {
				t.Errorf("%s, want %s", again.Hex(), initiator.Identity.Hex())
			}
		})
	}
}

// TestCapturedCredentials verifies credentials that an authority of the reference issued: to the one side in an enrolment, to a
// node of the reference that presented its own.
func TestCapturedCredentials(t *testing.T) {
	ctx := t.Context()
	var v captures
	load(t, "04-captures.json", &v)
	n := newNode(t)
	authority := id(t, v.Handshakes["enrollment"].Responder)
	for _, raw := range []string{v.Handshakes["enrollment"].Message2, v.Handshakes["member inner"].Message2} {
		made, static := at(t, unhex(t, raw))
		n.now = made
		_, err := n.VerifyPeer(ctx, unhex(t, raw), static)
		must(t, err)
	}
	n.now = v.Decoded.Created
	subject := id(t, v.Decoded.Subject)
	c, err := n.VerifyCredential(ctx, unhex(t, v.Credential), &subject, []Identifier{authority})
	must(t, err)
	if c.CreatedAt != v.Decoded.Created || c.ExpiresAt != v.Decoded.Expires || c.ExpiresAt-c.CreatedAt != 30*86400 || c.Schema != 1 || len(c.Attributes) != 3 {
		t.Errorf("%+v", c)
	}
	for key, value := range v.Decoded.Attributes {
		if c.Attributes[key] != value {
			t.Errorf("%s=%q, want %q", key, c.Attributes[key], value)
		}
	}
	issuer, err := CredentialIssuer(unhex(t, v.Credential))
	if err != nil || issuer != authority {
		t.Errorf("%s, %v", issuer, err)
	}

	p, err := DecodePayload(unhex(t, v.Handshakes["member inner"].Message2))
	must(t, err)
	member := id(t, v.Handshakes["member inner"].Responder)
	c, err = n.VerifyCredential(ctx, p.Credentials[0], &member, []Identifier{authority})
	must(t, err)
	if c.Subject != member || c.Issuer != authority {
		t.Errorf("%+v", c)
	}
	_, err = n.VerifyCredential(ctx, p.Credentials[0], &subject, []Identifier{authority})
	wantIs(t, "of another subject", err, ErrCredential)

	// What the same side presented is that credential.
	mine, err := DecodePayload(unhex(t, v.Handshakes["member inner"].Message3))
	must(t, err)
	if len(mine.Credentials) != 1 || hex.EncodeToString(mine.Credentials[0]) != v.Credential {
		t.Errorf("presented %x", mine.Credentials)
	}
}

// TestCapturedRefreshes takes apart refreshed credentials, whose authority's history is not in the capture.
func TestCapturedRefreshes(t *testing.T) {
	var v captures
	load(t, "04-captures.json", &v)
	peer := id(t, v.Handshakes["refresh"].Responder)
	if len(v.Refreshes) != 2 {
		t.Fatalf("%d messages", len(v.Refreshes))
	}
	for _, text := range v.Refreshes {
		content, ok := bytes.CutPrefix(unhex(t, text), []byte{0x82, 0x82, 0x01, 0x81})
		if !ok {
			t.Fatal("not a refresh message")
		}
		history, credentials, err := DecodeRefresh(content)
		must(t, err)
		_, err = Import(history, &peer)
		must(t, err)
		if len(credentials) != 1 || !bytes.HasPrefix(content, EncodeRefresh(history, credentials)) {
			t.Errorf("%d credentials", len(credentials))
		}
		parts, err := splitCredential(credentials[0])
		must(t, err)
		a, err := decodeAttestation(parts.attestation)
		must(t, err)
		digest := sha(parts.data)
		must(t, vault.Verify(a.Key, digest[:], parts.signature))
		c, err := readCredential(parts.data)
		must(t, err)
		if c.Subject != peer || c.ExpiresAt-c.CreatedAt != 130 {
			t.Errorf("%+v", c)
		}
	}
}
