package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/internal/poll"
	"sallyport/names"
	"sallyport/portal"
)

// TLS runs on goroutines, and a socket pair joins it to the event loop.

// handshakeTimeout bounds a handshake that has no other bound.
const handshakeTimeout = 10 * time.Second

// tlsDialer returns what an outlet with --tls dials: TLS to the target, checked against the system's roots, with the host
// as the name to verify. What begin makes goes before it. It offers the protocols given; none is fine.
func tlsDialer(target string, begin greeting, protocols ...string) dialer {
	return func(ctx context.Context, from portal.Origin) (portal.Piped, error) {
		c, err := dialTLS(ctx, target, begin, from)
		if err != nil {
			return portal.Piped{}, err
		}
		client, err := c.client(ctx, protocols)
		if err != nil {
			return portal.Piped{}, err
		}
		return joined(client)
	}
}

// tlsPasser is tlsDialer for a client whose protocol is passed on: it is connected when the target has taken the connection, and the handshake
// follows when the client's first bytes have told what it speaks. What goes wrong then is told to failed.
func tlsPasser(target string, begin greeting, failed func(error)) dialer {
	if _, port, err := net.SplitHostPort(target); err == nil && slices.Contains(serverFirst, port) {
		return tlsDialer(target, begin)
	}
	return func(ctx context.Context, from portal.Origin) (portal.Piped, error) {
		c, err := dialTLS(ctx, target, begin, from)
		if err != nil {
			return portal.Piped{}, err
		}
		fd, local, err := localPair()
		if err != nil {
			return portal.Piped{}, errors.Join(err, c.tcp.Close())
		}
		var broken atomic.Bool
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), handshakeTimeout)
			defer cancel()
			client, err := c.client(ctx, peek(ctx, local))
			if err != nil {
				failed(err)
				broken.Store(true)
				_ = local.Close()
				return
			}
			join(client, local, &broken)
		}()
		return portal.Piped{FD: fd, Broken: broken.Load}, nil
	}
}

// tlsTarget is a connection to a target on which TLS has not begun.
type tlsTarget struct {
	tcp          net.Conn
	name, target string
}

func dialTLS(ctx context.Context, target string, begin greeting, from portal.Origin) (*tlsTarget, error) {
	host, _, err := net.SplitHostPort(target)
	if err != nil {
		return nil, err
	}
	tcp, err := names.Dial(ctx, "tcp", target)
	if err != nil {
		return nil, fmt.Errorf("TLS to %s: %w", target, err)
	}
	if err := begin.write(tcp, from); err != nil {
		_ = tcp.Close()
		return nil, fmt.Errorf("TLS to %s: %w", target, err)
	}
	return &tlsTarget{tcp: tcp, name: strings.TrimSuffix(host, "."), target: target}, nil
}

// client makes the handshake. It closes the connection when that fails: also when the target agrees to none of the protocols.
func (t *tlsTarget) client(ctx context.Context, protocols []string) (*tls.Conn, error) {
	protocols = offered(protocols)
	c := tls.Client(t.tcp, &tls.Config{ServerName: t.name, MinVersion: tls.VersionTLS12, NextProtos: protocols})
	if err := c.HandshakeContext(ctx); err != nil {
		_ = t.tcp.Close()
		return nil, fmt.Errorf("TLS to %s: %w", t.target, err)
	}
	if got := c.ConnectionState().NegotiatedProtocol; got == "" && slices.Contains(protocols, http2) && !slices.Contains(protocols, http1) {
		_ = c.Close()
		return nil, fmt.Errorf("TLS to %s: it does not speak %s", t.target, strings.Join(protocols, ", "))
	}
	return c, nil
}

// tlsAcceptor returns how an inlet with a certificate takes a client: TLS on its socket, which it owns. ctx bounds the wait for
// the certificate and the handshake. protocols and rewritten are those of choose.
func tlsAcceptor(
	certificate func(context.Context) (*tls.Certificate, error), protocols []string, rewritten bool,
) func(context.Context, int) (portal.Piped, error) {
	config := clientProtocols(&tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		return certificate(h.Context())
	}}, protocols, rewritten)
	return func(ctx context.Context, fd int) (portal.Piped, error) {
		f := os.NewFile(uintptr(fd), "client")
		client, err := net.FileConn(f)
		_ = f.Close()
		if err != nil {
			return portal.Piped{}, fmt.Errorf("TLS: %w", err)
		}
		c := tls.Server(client, config)
		if err := c.HandshakeContext(ctx); err != nil {
			endsWell(c, true) // the client is told why
			_ = client.Close()
			return portal.Piped{}, fmt.Errorf("TLS with %s: %w", client.RemoteAddr(), err)
		}
		return joined(c)
	}
}

// joined returns a socket that carries what goes through c. It closes c when that is not possible.
func joined(c *tls.Conn) (portal.Piped, error) {
	fd, local, err := localPair()
	if err != nil {
		return portal.Piped{}, errors.Join(err, c.Close())
	}
	var broken atomic.Bool
	go join(c, local, &broken)
	return portal.Piped{FD: fd, Broken: broken.Load}, nil
}

// localPair makes a pair of sockets: one for the event loop, and one for a goroutine.
func localPair() (int, *net.UnixConn, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, nil, os.NewSyscallError("socketpair", err)
	}
	f := os.NewFile(uintptr(fds[1]), "tls")
	local, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		_ = unix.Close(fds[0])
		return -1, nil, err
	}
	return fds[0], local.(*net.UnixConn), nil
}

// join copies both ways and carries the end of each direction. A stream that one side broke off is not ended as if it were whole: TLS would promise
// just that. Whether what c sent ended so is told to broken before local is closed. The end of a connection between two records is taken for an end
// also without that of TLS, as crypto/tls does: many servers and clients leave it out.
func join(c *tls.Conn, local *net.UnixConn, broken *atomic.Bool) {
	var remoteDone atomic.Bool
	endsWell(c, false)
	well := true
	up := make(chan struct{})
	go func() {
		defer close(up)
		_, err := io.Copy(c, local)
		if err == nil && (remoteDone.Load() || !hungUp(local)) {
			_ = c.CloseWrite()
			return
		}
		well = false
		_ = c.NetConn().Close()
	}()
	_, err := io.Copy(local, c)
	if err != nil {
		broken.Store(true)
		_ = local.Close()
		_ = c.NetConn().Close()
		<-up
		return
	}
	remoteDone.Store(true)
	_ = local.CloseWrite()
	if <-up; well {
		endsWell(c, true)
	}
	_ = c.Close()
	_ = local.Close()
}

// endsWell says how the socket below c closes: with an end, or with a reset, as it does too when the process is killed.
func endsWell(c *tls.Conn, well bool) {
	if t, ok := c.NetConn().(*net.TCPConn); ok {
		seconds := 0
		if well {
			seconds = -1
		}
		_ = t.SetLinger(seconds)
	}
}

// hungUp reports whether the other end was closed in both directions, which the portal does while a direction is open only to
// break a connection off.
func hungUp(local *net.UnixConn) bool {
	raw, err := local.SyscallConn()
	if err != nil {
		return true
	}
	hup := true
	if err := raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd)}}
		hup = poll.Now(fds) != nil || fds[0].Revents&unix.POLLHUP != 0
	}); err != nil {
		return true
	}
	return hup
}
