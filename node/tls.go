package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// tlsDialer returns what an outlet with --tls dials: TLS to the target, checked against the system's roots, with the host
// as the name to verify. TLS runs on goroutines, and a socket pair joins it to the event loop.
func tlsDialer(target string) func(context.Context) (int, error) {
	return func(ctx context.Context) (int, error) {
		host, _, err := net.SplitHostPort(target)
		if err != nil {
			return -1, err
		}
		d := tls.Dialer{Config: &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}}
		c, err := d.DialContext(ctx, "tcp", target)
		if err != nil {
			return -1, fmt.Errorf("TLS to %s: %w", target, err)
		}
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
		go join(c.(*tls.Conn), local.(*net.UnixConn))
		return fds[0], nil
	}
}

// join copies both ways and carries the end of each direction.
func join(c *tls.Conn, local *net.UnixConn) {
	up := make(chan struct{})
	go func() {
		defer close(up)
		_, _ = io.Copy(c, local)
		_ = c.CloseWrite()
	}()
	_, _ = io.Copy(local, c)
	_ = local.CloseWrite()
	<-up
	_ = c.Close()
	_ = local.Close()
}
