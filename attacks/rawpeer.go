package main

import (
	"bufio"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"sallyport/crypto/identity"
	"sallyport/crypto/vault"
	"sallyport/routing"
)

// rawPeer speaks messages over bare TCP, and no more than that.
type rawPeer struct {
	net.Conn
	in *bufio.Reader
}

func newRawPeer(at string) (*rawPeer, error) {
	c, err := hello(at)
	if err != nil {
		return nil, err
	}
	p := &rawPeer{c, bufio.NewReader(c)}
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := p.in.ReadByte(); err != nil { // the other side's version
		c.Close()
		return nil, err
	}
	return p, nil
}

func (p *rawPeer) send(onward, ret routing.Route, payload []byte) error {
	_, err := p.Write(message(onward, ret, payload))
	return err
}

// receive returns the next message's return route and payload.
func (p *rawPeer) receive(within time.Duration) (ret routing.Route, payload []byte, err error) {
	_ = p.SetReadDeadline(time.Now().Add(within))
	var head [4]byte
	if _, err := io.ReadFull(p.in, head[:]); err != nil {
		return ret, nil, err
	}
	b := make([]byte, binary.BigEndian.Uint32(head[:]))
	if _, err := io.ReadFull(p.in, b); err != nil {
		return ret, nil, err
	}
	m, err := routing.ParseMessage(b)
	if err != nil {
		return ret, nil, err
	}
	return m.Return.Clone(), b[m.Start:m.End], nil
}

// person is an identity that somebody has the primary key of, with a channel key which that attests.
type person struct {
	m       *identity.Manager
	key     *identity.PurposeKey
	history []byte
}

// newPerson makes an identity.
func newPerson(ctx context.Context) (p person, err error) {
	p.m = identity.New(identity.Options{Vault: vault.NewMemory(), Store: identity.NewMemoryStore()})
	self, err := p.m.Create(ctx, identity.CreateOptions{})
	if err != nil {
		return p, err
	}
	return p.load(ctx, self.Identifier(), self.History())
}

// stolen takes the primary key of the identity that is in a home.
func stolen(ctx context.Context, home string) (p person, err error) {
	v, err := vault.OpenFile(filepath.Join(home, "vaults", "default"))
	if err != nil {
		return p, err
	}
	p.m = identity.New(identity.Options{Vault: v, Store: identity.NewMemoryStore()})
	histories, _ := filepath.Glob(filepath.Join(home, "histories", "I*"))
	for _, f := range histories { // of others too, whose keys are elsewhere
		raw, err := os.ReadFile(f)
		if err != nil {
			return p, err
		}
		id, err := p.m.Import(ctx, raw, nil)
		if err != nil {
			return p, err
		}
		if own, err := p.load(ctx, id.Identifier(), raw); err == nil {
			return own, nil
		}
	}
	return p, fmt.Errorf("%s has no primary key", home)
}

func (p person) load(ctx context.Context, id identity.Identifier, history []byte) (person, error) {
	var err error
	p.history = history
	_, p.key, err = p.m.Payload(ctx, id, nil)
	return p, err
}

// dh is a shared secret of the channel key; nil if there is none.
func (p person) dh(ctx context.Context, public []byte) []byte {
	out, err := p.m.DH(ctx, p.key, [32]byte(public))
	if err != nil {
		return nil
	}
	return out[:]
}

// says is what p says of itself in a handshake.
func (p person) says() []byte {
	return identity.EncodePayload(identity.Payload{History: p.history, Attestation: p.key.Attestation})
}

// reader reads a recorded handshake and what follows it, from secrets that it was given: written again from the specification of Noise XX, so
// that it shares nothing with the program but the standard library.
type reader struct {
	ck, h, k [32]byte
	n        uint64
}

var errUnreadable = errors.New("it does not decrypt")

func newReader() *reader {
	r := &reader{}
	copy(r.ck[:], "OCKAM_XX_25519_AES256_GCM_SHA256")
	r.h = r.ck
	r.mixHash(nil)
	return r
}

func (r *reader) mixHash(b []byte) { r.h = sha256.Sum256(append(r.h[:], b...)) }

func (r *reader) mixKey(secret []byte) {
	out, err := hkdf.Key(sha256.New, secret, r.ck[:], "", 64)
	if err != nil {
		panic(err)
	}
	copy(r.ck[:], out)
	copy(r.k[:], out[32:])
	r.n = 0
}

func (r *reader) open(b []byte) ([]byte, error) {
	plain, err := openWith(r.k, r.n, r.h[:], b)
	if err != nil {
		return nil, err
	}
	r.mixHash(b)
	r.n++
	return plain, nil
}

func openWith(key [32]byte, n uint64, data, b []byte) ([]byte, error) {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	var nonce [12]byte
	binary.BigEndian.PutUint64(nonce[4:], n)
	plain, err := gcm.Open(nil, nonce[:], b, data)
	if err != nil {
		return nil, errUnreadable
	}
	return plain, nil
}

// recorded is what somebody has who keeps all that goes over the line.
type recorded struct {
	m1, m2, m3 []byte
	there      []byte // the first data message of the initiator
}

// read tries to read it from the three shared secrets; a nil one is left out. It returns how many of the five parts it could read, and the last.
func (t recorded) read(ee, es, se []byte) (parts int, last []byte) {
	r := newReader()
	mix := func(secret []byte) {
		if secret != nil {
			r.mixKey(secret)
		}
	}
	r.mixHash(t.m1[:32])
	r.mixHash(t.m1[32:])
	r.mixHash(t.m2[:32])
	mix(ee)
	steps := []func() ([]byte, error){
		func() ([]byte, error) { return r.open(t.m2[32:80]) },
		func() ([]byte, error) { mix(es); return r.open(t.m2[80:]) },
		func() ([]byte, error) { return r.open(t.m3[:48]) },
		func() ([]byte, error) { mix(se); return r.open(t.m3[48:]) },
		func() ([]byte, error) {
			out, err := hkdf.Key(sha256.New, nil, r.ck[:], "", 64)
			if err != nil {
				return nil, err
			}
			for half := range 2 { // whichever is the initiator's
				if b, err := openWith([32]byte(out[32*half:32*half+32]), binary.BigEndian.Uint64(t.there), nil, t.there[8:]); err == nil {
					return b, nil
				}
			}
			return nil, errUnreadable
		},
	}
	for _, step := range steps {
		b, err := step()
		if err != nil {
			return parts, last
		}
		parts, last = parts+1, b
	}
	return parts, last
}
