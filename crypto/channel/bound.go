package channel

import (
	"encoding/binary"

	"sallyport/crypto/aead"
)

// SealData is Seal with associated data (RFC 5116): it is authenticated with the message and not part of it, and the reader has to give the
// same. It is for keys of InitKeyExchangeOnly and panics with others, as channels have none.
func (s *Sealer) SealData(dst, plaintext, data []byte) error {
	if !s.fixed {
		panic("channel: associated data on a channel")
	}
	if s.counter == lastCounter {
		return ErrExhausted
	}
	if len(dst) < len(plaintext)+Overhead {
		panic("channel: output of SealData too short")
	}
	s.setNonce(s.counter)
	s.key.Seal(dst[CounterSize:], &s.nonce, plaintext, data)
	binary.BigEndian.PutUint64(dst, s.counter)
	s.counter++
	return nil
}

// OpenData is Open for what SealData wrote with the same data. It panics with a key that is not from InitKeyExchangeOnly.
func (o *Opener) OpenData(msg, data []byte) (plaintext []byte, err error) {
	if !o.fixed {
		panic("channel: associated data on a channel")
	}
	if len(msg) < Overhead {
		return nil, ErrShort
	}
	n := binary.BigEndian.Uint64(msg)
	if n == lastCounter {
		return nil, ErrCounter
	}
	plaintext = msg[CounterSize : len(msg)-aead.Overhead]
	o.setNonce(n)
	if err := o.current.Open(plaintext, &o.nonce, msg[CounterSize:], data); err != nil {
		return nil, err
	}
	o.last = n
	return plaintext, nil
}
