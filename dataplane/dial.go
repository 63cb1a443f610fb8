package dataplane

import (
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// TCPOptions are the socket options of a TCP connection.
type TCPOptions struct {
	// NoDelay turns Nagle's algorithm off.
	NoDelay bool
	// KeepAliveIdle, KeepAliveInterval and KeepAliveCount set keep-alive probes; an idle time of zero leaves them off.
	KeepAliveIdle, KeepAliveInterval time.Duration
	KeepAliveCount                   int
	// UserTimeout is how long sent data may stay unacknowledged before the connection fails; zero leaves the system's.
	UserTimeout time.Duration
	// ResetOnCrash lets the kernel reset the connection when the process ends without having ended it, as after kill -9: an end would
	// tell the peer that a stream that was cut off is whole. Sockets inherit it from their listener. A Conn takes it away when the
	// stream has ended well; whoever uses the socket otherwise has to do so with EndWell.
	ResetOnCrash bool
	// NotSentLowat bounds the bytes that the kernel takes before it has sent them; zero leaves the system's.
	NotSentLowat int
	// SendBuffer is the size of the send buffer, as SendBuffer returns it; zero leaves the system's. It does not apply to loopback
	// addresses.
	SendBuffer int
	// RepeatAfter is how much longer than a round trip the kernel waits at least for an acknowledgement before it sends again, and AcknowledgeWithin how
	// long it waits at most with its own (Linux 6.16); zero leaves the system's, 200 ms for both. Where the kernel has no such options a lost request takes
	// longer, and nothing else.
	RepeatAfter, AcknowledgeWithin time.Duration
}

// Apply sets the options on a socket.
func (o TCPOptions) Apply(fd int) error {
	set := func(name string, level, opt, value int) error {
		if errno := rawSetsockoptInt(fd, level, opt, value); errno != 0 {
			return os.NewSyscallError("setsockopt "+name, errno)
		}
		return nil
	}
	if o.NoDelay {
		if err := set("TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
			return err
		}
	}
	if o.KeepAliveIdle > 0 {
		for _, s := range []struct {
			name              string
			level, opt, value int
		}{
			{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(o.KeepAliveIdle / time.Second)},
			{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(o.KeepAliveInterval / time.Second)},
			{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, o.KeepAliveCount},
		} {
			if err := set(s.name, s.level, s.opt, s.value); err != nil {
				return err
			}
		}
	}
	if o.UserTimeout > 0 {
		if err := set("TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(o.UserTimeout/time.Millisecond)); err != nil {
			return err
		}
	}
	for opt, d := range map[int]time.Duration{unix.TCP_RTO_MIN_US: o.RepeatAfter, unix.TCP_DELACK_MAX_US: o.AcknowledgeWithin} {
		if d > 0 {
			rawSetsockoptInt(fd, unix.IPPROTO_TCP, opt, int(d/time.Microsecond))
		}
	}
	if o.ResetOnCrash {
		rawResetOnClose(fd) // cannot fail on a socket; on another kind it means nothing
	}
	if o.SendBuffer > 0 {
		if errno := setSendBuffer(fd, o.SendBuffer); errno != 0 {
			return os.NewSyscallError("setsockopt SO_SNDBUF", errno)
		}
	}
	if o.NotSentLowat > 0 {
		return set("TCP_NOTSENT_LOWAT", unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, o.NotSentLowat)
	}
	return nil
}

// unpaced keeps a socket that stays on this machine from pacing what it sends. Nothing can be congested there, but a system
// whose congestion control paces (BBR) does it all the same: a timer for each burst, smaller segments, and pauses. Should
// plainControl be refused, the connection only is slower. Has to be called before
// connect or listen, since pacing cannot be turned off again. Accepted connections inherit it.
func unpaced(fd int, peer netip.Addr) {
	if peer.Unmap().IsLoopback() {
		rawSetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, plainControl)
	}
}

// plainControl is the congestion control that is part of every kernel and open to every user.
const plainControl = "reno"

func sockaddr(a netip.AddrPort) (unix.Sockaddr, int) {
	if ip := a.Addr().Unmap(); ip.Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: ip.As4()}, unix.AF_INET
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16(), ZoneId: zoneOf(a.Addr())}, unix.AF_INET6
}

func fromSockaddr(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// LocalAddr returns the local address of a TCP connection, or the zero value.
func (c *Conn) LocalAddr() netip.AddrPort {
	if c.closed {
		return netip.AddrPort{}
	}
	a, _ := rawLocal(c.fd)
	return a
}

// RemoteAddr returns the peer's address of a TCP connection, or the zero value.
func (c *Conn) RemoteAddr() netip.AddrPort {
	if c.closed {
		return netip.AddrPort{}
	}
	a, _ := rawPeer(c.fd)
	return a
}

// Dial starts a TCP connection and calls done once, on the loop: with the connection, whose handler done must set, or
// with the error. A connection within the machine is usually there at once; done is then called before Dial returns. On the loop
// only; names are resolved elsewhere.
func (l *Loop) Dial(to netip.AddrPort, o TCPOptions, timeout time.Duration, done func(*Conn, error)) {
	l.dial(to, o, timeout, done)
}

// dial is Dial. It returns the connection while it is being made, nil when done was called or will be without it.
func (l *Loop) dial(to netip.AddrPort, o TCPOptions, timeout time.Duration, done func(*Conn, error)) *Conn {
	fail := func(err error) *Conn {
		err = fmt.Errorf("connect to %s: %w", to, err)
		l.After(0, func() { done(nil, err) })
		return nil
	}
	sa, family := newRawSockaddr(to)
	fd, errno := rawSocket(family)
	if errno != 0 {
		return fail(asError("socket", errno))
	}
	if !l.mayUse(fd) {
		rawClose(fd)
		return fail(ErrNoDescriptor)
	}
	local := to.Addr().Unmap().IsLoopback()
	if local {
		o.KeepAliveIdle = 0 // the kernel always tells of the end of a peer on this machine
		o.SendBuffer = 0
	}
	if err := o.Apply(fd); err != nil {
		rawClose(fd)
		return fail(err)
	}
	unpaced(fd, to.Addr())
	errno = rawConnect(fd, sa)
	if errno == unix.EINPROGRESS && local {
		errno = rawConnect(fd, sa) // now the kernel has carried the packets to the peer and back
	}
	if errno != 0 && errno != unix.EINPROGRESS && errno != unix.EALREADY {
		rawClose(fd)
		return fail(errno)
	}
	c, err := l.Adopt(fd, nil)
	if err != nil {
		return fail(err)
	}
	if errno == 0 {
		done(c, nil) // an event tells of what has come already
		return nil
	}
	c.connect = func(c *Conn, err error) {
		if err != nil {
			err = fmt.Errorf("connect to %s: %w", to, err)
		}
		done(c, err)
	}
	if timeout > 0 {
		c.timer = l.After(timeout, func() { c.finish(os.ErrDeadlineExceeded) })
	}
	return c
}

// connected ends the connecting state.
func (c *Conn) connected() {
	if errno := rawSocketError(c.fd); errno != 0 {
		c.finish(errno)
		return
	}
	if _, errno := rawPeer(c.fd); errno != 0 {
		return // an event of the descriptor's former life, or too early
	}
	connect := c.connect
	c.connect = nil
	c.timer.Stop()
	c.timer = nil
	c.readable = true // the edge may have been the one just used
	connect(c, nil)
	c.offer()
	if !c.closed {
		c.markDirty()
	}
}

// SetOptions sets options of a connected socket.
func (c *Conn) SetOptions(o TCPOptions) error {
	if c.closed {
		return ErrConnClosed
	}
	return o.Apply(c.fd)
}
