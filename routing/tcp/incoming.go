package tcp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"sallyport/dataplane"
	"sallyport/routing"
	"sallyport/routing/ws"
)

// handshakeTime bounds a TLS handshake with a stranger, with the wait for its turn.
const handshakeTime = 10 * time.Second

// handshakes is how many TLS handshakes with others are under way at a time; further ones wait.
const handshakes = 256

// Serving says how a listener takes connections. The zero value takes plain TCP.
type Serving struct {
	// TLS has the certificate; nil: no TLS.
	TLS *tls.Config
	// WebSocket says which requests are taken; nil: no WebSocket.
	WebSocket *ws.Accepts
	// Preface takes what a proxy in front says first, before TLS, from a connection of PrefacedFrom, and returns the address of whom the proxy speaks for: the
	// header of the PROXY protocol. It blocks until ctx ends at most; fd stays the caller's.
	Preface      func(ctx context.Context, fd int, from netip.AddrPort) (client netip.AddrPort, err error)
	PrefacedFrom []netip.Prefix
	// TrustedProxies are believed about whose requests they pass on, with WebSocket (ws.Framing.Behind).
	TrustedProxies []netip.Prefix
	// Flow is another listener's; what can be reached from its connections can be from these. Nil: one of its own.
	Flow *routing.Flow
}

// Layer returns what connections have between TCP and the messages.
func (s *Serving) Layer() Layer {
	switch {
	case s.TLS != nil && s.WebSocket != nil:
		return SecureWS
	case s.TLS != nil:
		return TLS
	case s.WebSocket != nil:
		return WebSocket
	}
	return Plain
}

// arrival is a connection that a listener has accepted, on its way to its shard.
type arrival struct {
	l      *Listener
	client netip.AddrPort // whom the connection is of, as far as that is known; more than its socket says if there is a proxy in front
	place  *place
	conn   *Connection // nil until there is one
}

// framing makes the framing of the connection.
func (a *arrival) framing() dataplane.Framing {
	s, max := &a.l.serving, a.l.t.opts.MaxMessage
	if s.WebSocket == nil {
		return dataplane.NewLengths(version, max)
	}
	f := ws.NewServer(*s.WebSocket, max)
	if within(s.TrustedProxies, a.client.Addr()) {
		f.Behind(s.TrustedProxies, func(client netip.AddrPort) bool { return a.conn.named(client) })
	}
	return f
}

// within reports whether one of some networks has an address.
func within(networks []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(a.Unmap()) })
}

// prefaced takes on a goroutine what the proxy in front says first, and goes on with the connection as one of whom the proxy names. It owns fd.
func (t *Transport) prefaced(a *arrival, fd int) {
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTime)
	defer cancel()
	if !t.admission.belongs(a.place, cancel) {
		dataplane.Reset(fd)
		return
	}
	client, err := a.l.serving.Preface(ctx, fd, a.client)
	switch {
	case err == nil && t.admission.move(a.place, client.Addr()):
		a.client = client
		t.bring(a, fd, nil)
		return
	case err == nil || errors.Is(ctx.Err(), context.Canceled):
		t.full(client)
	default:
		t.Stats.PrefaceFailed.Add(1)
		t.router.Log().Info("connection refused: the proxy in front does not name the client", "proxy", a.client.String(), "err", err.Error())
	}
	dataplane.Reset(fd)
	t.admission.give(a.place)
}

// secured makes the TLS handshake of an accepted connection on a goroutine, and brings the connection to a shard. It owns fd.
func (t *Transport) secured(a *arrival, fd int) {
	l, p := a.l, a.place
	f := os.NewFile(uintptr(fd), "peer")
	socket, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		t.admission.give(p)
		t.router.Log().Warn("accepted connection lost", "err", err)
		return
	}
	if !t.admission.belongs(p, func() { _ = socket.Close() }) {
		_ = socket.Close()
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTime)
	defer cancel()
	c := tls.Server(dataplane.NewSocket(socket), l.serving.TLS)
	select {
	case t.handshaking <- struct{}{}:
		err = c.HandshakeContext(ctx)
		<-t.handshaking
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		_ = socket.Close()
		t.admission.give(p)
		t.Stats.TLSFailed.Add(1)
		t.router.Log().Info("TLS failed", "peer", a.client.String(), "err", fmt.Sprintf("%.200v", err))
		return
	}
	if c.ConnectionState().NegotiatedProtocol == Validation {
		_ = c.Close()
		t.admission.give(p)
		return
	}
	s := t.place()
	if !s.Loop().Post(dataplane.TaskFunc(func() {
		conn, err := t.adopt(s, &stream{c: c, framing: a.framing()}, l.serving.Layer(), l.Flow)
		t.admitted(conn, err, a)
	})) {
		_ = socket.Close()
		t.admission.give(p)
	}
}

// admitted gives its place to the connection that was made of an arrival. On its shard, before anything has been read.
func (t *Transport) admitted(c *Connection, err error, a *arrival) {
	if err != nil {
		t.admission.give(a.place)
		t.router.Log().Warn("accepted connection lost", "err", err)
		return
	}
	t.Stats.Accepted.Add(1)
	c.place, a.conn = a.place, c
	if a.client != c.Remote {
		c.client.Store(&a.client)
	}
	if !t.admission.belongs(c.place, c.displaced) {
		c.displaced()
	}
}
