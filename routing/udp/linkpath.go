package udp

import (
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"time"
)

const (
	// nonceSize is the size of what shows that a peer receives at an address.
	nonceSize = 8
	// askEvery is how often an address is asked at most, and askFor how long an answer counts.
	askEvery = 250 * time.Millisecond
	askFor   = 3 * time.Second
)

// nonce is what a peer repeats to show that it receives at an address (RFC 9000 §8.2: PATH_CHALLENGE, PATH_RESPONSE).
type nonce [nonceSize]byte

// movedTo is an address that a peer's packets come from and that has not shown yet that the peer receives there.
type movedTo struct {
	to           netip.AddrPort
	nonce        nonce
	began, asked time.Time
}

// aside appends a packet that asks or answers; nobody acknowledges it.
func (a *arq) aside(buf []byte, flag byte, n nonce) []byte {
	buf = append(binary.AppendUvarint(buf, a.number), flag)
	a.number++
	return append(buf, n[:]...)
}

// heardFrom is called after a packet of the peer came from an address. When that is another one than the link sends to, as after a NAT has
// forgotten its mapping, and the packet is the newest so far, the address is asked: only when it answers the link sends there. Until then it gets a
// few bytes, whatever it claims.
func (l *link) heardFrom(from netip.AddrPort, now time.Time) {
	if n := l.arq.asked; n != nil {
		l.arq.asked = nil
		l.sendAside(from, arqTell, *n)
	}
	told := l.arq.answer
	l.arq.answer = nil
	m := &l.moved
	switch current := m.to == from && now.Sub(m.began) <= askFor; {
	case from == l.p.at:
		return
	case current && told != nil && *told == m.nonce:
		*m = movedTo{}
		l.p.move(from)
		return
	case !l.arq.newest || current && now.Sub(m.asked) < askEvery:
		return
	case !current:
		*m = movedTo{to: from, began: now}
		_, _ = rand.Read(m.nonce[:]) // never fails (crypto/rand)
	}
	m.asked = now
	l.sendAside(from, arqAsk, m.nonce)
}

// sendAside sends a packet that asks or answers to an address.
func (l *link) sendAside(to netip.AddrPort, flag byte, n nonce) {
	sock := l.p.bind.sock
	buf := append(sock.Reserve(maxPacketSize)[:0], l.send[:]...)
	sock.Commit(len(l.arq.aside(buf, flag, n)), to)
}
