package channel

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"testing"

	"github.com/flynn/noise"
)

// TestAgainstFlynnNoise runs either side against flynn/noise's own handshake, and holds every message and key against those of a
// second run of it with the same keys. Payloads are random.
func TestAgainstFlynnNoise(t *testing.T) {
	r := seeded(1)
	suite := noise.NewCipherSuite(noise.DH25519, noise.CipherAESGCM, noise.HashSHA256)
	for round := range 20 {
		is, ie, rs, re := random(r, 32), random(r, 32), random(r, 32), random(r, 32)
		sizes := random(r, 4)
		p2, p3 := random(r, int(sizes[0])*round), random(r, int(sizes[1])*round)
		other := func(initiator bool, static, ephemeral []byte) *noise.HandshakeState {
			k, err := noise.DH25519.GenerateKeypair(bytes.NewReader(static))
			must(t, err)
			h, err := noise.NewHandshakeState(noise.Config{
				CipherSuite: suite, Pattern: noise.HandshakeXX, Initiator: initiator, StaticKeypair: k, Random: bytes.NewReader(ephemeral),
			})
			must(t, err)
			return h
		}
		theirI, theirR := other(true, is, ie), other(false, rs, re)
		var heardI, heardR []byte
		ourI := newHandshake(side(t, is, ie, p3, &heardI), standardName, waitStart)
		ourR := newHandshake(side(t, rs, re, p2, &heardR), standardName, wait1)

		m1, _, _, err := theirI.WriteMessage(nil, nil)
		must(t, err)
		our1, err := ourI.Start()
		must(t, err)
		wantBytes(t, "message 1", our1, m1)

		_, _, _, err = theirR.ReadMessage(nil, our1)
		must(t, err)
		m2, _, _, err := theirR.WriteMessage(nil, p2)
		must(t, err)
		our2, _, err := ourR.Handle(m1)
		must(t, err)
		wantBytes(t, "message 2", our2, m2)

		got2, _, _, err := theirI.ReadMessage(nil, our2)
		must(t, err)
		m3, k1, k2, err := theirI.WriteMessage(nil, p3)
		must(t, err)
		our3, _, err := ourI.Handle(m2)
		must(t, err)
		wantBytes(t, "message 3", our3, m3)

		got3, _, _, err := theirR.ReadMessage(nil, our3)
		must(t, err)
		_, done, err := ourR.Handle(m3)
		if must(t, err); !done {
			t.Fatal("not done")
		}
		wantBytes(t, "payload 2, theirs", got2, p2)
		wantBytes(t, "payload 3, theirs", got3, p3)
		wantBytes(t, "payload 2, ours", heardI, p2)
		wantBytes(t, "payload 3, ours", heardR, p3)
		i := ourI.Keys()
		wantMatch(t, i, ourR.Keys())
		if i.Send != k2.UnsafeKey() || i.Receive != k1.UnsafeKey() { // swapped on purpose
			t.Errorf("keys %x, want %x %x", i, k2.UnsafeKey(), k1.UnsafeKey())
		}
		wantBytes(t, "hash", i.Hash[:], theirI.ChannelBinding())
	}
}

// smallOrder are X25519 public keys with which every shared secret is zero, in all their encodings below 2^255.
var smallOrder = []string{
	"0000000000000000000000000000000000000000000000000000000000000000",
	"0100000000000000000000000000000000000000000000000000000000000000",
	"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
	"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
}

// garbage are messages that must be dropped in place of a genuine one of any state.
func garbage(genuine []byte) map[string][]byte {
	flip := func(at int) []byte {
		b := bytes.Clone(genuine)
		b[at] ^= 1
		return b
	}
	g := map[string][]byte{
		"empty": nil, "one byte": {1}, "short": genuine[:31], "cut": genuine[:len(genuine)-1], "longer": append(bytes.Clone(genuine), 0),
		"zeros": make([]byte, len(genuine)), "too long": make([]byte, MaxMessage+1), "first byte": flip(0), "last byte": flip(len(genuine) - 1),
		"byte 40": flip(40), "byte 63": flip(63),
	}
	for i, key := range smallOrder {
		k, _ := hex.DecodeString(key)
		g[fmt.Sprint("small order ", i)] = append(k, genuine[32:]...)
	}
	return g
}

// TestGarbage sends garbage before each genuine message 2 and 3: it is dropped with a typed error, and the handshake goes on.
func TestGarbage(t *testing.T) {
	r := seeded(2)
	i := NewInitiator(randomSide(t, r, random(r, 300)))
	p := NewResponder(randomSide(t, r, random(r, 200)))
	drop := func(h *Handshake, what string, msg []byte) {
		t.Helper()
		reply, done, err := h.Handle(msg)
		if reply != nil || done || h.Failed() {
			t.Fatalf("%s: reply %x, done %v, failed %v", what, reply, done, h.Failed())
		}
		if !errors.Is(err, ErrShort) && !errors.Is(err, ErrLong) && !errors.Is(err, ErrHandshake) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, _, err := i.Handle(make([]byte, 96))
	wantErr(t, "message before Start", err, ErrState)
	m1, err := i.Start()
	must(t, err)
	_, err = i.Start()
	wantErr(t, "second Start", err, ErrState)
	_, err = p.Start()
	wantErr(t, "Start of a responder", err, ErrState)
	drop(p, "short", m1[:31])
	drop(p, "long", make([]byte, MaxMessage+1))
	for _, key := range smallOrder {
		b, _ := hex.DecodeString(key)
		drop(p, "small order "+key, b)
	}
	m2, _, err := p.Handle(m1)
	must(t, err)
	drop(p, "message 1 again", append(m1, make([]byte, 64)...))
	for what, msg := range garbage(m2) {
		drop(i, what, msg)
	}
	m3, _, err := i.Handle(m2)
	must(t, err)
	for what, msg := range garbage(m3) {
		drop(p, what, msg)
	}
	_, done, err := p.Handle(m3)
	if must(t, err); !done {
		t.Fatal("not done")
	}
	wantMatch(t, i.Keys(), p.Keys())
	for _, h := range []*Handshake{i, p} {
		_, _, err = h.Handle(m3)
		wantErr(t, "message after the end", err, ErrState)
		if h.Failed() {
			t.Error("failed after the end")
		}
	}
}

// TestSmallOrderStatic has a peer whose static key is of small order, in messages that are genuine otherwise.
func TestSmallOrderStatic(t *testing.T) {
	r := seeded(3)
	for _, text := range smallOrder {
		bad, _ := hex.DecodeString(text)
		i := NewInitiator(randomSide(t, r, nil))
		m1, err := i.Start()
		must(t, err)
		e, err := noise.DH25519.GenerateKeypair(r)
		must(t, err)
		var s symmetric
		s.init(protocolName)
		s.mixHash(m1)
		s.mixHash(nil)
		s.mixHash(e.Public)
		secret, err := noise.DH25519.DH(e.Private, m1)
		must(t, err)
		s.mixKey(secret)
		m2 := s.encrypt(bytes.Clone(e.Public), bad)
		s.mixKey(make([]byte, 32))
		m2 = s.encrypt(m2, nil)
		_, _, err = i.Handle(m2)
		wantErr(t, text, err, ErrHandshake)
		if i.Failed() {
			t.Error("failed")
		}
	}
}

// TestOwnErrors has each thing that this side does fail; the handshake is over then and holds no secrets.
func TestOwnErrors(t *testing.T) {
	boom := errors.New("boom")
	spoil := map[string]func(*Config){
		"DH":           func(c *Config) { c.DH = func([32]byte) ([32]byte, error) { return [32]byte{}, boom } },
		"zero DH":      func(c *Config) { c.DH = func([32]byte) ([32]byte, error) { return [32]byte{}, nil } },
		"payload":      func(c *Config) { c.Payload = func() ([]byte, error) { return nil, boom } },
		"long payload": func(c *Config) { c.Payload = func() ([]byte, error) { return make([]byte, MaxMessage-63), nil } },
		"peer":         func(c *Config) { c.VerifyPeer = func([32]byte, []byte) error { return boom } },
		"rand":         func(c *Config) { c.Rand = bytes.NewReader(nil) },
	}
	want := map[string]error{"zero DH": ErrHandshake, "long payload": ErrLong}
	for what, f := range spoil {
		for _, initiator := range []bool{true, false} {
			t.Run(fmt.Sprint(what, " initiator ", initiator), func(t *testing.T) {
				r := seeded(4)
				ci, cr := randomSide(t, r, nil), randomSide(t, r, nil)
				if initiator {
					f(&ci)
				} else {
					f(&cr)
				}
				i, p := NewInitiator(ci), NewResponder(cr)
				bad := p
				if initiator {
					bad = i
				}
				m1, err := i.Start()
				var m2, m3 []byte
				if err == nil {
					m2, _, err = p.Handle(m1)
				}
				if err == nil {
					m3, _, err = i.Handle(m2)
				}
				if err == nil {
					_, _, err = p.Handle(m3)
				}
				if want := want[what]; want != nil {
					wantErr(t, what, err, want)
				} else if what == "rand" {
					if err == nil {
						t.Error("no error")
					}
				} else {
					wantErr(t, what, err, boom)
				}
				if !bad.Failed() || bad.s != (symmetric{}) || bad.ephemeral.secret != ([32]byte{}) {
					t.Error("not failed, or secrets are left")
				}
				_, _, err = bad.Handle(make([]byte, 96))
				wantErr(t, "message after failure", err, ErrState)
				wantPanic(t, "Keys after failure", func() { bad.Keys() })
			})
		}
	}
}

func TestLongestMessage(t *testing.T) {
	r := seeded(5)
	i := NewInitiator(randomSide(t, r, make([]byte, MaxMessage-64)))
	p := NewResponder(randomSide(t, r, make([]byte, MaxMessage-96)))
	_, m2, m3 := run(t, i, p)
	if len(m2) != MaxMessage || len(m3) != MaxMessage {
		t.Errorf("%d and %d bytes", len(m2), len(m3))
	}
	// Message 1 may carry anything behind the key, so its length alone decides.
	p = NewResponder(randomSide(t, r, nil))
	m1 := random(r, MaxMessage+1)
	_, _, err := p.Handle(m1)
	wantErr(t, "a byte more", err, ErrLong)
	_, _, err = p.Handle(m1[:MaxMessage])
	must(t, err)
}

func TestHandshakeSecretsErased(t *testing.T) {
	r := seeded(6)
	i, p := NewInitiator(randomSide(t, r, nil)), NewResponder(randomSide(t, r, nil))
	wantPanic(t, "Keys before the end", func() { i.Keys() })
	run(t, i, p)
	for _, h := range []*Handshake{i, p} {
		if h.s != (symmetric{}) || h.ephemeral.secret != ([32]byte{}) {
			t.Error("secrets are left after the split")
		}
		k := h.Keys()
		k.Wipe()
		if k != (Keys{}) || h.Keys() == (Keys{}) {
			t.Error("Keys is no copy, or was not wiped")
		}
		h.Wipe()
		if h.keys != (Keys{}) || !h.Failed() {
			t.Error("not wiped")
		}
		wantPanic(t, "Keys after Wipe", func() { h.Keys() })
	}
}

func wantPanic(t testing.TB, what string, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("%s: no panic", what)
		}
	}()
	f()
}
