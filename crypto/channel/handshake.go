package channel

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"

	"github.com/cloudflare/circl/dh/x25519"
)

// MaxMessage is the longest handshake message in bytes (docs/protocol/01 §7.3).
const MaxMessage = 65535

// The shortest messages, in bytes: with empty payloads.
const (
	minMessage1 = keySize
	minMessage2 = keySize + minMessage3
	minMessage3 = keySize + tagSize + tagSize
)

var (
	// ErrHandshake reports a handshake message that does not verify: made with other keys, altered, or with a public key that
	// gives a shared secret of zeros.
	ErrHandshake = errors.New("channel: handshake message does not verify")
	// ErrLong reports a handshake message above MaxMessage.
	ErrLong = errors.New("channel: handshake message too long")
	// ErrState reports a call at a moment when the handshake does not expect it.
	ErrState = errors.New("channel: not expected at this point of the handshake")
)

// Keys are the outcome of a handshake: the key to send with, the key to receive with, and the transcript's hash, which is no
// secret and the same on both sides.
type Keys struct{ Send, Receive, Hash [32]byte }

// Wipe erases k.
func (k *Keys) Wipe() { *k = Keys{} }

// Config is one side of a handshake. DH, Payload and VerifyPeer are each called at most once in a handshake, from Handle.
type Config struct {
	// Static is the public key of this side; DH computes with its secret, which lives in a vault.
	Static [32]byte
	DH     func(peer [32]byte) ([32]byte, error)
	// Rand makes the ephemeral key; nil is crypto/rand.
	Rand io.Reader
	// Payload returns this side's identity payload; it is asked when the message that carries it is built. An initiator's is
	// asked only after VerifyPeer was content.
	Payload func() ([]byte, error)
	// VerifyPeer checks the peer's identity payload against the static key it used. It may keep payload.
	VerifyPeer func(static [32]byte, payload []byte) error
}

// step is what a handshake waits for.
type step uint8

const (
	waitStart step = iota
	wait1
	wait2
	wait3
	finished
)

// Handshake is one side of an XX handshake: message 1 of 32 bytes, then messages 2 and 3 with identity payloads
// (docs/protocol/01 §7.3, §7.5).
//
// There are two kinds of errors. A message that is short (ErrShort), long (ErrLong), altered or not meant for this handshake
// (ErrHandshake), or comes at the wrong moment (ErrState) is dropped: the handshake is as it was before and goes on with the
// genuine one. This is more forgiving than the reference, which such a message can stop (docs/protocol/01 §9.13). All other
// errors come from this side (a callback of [Config] failed, the peer was refused, the own payload is too long) and end the
// handshake: its secrets are erased, and Failed reports true.
//
// Stricter than the reference, shared secrets of zeros are refused, so a peer cannot force one with a key of small order.
type Handshake struct {
	cfg       Config
	s         symmetric
	step      step
	ephemeral keyPair
	keys      Keys
	failed    bool
}

func newHandshake(cfg Config, name string, first step) *Handshake {
	h := &Handshake{cfg: cfg, step: first}
	h.s.init(name)
	return h
}

// NewInitiator returns a handshake that begins with Start.
func NewInitiator(cfg Config) *Handshake { return newHandshake(cfg, protocolName, waitStart) }

// NewResponder returns a handshake that waits for message 1.
func NewResponder(cfg Config) *Handshake { return newHandshake(cfg, protocolName, wait1) }

// Failed reports that the handshake is over without keys: this side refused the peer or could not do its part, or it was wiped.
func (h *Handshake) Failed() bool { return h.failed }

// Start returns message 1 of an initiator. It fails with ErrState if called twice or for a responder, and with the error of
// Config.Rand, which ends the handshake.
func (h *Handshake) Start() ([]byte, error) { return h.start(nil) }

// start is Start with a payload in clear, which no implementation sends but the reference's test vectors have.
func (h *Handshake) start(payload []byte) ([]byte, error) {
	if h.step != waitStart {
		return nil, ErrState
	}
	if err := h.newEphemeral(); err != nil {
		h.end()
		return nil, err
	}
	h.s.mixHash(h.ephemeral.public[:])
	h.s.mixHash(payload)
	h.step = wait2
	return append(append([]byte(nil), h.ephemeral.public[:]...), payload...), nil
}

// Handle takes the peer's next message. reply, if not nil, is to be sent and belongs to the caller; done tells that Keys are
// there. Handle neither changes msg nor keeps a reference to it. See [Handshake] for which errors the handshake survives.
func (h *Handshake) Handle(msg []byte) (reply []byte, done bool, err error) {
	if len(msg) > MaxMessage {
		return nil, false, fmt.Errorf("%w: %d bytes", ErrLong, len(msg))
	}
	s, at := h.s, h.step
	defer func() { s = symmetric{} }()
	next := finished
	switch at {
	case wait1:
		next = wait3
		reply, err = h.handle1(&s, msg)
	case wait2:
		reply, err = h.handle2(&s, msg)
	case wait3:
		err = h.handle3(&s, msg)
	default:
		err = ErrState
	}
	var own *ownError
	if errors.As(err, &own) {
		h.end()
		return nil, false, own.error
	}
	if err != nil {
		return nil, false, err
	}
	h.s, h.step = s, next
	if next == finished {
		h.finish(at == wait2)
		return reply, true, nil
	}
	return reply, false, nil
}

// ownError is an error of this side, which ends the handshake.
type ownError struct{ error }

// handle1 reads message 1 and builds message 2.
func (h *Handshake) handle1(s *symmetric, msg []byte) ([]byte, error) {
	if len(msg) < minMessage1 {
		return nil, fmt.Errorf("%w: %d bytes, message 1 has %d", ErrShort, len(msg), minMessage1)
	}
	peer := [keySize]byte(msg)
	s.mixHash(peer[:])
	s.mixHash(msg[keySize:]) // a payload in clear is accepted and ignored
	if err := h.newEphemeral(); err != nil {
		return nil, &ownError{err}
	}
	s.mixHash(h.ephemeral.public[:])
	if err := h.mixEphemeral(s, peer[:]); err != nil {
		return nil, err
	}
	return h.present(s, append([]byte(nil), h.ephemeral.public[:]...), peer)
}

// handle2 reads message 2 and builds message 3.
func (h *Handshake) handle2(s *symmetric, msg []byte) ([]byte, error) {
	if len(msg) < minMessage2 {
		return nil, fmt.Errorf("%w: %d bytes, message 2 has at least %d", ErrShort, len(msg), minMessage2)
	}
	peer := [keySize]byte(msg)
	s.mixHash(peer[:])
	if err := h.mixEphemeral(s, peer[:]); err != nil {
		return nil, err
	}
	if err := h.verify(s, msg[keySize:]); err != nil {
		return nil, err
	}
	return h.present(s, nil, peer)
}

// handle3 reads message 3.
func (h *Handshake) handle3(s *symmetric, msg []byte) error {
	if len(msg) < minMessage3 {
		return fmt.Errorf("%w: %d bytes, message 3 has at least %d", ErrShort, len(msg), minMessage3)
	}
	return h.verify(s, msg)
}

// present appends this side's static key and payload to out. The DH between them is the one that only the static key can do, with
// the peer's ephemeral key.
func (h *Handshake) present(s *symmetric, out []byte, peer [keySize]byte) ([]byte, error) {
	out = s.encrypt(out, h.cfg.Static[:])
	secret, err := h.cfg.DH(peer)
	if err != nil {
		return nil, &ownError{err}
	}
	defer clear(secret[:])
	var zero [keySize]byte
	if subtle.ConstantTimeCompare(secret[:], zero[:]) == 1 {
		// The peer's key was good for our ephemeral key, so it is this side's DH that is wrong.
		return nil, &ownError{fmt.Errorf("%w: own static key gives a shared secret of zeros", ErrHandshake)}
	}
	s.mixKey(secret[:])
	payload, err := h.cfg.Payload()
	if err != nil {
		return nil, &ownError{err}
	}
	if n := len(out) + len(payload) + tagSize; n > MaxMessage {
		return nil, &ownError{fmt.Errorf("%w: own payload makes %d bytes", ErrLong, n)}
	}
	return s.encrypt(out, payload), nil
}

// verify reads the peer's static key and payload, and has them checked.
func (h *Handshake) verify(s *symmetric, msg []byte) error {
	static, err := s.decrypt(msg[:keySize+tagSize])
	if err != nil {
		return err
	}
	if err := h.mixEphemeral(s, static); err != nil {
		return err
	}
	payload, err := s.decrypt(msg[keySize+tagSize:])
	if err != nil {
		return err
	}
	if err := h.cfg.VerifyPeer([keySize]byte(static), payload); err != nil {
		return &ownError{err}
	}
	return nil
}

// keyPair is an X25519 key. It is not one of the standard library, which computes the public key again for every secret and keeps it
// where nobody can erase it.
type keyPair struct{ secret, public x25519.Key }

func (h *Handshake) newEphemeral() error {
	random := h.cfg.Rand
	if random == nil {
		random = rand.Reader
	}
	if _, err := io.ReadFull(random, h.ephemeral.secret[:]); err != nil {
		clear(h.ephemeral.secret[:])
		return err
	}
	x25519.KeyGen(&h.ephemeral.public, &h.ephemeral.secret)
	return nil
}

// mixEphemeral mixes in the shared secret of this side's ephemeral key and a key of the peer. One of small order is refused.
func (h *Handshake) mixEphemeral(s *symmetric, peer []byte) error {
	var secret x25519.Key
	defer clear(secret[:])
	if !x25519.Shared(&secret, &h.ephemeral.secret, (*x25519.Key)(peer)) {
		return fmt.Errorf("%w: a public key of small order", ErrHandshake)
	}
	s.mixKey(secret[:])
	return nil
}

// finish derives the keys. The initiator sends with the second and receives with the first, the other way round than in the Noise
// specification (docs/protocol/01 §7.3).
func (h *Handshake) finish(initiator bool) {
	if initiator {
		h.s.split(&h.keys.Receive, &h.keys.Send)
	} else {
		h.s.split(&h.keys.Send, &h.keys.Receive)
	}
	h.keys.Hash = h.s.h
	h.wipeSecrets()
}

// wipeSecrets erases what only the handshake itself needs.
func (h *Handshake) wipeSecrets() {
	clear(h.ephemeral.secret[:])
	h.s = symmetric{}
}

func (h *Handshake) end() {
	h.wipeSecrets()
	h.keys.Wipe()
	h.failed, h.step = true, finished
}

// Keys returns the keys after Handle reported done, and panics before that and after Wipe, so that nothing is ever encrypted with
// a key of zeros. The caller wipes the copy, and the Handshake.
func (h *Handshake) Keys() Keys {
	if h.step != finished || h.failed {
		panic("channel: Keys of a handshake that is not done")
	}
	return h.keys
}

// Wipe erases all secrets; the handshake is over.
func (h *Handshake) Wipe() { h.end() }
