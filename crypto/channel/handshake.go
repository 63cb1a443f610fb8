package channel

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"

	"golang.org/x/crypto/curve25519"
)

const MaxMessage = 65535
const protocolName = "OCKAM_XX_25519_AES256_GCM_SHA256"

var ErrHandshake = errors.New("channel: handshake failed")

type Keys struct{ Send, Receive, Hash [32]byte }

func (k *Keys) Wipe() { *k = Keys{} }

type Config struct {
	Static     [32]byte
	DH         func(peer [32]byte) ([32]byte, error)
	Rand       io.Reader
	Payload    func() ([]byte, error)
	VerifyPeer func(static [32]byte, payload []byte) error
}

type sym struct {
	ck, h, k [32]byte
	n        uint64
}

func (s *sym) mixHash(d []byte) { x := sha256.New(); x.Write(s.h[:]); x.Write(d); x.Sum(s.h[:0]) }
func kdf(ck, ikm []byte) (a, b [32]byte) {
	out, _ := hkdf.Key(sha256.New, ikm, ck, "", 64)
	copy(a[:], out)
	copy(b[:], out[32:])
	return
}
func (s *sym) mixKey(d [32]byte) { s.ck, s.k = kdf(s.ck[:], d[:]); s.n = 0 }
func (s *sym) aead() cipher.AEAD { b, _ := aes.NewCipher(s.k[:]); g, _ := cipher.NewGCM(b); return g }
func (s *sym) nonce() []byte     { var n [12]byte; binary.BigEndian.PutUint64(n[4:], s.n); return n[:] }
func (s *sym) enc(p []byte) []byte {
	c := s.aead().Seal(nil, s.nonce(), p, s.h[:])
	s.mixHash(c)
	s.n++
	return c
}
func (s *sym) dec(c []byte) ([]byte, error) {
	p, err := s.aead().Open(nil, s.nonce(), c, s.h[:])
	if err != nil {
		return nil, ErrHandshake
	}
	s.mixHash(c)
	s.n++
	return p, nil
}

type Handshake struct {
	cfg             Config
	initiator       bool
	s               sym
	step            int
	e, ePub, re, rs [32]byte
	keys            Keys
	failed          bool
}

func newHandshake(cfg Config, init bool) *Handshake {
	h := &Handshake{cfg: cfg, initiator: init}
	copy(h.s.ck[:], protocolName)
	h.s.h = h.s.ck
	h.s.mixHash(nil)
	return h
}
func NewInitiator(cfg Config) *Handshake { return newHandshake(cfg, true) }
func NewResponder(cfg Config) *Handshake { return newHandshake(cfg, false) }
func (h *Handshake) Failed() bool        { return h.failed }
func (h *Handshake) gen() error {
	if _, err := io.ReadFull(h.cfg.Rand, h.e[:]); err != nil {
		return err
	}
	p, err := curve25519.X25519(h.e[:], curve25519.Basepoint)
	if err != nil {
		return err
	}
	copy(h.ePub[:], p)
	return nil
}
func dh(a, b [32]byte) (o [32]byte, err error) {
	p, err := curve25519.X25519(a[:], b[:])
	if err == nil {
		copy(o[:], p)
	}
	return
}
func (h *Handshake) Start() ([]byte, error) {
	if err := h.gen(); err != nil {
		return nil, err
	}
	h.s.mixHash(h.ePub[:])
	h.s.mixHash(nil)
	h.step = 1
	return append([]byte(nil), h.ePub[:]...), nil
}
func (h *Handshake) Handle(m []byte) (out []byte, done bool, err error) {
	if len(m) > MaxMessage {
		return nil, false, ErrHandshake
	}
	s := h.s
	switch {
	case !h.initiator && h.step == 0:
		if len(m) < 32 {
			return nil, false, ErrShort
		}
		copy(h.re[:], m)
		s.mixHash(m[:32])
		s.mixHash(m[32:])
		if err := h.gen(); err != nil {
			return nil, false, err
		}
		s.mixHash(h.ePub[:])
		d, err := dh(h.e, h.re)
		if err != nil {
			return nil, false, err
		}
		s.mixKey(d)
		out = append(out, h.ePub[:]...)
		out = append(out, s.enc(h.cfg.Static[:])...)
		if d, err = h.cfg.DH(h.re); err != nil {
			return nil, false, err
		}
		s.mixKey(d)
		p, err := h.cfg.Payload()
		if err != nil {
			h.failed = true
			return nil, false, err
		}
		out = append(out, s.enc(p)...)
		h.s = s
		h.step = 2
		return out, false, nil
	case h.initiator && h.step == 1:
		if len(m) < 96 {
			return nil, false, ErrShort
		}
		copy(h.re[:], m)
		s.mixHash(m[:32])
		d, err := dh(h.e, h.re)
		if err != nil {
			return nil, false, err
		}
		s.mixKey(d)
		rs, err := s.dec(m[32:80])
		if err != nil {
			return nil, false, err
		}
		copy(h.rs[:], rs)
		if d, err = dh(h.e, h.rs); err != nil {
			return nil, false, err
		}
		s.mixKey(d)
		p, err := s.dec(m[80:])
		if err != nil {
			return nil, false, err
		}
		if err := h.cfg.VerifyPeer(h.rs, p); err != nil {
			h.failed = true
			return nil, false, err
		}
		out = s.enc(h.cfg.Static[:])
		if d, err = h.cfg.DH(h.re); err != nil {
			return nil, false, err
		}
		s.mixKey(d)
		if p, err = h.cfg.Payload(); err != nil {
			h.failed = true
			return nil, false, err
		}
		out = append(out, s.enc(p)...)
		h.s = s
		h.split()
		h.step = 3
		return out, true, nil
	case !h.initiator && h.step == 2:
		if len(m) < 64 {
			return nil, false, ErrShort
		}
		rs, err := s.dec(m[:48])
		if err != nil {
			return nil, false, err
		}
		copy(h.rs[:], rs)
		d, err := dh(h.e, h.rs)
		if err != nil {
			return nil, false, err
		}
		s.mixKey(d)
		p, err := s.dec(m[48:])
		if err != nil {
			return nil, false, err
		}
		if err := h.cfg.VerifyPeer(h.rs, p); err != nil {
			h.failed = true
			return nil, false, err
		}
		h.s = s
		h.split()
		h.step = 3
		return nil, true, nil
	}
	return nil, false, ErrHandshake
}
func (h *Handshake) split() {
	k1, k2 := kdf(h.s.ck[:], nil)
	if h.initiator {
		h.keys = Keys{Send: k2, Receive: k1}
	} else {
		h.keys = Keys{Send: k1, Receive: k2}
	}
	h.keys.Hash = h.s.h
}
func (h *Handshake) Keys() Keys { return h.keys }
func (h *Handshake) Wipe()      { *h = Handshake{failed: true} }
