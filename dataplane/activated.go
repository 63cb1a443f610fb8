package dataplane

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// activatedFirst is the first descriptor that a service manager hands over (SD_LISTEN_FDS_START), activatedMost how many are believed.
const (
	activatedFirst = 3
	activatedMost  = 1024
)

// Activated returns the listening and datagram sockets with which a service manager has started this process (sd_listen_fds(3)), and takes their
// variables out of the environment, so that programs that it starts do not take them for theirs. It is called once, before anything is opened.
func Activated() ([]Inherited, error) {
	pid, number := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		_ = os.Unsetenv(name)
	}
	if pid != strconv.Itoa(os.Getpid()) {
		return nil, nil // meant for a process before
	}
	n, err := strconv.Atoi(number)
	if err != nil || n < 0 || n > activatedMost {
		return nil, fmt.Errorf("LISTEN_FDS=%q is no number of sockets from 0 to %d", number, activatedMost)
	}
	return activated(activatedFirst, n)
}

// activated describes n sockets from a descriptor on.
func activated(first, n int) (list []Inherited, err error) {
	for fd := first; fd < first+n; fd++ {
		unix.CloseOnExec(fd)
		s := Inherited{FD: fd}
		if s.Network, s.Address, err = bound(fd); err != nil {
			return nil, fmt.Errorf("socket %d of %d that the service manager has handed over: %w", fd-first+1, n, err)
		}
		if err := unix.SetNonblock(fd, true); err != nil {
			return nil, os.NewSyscallError("fcntl", err)
		}
		list = append(list, s)
	}
	return list, nil
}

// bound tells of which network a socket is that listens or takes datagrams, and where.
func bound(fd int) (network, address string, err error) {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return "", "", os.NewSyscallError("getsockopt", err)
	}
	listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return "", "", os.NewSyscallError("getsockopt", err)
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		return "", "", os.NewSyscallError("getsockname", err)
	}
	if kind == unix.SOCK_STREAM && listens == 0 {
		return "", "", fmt.Errorf("it does not listen: the socket unit needs Accept=no")
	}
	var ip netip.AddrPort
	switch a := at.(type) {
	case *unix.SockaddrInet4:
		ip = netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		ip = netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
	}
	switch {
	case ip.IsValid() && kind == unix.SOCK_STREAM:
		return "tcp", ip.String(), nil
	case ip.IsValid() && kind == unix.SOCK_DGRAM:
		return "udp", ip.String(), nil
	}
	return "", "", fmt.Errorf("it is neither TCP nor UDP: a node makes Unix sockets itself")
}
