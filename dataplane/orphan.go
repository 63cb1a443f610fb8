package dataplane

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Owner tells whether a process still holds the other end of a TCP connection.
type Owner uint8

const (
	// OwnerUnknown is what can be said of another machine, or where the kernel does not answer.
	OwnerUnknown Owner = iota
	// Owned: some process has the socket open. It may have ended its sending direction.
	Owned
	// Orphaned: the socket was closed, or its process is gone. Nobody will read what is sent there.
	Orphaned
)

// sock_diag(7): a request for one socket, and what of the answer is used here.
const (
	sockDiagByFamily  = 20
	inetDiagReqV2Size = 56
	inetDiagInodeAt   = 68
	inetDiagMsgSize   = 72
)

// PeerOwners asks the kernel who holds the other ends of connections, which only tells of those on this machine. A FIN does not: shutdown(2) of a
// client that waits for its answer sends the same as close(2). It does not block on any peer.
func PeerOwners(fds []int) []Owner {
	list := make([]Owner, len(fds))
	var nl = -1
	defer func() {
		if nl >= 0 {
			_ = unix.Close(nl)
		}
	}()
	for i, fd := range fds {
		local, remote, ok := ends(fd)
		if !ok || local.Addr() != remote.Addr() && !remote.Addr().IsLoopback() {
			continue
		}
		if nl < 0 {
			var err error
			if nl, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG); err != nil {
				return list
			}
			// The answer is there when sendto returns; the bound is for a kernel that thinks otherwise.
			_ = unix.SetsockoptTimeval(nl, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000})
		}
		list[i] = socketOwner(nl, uint32(i+1), remote, local)
	}
	return list
}

// ends returns the addresses of a TCP socket.
func ends(fd int) (local, remote netip.AddrPort, ok bool) {
	l, err := unix.Getsockname(fd)
	if err != nil {
		return local, remote, false
	}
	r, err := unix.Getpeername(fd)
	if err != nil {
		return local, remote, false
	}
	local, remote = fromSockaddr(l), fromSockaddr(r)
	return local, remote, local.IsValid() && remote.IsValid()
}

// socketOwner asks for the socket of this machine that is connected from src to dst.
func socketOwner(nl int, seq uint32, src, dst netip.AddrPort) Owner {
	var req [unix.SizeofNlMsghdr + inetDiagReqV2Size]byte
	binary.NativeEndian.PutUint32(req[:], uint32(len(req)))
	binary.NativeEndian.PutUint16(req[4:], sockDiagByFamily)
	binary.NativeEndian.PutUint16(req[6:], unix.NLM_F_REQUEST)
	binary.NativeEndian.PutUint32(req[8:], seq)
	body := req[unix.SizeofNlMsghdr:]
	body[0], body[1] = unix.AF_INET, unix.IPPROTO_TCP
	if src.Addr().Is6() {
		body[0] = unix.AF_INET6
	}
	binary.NativeEndian.PutUint32(body[4:], 0xffffffff) // any state
	id := body[8:]
	binary.BigEndian.PutUint16(id, src.Port())
	binary.BigEndian.PutUint16(id[2:], dst.Port())
	copy(id[4:20], src.Addr().AsSlice())
	copy(id[20:36], dst.Addr().AsSlice())
	for i := 40; i < 48; i++ {
		id[i] = 0xff // no cookie
	}
	if err := unix.Sendto(nl, req[:], 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return OwnerUnknown
	}
	var buf [1024]byte
	for {
		n, _, err := unix.Recvfrom(nl, buf[:], 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n < unix.SizeofNlMsghdr {
			return OwnerUnknown
		}
		if binary.NativeEndian.Uint32(buf[8:]) != seq {
			continue // of a question before, whose answer was late
		}
		kind, data := binary.NativeEndian.Uint16(buf[4:]), buf[unix.SizeofNlMsghdr:n]
		switch {
		case kind == unix.NLMSG_ERROR && len(data) >= 4:
			if unix.Errno(-int32(binary.NativeEndian.Uint32(data))) == unix.ENOENT {
				return Orphaned // there is no such socket any more
			}
		case kind == sockDiagByFamily && len(data) >= inetDiagMsgSize:
			if binary.NativeEndian.Uint32(data[inetDiagInodeAt:]) == 0 {
				return Orphaned
			}
			return Owned
		}
		return OwnerUnknown
	}
}
