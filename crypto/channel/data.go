package channel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"sallyport/crypto/aead"
)

const (
	CounterSize = 8
	Overhead    = CounterSize + aead.Overhead
	interval    = 32
	window      = 32
)

var (
	ErrShort     = errors.New("channel: message too short")
	ErrReplay    = errors.New("channel: counter repeated or out of the window")
	ErrExhausted = errors.New("channel: counter exhausted")
)

type Sealer struct {
	key     aead.Key
	raw     [32]byte
	next    uint64
	done    bool
	nonce   [12]byte
	scratch [48]byte
}

func (s *Sealer) Init(key *[32]byte) {
	s.raw = *key
	s.key.Init(&s.raw)
	s.next, s.done = 0, false
}

func setNonce(n *[12]byte, counter uint64) { binary.BigEndian.PutUint64(n[4:], counter) }

func rekey(key *aead.Key, nonce *[12]byte, scratch *[48]byte, out *[32]byte) {
	clear(scratch[:])
	setNonce(nonce, math.MaxUint64)
	key.Seal(scratch[:], nonce, scratch[:32], nil)
	copy(out[:], scratch[:32])
	clear(scratch[:])
}

func (s *Sealer) Seal(dst, plaintext []byte) error {
	if s.next == math.MaxUint64 {
		return ErrExhausted
	}
	if s.next > 0 && s.next%interval == 0 {
		rekey(&s.key, &s.nonce, &s.scratch, &s.raw)
		s.key.Init(&s.raw)
	}
	setNonce(&s.nonce, s.next)
	s.key.Seal(dst[CounterSize:], &s.nonce, plaintext, nil)
	binary.BigEndian.PutUint64(dst, s.next)
	s.next++
	return nil
}

func (s *Sealer) Wipe() { s.key.Wipe(); clear(s.raw[:]) }

type Opener struct {
	current, previous, tentative aead.Key
	raw, rawNext                 [32]byte
	hasPrevious, hasNext         bool
	rekeys                       uint64
	highest                      uint64
	bitmap                       uint64
	nonce                        [12]byte
	scratch                      [48]byte
	last                         uint64
}

func (o *Opener) Init(key *[32]byte) {
	*o = Opener{raw: *key}
	o.current.Init(&o.raw)
}

func (o *Opener) Last() uint64 { return o.last }

func (o *Opener) Open(msg []byte) ([]byte, error) {
	if len(msg) < Overhead {
		return nil, fmt.Errorf("%w: %d bytes", ErrShort, len(msg))
	}
	n := binary.BigEndian.Uint64(msg)
	bitmap, highest := o.bitmap, o.highest
	if n > highest {
		if n-highest > window {
			return nil, ErrReplay
		}
		bitmap, highest = bitmap<<(n-highest)|1, n
	} else {
		d := highest - n
		if d > window || bitmap>>d&1 == 1 {
			return nil, ErrReplay
		}
		bitmap |= 1 << d
	}
	key := &o.current
	start := interval * o.rekeys
	switch {
	case n == math.MaxUint64:
		return nil, ErrReplay
	case n >= start && n-start < interval:
	case n >= start && n-start < 2*interval:
		if !o.hasNext {
			rekey(&o.current, &o.nonce, &o.scratch, &o.rawNext)
			o.tentative.Init(&o.rawNext)
			o.hasNext = true
		}
		key = &o.tentative
	case n < start && start-n <= interval && o.hasPrevious:
		key = &o.previous
	default:
		return nil, ErrReplay
	}
	setNonce(&o.nonce, n)
	plain := msg[CounterSize : len(msg)-aead.Overhead]
	if err := key.Open(plain, &o.nonce, msg[CounterSize:], nil); err != nil {
		return nil, err
	}
	o.bitmap, o.highest, o.last = bitmap, highest, n
	if key == &o.tentative {
		o.previous, o.current, o.raw = o.current, o.tentative, o.rawNext
		o.hasPrevious, o.hasNext = true, false
		o.rekeys++
	}
	return plain, nil
}

func (o *Opener) Wipe() { *o = Opener{} }
