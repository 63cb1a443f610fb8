package tcp

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"sallyport/dataplane"
	"sallyport/names"
	"sallyport/proxy"
	"sallyport/routing"
	"sallyport/routing/ws"
)

// ALPN is what a client over TLS names as its protocol: whoever takes connections in front of several servers can tell by it. WebSocket is
// HTTP/1.1 there.
const ALPN = "sallyport.1"

// Validation is what an ACME authority names as its protocol, to see who has the port (RFC 8737). The connection ends after the handshake.
const Validation = "acme-tls/1"

// Trust says which servers are believed over TLS. TLS protects the outside only: who the other node is, the channels inside say.
type Trust struct {
	// Roots are whose certificates are believed; nil: the system's.
	Roots *x509.CertPool
	// Pins are SHA-256 sums of public keys (DER, SubjectPublicKeyInfo). A server with one of them is believed, whatever its certificate says, and
	// no other; none: certificates decide.
	Pins [][sha256.Size]byte
}

// ParsePin reads one of Trust.Pins: sha256/ and the sum in base64.
func ParsePin(text string) (pin [sha256.Size]byte, err error) {
	sum, found := strings.CutPrefix(text, "sha256/")
	b, err := base64.StdEncoding.DecodeString(sum)
	if err != nil || !found || len(b) != len(pin) {
		return pin, errors.New("it must be sha256/ and the sum of a public key in base64")
	}
	return [sha256.Size]byte(b), nil
}

// ErrPin reports a server whose key is not pinned.
var ErrPin = errors.New("the server's key is not one of those pinned")

// config makes the configuration of one connection.
func (t *Trust) config(a Address) *tls.Config {
	c := &tls.Config{ServerName: a.name(), MinVersion: tls.VersionTLS12, RootCAs: t.Roots, DynamicRecordSizingDisabled: true, NextProtos: []string{ALPN}}
	if a.Layer.webSocket() {
		c.NextProtos = []string{"http/1.1"}
	}
	if len(t.Pins) > 0 {
		c.InsecureSkipVerify = true // the pin is checked instead
		c.VerifyConnection = func(s tls.ConnectionState) error {
			if sum := sha256.Sum256(s.PeerCertificates[0].RawSubjectPublicKeyInfo); !slices.Contains(t.Pins, sum) {
				return ErrPin
			}
			return nil
		}
	}
	return c
}

// stream is a connection on which all but the messages has been said.
type stream struct {
	c       net.Conn // a socket, or TLS over one
	early   []byte   // that the other end has sent already
	framing dataplane.Framing
}

// dial connects on this goroutine, through the proxy if there is one, and makes the handshakes.
func (t *Transport) dial(ctx context.Context, a Address, through *proxy.Proxy) (_ *stream, err error) {
	var c net.Conn
	var early []byte
	if through == nil {
		c, err = (&names.Resolver{Spread: a.Spread}).Dial(ctx, "tcp", a.HostPort)
	} else {
		c, early, err = through.Dial(ctx, a.HostPort)
	}
	if err != nil {
		return nil, err
	}
	s := &stream{c: c, early: early, framing: dataplane.NewLengths(version, t.opts.MaxMessage)}
	defer func() {
		if err != nil {
			_ = c.Close()
			err = fmt.Errorf("%s: %w", a, err)
		}
	}()
	if a.Layer.tls() {
		if len(early) > 0 {
			return nil, errors.New("the server speaks before TLS")
		}
		client := tls.Client(dataplane.NewSocket(c), t.opts.Trust.config(a))
		if err := client.HandshakeContext(ctx); err != nil {
			return nil, fmt.Errorf("TLS: %w", err)
		}
		s.c = client
	}
	if a.Layer.webSocket() {
		if err := s.upgrade(ctx, a); err != nil {
			return nil, err
		}
		s.framing = ws.NewClient(t.opts.MaxMessage)
	}
	return s, nil
}

// upgrade makes the WebSocket handshake.
func (s *stream) upgrade(ctx context.Context, a Address) error {
	request, err := ws.NewRequest(a.hostField(), a.path())
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = s.c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := s.c.Write(request.Bytes()); err != nil {
		return errors.Join(ctx.Err(), err)
	}
	buf, n := make([]byte, ws.MaxHeader), len(s.early)
	copy(buf, s.early)
	for {
		used, err := request.Answer(buf[:n])
		if err != nil {
			return err
		}
		if used > 0 {
			s.early = buf[used:n]
			if !stop() {
				return ctx.Err()
			}
			return nil
		}
		k, err := s.c.Read(buf[n:])
		if n += k; err != nil && k == 0 {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("%w: %w", ws.ErrHandshake, err)
		}
	}
}

// connectOutside is Dial for what is begun on a goroutine: through a proxy, or with a handshake.
func (t *Transport) connectOutside(ctx context.Context, a Address, through *proxy.Proxy) (*Connection, error) {
	ctx, cancel := context.WithTimeout(ctx, t.opts.ConnectTimeout)
	defer cancel()
	st, err := t.dial(ctx, a, through)
	if err != nil {
		return nil, err
	}
	s := t.place()
	var made *Connection
	if doErr := s.Do(context.WithoutCancel(ctx), func() {
		made, err = t.adopt(s, st, a.Layer, nil)
	}); doErr != nil {
		_ = st.c.Close()
		return nil, doErr
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a, err)
	}
	t.Stats.Connected.Add(1)
	return made, nil
}

// adopt brings a stream to a shard, on it. The stream is closed on error.
func (t *Transport) adopt(s *routing.Shard, st *stream, layer Layer, spawner *routing.Flow) (*Connection, error) {
	c, err := s.Loop().AdoptNet(st.c, nil)
	if err != nil {
		return nil, err
	}
	opts := t.opts.socket()
	if c.RemoteAddr().Addr().Unmap().IsLoopback() {
		opts.SendBuffer, opts.KeepAliveIdle = 0, 0
	}
	if err := c.SetOptions(opts); err != nil {
		c.Abort()
		return nil, err
	}
	return t.start(s, c, layer, spawner, st.framing, st.early), nil
}
