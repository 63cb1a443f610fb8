package channel

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"

	"sallyport/crypto/aead"
)

// Loose messages are those of a channel that may be lost, and of which any number in a row may be (docs/protocol/07). They have keys and counters of
// their own, so what happens to them does nothing to the channel's other messages.
const (
	// looseInterval is how many loose messages a key is used for, by counter value.
	looseInterval = 1 << 20
	// looseWindow is how many counters up to the highest accepted one are remembered.
	looseWindow = 4096
	looseInfo   = "sallyport loose"
)

// Loose returns the keys of a channel's loose messages, which follow from a handshake's and say nothing about those.
func (k *Keys) Loose() (loose Keys) {
	loose.Hash = k.Hash
	for _, d := range [...]struct{ to, from *[32]byte }{{&loose.Send, &k.Send}, {&loose.Receive, &k.Receive}} {
		out, err := hkdf.Key(sha256.New, d.from[:], k.Hash[:], looseInfo, len(d.to))
		if err != nil {
			panic(err) // 32 bytes are never too many
		}
		copy(d.to[:], out)
		clear(out)
	}
	return loose
}

// InitLoose is Init for loose messages, with a key of [Keys.Loose].
func (s *Sealer) InitLoose(key *[32]byte) {
	s.Init(key)
	s.within = looseInterval - 1
}

// LooseOpener opens loose messages: each counter once, in any order within 4096 of the highest one accepted, after any gap of less than 2^20. It needs
// Init before use; until then it refuses every message. It is not safe for concurrent use.
type LooseOpener struct {
	opener Opener
	seen   seen
}

// Init begins with a Receive key of [Keys.Loose]. It keeps no reference to key.
func (l *LooseOpener) Init(key *[32]byte) {
	l.opener.Init(key)
	l.opener.every = looseInterval
	l.seen = seen{}
}

// Open is [Opener.Open] for a loose message.
func (l *LooseOpener) Open(msg []byte) (plaintext []byte, err error) {
	if len(msg) < Overhead {
		return nil, ErrShort
	}
	n := binary.BigEndian.Uint64(msg)
	if !l.seen.fresh(n) {
		return nil, ErrCounter
	}
	plaintext = msg[CounterSize : len(msg)-aead.Overhead]
	if err := l.opener.openKeyed(plaintext, msg, n); err != nil {
		return nil, err
	}
	l.seen.add(n)
	return plaintext, nil
}

// Wipe erases the keys; every message is refused from then on, until Init.
func (l *LooseOpener) Wipe() { l.opener.Wipe() }

// seen remembers which of the last looseWindow counters were accepted (the ring of RFC 6479). The zero value has seen none.
type seen struct {
	next uint64 // one more than the highest accepted
	ring [looseWindow/64 + 1]uint64
}

// fresh reports whether n is new, as far as is remembered.
func (s *seen) fresh(n uint64) bool {
	if n >= s.next {
		return true
	}
	return s.next-n <= looseWindow && s.ring[n/64%uint64(len(s.ring))]>>(n%64)&1 == 0
}

// add notes n, which is fresh and not the last of all numbers.
func (s *seen) add(n uint64) {
	words := uint64(len(s.ring))
	if n >= s.next {
		first := s.next / 64
		if s.next%64 > 0 {
			first++ // the word has numbers that count
		}
		for w := range min(n/64+1-min(first, n/64+1), words) {
			s.ring[(n/64-w)%words] = 0
		}
		s.next = n + 1
	}
	s.ring[n/64%words] |= 1 << (n % 64)
}
