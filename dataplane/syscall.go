package dataplane

import (
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls of a loop, without the scheduler's bookkeeping around each. None of them blocks, since every descriptor is
// non-blocking; and a call that the scheduler is told of wakes its monitor thread, which then looks every 20 us for a processor
// that it could take back. In a node that opens connections all the time that was a sixth of its CPU time.

func rawRead(fd int, p []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	return int(n), errno
}

func rawWrite(fd int, p []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	return int(n), errno
}

func rawReadv(fd int, v []unix.Iovec) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_READV, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(v))), uintptr(len(v)))
	return int(n), errno
}

func rawWritev(fd int, v []unix.Iovec) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(v))), uintptr(len(v)))
	return int(n), errno
}

// iovec describes p, which must not be empty.
func iovec(p []byte) unix.Iovec {
	v := unix.Iovec{Base: unsafe.SliceData(p)}
	v.SetLen(len(p))
	return v
}

func rawClose(fd int) { unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

func rawShutdown(fd, how int) { unix.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), uintptr(how), 0) }

func rawEpollCtl(epfd, op, fd int, e *unix.EpollEvent) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(epfd), uintptr(op), uintptr(fd), uintptr(unsafe.Pointer(e)), 0, 0)
	return asError("epoll_ctl", errno)
}

func setsockopt(fd, level, opt int, p unsafe.Pointer, size uintptr) unix.Errno {
	_, _, errno := unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(opt), uintptr(p), size, 0)
	return errno
}

func rawSetsockoptInt(fd, level, opt, value int) unix.Errno {
	v := int32(value)
	return setsockopt(fd, level, opt, unsafe.Pointer(&v), unsafe.Sizeof(v))
}

func rawSetsockoptString(fd, level, opt int, value string) unix.Errno {
	return setsockopt(fd, level, opt, unsafe.Pointer(unsafe.StringData(value)), uintptr(len(value)))
}

// rawResetOnClose makes close send a reset instead of what waits to be sent.
func rawResetOnClose(fd int) {
	linger := unix.Linger{Onoff: 1}
	setsockopt(fd, unix.SOL_SOCKET, unix.SO_LINGER, unsafe.Pointer(&linger), unsafe.Sizeof(linger))
}

// rawEndOnClose undoes rawResetOnClose.
func rawEndOnClose(fd int) {
	var linger unix.Linger
	setsockopt(fd, unix.SOL_SOCKET, unix.SO_LINGER, unsafe.Pointer(&linger), unsafe.Sizeof(linger))
}

// rawSocketError fetches and clears a socket's pending error.
func rawSocketError(fd int) unix.Errno {
	var v int32
	size := uint32(unsafe.Sizeof(v))
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_ERROR,
		uintptr(unsafe.Pointer(&v)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return unix.Errno(v)
}

// rawAccept takes a waiting connection; the peer's address is the zero value unless it is an IP address.
func rawAccept(fd int) (int, netip.AddrPort, unix.Errno) {
	var sa rawSockaddr
	sa.size = sockaddrSize
	n, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(&sa.b)), uintptr(unsafe.Pointer(&sa.size)),
		unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	if errno != 0 {
		return -1, netip.AddrPort{}, errno
	}
	return int(n), sa.addrPort(), 0
}

// rawPeer returns the address that a socket is connected to; the zero value unless it is an IP address. The library's call asks for the socket's protocol too, in one
// that the scheduler is told of.
func rawPeer(fd int) (netip.AddrPort, unix.Errno) { return rawName(unix.SYS_GETPEERNAME, fd) }

// rawLocal returns a socket's own address, as rawPeer.
func rawLocal(fd int) (netip.AddrPort, unix.Errno) { return rawName(unix.SYS_GETSOCKNAME, fd) }

func rawName(call uintptr, fd int) (netip.AddrPort, unix.Errno) {
	sa := rawSockaddr{size: sockaddrSize}
	if _, _, errno := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(&sa.b)), uintptr(unsafe.Pointer(&sa.size))); errno != 0 {
		return netip.AddrPort{}, errno
	}
	return sa.addrPort(), 0
}

func rawSocket(family int) (int, unix.Errno) {
	fd, _, errno := unix.RawSyscall(unix.SYS_SOCKET, uintptr(family), unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	return int(fd), errno
}

func rawConnect(fd int, sa *rawSockaddr) unix.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&sa.b)), uintptr(sa.size))
	return errno
}

func rawTimerfdSettime(fd int, spec *unix.ItimerSpec) {
	unix.RawSyscall6(unix.SYS_TIMERFD_SETTIME, uintptr(fd), 0, uintptr(unsafe.Pointer(spec)), 0, 0, 0)
}

const sockaddrSize = unix.SizeofSockaddrInet6

// rawSockaddr is an address as the kernel wants it: struct sockaddr_in or sockaddr_in6.
type rawSockaddr struct {
	b    [sockaddrSize]byte
	size uint32
}

// newRawSockaddr returns a's form for the kernel and its address family.
func newRawSockaddr(a netip.AddrPort) (*rawSockaddr, int) {
	s := &rawSockaddr{}
	sa, family := sockaddr(a)
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		raw := (*unix.RawSockaddrInet4)(unsafe.Pointer(&s.b))
		raw.Family, raw.Addr, s.size = unix.AF_INET, sa.Addr, unix.SizeofSockaddrInet4
		putPort(&raw.Port, a.Port())
	case *unix.SockaddrInet6:
		raw := (*unix.RawSockaddrInet6)(unsafe.Pointer(&s.b))
		raw.Family, raw.Addr, raw.Scope_id, s.size = unix.AF_INET6, sa.Addr, sa.ZoneId, unix.SizeofSockaddrInet6
		putPort(&raw.Port, a.Port())
	}
	return s, family
}

// putPort stores a port in network order.
func putPort(to *uint16, port uint16) {
	b := (*[2]byte)(unsafe.Pointer(to))
	b[0], b[1] = byte(port>>8), byte(port)
}

func (s *rawSockaddr) addrPort() netip.AddrPort {
	port := uint16(s.b[2])<<8 | uint16(s.b[3])
	switch (*unix.RawSockaddr)(unsafe.Pointer(&s.b)).Family {
	case unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(&s.b)).Addr), port)
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16((*unix.RawSockaddrInet6)(unsafe.Pointer(&s.b)).Addr).Unmap(), port)
	}
	return netip.AddrPort{}
}

// asError makes an error of errno, nil for 0.
func asError(call string, errno unix.Errno) error {
	if errno == 0 {
		return nil
	}
	return os.NewSyscallError(call, errno)
}
