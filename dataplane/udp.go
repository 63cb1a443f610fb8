package dataplane

import (
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Sizes of datagram sockets.
const (
	udpBatch = 32 // messages given to the kernel with one system call
	// udpSlot is the largest datagram received; what is longer is dropped. It is above every size that passes the internet whole.
	udpSlot = 2048
	// udpReadBudget is how many batches one socket receives before others get their turn, and udpReadMost from how many datagrams on it is their
	// turn all the same.
	udpReadBudget = 16
	udpReadMost   = 256
	// udpQueueLimit is how many bytes wait for the kernel on one socket; more is dropped, as a network would.
	udpQueueLimit = 4 << 20
	// udpSmallFlushes is after how many flushes of little a socket gives up what it needed for a burst: a session's pings are a minute's.
	udpSmallFlushes = 64
	// udpKernelBuffer is asked of the kernel for each direction; it gives less to a user without privileges.
	udpKernelBuffer = 4 << 20
)

// noRunsVar turns UDP_SEGMENT and UDP_GRO off when it is "off": drivers have had faults with them.
const noRunsVar = "SALLYPORT_UDP_OFFLOAD"

// UDPHandler is called by a UDPSocket, always on its loop.
type UDPHandler interface {
	// OnDatagram gets one datagram. buf[:n] is the datagram, the rest of buf may be overwritten; all of it is borrowed until
	// OnDatagram returns.
	OnDatagram(buf []byte, n int, from netip.AddrPort)
	// OnBatchEnd is called after the datagrams that came together.
	OnBatchEnd()
	// OnFlush is called at the end of a turn in which something was sent, or WantFlush was called: the last moment to send.
	OnFlush()
	// OnDrain is called once after WantDrain, when nothing waits for the kernel.
	OnDrain()
	// OnRefused is called when the host of the socket's peer has said that nobody listens there, of what was sent before.
	OnRefused()
}

// UDPStats counts datagrams. Any goroutine may read it.
type UDPStats struct {
	In, Out atomic.Uint64
	// Truncated were longer than any datagram expected; Overflow found the queue full; Failed were refused by the kernel.
	Truncated, Overflow, Failed atomic.Uint64
	// Refused were sent to a host where nobody listens, which said so.
	Refused atomic.Uint64
}

// UDPSocket is a datagram socket on one loop. Its methods are for the loop's goroutine.
type UDPSocket struct {
	loop    *Loop
	fd      int
	local   netip.AddrPort
	here    netip.Addr // where the datagram that the handler has was sent to, if that is asked
	handler UDPHandler
	stats   *UDPStats
	retry   *Timer

	pace   int       // datagrams a millisecond; 0 is no limit
	tokens int       // that may be sent now
	paced  time.Time // when tokens were last added
	later  *Timer    // sends the rest

	out     []datagram
	sent    int    // datagrams of out that the kernel has
	bytes   []byte // of all datagrams in out, one after the other
	queue   int    // how many of them wait for the kernel at most
	large   bool   // datagrams of any size are taken
	drops   uint32 // of the kernel, when it was last asked
	small   int    // flushes since one filled much of what bytes has room for
	blocked bool   // the kernel took less than offered; EPOLLOUT will come
	drain   bool   // OnDrain is wanted
	runs    bool   // the kernel takes runs of datagrams on this socket
	inDirty bool
	closed  bool
	paused  bool
}

type datagram struct {
	to         netip.AddrPort
	start, end int // in UDPSocket.bytes
	alone      bool
	from       netip.Addr // of this machine; the system's choice if it is not valid
}

// ListenUDP opens a socket, of IPv4 or IPv6 as the address is; one at [::] is for both. The returned descriptor is non-blocking and is given to
// Loop.AdoptUDP.
func ListenUDP(at netip.AddrPort) (fd int, bound netip.AddrPort, err error) {
	return openUDP(at, netip.AddrPort{}, udpKernelBuffer, false)
}

// OpenUDP opens a socket for a service, IPv4 or IPv6. With a valid peer it is one of that family, bound to whatever the system chooses, and takes
// datagrams of that peer alone; at is not looked at. One at all addresses of the machine tells by Here which one a datagram was sent to. buffer is asked of
// the kernel for each direction, in bytes. The descriptor, non-blocking, is given to Loop.AdoptUDP; ErrNoDescriptor where only those are left that are kept
// for others.
func (g *Group) OpenUDP(at, peer netip.AddrPort, buffer int) (fd int, bound netip.AddrPort, err error) {
	if fd, bound, err = openUDP(at, peer, buffer, true); err == nil && !g.loops[0].mayUse(fd) {
		_ = unix.Close(fd)
		return -1, bound, ErrNoDescriptor
	}
	return fd, bound, err
}

// openUDP opens a socket; service says that it is one of OpenUDP.
func openUDP(at, peer netip.AddrPort, buffer int, service bool) (fd int, bound netip.AddrPort, err error) {
	if peer.IsValid() {
		at = netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
		if peer.Addr().Unmap().Is6() {
			at = netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
		}
	}
	fd = -1
	fail := func(what string, err error) (int, netip.AddrPort, error) {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
		return -1, netip.AddrPort{}, fmt.Errorf("bind UDP to %s: %w", at, os.NewSyscallError(what, err))
	}
	sa, family := sockaddr(at)
	if fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
		fd = -1
		return fail("socket", err)
	}
	for _, opt := range [...][2]int{{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}, {unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, opt[0], buffer) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, opt[1], buffer) // what the system allows
		}
	}
	if family == unix.AF_INET6 { // whatever the system's default is
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0); err != nil {
			return fail("setsockopt", err)
		}
	}
	if service && !peer.IsValid() && at.Addr().IsUnspecified() {
		askWhere(fd) // before the first datagram can come
	}
	if err := unix.Bind(fd, sa); err != nil {
		return fail("bind", err)
	}
	if peer.IsValid() {
		to, _ := sockaddr(peer)
		if err := unix.Connect(fd, to); err != nil {
			return fail("connect", err)
		}
	}
	local, err := unix.Getsockname(fd)
	if err != nil {
		return fail("getsockname", err)
	}
	return fd, fromSockaddr(local), nil
}

// AdoptUDP takes over a socket of ListenUDP. stats may be shared by many sockets. The loop closes fd even on error. On the loop only.
func (l *Loop) AdoptUDP(fd int, h UDPHandler, stats *UDPStats) (*UDPSocket, error) {
	sa, err := unix.Getsockname(fd)
	if err == nil {
		u := &UDPSocket{loop: l, fd: fd, local: fromSockaddr(sa), handler: h, stats: stats, queue: udpQueueLimit, runs: takesRuns(fd)}
		if err = l.register(fd, u); err == nil {
			return u, nil
		}
	}
	_ = unix.Close(fd)
	return nil, fmt.Errorf("add UDP socket to poller: %w", err)
}

// takesRuns asks the kernel to give runs of datagrams (UDP_GRO, Linux 5.0), and reports whether it takes them (UDP_SEGMENT, 4.18).
func takesRuns(fd int) bool {
	if os.Getenv(noRunsVar) == "off" {
		return false
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1)
	_, err := unix.GetsockoptInt(fd, unix.SOL_UDP, unix.UDP_SEGMENT)
	return err == nil
}

// Local returns the address bound to.
func (u *UDPSocket) Local() netip.AddrPort { return u.local }

// Pending returns how many bytes wait for the kernel.
func (u *UDPSocket) Pending() int {
	if u.sent == len(u.out) {
		return 0
	}
	return len(u.bytes) - u.out[u.sent].start
}

// Room returns how many bytes can be sent now without a drop.
func (u *UDPSocket) Room() int { return u.queue - u.Pending() }

// ForService has the socket take datagrams of any size, with queue bytes waiting for the kernel at most. What OnDatagram is given ends with the
// datagram.
func (u *UDPSocket) ForService(queue int) { u.large, u.queue = true, queue }

// Reserve returns n bytes for the next datagram, to be filled and taken over with Commit before anything else is done with u.
func (u *UDPSocket) Reserve(n int) []byte {
	at := len(u.bytes)
	if cap(u.bytes)-at < n {
		grown := make([]byte, at, max(2*cap(u.bytes), at+n, 16<<10))
		copy(grown, u.bytes)
		u.bytes = grown
	}
	return u.bytes[at : at+n : at+n]
}

// Lost returns how many datagrams the kernel has dropped, since it was last asked, because the socket had too much that was not read.
func (u *UDPSocket) Lost() uint32 {
	if u.closed {
		return 0
	}
	var mem [9]uint32 // SK_MEMINFO_VARS (linux/sock_diag.h)
	size := uint32(unsafe.Sizeof(mem))
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(u.fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&mem)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return 0
	}
	drops := mem[8] // SK_MEMINFO_DROPS
	n := drops - u.drops
	u.drops = drops
	return n
}

// Commit sends the first n bytes of the last Reserve to an address, at the end of the turn.
func (u *UDPSocket) Commit(n int, to netip.AddrPort) { u.commit(n, to, netip.Addr{}, false) }

// CommitAlone is Commit for a datagram that goes with no other one: it may be too large for the path.
func (u *UDPSocket) CommitAlone(n int, to netip.AddrPort) { u.commit(n, to, netip.Addr{}, true) }

func (u *UDPSocket) commit(n int, to netip.AddrPort, from netip.Addr, alone bool) {
	at := len(u.bytes)
	if u.closed {
		return
	}
	if n > u.Room() {
		u.stats.Overflow.Add(1)
		return
	}
	u.bytes = u.bytes[:at+n]
	u.out = append(u.out, datagram{to: to, start: at, end: at + n, alone: alone, from: from})
	u.markDirty()
}

// Whole sends datagrams whole or not at all from now on, whatever the system knows of the path (IP_PMTUDISC_PROBE): who finds out what passes must
// not have them cut.
func (u *UDPSocket) Whole() {
	_ = unix.SetsockoptInt(u.fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
	_ = unix.SetsockoptInt(u.fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE) // where it is of IPv6
}

// Send is Reserve and Commit for a datagram that is there already; it is copied.
func (u *UDPSocket) Send(p []byte, to netip.AddrPort) {
	copy(u.Reserve(len(p)), p)
	u.Commit(len(p), to)
}

// SendFrom is Send from an address of this machine, as Here has said it; with one that is not valid the system chooses.
func (u *UDPSocket) SendFrom(p []byte, to netip.AddrPort, from netip.Addr) {
	copy(u.Reserve(len(p)), p)
	u.commit(len(p), to, from, false)
}

// Here returns which address of this machine the datagram was sent to that OnDatagram is given, to be called there: whoever asked one address does not hear
// an answer from another one (RFC 1122 4.1.3.5). It is not valid where the socket has an address of its own, and where it is everybody's, as of a multicast.
func (u *UDPSocket) Here() netip.Addr { return u.here }

// Pace limits what is sent to n datagrams a millisecond, and twice as many at once: who receives them without telling how many it can take
// has room for few. Zero removes the limit.
func (u *UDPSocket) Pace(n int) { u.pace, u.tokens = n, 2*n }

// allowance returns how many datagrams may be sent now, and sees to it that the others are sent later.
func (u *UDPSocket) allowance(waiting int) int {
	if u.pace == 0 {
		return waiting
	}
	now := time.Now()
	if passed := now.Sub(u.paced); passed >= time.Millisecond {
		u.tokens = min(u.tokens+int(min(passed/time.Millisecond, 2))*u.pace, 2*u.pace)
		u.paced = now
	}
	if waiting > u.tokens && u.later == nil {
		u.later = u.loop.After(time.Millisecond, func() {
			u.later = nil
			u.flush()
		})
	}
	return min(waiting, u.tokens)
}

// WantDrain asks for one OnDrain, at the end of a turn.
func (u *UDPSocket) WantDrain() {
	u.drain = true
	u.markDirty()
}

// WantFlush asks for one OnFlush at the end of this turn.
func (u *UDPSocket) WantFlush() { u.markDirty() }

func (u *UDPSocket) markDirty() {
	if !u.inDirty && !u.closed {
		u.inDirty = true
		u.loop.dirtyUDP = append(u.loop.dirtyUDP, u)
	}
}

// Close closes the socket after a last try to send what waits.
func (u *UDPSocket) Close() {
	if u.closed {
		return
	}
	u.drain, u.pace = false, 0
	u.offer()
	u.closed = true
	u.retry.Stop()
	u.later.Stop()
	u.loop.unregisterShared(u.fd)
	_ = unix.Close(u.fd)
	u.out, u.bytes = nil, nil
}

func (u *UDPSocket) onEvents(events uint32) {
	if u.closed {
		return
	}
	if events&unix.EPOLLOUT != 0 && u.blocked {
		u.blocked = false
		u.flush()
	}
	u.readReady()
}

// Pause takes no datagrams until Resume: they wait in the socket. On the loop only.
func (u *UDPSocket) Pause() { u.paused = true }

// Resume takes datagrams again, first those that have waited. Not from within a handler. On the loop only.
func (u *UDPSocket) Resume() {
	u.paused = false
	u.readReady()
}

func (u *UDPSocket) readReady() {
	if u.closed || u.paused {
		return
	}
	b, again, total := u.loop.datagrams(), time.Duration(0), 0
	for range udpReadBudget {
		n, errno := b.receive(u.fd)
		if errno == unix.EINTR {
			continue
		}
		if errno == unix.EAGAIN {
			return
		}
		if errno != 0 {
			// An earlier datagram was refused somewhere; the error is taken with this. One that stays must not keep the loop busy.
			again = 50 * time.Millisecond
			if errno == unix.ECONNREFUSED {
				u.stats.Refused.Add(1)
				if u.handler.OnRefused(); u.closed {
					return
				}
			}
			continue
		}
		again = 0
		for i := range n {
			total += u.take(b, i)
			if u.closed {
				return
			}
		}
		u.handler.OnBatchEnd()
		if u.closed || n < receiveBatch {
			return // drained: the next datagram raises a new edge
		}
		if total >= udpReadMost {
			break
		}
	}
	u.retry.Stop()
	u.retry = u.loop.After(again, u.readReady) // edge-triggered: nobody tells of those still waiting
}

// take hands on the datagrams of message i and returns how many there were.
func (u *UDPSocket) take(b *datagrams, i int) (count int) {
	bytes, size, here := b.message(i)
	from := b.from(i)
	u.here = here
	if u.large && size <= len(bytes) && b.in[i].Hdr.Flags&unix.MSG_TRUNC == 0 {
		for count = 0; count == 0 || len(bytes) > 0 && size > 0 && !u.closed; count++ {
			n := min(size, len(bytes))
			u.stats.In.Add(1)
			u.handler.OnDatagram(bytes[:n:n], n, from)
			bytes = bytes[n:]
		}
		return count
	}
	if size > udpSlot || size <= 0 && len(bytes) > 0 || b.in[i].Hdr.Flags&unix.MSG_TRUNC != 0 {
		u.stats.Truncated.Add(1)
		return 1
	}
	if len(bytes) == size {
		u.stats.In.Add(1)
		u.handler.OnDatagram(bytes[:udpSlot:udpSlot], size, from)
		return 1
	}
	for ; len(bytes) > 0 && !u.closed; count++ {
		n := copy(b.single[:], bytes[:min(size, len(bytes))])
		bytes = bytes[n:]
		u.stats.In.Add(1)
		u.handler.OnDatagram(b.single[:], n, from)
	}
	return count
}

// flush offers what waits to the kernel, and tells the handler if that has said that the peer is not there.
func (u *UDPSocket) flush() {
	if u.offer() {
		u.handler.OnRefused()
	}
}

// offer is flush without a word to the handler: it returns whether one is due.
func (u *UDPSocket) offer() (refused bool) {
	if u.closed || u.blocked {
		return false
	}
	b := u.loop.datagrams()
	until := u.sent + u.allowance(len(u.out)-u.sent)
	for u.sent < until && !u.blocked {
		n, run, errno := b.send(u.fd, u.out[u.sent:until], u.bytes, u.runs)
		switch {
		case errno == 0:
			u.stats.Out.Add(uint64(n))
			u.sent += n
			u.tokens -= n
		case errno == unix.EINTR:
		case errno == unix.ECONNREFUSED && u.large:
			refused = true // an earlier one, by a host where nobody listens; this one has not been tried
			u.stats.Refused.Add(1)
		case errno == unix.EAGAIN, errno == unix.ENOBUFS:
			u.blocked = true
		case run > 1 && (errno == unix.EIO || errno == unix.EINVAL || errno == unix.EMSGSIZE):
			u.runs = false // a device that does not compute checksums (udp_send_skb), a path that takes less
		default:
			// The first one cannot be sent (no route, a firewall): it is lost, as it could be anywhere on its way.
			u.stats.Failed.Add(1)
			u.sent++
		}
	}
	if u.sent < len(u.out) {
		u.compact()
		return refused
	}
	if u.small++; len(u.bytes) > cap(u.bytes)/8 {
		u.small = 0
	}
	u.out, u.bytes, u.sent = u.out[:0], u.bytes[:0], 0
	if cap(u.bytes) > 64<<10 && u.small > udpSmallFlushes {
		u.out, u.bytes, u.small = nil, nil, 0 // an idle socket keeps nothing of a burst
	}
	if u.drain {
		u.drain = false
		u.handler.OnDrain()
	}
	return refused
}

// compact gives up what was sent, once it is half of what is kept.
func (u *UDPSocket) compact() {
	base := u.out[u.sent].start
	if base < len(u.bytes)-base {
		return
	}
	u.bytes = u.bytes[:copy(u.bytes, u.bytes[base:])]
	u.out = u.out[:copy(u.out, u.out[u.sent:])]
	u.sent = 0
	for i := range u.out {
		u.out[i].start -= base
		u.out[i].end -= base
	}
}
