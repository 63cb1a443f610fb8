package udp

import (
	"encoding/binary"
	"time"
)

// pmtuSizes are the sizes of datagrams that a link tries, one after the other (DPLPMTUD, RFC 8899 §5.3): what an IPv6 network, tunnels, PPPoE and
// Ethernet carry whole, and the largest that is taken.
var pmtuSizes = [...]int{linkPacketSize, 1252, 1372, 1424, 1452, 1472, maxPacketSize}

const (
	pmtuTries = 3                // times that a size is tried (MAX_PROBES)
	pmtuAgain = 10 * time.Minute // after which a size that did not pass is tried again (PMTU_RAISE_TIMER)
	pmtuSoon  = 5 * time.Second  // the same after packets of the size used had stopped to pass
	pmtuDark  = 500 * time.Millisecond
	pmtuLost  = 8 // large packets lost, and none of them acknowledged for three round trips and pmtuDark: nothing of their size passes
)

// pmtu is how large a link's packets may be: it finds sizes that pass by sending packets that carry nothing else, and goes back where a size no
// longer passes and nobody says so (a black hole). Sizes are those of arq.size.
type pmtu struct {
	least, base, most int  // least passes everywhere; most is 0 where nothing is tried
	flying            bool // a packet that tries is under way
	failed            int  // times
	at                time.Time
	lost              int       // packets larger than what is below size, since one was acknowledged
	acked             time.Time // when that was
}

// search lets the link try packets of up to most bytes, and go back to least. over is what a datagram has beyond a packet.
func (a *arq) search(least, most int) {
	a.mtu = pmtu{least: min(least, a.size), base: a.size, most: most}
}

// below is the size to go back to.
func (a *arq) below() int {
	if a.size > a.mtu.base {
		return a.mtu.base
	}
	return a.mtu.least
}

// larger is the size to try next, 0 if there is none.
func (a *arq) larger() int {
	for _, size := range pmtuSizes {
		if size -= 1 + tokenSize; size > a.size && size <= a.mtu.most {
			return size
		}
	}
	return 0
}

// trying reports whether it is time to try a larger size. It is when data goes, so a link that is idle says nothing.
func (a *arq) trying(now time.Time) bool {
	return a.mtu.most > a.size && !a.mtu.flying && a.anyAcked && a.tries == 0 && !now.Before(a.mtu.at) && a.larger() > 0
}

// try appends a packet of the next size, which carries nothing.
func (a *arq) try(buf []byte, now time.Time) []byte {
	size := a.larger()
	end := len(buf) + size
	p := sentPacket{number: a.number, data: span{a.out.base, a.out.base}, at: now, try: size, mark: a.bbr.sent(now, a.inFlight == 0)}
	a.number++
	buf = append(binary.AppendUvarint(buf, p.number), arqTry)
	buf = append(buf, make([]byte, end-len(buf))...)
	a.launch(p)
	a.mtu.flying = true
	return buf
}

// passed notes that a packet was acknowledged.
func (a *arq) passed(p *sentPacket, now time.Time) {
	if p.try > 0 {
		a.mtu.flying = false
		if a.mtu.failed = 0; p.try > a.size {
			a.size = p.try
		}
		return
	}
	if p.size() > a.below() {
		a.mtu.lost, a.mtu.acked = 0, now
	}
}

// stuck notes that a packet was lost.
func (a *arq) stuck(p *sentPacket, now time.Time) {
	if p.try > 0 {
		a.mtu.flying = false
		if a.mtu.failed++; a.mtu.failed >= pmtuTries {
			a.mtu.failed, a.mtu.at = 0, now.Add(pmtuAgain)
		}
		return
	}
	if a.mtu.most == 0 || p.size() <= a.below() {
		return
	}
	if a.mtu.lost++; a.mtu.lost >= pmtuLost && now.Sub(a.mtu.acked) > 3*a.rtt+pmtuDark {
		a.shrink(now)
	}
}

// shrink goes back to a smaller size: nothing of the one used passes.
func (a *arq) shrink(now time.Time) {
	a.mtu.lost, a.mtu.acked = 0, now
	if size := a.below(); a.mtu.most > 0 && size < a.size {
		a.size, a.mtu.failed, a.mtu.at = size, 0, now.Add(pmtuSoon)
	}
}
