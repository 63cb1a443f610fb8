package client

import (
	"errors"
	"io"
	"maps"
	"net"
	"net/netip"
	"syscall"
	"time"

	"sallyport/node"
	"sallyport/portal"
)

// Network is what Addr.Network returns.
const Network = "sallyport"

// Peer is who is at the other end.
type Peer struct {
	// Identifier is I and 64 hex digits; empty where the path has no secure channel.
	Identifier string
	// Attributes are what the project's authority attests of it now.
	Attributes map[string]string
	// Client is the address of whom the other end serves, where that is an inlet that says so.
	Client netip.AddrPort
}

// Addr is an end of a connection: a service and whose it is.
type Addr struct {
	// Service is its name as it was dialled or listened to; empty for the end that dials.
	Service    string
	Identifier string
}

// Network returns "sallyport".
func (a *Addr) Network() string { return Network }

// String returns SERVICE@IDENTIFIER, or what there is of it.
func (a *Addr) String() string {
	switch {
	case a.Service == "":
		return a.Identifier
	case a.Identifier == "":
		return a.Service
	}
	return a.Service + "@" + a.Identifier
}

// Conn is a connection to another member. It implements net.Conn, with deadlines and half-close.
type Conn struct {
	c             *Client
	s             *node.Stream
	local, remote *Addr
}

func (c *Client) newConn(s *node.Stream, dialled, accepted string) *Conn {
	conn := &Conn{c: c, s: s, local: &Addr{Service: accepted, Identifier: c.Identifier()}, remote: &Addr{Service: dialled}}
	if s.Peer != nil {
		conn.remote.Identifier = s.Peer.String()
	}
	return conn
}

// Read reads what the other end has written; io.EOF after its CloseWrite or Close. A connection that was broken off is an error that matches ErrBroken
// or ErrDenied.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.s.Conn.Read(b)
	return n, c.failed("read", err)
}

// Write writes to the other end. It blocks while that takes nothing.
func (c *Conn) Write(b []byte) (int, error) {
	n, err := c.s.Conn.Write(b)
	return n, c.failed("write", err)
}

// failed says what an error of the socket means.
func (c *Conn) failed(op string, err error) error {
	if err == nil {
		return nil
	}
	var of *net.OpError
	if errors.As(err, &of) {
		err = of.Err
	}
	gone := errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
	if reason, over := c.s.Ended(); over && reason != portal.ReasonNone && (gone || err == io.EOF) {
		err = broken(reason)
	} else if gone {
		err = &reasonError{ErrBroken, err.Error()}
	}
	if err == io.EOF {
		return err
	}
	return &net.OpError{Op: op, Net: Network, Source: c.local, Addr: c.remote, Err: err}
}

// Close closes the connection: what was written is still sent, and the other end reads an end. It does not wait for that; Client.Close and Dialer.Close do.
func (c *Conn) Close() error { return c.failed("close", c.s.Close()) }

// CloseWrite tells the other end that no more is written; reading goes on.
func (c *Conn) CloseWrite() error { return c.failed("close", c.s.Conn.CloseWrite()) }

// LocalAddr returns an *Addr.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr returns an *Addr.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error { return c.failed("set", c.s.Conn.SetDeadline(t)) }

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error {
	return c.failed("set", c.s.Conn.SetReadDeadline(t))
}

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	return c.failed("set", c.s.Conn.SetWriteDeadline(t))
}

// Peer returns who is at the other end.
func (c *Conn) Peer() Peer {
	p := Peer{Client: c.s.Client}
	if c.s.Peer != nil {
		p.Identifier, p.Attributes = c.s.Peer.String(), maps.Clone(c.c.node.Attributes(*c.s.Peer))
	}
	return p
}

// PeerOf returns who is at the other end of a connection of this package, also below a *tls.Conn or another that has NetConn.
func PeerOf(conn net.Conn) (Peer, bool) {
	for conn != nil {
		if c, ok := conn.(*Conn); ok {
			return c.Peer(), true
		}
		below, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		conn = below.NetConn()
	}
	return Peer{}, false
}
