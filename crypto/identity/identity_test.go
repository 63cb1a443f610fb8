package identity

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"sallyport/crypto/vault"
)

func sha(b []byte) [32]byte { return sha256.Sum256(b) }

type identityVectors struct {
	Vectors []struct {
		Name    string `json:"name"`
		History string `json:"change_history_hex"`
		ID      string `json:"identifier"`
		Changes int    `json:"num_changes"`
		Seed    string `json:"ed25519_secret_seed_hex"`
		Handle  string `json:"vault_handle_hex"`
		Last    struct {
			Hash       string    `json:"versioned_data_sha256"`
			Variant    int       `json:"key_variant"`
			PublicKey  string    `json:"public_key_hex"`
			Revoke     bool      `json:"revoke_all_purpose_keys"`
			ValidFrom  Timestamp `json:"valid_from"`
			ValidUntil Timestamp `json:"valid_until"`
			Data       string    `json:"versioned_data_hex"`
		} `json:"last_change"`
	} `json:"vectors"`
	Negative []struct {
		Name    string `json:"name"`
		History string `json:"change_history_hex"`
		Expect  string `json:"expect"`
	} `json:"negative"`
}

// TestHistories verifies every change history of the vectors and refuses every broken one.
func TestHistories(t *testing.T) {
	var v identityVectors
	load(t, "02-identities.json", &v)
	if len(v.Vectors) < 10 || len(v.Negative) < 7 {
		t.Fatalf("%d and %d vectors", len(v.Vectors), len(v.Negative))
	}
	for _, c := range v.Vectors {
		i, err := ImportHex(" "+c.History+"\n", nil)
		if err != nil {
			t.Errorf("%s: %v", c.Name, err)
			continue
		}
		if i.Identifier().String() != c.ID || len(i.Changes()) != c.Changes || i.Hex() != c.History {
			t.Errorf("%s: %s with %d changes, want %s with %d", c.Name, i.Identifier(), len(i.Changes()), c.ID, c.Changes)
		}
		latest, want := i.Latest(), c.Last
		if !bytes.Equal(latest.Hash[:], unhex(t, want.Hash)) || int(latest.Key.Algorithm) != want.Variant ||
			!bytes.Equal(latest.Key.Bytes, unhex(t, want.PublicKey)) || latest.RevokeAll != want.Revoke ||
			latest.ValidFrom != want.ValidFrom || latest.ValidUntil != want.ValidUntil {
			t.Errorf("%s: latest change %+v", c.Name, latest)
		}
		var previous *[32]byte
		if n := len(i.Changes()); n > 1 {
			previous = &i.Changes()[n-2].Hash
		}
		if got := encodeChange(previous, latest); !bytes.Equal(got, unhex(t, want.Data)) {
			t.Errorf("%s: encoded as %x", c.Name, got)
		}
		expected := id(t, c.ID)
		_, err = ImportHex(c.History, &expected)
		must(t, err)
		expected[31] ^= 1
		_, err = ImportHex(c.History, &expected)
		wantIs(t, c.Name+": another identifier", err, ErrVerification)
	}
	for _, c := range v.Negative {
		_, err := Import(unhex(t, c.History), nil)
		wantIs(t, c.Name, err, ErrVerification)
		if strings.Contains(c.Expect, "data type") {
			wantIs(t, c.Name, err, ErrDataType)
		}
	}
}

// TestRebuild makes histories of published seeds anew, byte for byte.
func TestRebuild(t *testing.T) {
	var v identityVectors
	load(t, "02-identities.json", &v)
	seeds := map[string]string{}
	for _, c := range v.Vectors {
		if c.Seed == "" {
			continue
		}
		seeds[c.Name] = c.Seed
		n := newNode(t)
		h := n.seed(t, c.Seed)
		if string(h) != c.Handle {
			t.Errorf("%s: handle %s, want %s", c.Name, h, c.Handle)
		}
		n.now = c.Last.ValidFrom
		if got := n.create(t, CreateOptions{Key: h}); got.Hex() != c.History {
			t.Errorf("%s: %s, want %s", c.Name, got.Hex(), c.History)
		}
	}
	if len(seeds) != 3 {
		t.Fatalf("%d seeds", len(seeds))
	}

	// The rotation: its second change has the revoke flag, which Manager never sets.
	for _, c := range v.Vectors {
		if c.Name != "derived_rotation_2_changes" {
			continue
		}
		want, err := ImportHex(c.History, nil)
		must(t, err)
		n := newNode(t)
		n.seed(t, seeds["example_server"])
		n.now = want.Changes()[0].ValidFrom
		first := n.create(t, CreateOptions{Key: n.seed(t, seeds["example_client"])})
		data := encodeChange(&first.Latest().Hash, want.Latest())
		digest := sha(data)
		var sigs [2]vault.Signature
		for k, c := range []Change{want.Changes()[1], want.Changes()[0]} {
			sigs[k], err = n.vault.Sign(context.Background(), vault.HandleOf(c.Key.Bytes), digest[:])
			must(t, err)
		}
		if got := appendChange(first, data, sigs[0], &sigs[1]); !bytes.Equal(got, want.History()) {
			t.Errorf("rotation: %x, want %x", got, want.History())
		}
		return
	}
	t.Error("no vector of a rotation")
}

func TestIdentifierText(t *testing.T) {
	const text = "I923829d0397a06fa862be5a87b7966959b8ef99ab6455b843ca9131a747b4819"
	for _, good := range []string{text, " " + text + "\t\n", "I" + strings.ToUpper(text[1:])} {
		i, err := ParseIdentifier(good)
		if err != nil || i.String() != text {
			t.Errorf("%q: %s, %v", good, i, err)
		}
	}
	for _, bad := range []string{"", "I", text[1:], "i" + text[1:], text + "00", text[:64], text[:64] + "g", "P" + text[1:], "I " + text[1:]} {
		_, err := ParseIdentifier(bad)
		wantIs(t, bad, err, ErrIdentifier)
	}
	b, err := json.Marshal(map[Identifier]Identifier{id(t, text): id(t, text)})
	if err != nil || string(b) != `{"`+text+`":"`+text+`"}` {
		t.Errorf("%s, %v", b, err)
	}
	var back map[Identifier]Identifier
	must(t, json.Unmarshal(b, &back))
	if back[id(t, text)] != id(t, text) {
		t.Error(back)
	}
	raw, err := id(t, text).MarshalCBOR()
	if err != nil || !bytes.Equal(raw, unhex(t, "5820"+text[1:])) {
		t.Errorf("%x, %v", raw, err)
	}
	var i Identifier
	must(t, i.UnmarshalCBOR(raw))
	if i != id(t, text) {
		t.Error(i)
	}
	wantIs(t, "31 bytes", i.UnmarshalCBOR(append([]byte{0x58, 31}, raw[3:]...)), ErrEncoding)
}

// TestTolerance: what the encoding may differ in without being refused, and what not (docs/protocol/02 §1).
func TestTolerance(t *testing.T) {
	n := newNode(t)
	one := n.create(t, CreateOptions{})
	raw := one.History() // 81 82 58 37 <55 bytes> 82 00 81 58 40 <64 bytes>
	change := raw[1:]
	data, sig := change[1:58], change[58:]
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	good := map[string][]byte{
		"as it is":               raw,
		"trailing bytes":         join(raw, []byte{1, 2, 3}),
		"indefinite list":        join([]byte{0x9f}, change, []byte{0xff}),
		"indefinite change":      join([]byte{0x81, 0x9f}, data, sig, []byte{0xff}),
		"long head":              join([]byte{0x9b, 0, 0, 0, 0, 0, 0, 0, 1}, change),
		"further element":        join([]byte{0x81, 0x84}, data, sig, []byte{0xf6, 0xa1, 0x01, 0x9f, 0x02, 0xff}),
		"previous signature":     join([]byte{0x81, 0x83}, data, sig, sig),
		"unknown previous kind":  join([]byte{0x81, 0x83}, data, sig, []byte{0x82, 0x09, 0x80}),
		"indefinite signature":   join([]byte{0x81, 0x82}, data, []byte{0x82, 0x00, 0x9f}, sig[3:], []byte{0xff}),
		"signature with more":    join([]byte{0x81, 0x82}, data, []byte{0x82, 0x00, 0x82}, sig[3:], []byte{0xf5}),
		"bytes of a longer head": join([]byte{0x81, 0x82, 0x59, 0, 55}, data[2:], sig),
	}
	for name, b := range good {
		i, err := Import(b, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if i.Identifier() != one.Identifier() || !bytes.HasPrefix(b, i.History()) {
			t.Errorf("%s: %s with %x", name, i.Identifier(), i.History())
		}
	}
	bad := map[string][]byte{
		"nothing":                   nil,
		"cut short":                 raw[:len(raw)-1],
		"list of another length":    join([]byte{0x82}, change),
		"not closed":                join([]byte{0x9f}, change),
		"a huge list":               {0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"a huge string":             join([]byte{0x81, 0x82, 0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, data[2:], sig),
		"indefinite string":         join([]byte{0x81, 0x82, 0x5f}, data, []byte{0xff}, sig),
		"text":                      join([]byte{0x81, 0x82, 0x78}, data[1:], sig),
		"no signature":              join([]byte{0x81, 0x81}, data),
		"null signature":            join([]byte{0x81, 0x82}, data, []byte{0xf6}),
		"P-256 signature":           join([]byte{0x81, 0x82}, data, []byte{0x82, 0x01}, sig[2:]),
		"unknown signature":         join([]byte{0x81, 0x82}, data, []byte{0x82, 0x02}, sig[2:]),
		"indefinite variant":        join([]byte{0x81, 0x82}, data, []byte{0x9f}, sig[1:], []byte{0xff}),
		"deep nesting":              join([]byte{0x81, 0x84}, data, sig, []byte{0xf6}, bytes.Repeat([]byte{0x81}, maxDepth+2), []byte{0}),
		"a map":                     {0xa0},
		"the same change twice":     join([]byte{0x82}, change, change),
		"a reserved head":           {0x9c},
		"broken previous signature": join([]byte{0x81, 0x83}, data, sig, []byte{0x82, 0x00, 0x80}),
	}
	for name, b := range bad {
		_, err := Import(b, nil)
		wantIs(t, name, err, ErrVerification)
	}
	_, err := Import(bad["P-256 signature"], nil)
	wantIs(t, "mismatch of key and signature", err, vault.ErrAlgorithm)
	_, err = Import(append(bytes.Clone(raw), make([]byte, maxHistory)...), nil)
	wantIs(t, "too long", err, ErrVerification)
	_, err = ImportHex("8x", nil)
	wantIs(t, "not hex", err, ErrEncoding)
	// What is signed but of another version is refused although the signature is good.
	v2 := bytes.Clone(encodeChange(nil, one.Latest()))
	v2[1] = 2
	signed := n.signWith(t, one.Latest().Key, v2)
	_, err = Import(append([]byte{0x81}, signed...), nil)
	wantIs(t, "version 2", err, ErrVerification, ErrVersion)
}

func TestCompare(t *testing.T) {
	ctx := t.Context()
	n := newNode(t)
	one := n.create(t, CreateOptions{})
	two, err := n.Rotate(ctx, one.Identifier(), RotateOptions{})
	must(t, err)
	three, err := n.Rotate(ctx, one.Identifier(), RotateOptions{})
	must(t, err)
	other := n.create(t, CreateOptions{})
	fork := &Identity{id: one.id, raw: one.raw, changes: append([]Change{one.changes[0]}, other.changes[0])}
	for _, c := range []struct {
		known, received *Identity
		want            Comparison
		store           bool
		err             error
	}{
		{one, one, Equal, false, nil}, {one, two, Newer, true, nil}, {one, three, Newer, true, nil},
		{three, two, Older, false, ErrConsistency}, {two, fork, Conflict, false, ErrConsistency},
		{fork, three, Conflict, false, ErrConsistency}, {fork, one, Older, false, ErrConsistency},
	} {
		if got := Compare(c.known, c.received); got != c.want {
			t.Errorf("%d changes, received %d: %d, want %d", len(c.known.changes), len(c.received.changes), got, c.want)
		}
		store, err := CheckUpdate(c.known, c.received)
		if store != c.store || (err == nil) != (c.err == nil) {
			t.Errorf("%d changes, received %d: %v, %v", len(c.known.changes), len(c.received.changes), store, err)
		} else if c.err != nil {
			wantIs(t, "update", err, c.err)
		}
	}

	// The same through stores.
	for name, s := range map[string]Store{"memory": NewMemoryStore(), "overlay": NewOverlay(NewMemoryStore(), 10)} {
		m := New(Options{Vault: vault.NewMemory(), Store: s, Now: time.Now})
		_, err := m.Identity(ctx, one.Identifier())
		wantIs(t, name, err, ErrNotFound)
		for _, i := range []*Identity{one, two, two} {
			_, err := m.Import(ctx, i.History(), nil)
			must(t, err)
		}
		_, err = m.Import(ctx, one.History(), nil)
		wantIs(t, name+": older", err, ErrConsistency)
		kept, err := m.ImportIgnoreOlder(ctx, one.History())
		if err != nil || len(kept.Changes()) != 2 {
			t.Errorf("%s: %v, %v", name, kept, err)
		}
		newer, err := m.ImportIgnoreOlder(ctx, three.History())
		if err != nil || len(newer.Changes()) != 3 {
			t.Errorf("%s: %v, %v", name, newer, err)
		}
		wantIs(t, name+": conflict", s.PutIdentity(ctx, fork), ErrConsistency)
		if h, err := m.History(ctx, one.Identifier()); err != nil || !bytes.Equal(h, three.History()) {
			t.Errorf("%s: %x, %v", name, h, err)
		}
	}
}
