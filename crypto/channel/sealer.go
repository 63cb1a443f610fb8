package channel

import (
	"encoding/binary"
	"errors"
	"math"
	"sync/atomic"

	"sallyport/crypto/aead"
)

const (
	// CounterSize is the length in bytes of the counter in front of a data message.
	CounterSize = 8
	// Overhead is how many bytes Seal adds: counter and tag.
	Overhead = CounterSize + aead.Overhead
)

const (
	// interval is how many messages a key is used for, by counter value (docs/protocol/01 §7.7).
	interval = 32
	// lastCounter is the nonce of rekeying; no message has it.
	lastCounter = math.MaxUint64
)

var (
	// ErrShort reports a message that cannot be whole.
	ErrShort = errors.New("channel: message too short")
	// ErrExhausted reports that no counter is left to send with.
	ErrExhausted = errors.New("channel: counters exhausted")
)

// scratch is what a direction computes with; it lives beside the keys because a local variable would escape to the heap.
type scratch struct {
	nonce [aead.NonceSize]byte
	block [aead.KeySize + aead.Overhead]byte
}

func (x *scratch) setNonce(counter uint64) { binary.BigEndian.PutUint64(x.nonce[4:], counter) }

// rekey gives to the key that follows from: 32 zero bytes sealed with the last counter, without the tag (docs/protocol/01 §7.7).
// to and from may be the same.
func (x *scratch) rekey(to, from *aead.Key) {
	key := (*[aead.KeySize]byte)(x.block[:])
	clear(x.block[:])
	x.setNonce(lastCounter)
	from.Seal(x.block[:], &x.nonce, key[:], nil)
	to.Init(key)
	clear(x.block[:])
}

// Sealer seals the messages of one direction (docs/protocol/01 §7.6). It needs Init before use, and is not safe for concurrent
// use.
type Sealer struct {
	scratch
	key     aead.Key
	counter uint64
	within  uint64 // the bits of a counter that are 0 when the key is replaced
	fixed   bool
	// Rekeys, if set, counts the keys that were replaced. Init keeps it.
	Rekeys *atomic.Uint64
}

// Init begins with a handshake's Send key and counter 0. It keeps no reference to key.
func (s *Sealer) Init(key *[32]byte) {
	s.key.Init(key)
	s.counter, s.within, s.fixed = 0, interval-1, false
}

// InitKeyExchangeOnly is Init for a channel that both sides use for its keys only: the key is never replaced
// (docs/protocol/01 §7.11).
func (s *Sealer) InitKeyExchangeOnly(key *[32]byte) {
	s.Init(key)
	s.fixed = true
}

// Counter returns the counter of the next message.
func (s *Sealer) Counter() uint64 { return s.counter }

// Seal writes counter, ciphertext and tag to the first len(plaintext)+Overhead bytes of dst; plaintext may be
// dst[CounterSize:CounterSize+len(plaintext)] exactly, or must not overlap dst. It fails with ErrExhausted only, after 2^64-1
// messages or Wipe. It panics if dst is too short or overlaps plaintext otherwise. It does not allocate (see [aead.Key.Init] for
// rekeying with the kernel "go").
func (s *Sealer) Seal(dst, plaintext []byte) error {
	if s.counter == lastCounter {
		return ErrExhausted
	}
	if len(dst) < len(plaintext)+Overhead {
		panic("channel: output of Seal too short")
	}
	if s.counter&s.within == 0 && s.counter > 0 && !s.fixed {
		s.rekey(&s.key, &s.key)
		if s.Rekeys != nil {
			s.Rekeys.Add(1)
		}
	}
	s.setNonce(s.counter)
	s.key.Seal(dst[CounterSize:], &s.nonce, plaintext, nil)
	binary.BigEndian.PutUint64(dst, s.counter)
	s.counter++
	return nil
}

// Wipe erases the key; Seal fails from then on, until Init.
func (s *Sealer) Wipe() {
	s.key.Wipe()
	s.counter = lastCounter
}
