package main

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

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

// longTerm is what lies in a member's state directory: the key of its channels, and what it says of itself in a handshake.
type longTerm struct {
	secret               *ecdh.PrivateKey
	history, attestation []byte
}

// stolen reads the long-term keys of a home.
func stolen(home string) (k longTerm, err error) {
	attestations, _ := filepath.Glob(filepath.Join(home, "purpose_keys", "*-SC_PK"))
	keys, _ := filepath.Glob(filepath.Join(home, "vaults", "*", "x25519-*"))
	for _, a := range attestations {
		if k.attestation, err = os.ReadFile(a); err != nil {
			return k, err
		}
		for _, f := range keys {
			b, err := os.ReadFile(f)
			if err != nil {
				return k, err
			}
			if k.secret, err = ecdh.X25519().NewPrivateKey(b); err != nil {
				return k, err
			}
			if bytes.Contains(k.attestation, k.secret.PublicKey().Bytes()) {
				k.history, err = os.ReadFile(filepath.Join(home, "histories", strings.TrimSuffix(filepath.Base(a), "-SC_PK")))
				return k, err
			}
		}
	}
	return k, fmt.Errorf("%s has no key of a channel", home)
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
