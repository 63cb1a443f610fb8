package wire

import "encoding/binary"

// headerSize is the size of struct virtio_net_hdr (linux/virtio_net.h), in front of every packet of a TUN device with IFF_VNET_HDR:
// flags, gso_type, hdr_len u16, gso_size u16, csum_start u16, csum_offset u16, in the machine's byte order.
const headerSize = 10

const (
	gsoNone  = 0
	gsoTCP4  = 1
	gsoTCP6  = 4
	gsoUDP   = 5 // VIRTIO_NET_HDR_GSO_UDP_L4
	gsoECN   = 0x80
	needCSum = 1
)

// packet is what a TUN device gives: a packet that counts for several if the kernel left it to be cut (TSO, USO).
type packet struct {
	b        []byte // with the virtio header
	network  int    // length of the IP header
	payload  int    // where the data of TCP or UDP begins in b, if segments > 1
	mss      int
	segments int
	udp      bool
}

const (
	udpHeader   = 8
	protocolTCP = 6
	protocolUDP = 17
)

// parse looks at the headers of b; false if it is no IP packet.
func parse(b []byte) (packet, bool) {
	p := packet{b: b, segments: 1}
	if len(b) < headerSize+20 {
		return p, false
	}
	ip := b[headerSize:]
	switch ip[0] >> 4 {
	case 4:
		p.network = int(ip[0]&15) * 4
	case 6:
		p.network = 40 // a packet that is to be cut has no extension headers (the kernel offers none)
	default:
		return p, false
	}
	p.mss = int(binary.NativeEndian.Uint16(b[4:]))
	switch kind := b[1] &^ gsoECN; {
	case (kind == gsoTCP4 || kind == gsoTCP6) && len(ip) >= p.network+20:
		p.payload = headerSize + p.network + int(ip[p.network+12]>>4)*4
	case kind == gsoUDP && len(ip) >= p.network+udpHeader:
		p.payload, p.udp = headerSize+p.network+udpHeader, true
	default:
		return p, true
	}
	if p.mss == 0 || p.payload >= len(b) {
		return p, true
	}
	p.segments = (len(b) - p.payload + p.mss - 1) / p.mss
	return p, true
}

// segmentSize is the size of one segment with its headers.
func (p *packet) segmentSize() int {
	if p.segments == 1 {
		return len(p.b) - headerSize
	}
	return p.payload - headerSize + p.mss
}

// sizeOf is how many bytes the segments from..to are on the line.
func (p *packet) sizeOf(from, to int) int {
	if p.segments == 1 {
		return len(p.b) - headerSize
	}
	return (to-from)*(p.payload-headerSize) + min(to*p.mss, len(p.b)-p.payload) - from*p.mss
}

// cut returns a packet of its own with the segments from..to, in memory from get.
func (p *packet) cut(from, to int, get func(n int) []byte) []byte {
	if from == 0 && to == p.segments {
		out := get(len(p.b))
		copy(out, p.b)
		return out
	}
	start, end := p.payload+from*p.mss, min(p.payload+to*p.mss, len(p.b))
	out := get(p.payload + end - start)
	copy(out, p.b[:p.payload])
	copy(out[p.payload:], p.b[start:end])
	if to-from == 1 {
		out[1] = gsoNone
		binary.NativeEndian.PutUint16(out[4:], 0)
	}
	ip := out[headerSize:]
	transport := ip[p.network:]
	length := len(ip) - p.network
	var sum uint32
	if ip[0]>>4 == 4 {
		binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
		binary.BigEndian.PutUint16(ip[4:], binary.BigEndian.Uint16(ip[4:])+uint16(from))
		ip[10], ip[11] = 0, 0
		binary.BigEndian.PutUint16(ip[10:], ^fold(add(0, ip[:p.network])))
		sum = add(0, ip[12:20])
	} else {
		binary.BigEndian.PutUint16(ip[4:], uint16(length))
		sum = add(0, ip[8:40])
	}
	protocol, checksum := uint32(protocolTCP), transport[16:]
	if p.udp {
		protocol, checksum = protocolUDP, transport[6:]
		binary.BigEndian.PutUint16(transport[4:], uint16(length))
	} else {
		p.restamp(transport, from, to)
	}
	if out[0]&needCSum != 0 {
		// The sum of the pseudo header is there, the rest is left to whoever needs it.
		binary.BigEndian.PutUint16(checksum, fold(sum+protocol+uint32(length)))
	}
	return out
}

// restamp makes the header of TCP that of the segments from..to.
func (p *packet) restamp(tcp []byte, from, to int) {
	binary.BigEndian.PutUint32(tcp[4:], binary.BigEndian.Uint32(tcp[4:])+uint32(from*p.mss))
	const fin, push, cwr = 1, 8, 0x80
	if to < p.segments {
		tcp[13] &^= fin | push
	}
	if from > 0 {
		tcp[13] &^= cwr
	}
}

// add adds 16-bit words of b to a checksum.
func add(sum uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	return sum
}

func fold(sum uint32) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
