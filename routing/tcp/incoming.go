package tcp

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"os"
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

// framing makes the framing of one connection.
func (s *Serving) framing(max int) dataplane.Framing {
	if s.WebSocket != nil {
		return ws.NewServer(*s.WebSocket, max)
	}
	return dataplane.NewLengths(version, max)
}

// secured makes the TLS handshake of an accepted connection on a goroutine, and brings the connection to a shard. It owns fd.
func (t *Transport) secured(l *Listener, fd int, from netip.AddrPort, p *place) {
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
		t.router.Log().Info("TLS failed", "peer", from.String(), "err", fmt.Sprintf("%.200v", err))
		return
	}
	s := t.place()
	if !s.Loop().Post(dataplane.TaskFunc(func() {
		conn, err := t.adopt(s, &stream{c: c, framing: l.serving.framing(t.opts.MaxMessage)}, l.serving.Layer(), l.Flow)
		t.admitted(conn, err, p)
	})) {
		_ = socket.Close()
		t.admission.give(p)
	}
}

// admitted gives a place to the connection that was made for it.
func (t *Transport) admitted(c *Connection, err error, p *place) {
	if err != nil {
		t.admission.give(p)
		t.router.Log().Warn("accepted connection lost", "err", err)
		return
	}
	t.Stats.Accepted.Add(1)
	c.place = p
	if !t.admission.belongs(p, c.displaced) {
		c.displaced()
	}
}
