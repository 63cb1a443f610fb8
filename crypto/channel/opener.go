package channel

import (
	"encoding/binary"
	"errors"
	"math"

	"sallyport/crypto/aead"
)

// window is how far a message may be behind or ahead of the highest accepted one.
const window = 32

// ErrCounter reports a counter that was used before, or is too old or too far ahead.
var ErrCounter = errors.New("channel: counter repeated or out of the window")

// tracker is the receiver's window and key schedule (docs/protocol/01 §7.7), apart from the keys themselves.
type tracker struct {
	highest uint64 // highest accepted counter
	bitmap  uint64 // bit i: counter highest-i was accepted
	rekeys  uint64 // how often the key was replaced
	every   uint64 // messages a key is used for
}

// which key opens a message.
type which uint8

const (
	noKey which = iota
	currentKey
	nextKey
	previousKey
)

// slide returns the window as it would be with n accepted, and whether n may be accepted.
func (t *tracker) slide(n uint64) (highest, bitmap uint64, ok bool) {
	if n > t.highest {
		d := n - t.highest
		return n, t.bitmap<<d | 1, d <= window
	}
	d := t.highest - n
	return t.highest, t.bitmap | 1<<d, d <= window && t.bitmap>>d&1 == 0
}

// choose tells which key opens counter n. When no further rekeying is possible, that is in the last 32 of 2^64 counters, nothing
// is accepted any more.
func (t *tracker) choose(n uint64) which {
	start := t.every * t.rekeys
	switch {
	case n == lastCounter || start > math.MaxUint64-t.every:
		return noKey
	case n < start:
		if start-n <= t.every && t.rekeys > 0 { // after a rekeying there is a previous key
			return previousKey
		}
	case n-start < t.every:
		return currentKey
	case n-start < 2*t.every:
		return nextKey
	}
	return noKey
}

// Opener opens the messages of one direction (docs/protocol/01 §7.6, §7.7). It accepts each counter once, in any order within 32 of
// the highest one accepted; if 32 messages in a row are lost it accepts none any more. It needs Init before use; until then it
// refuses every message. It is not safe for concurrent use.
type Opener struct {
	scratch
	tracker
	current, previous, following aead.Key
	hasFollowing                 bool // following was derived, but no message with it has come yet
	fixed                        bool
	last                         uint64
}

// Init begins with a handshake's Receive key. It keeps no reference to key.
func (o *Opener) Init(key *[32]byte) {
	o.Wipe()
	o.tracker = tracker{every: interval}
	o.current.Init(key)
}

// InitKeyExchangeOnly is Init for a channel that both sides use for its keys only: the key is never replaced, and every counter is
// accepted, any number of times (docs/protocol/01 §7.11). The caller decides what a repetition means.
func (o *Opener) InitKeyExchangeOnly(key *[32]byte) {
	o.Init(key)
	o.fixed = true
}

// Last returns the counter of the message that was accepted last, 0 before the first.
func (o *Opener) Last() uint64 { return o.last }

// Open verifies msg and decrypts it in place: the plaintext it returns is msg[CounterSize:len(msg)-16]. It fails with ErrShort,
// ErrCounter or [aead.ErrOpen]. A message that is refused changes nothing but its own bytes, which are lost then. It does not
// allocate (see [aead.Key.Init] for rekeying with the kernel "go").
func (o *Opener) Open(msg []byte) (plaintext []byte, err error) {
	if len(msg) < Overhead {
		return nil, ErrShort
	}
	plaintext = msg[CounterSize : len(msg)-aead.Overhead]
	if err := o.open(plaintext, msg); err != nil {
		return nil, err
	}
	return plaintext, nil
}

// OpenTo is Open with the plaintext in dst[:len(msg)-Overhead], which it returns, and msg left as it is. It panics if dst is too
// short for that or overlaps msg.
func (o *Opener) OpenTo(dst, msg []byte) (plaintext []byte, err error) {
	if len(msg) < Overhead {
		return nil, ErrShort
	}
	if len(dst) < len(msg)-Overhead {
		panic("channel: output of OpenTo too short")
	}
	plaintext = dst[:len(msg)-Overhead]
	if err := o.open(plaintext, msg); err != nil {
		return nil, err
	}
	return plaintext, nil
}

// open decrypts msg, which is at least Overhead long, to dst. Until the message has verified nothing of the window and of the keys
// in use changes; the following key is derived ahead at most once, whatever is sent.
func (o *Opener) open(dst, msg []byte) error {
	n := binary.BigEndian.Uint64(msg)
	if o.fixed {
		return o.openFixed(dst, msg, n)
	}
	highest, bitmap, ok := o.slide(n)
	if !ok {
		return ErrCounter
	}
	if err := o.openKeyed(dst, msg, n); err != nil {
		return err
	}
	o.highest, o.bitmap = highest, bitmap
	return nil
}

// openKeyed decrypts msg with the key that its counter n is for. It looks at no window.
func (o *Opener) openKeyed(dst, msg []byte, n uint64) error {
	key, which := &o.current, o.choose(n)
	switch which {
	case noKey:
		return ErrCounter
	case previousKey:
		key = &o.previous
	case nextKey:
		if !o.hasFollowing {
			o.rekey(&o.following, &o.current)
			o.hasFollowing = true
		}
		key = &o.following
	}
	o.setNonce(n)
	if err := key.Open(dst, &o.nonce, msg[CounterSize:], nil); err != nil {
		return err
	}
	o.last = n
	if which == nextKey {
		o.previous, o.current = o.current, o.following
		o.hasFollowing = false
		o.rekeys++
	}
	return nil
}

func (o *Opener) openFixed(dst, msg []byte, n uint64) error {
	if n == lastCounter {
		return ErrCounter
	}
	o.setNonce(n)
	if err := o.current.Open(dst, &o.nonce, msg[CounterSize:], nil); err != nil {
		return err
	}
	o.last = n
	return nil
}

// Wipe erases the keys; every message is refused from then on, until Init.
func (o *Opener) Wipe() {
	o.current.Wipe()
	o.previous.Wipe()
	o.following.Wipe()
	*o = Opener{} // its keys are for zero messages each, so choose finds none
}
