package dataplane

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Glossary: a datagram is what a peer sends or gets; a run is datagrams of one size to or from one peer, from or to one address of this
// machine, the last of which may be shorter, that the kernel takes or gives as one message (UDP_SEGMENT, UDP_GRO); a batch is the messages of one system call.

const (
	// runBytes and runDatagrams bound a run: the kernel refuses more than fits into one IP packet, and more than 64 (UDP_MAX_SEGMENTS before
	// Linux 6.9).
	runBytes     = 1<<16 - 1 - 48
	runDatagrams = 64
	// runSlot is the memory for one message received.
	runSlot = 1 << 16
	// receiveBatch is how many messages are received at once.
	receiveBatch = 16
	// controlIn has room for the size of a run and for where a datagram was sent to, which a socket of both families is told twice (CmsgSpace of an int, of
	// an Inet4Pktinfo and of an Inet6Pktinfo: 24, 32 and 40 bytes, less on 32 bits), controlOut for a size and a source.
	controlIn  = 24 + 32 + 40
	controlOut = 24 + 40
)

// datagrams is what one loop needs to receive and send many datagrams with one system call (recvmmsg(2), sendmmsg(2)). It is on the
// heap and stays where it is: the kernel follows its pointers.
type datagrams struct {
	in        [receiveBatch]unix.Mmsghdr
	inVec     [receiveBatch]unix.Iovec
	inName    [receiveBatch]unix.RawSockaddrInet6 // or an Inet4, which is shorter
	inControl [receiveBatch][controlIn]byte
	inBytes   []byte
	single    [udpSlot]byte // one datagram of a run, with nothing behind it that is needed
	out       [udpBatch]unix.Mmsghdr
	outVec    [udpBatch]unix.Iovec
	outNames  [udpBatch]unix.RawSockaddrInet6
	outRun    [udpBatch]int // datagrams in each message
	// outControl has the size of a run's datagrams, and behind it where they come from; a message may have one of the two alone.
	outControl [udpBatch][controlOut]byte
}

// datagrams returns the loop's own, made when it is first needed.
func (l *Loop) datagrams() *datagrams {
	if l.udp != nil {
		return l.udp
	}
	b := &datagrams{inBytes: make([]byte, receiveBatch*runSlot)}
	for i := range receiveBatch {
		b.inVec[i].Base = &b.inBytes[i*runSlot]
		b.inVec[i].SetLen(runSlot)
		b.in[i].Hdr = unix.Msghdr{Iov: &b.inVec[i], Iovlen: 1, Name: (*byte)(unsafe.Pointer(&b.inName[i])), Control: &b.inControl[i][0]}
	}
	for i := range udpBatch {
		b.out[i].Hdr = unix.Msghdr{Iov: &b.outVec[i], Iovlen: 1, Name: (*byte)(unsafe.Pointer(&b.outNames[i]))}
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b.outControl[i][0]))
		h.Level, h.Type = unix.SOL_UDP, unix.UDP_SEGMENT
		h.SetLen(unix.CmsgLen(2))
	}
	l.udp = b
	return b
}

// message returns what message i of the last receive brought, how long each datagram in it is, and which address of this machine it was sent to, if the
// socket asks for that.
func (b *datagrams) message(i int) (bytes []byte, size int, here netip.Addr) {
	n := int(b.in[i].Len)
	size, here = readControl(b.inControl[i][:min(int(b.in[i].Hdr.Controllen), controlIn)], n)
	return b.inBytes[i*runSlot:][:n], size, here
}

// readControl returns what the kernel says beside a message: how long each datagram in it is, whole if it does not say, and which address of this machine it
// was sent to.
func readControl(b []byte, whole int) (size int, here netip.Addr) {
	size = whole
	for len(b) >= unix.SizeofCmsghdr {
		h, data, rest, err := unix.ParseOneSocketControlMessage(b)
		if err != nil {
			break
		}
		b = rest
		switch {
		case h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO && len(data) >= 4:
			size = int(binary.NativeEndian.Uint32(data))
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			// Not Addr, which may be a broadcast's.
			if a := netip.AddrFrom4((*unix.Inet4Pktinfo)(unsafe.Pointer(&data[0])).Spec_dst); !a.IsUnspecified() {
				here = a
			}
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			info := (*unix.Inet6Pktinfo)(unsafe.Pointer(&data[0]))
			if a := netip.AddrFrom16(info.Addr); !a.Is4In6() && !a.IsMulticast() && !a.IsUnspecified() { // IP_PKTINFO tells of IPv4
				if here = a; a.IsLinkLocalUnicast() {
					here = zoned(a, info.Ifindex)
				}
			}
		}
	}
	return size, here
}

// askWhere has the kernel say where each datagram was sent to, of both families on a socket of IPv6. Where it does not know how, answers go from where it
// likes.
func askWhere(fd int) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
}

// putSource writes where a message comes from and returns how long that is. The interface is the routes' choice but where the address is only valid on one.
func putSource(b []byte, from netip.Addr) int {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	data := unsafe.Pointer(&b[unix.CmsgLen(0)])
	if from.Is4() {
		h.Level, h.Type = unix.IPPROTO_IP, unix.IP_PKTINFO
		h.SetLen(unix.CmsgLen(unix.SizeofInet4Pktinfo))
		*(*unix.Inet4Pktinfo)(data) = unix.Inet4Pktinfo{Spec_dst: from.As4()}
		return unix.CmsgSpace(unix.SizeofInet4Pktinfo)
	}
	h.Level, h.Type = unix.IPPROTO_IPV6, unix.IPV6_PKTINFO
	h.SetLen(unix.CmsgLen(unix.SizeofInet6Pktinfo))
	*(*unix.Inet6Pktinfo)(data) = unix.Inet6Pktinfo{Addr: from.As16(), Ifindex: zoneOf(from)}
	return unix.CmsgSpace(unix.SizeofInet6Pktinfo)
}

// from returns who sent message i of the last receive.
func (b *datagrams) from(i int) netip.AddrPort { return fromName(&b.inName[i]) }

// receive takes up to receiveBatch messages.
func (b *datagrams) receive(fd int) (int, unix.Errno) {
	for i := range receiveBatch {
		b.in[i].Hdr.Namelen = unix.SizeofSockaddrInet6
		b.in[i].Hdr.Flags = 0
		b.in[i].Hdr.SetControllen(controlIn)
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.in)), receiveBatch, unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

// send offers the first datagrams of a list, which lie one behind the other in bytes, and returns how many were taken; in runs, if the socket
// can. After an error first is how many datagrams the message had that it is about.
func (b *datagrams) send(fd int, list []datagram, bytes []byte, runs bool) (taken, first int, errno unix.Errno) {
	messages := 0
	for at := 0; at < len(list) && messages < udpBatch; messages++ {
		count := 1
		if runs {
			count = runOf(list[at:])
		}
		head, last := &list[at], &list[at+count-1]
		hdr := &b.out[messages].Hdr
		b.outVec[messages].Base = unsafe.SliceData(bytes[head.start:])
		b.outVec[messages].SetLen(last.end - head.start)
		hdr.Namelen = putName(&b.outNames[messages], head.to)
		control := &b.outControl[messages]
		begin, end := unix.CmsgSpace(2), unix.CmsgSpace(2)
		if count > 1 {
			begin = 0
			binary.NativeEndian.PutUint16(control[unix.CmsgLen(0):], uint16(head.end-head.start))
		}
		if head.from.IsValid() {
			end += putSource(control[end:], head.from)
		}
		hdr.Control = nil
		if hdr.SetControllen(end - begin); end > begin {
			hdr.Control = &control[begin]
		}
		b.outRun[messages] = count
		at += count
	}
	sent, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.out)), uintptr(messages), unix.MSG_DONTWAIT, 0, 0)
	for i := range messages {
		b.outVec[i].Base = nil // not to keep the bytes alive
	}
	if errno != 0 {
		return 0, b.outRun[0], errno
	}
	for _, count := range b.outRun[:sent] {
		taken += count
	}
	return taken, 0, 0
}

// runOf returns how many datagrams at the beginning of list go as one run.
func runOf(list []datagram) int {
	head := &list[0]
	size, n := head.end-head.start, 1
	if size == 0 || head.alone {
		return 1
	}
	for n < min(len(list), runDatagrams) {
		d := &list[n]
		if d.alone || d.to != head.to || d.from != head.from || d.end-d.start > size || d.end == d.start || d.end-head.start > runBytes {
			break
		}
		n++
		if d.end-d.start < size {
			break // only the last may be shorter
		}
	}
	return n
}

// fromName reads the address of a peer. The zone of one that is only valid on a link is the number of the interface.
func fromName(name *unix.RawSockaddrInet6) netip.AddrPort {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&name.Port))[:])
	if name.Family == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(name)).Addr), port)
	}
	addr := netip.AddrFrom16(name.Addr).Unmap()
	if addr.Is6() {
		addr = zoned(addr, name.Scope_id)
	}
	return netip.AddrPortFrom(addr, port)
}

func zoned(a netip.Addr, ifi uint32) netip.Addr {
	if ifi == 0 {
		return a
	}
	return a.WithZone(strconv.Itoa(int(ifi)))
}

// putName writes an address and returns its length.
func putName(name *unix.RawSockaddrInet6, to netip.AddrPort) uint32 {
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&name.Port))[:], to.Port())
	addr := to.Addr().Unmap()
	if addr.Is4() {
		name.Family = unix.AF_INET
		(*unix.RawSockaddrInet4)(unsafe.Pointer(name)).Addr = addr.As4()
		return unix.SizeofSockaddrInet4
	}
	name.Family, name.Flowinfo, name.Addr, name.Scope_id = unix.AF_INET6, 0, addr.As16(), zoneOf(addr)
	return unix.SizeofSockaddrInet6
}

// zoneOf returns the number of the interface that an address is valid on, 0 for all.
func zoneOf(a netip.Addr) uint32 {
	zone := a.Zone()
	if zone == "" {
		return 0
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n)
	}
	if ifi, err := net.InterfaceByName(zone); err == nil {
		return uint32(ifi.Index)
	}
	return 0
}
