package identity

import (
	"bytes"
	"crypto/sha256"
	"testing"
	"time"

	"sallyport/crypto/vault"
)

// TestCutShort: of every kind of item the whole is read, and nothing that ends before its end.
func TestCutShort(t *testing.T) {
	for name, item := range map[string][]byte{
		"a number":              {0x05},
		"a long number":         {0x1b, 0, 0, 0, 0, 0, 0, 0, 1},
		"a byte string":         {0x43, 1, 2, 3},
		"a text":                {0x63, 'a', 'b', 'c'},
		"an array":              {0x83, 1, 2, 3},
		"an open array":         {0x9f, 1, 0x41, 2, 0xff},
		"a map":                 {0xa2, 1, 2, 3, 4},
		"an open map":           {0xbf, 1, 2, 0xff},
		"a tag":                 {0xc1, 0x1a, 0, 0, 0, 1},
		"an open byte string":   {0x5f, 0x41, 1, 0x42, 2, 3, 0xff},
		"null":                  {0xf6},
		"arrays in one another": {0x82, 0x82, 0x41, 7, 0xa1, 1, 2, 0x61, 'x'},
	} {
		for _, behind := range [][]byte{nil, {0}, {0xff, 0xff}} {
			r := &reader{b: append(bytes.Clone(item), behind...)}
			if got := r.raw(); r.err != nil || !bytes.Equal(got, item) {
				t.Errorf("%s: %x, %v", name, got, r.err)
			}
		}
		for cut := range item {
			r := &reader{b: item[:cut]}
			if got := r.raw(); r.err == nil {
				t.Errorf("%s cut to %d bytes is read as %x", name, cut, got)
			}
		}
	}
	for name, item := range map[string][]byte{
		"a map with more entries than bytes": {0xbb, 0x80, 0, 0, 0, 0, 0, 0, 1, 1, 2},
		"a string of a huge length":          {0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1},
	} {
		r := &reader{b: item}
		if got := r.raw(); r.err == nil {
			t.Errorf("%s is read as %x", name, got)
		}
	}
}

// TestBooleans: true and false are read, and nothing else is, least of all what is not there.
func TestBooleans(t *testing.T) {
	for text, want := range map[string]bool{"f4": false, "f5": true} {
		r := &reader{b: unhex(t, text)}
		if got := r.bool(); got != want || r.err != nil || r.at != 1 {
			t.Errorf("%s: %v, %v", text, got, r.err)
		}
		if r.bool() || r.err == nil { // the end
			t.Error("read behind the end")
		}
	}
	for _, text := range []string{"", "f6", "00", "01", "ff"} {
		r := &reader{b: unhex(t, text)}
		if r.bool() || r.err == nil {
			t.Errorf("%q is read as a boolean", text)
		}
	}
	r := &reader{b: unhex(t, "f5"), err: ErrEncoding}
	if r.bool() || r.at != 0 {
		t.Error("read after an error")
	}
}

// TestAttestedKey: an attestation's key is named by its own handle, whatever it is for.
func TestAttestedKey(t *testing.T) {
	ctx := t.Context()
	n := newNode(t)
	self := n.create(t, CreateOptions{}).Identifier()
	channels, err := n.SecureChannelKey(ctx, self)
	must(t, err)
	credentials, err := n.CredentialKey(ctx, self, vault.P256)
	must(t, err)
	for want, k := range map[Purpose]*PurposeKey{SecureChannel: channels, CredentialSigning: credentials} {
		if p, h, err := AttestedKey(k.Attestation); err != nil || p != want || h != k.Handle {
			t.Errorf("%s: %s, %s, %v", want, p, h, err)
		}
	}
	_, _, err = AttestedKey(nil)
	wantIs(t, "nothing", err, ErrEncoding)
}

// TestWhenKeysAreRenewed: after half of what is theirs, which is what they are attested for without the time that what they sign needs, and up to a fifth of that later.
func TestWhenKeysAreRenewed(t *testing.T) {
	const life = 1000 * time.Second
	for _, c := range []struct {
		given       bool
		span, whole int
		half        Timestamp
		short       bool
	}{
		{false, 0, 1000, 500, false}, {false, 400, 700, 500, false},
		{true, 0, 1000, 500, false}, {true, 0, 2000, 500, false}, {true, 0, 600, 300, true},
		{true, 400, 1400, 500, false}, {true, 400, 1399, 499, true}, {true, 400, 1000, 300, true}, {true, 400, 401, 0, true},
		{true, 400, 400, 200, true}, {true, 400, 300, 150, true},
	} {
		for range 20 {
			k := &heldKey{PurposeKey: &PurposeKey{ExpiresAt: start + Timestamp(c.whole)}, made: start, span: time.Duration(c.span) * time.Second}
			if k.renewIn(life, c.given); k.renewAt < start+c.half || k.renewAt > start+c.half+c.half/5 || k.short != c.short {
				t.Errorf("%+v: after %d, short: %v", c, k.renewAt-start, k.short)
			}
		}
	}
}

// TestLastSecondOfAPrimaryKey: it attests in it, and not behind it.
func TestLastSecondOfAPrimaryKey(t *testing.T) {
	n := newNode(t)
	i := n.create(t, CreateOptions{Lifetime: time.Hour})
	r := AttestationRequest{Subject: i.Identifier(), Purpose: SecureChannel, Lifetime: time.Second}
	n.now = start + 3600
	_, _, err := n.Attest(t.Context(), r)
	must(t, err)
	n.now++
	_, _, err = n.Attest(t.Context(), r)
	wantIs(t, "the second behind it", err, ErrExpired)
}

// TestDepthOfUnknownItems: what is passed over may be nested so deep, and no deeper.
func TestDepthOfUnknownItems(t *testing.T) {
	for depth, good := range map[int]bool{maxDepth: true, maxDepth + 1: false} {
		r := &reader{b: append(bytes.Repeat([]byte{0x81}, depth), 0)}
		if r.skip(); (r.err == nil) != good {
			t.Errorf("depth %d: %v", depth, r.err)
		}
	}
}

// TestNumberOfCredentials: a peer may present as many as the bound, and not one more.
func TestNumberOfCredentials(t *testing.T) {
	for n, good := range map[int]bool{0: true, 1: true, maxPayloadCredentials: true, maxPayloadCredentials + 1: false} {
		list := make([][]byte, n)
		for i := range list {
			list[i] = []byte{0x41, byte(i)}
		}
		p, err := DecodePayload(EncodePayload(Payload{History: []byte{0x80}, Attestation: []byte{0x80}, Credentials: list}))
		if (err == nil) != good || good && len(p.Credentials) != n {
			t.Errorf("%d in a payload: %d, %v", n, len(p.Credentials), err)
		}
		_, got, err := DecodeRefresh(EncodeRefresh([]byte{0x80}, list))
		if (err == nil) != good || good && len(got) != n {
			t.Errorf("%d in a refresh: %d, %v", n, len(got), err)
		}
	}
}

// TestCredentialOfNobody: what its issuer signed about nobody is about nobody, whoever shows it.
func TestCredentialOfNobody(t *testing.T) {
	var somebody Identifier
	good := encodeCredential(somebody, sha256.Sum256(nil), Attributes{"a": "b"}, start, start+10)
	c, err := readCredential(good)
	must(t, err)
	if c.CreatedAt != start || c.ExpiresAt != start+10 || c.Attributes["a"] != "b" {
		t.Errorf("%+v", c)
	}
	subject := append([]byte{0x58, 32}, somebody[:]...)
	if bytes.Count(good, subject) != 1 {
		t.Fatalf("%x", good)
	}
	// The lengths in front of the content are of another size then, so the content is wrapped anew.
	content, err := versioned(good, typeCredential)
	must(t, err)
	null := bytes.Replace(content, subject, []byte{0xf6}, 1)
	again := append(appendUint(appendUint(appendArray(nil, 3), 1), typeCredential), appendBytes(nil, null)...)
	_, err = readCredential(again)
	wantIs(t, "no subject", err, ErrEncoding)
	_, err = readCredential(append(appendUint(appendUint(appendArray(nil, 3), 1), typeCredential), appendBytes(nil, content)...))
	must(t, err)
}

// TestForkIsNotOlder: a history that went another way is refused also where an older one is passed over.
func TestForkIsNotOlder(t *testing.T) {
	ctx := t.Context()
	n := newNode(t)
	one := n.create(t, CreateOptions{})
	change := func() []byte {
		fresh, key, err := n.vault.GenerateSigningKey(ctx, vault.Ed25519)
		must(t, err)
		data := encodeChange(&one.Latest().Hash, &Change{Key: key, ValidFrom: one.Latest().ValidFrom, ValidUntil: one.Latest().ValidUntil})
		digest := sha256.Sum256(data)
		by, err := n.vault.Sign(ctx, fresh, digest[:])
		must(t, err)
		previous, err := n.vault.Sign(ctx, vault.HandleOf(one.Latest().Key.Bytes), digest[:])
		must(t, err)
		return appendChange(one, data, by, &previous)
	}
	left, right := change(), change()
	peer := newNode(t)
	_, err := peer.Import(ctx, left, nil)
	must(t, err)
	got, err := peer.ImportIgnoreOlder(ctx, one.History())
	if err != nil || len(got.Changes()) != 2 {
		t.Errorf("the older one: %v, %v", got, err)
	}
	got, err = peer.ImportIgnoreOlder(ctx, right)
	wantIs(t, "the fork", err, ErrConsistency)
	if got != nil {
		t.Errorf("%+v", got)
	}
}

// TestDeletedIdentityTakesItsOwnKeysOnly: the keys of another identity of the same process stay.
func TestDeletedIdentityTakesItsOwnKeysOnly(t *testing.T) {
	ctx := t.Context()
	n := newNode(t)
	one, other := n.create(t, CreateOptions{}).Identifier(), n.create(t, CreateOptions{}).Identifier()
	theirs, err := n.SecureChannelKey(ctx, other)
	must(t, err)
	signing, err := n.CredentialKey(ctx, other, vault.Ed25519)
	must(t, err)
	mine, err := n.SecureChannelKey(ctx, one)
	must(t, err)
	must(t, n.Delete(ctx, one))
	_, err = n.keys.VerifyingKey(ctx, signing.Handle)
	must(t, err)
	_, err = n.keys.PublicX25519(ctx, theirs.Handle)
	must(t, err)
	_, err = n.keys.PublicX25519(ctx, mine.Handle)
	wantIs(t, "its own", err, vault.ErrNotFound)
}
