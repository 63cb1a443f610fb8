package dataplane

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// datagrams is what one loop needs to receive and send many datagrams with one system call (recvmmsg(2), sendmmsg(2)). It is on the
// heap and stays where it is: the kernel follows its pointers.
type datagrams struct {
	in       [udpBatch]unix.Mmsghdr
	inVec    [udpBatch]unix.Iovec
	inName   [udpBatch]unix.RawSockaddrInet4
	inBytes  [udpBatch * udpSlot]byte
	out      [udpBatch]unix.Mmsghdr
	outVec   [udpBatch]unix.Iovec
	outNames [udpBatch]unix.RawSockaddrInet4
}

// datagrams returns the loop's own, made when it is first needed.
func (l *Loop) datagrams() *datagrams {
	if l.udp != nil {
		return l.udp
	}
	b := &datagrams{}
	for i := range udpBatch {
		b.inVec[i].Base = &b.inBytes[i*udpSlot]
		b.in[i].Hdr = unix.Msghdr{Iov: &b.inVec[i], Iovlen: 1, Name: (*byte)(unsafe.Pointer(&b.inName[i]))}
		b.out[i].Hdr = unix.Msghdr{Iov: &b.outVec[i], Iovlen: 1, Name: (*byte)(unsafe.Pointer(&b.outNames[i])), Namelen: unix.SizeofSockaddrInet4}
		b.outNames[i].Family = unix.AF_INET
	}
	l.udp = b
	return b
}

// slot returns the memory of datagram i of the last receive.
func (b *datagrams) slot(i int) []byte { return b.inBytes[i*udpSlot : (i+1)*udpSlot : (i+1)*udpSlot] }

// from returns who sent datagram i of the last receive.
func (b *datagrams) from(i int) netip.AddrPort { return fromInet4(&b.inName[i]) }

// receive takes up to udpBatch datagrams.
func (b *datagrams) receive(fd int) (int, unix.Errno) {
	for i := range udpBatch {
		b.in[i].Hdr.Namelen = unix.SizeofSockaddrInet4
		b.in[i].Hdr.Flags = 0
		b.inVec[i].SetLen(udpSlot)
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.in)), udpBatch, unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

// send offers the first datagrams of a list, which lie in bytes, and returns how many were taken.
func (b *datagrams) send(fd int, list []datagram, bytes []byte) (int, unix.Errno) {
	n := min(len(list), udpBatch)
	for i, d := range list[:n] {
		b.outVec[i].Base = unsafe.SliceData(bytes[d.start:])
		b.outVec[i].SetLen(d.end - d.start)
		b.outNames[i].Addr = d.to.Addr().Unmap().As4()
		binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&b.outNames[i].Port))[:], d.to.Port())
	}
	sent, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.out)), uintptr(n), unix.MSG_DONTWAIT, 0, 0)
	for i := range n {
		b.outVec[i].Base = nil // not to keep the bytes alive
	}
	return int(sent), errno
}

func fromInet4(sa *unix.RawSockaddrInet4) netip.AddrPort {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:])
	return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), port)
}
