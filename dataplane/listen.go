package dataplane

import (
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// acceptBatch bounds the connections accepted in one turn, so that a flood of them does not starve the others.
const acceptBatch = 64

// Listener accepts TCP connections, or those of a Unix socket, on one loop.
type Listener struct {
	loop    *Loop
	fd      int
	addr    netip.AddrPort
	unix    string // name of a Unix socket, else empty
	accept  func(fd int, from netip.AddrPort)
	retried *Timer
	closed  bool
	paused  bool
	failing bool // the last attempt found no descriptor or memory
}

// ListenTCP opens a listening socket; the returned descriptor is non-blocking and is given to Loop.Accept.
func ListenTCP(at netip.AddrPort) (fd int, bound netip.AddrPort, err error) {
	sa, family := sockaddr(at)
	fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, bound, fmt.Errorf("listen on %s: %w", at, os.NewSyscallError("socket", err))
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd)
			fd = -1
		}
	}()
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return fd, bound, fmt.Errorf("listen on %s: %w", at, err)
	}
	if err := unix.Bind(fd, sa); err != nil {
		return fd, bound, fmt.Errorf("listen on %s: %w", at, os.NewSyscallError("bind", err))
	}
	unpaced(fd, at.Addr())
	if err := unix.Listen(fd, 4096); err != nil {
		return fd, bound, fmt.Errorf("listen on %s: %w", at, os.NewSyscallError("listen", err))
	}
	local, err := unix.Getsockname(fd)
	if err != nil {
		return fd, bound, fmt.Errorf("listen on %s: %w", at, err)
	}
	return fd, fromSockaddr(local), nil
}

// Accept starts accepting on a listening descriptor, which the Listener then owns. accept is called on the loop with each
// connected, non-blocking descriptor, which it must give to a loop's Adopt or close. On the loop only.
func (l *Loop) Accept(fd int, accept func(fd int, from netip.AddrPort)) (*Listener, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return nil, os.NewSyscallError("getsockname", err)
	}
	ln := &Listener{loop: l, fd: fd, addr: fromSockaddr(sa), unix: unixName(sa), accept: accept}
	if err := l.register(fd, ln); err != nil {
		return nil, fmt.Errorf("add listener to poller: %w", err)
	}
	return ln, nil
}

// Addr returns the address that is listened on.
func (ln *Listener) Addr() netip.AddrPort { return ln.addr }

// Pause accepts nobody until Resume: who connects waits in the kernel's queue. On the loop only.
func (ln *Listener) Pause() { ln.paused = true }

// Resume accepts again, first who has waited. On the loop only.
func (ln *Listener) Resume() {
	ln.paused = false
	ln.acceptReady()
}

// Close stops listening; the file of a Unix socket is removed. On the loop only.
func (ln *Listener) Close() {
	if ln.closed {
		return
	}
	ln.closed = true
	ln.retried.Stop()
	ln.loop.unregisterShared(ln.fd)
	rawClose(ln.fd)
	if ln.unix != "" && ln.unix[0] != '@' {
		_ = os.Remove(ln.unix)
	}
}

func (ln *Listener) onEvents(uint32) { ln.acceptReady() }

func (ln *Listener) acceptReady() {
	for range acceptBatch {
		if ln.closed || ln.paused {
			return
		}
		fd, from, errno := rawAccept(ln.fd)
		switch errno {
		case 0:
			ln.accepting(true, 0)
			if !ln.loop.mayUse(fd) {
				Reset(fd)
				continue
			}
			ln.accept(fd, from)
		case unix.EAGAIN:
			return
		case unix.EINTR, unix.ECONNABORTED:
		default:
			// Out of descriptors or memory: the queue stays full, so try again a little later instead of at once.
			ln.accepting(false, errno)
			ln.retry(100 * time.Millisecond)
			return
		}
	}
	ln.retry(0) // edge-triggered: nobody tells of those still waiting
}

// accepting tells, once, that the listener cannot accept, and once that it can again.
func (ln *Listener) accepting(can bool, errno unix.Errno) {
	if can != ln.failing {
		return
	}
	if ln.failing = !can; can {
		ln.loop.log.Info("accepts again", "listener", ln.addr.String())
	} else {
		ln.loop.log.Warn("cannot accept", "listener", ln.addr.String(), "err", errno)
	}
}

func (ln *Listener) retry(after time.Duration) {
	ln.retried.Stop()
	ln.retried = ln.loop.After(after, ln.acceptReady)
}
