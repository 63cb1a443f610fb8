package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"sallyport/names"
)

// TLS runs on goroutines, and a socket pair joins it to the event loop.

// tlsDialer returns what an outlet with --tls dials: TLS to the target, checked against the system's roots, with the host
// as the name to verify.
func tlsDialer(target string) func(context.Context) (int, error) {
	return func(ctx context.Context) (int, error) {
		host, _, err := net.SplitHostPort(target)
		if err != nil {
			return -1, err
		}
		tcp, err := names.Dial(ctx, "tcp", target)
		if err != nil {
			return -1, fmt.Errorf("TLS to %s: %w", target, err)
		}
		c := tls.Client(tcp, &tls.Config{ServerName: strings.TrimSuffix(host, "."), MinVersion: tls.VersionTLS12})
		if err := c.HandshakeContext(ctx); err != nil {
			_ = tcp.Close()
			return -1, fmt.Errorf("TLS to %s: %w", target, err)
		}
		return joined(c)
	}
}

// tlsAcceptor returns how an inlet with a certificate takes a client: TLS on its socket, which it owns. ctx bounds the wait for
// the certificate and the handshake.
func tlsAcceptor(certificate func(context.Context) (*tls.Certificate, error)) func(context.Context, int) (int, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		return certificate(h.Context())
	}}
	return func(ctx context.Context, fd int) (int, error) {
		f := os.NewFile(uintptr(fd), "client")
		client, err := net.FileConn(f)
		_ = f.Close()
		if err != nil {
			return -1, fmt.Errorf("TLS: %w", err)
		}
		c := tls.Server(client, config)
		if err := c.HandshakeContext(ctx); err != nil {
			endsWell(c, true) // the client is told why
			_ = client.Close()
			return -1, fmt.Errorf("TLS with %s: %w", client.RemoteAddr(), err)
		}
		return joined(c)
	}
}

// joined returns a socket that carries what goes through c. It closes c when that is not possible.
func joined(c *tls.Conn) (int, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, errors.Join(os.NewSyscallError("socketpair", err), c.Close())
	}
	f := os.NewFile(uintptr(fds[1]), "tls")
	local, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		_ = unix.Close(fds[0])
		return -1, errors.Join(err, c.Close())
	}
	go join(c, local.(*net.UnixConn))
	return fds[0], nil
}

// join copies both ways and carries the end of each direction. A stream that the portal broke off is not ended as if it were whole:
// TLS would promise just that.
func join(c *tls.Conn, local *net.UnixConn) {
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
	_, _ = io.Copy(local, c)
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
		poll := []unix.PollFd{{Fd: int32(fd)}}
		_, err := unix.Poll(poll, 0)
		hup = err != nil || poll[0].Revents&unix.POLLHUP != 0
	}); err != nil {
		return true
	}
	return hup
}
