package portal

import (
	"sync"
	"time"
)

// MostConnections is the largest number that an outlet's connections, or an inlet's clients, can be limited to.
const MostConnections = 1 << 20

// places counts the connections of one outlet, and those of each peer, or the clients of one inlet. It is asked when a connection begins and told when it ends.
type places struct {
	mu    sync.Mutex
	max   int
	each  int // for one peer
	all   int
	peers map[[32]byte]int
	// waits are connections that begin when a place is given back (claims.go).
	waits map[*conn]func()
	full  uint64    // refusals
	noted time.Time // when the log last said that they are short
}

// limit sets how many places there are, and how many one peer gets; those who have one keep it.
func (p *places) limit(most, each int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.max, p.each = most, each
}

// PeerShare is how many of an outlet's places one peer gets where nothing else is said: four in five, so that no member can keep the others out. Of one place or two it gets all: one
// that is alone has use for them.
func PeerShare(most int) int {
	if most <= 2 {
		return most
	}
	return most - max(most/5, 1)
}

// take takes a place for a peer, nil for one without identity. tell is true at most once in ten seconds of refusals.
func (p *places) take(peer *[32]byte) (ok, tell bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fullLocked(peer) {
		p.full++
		return false, p.tellLocked()
	}
	p.enterLocked(peer)
	return true, false
}

// takeFreed takes a place for a peer that has waited for one.
func (p *places) takeFreed(peer *[32]byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fullLocked(peer) {
		return false
	}
	p.enterLocked(peer)
	return true
}

func (p *places) fullLocked(peer *[32]byte) bool {
	return p.all >= p.max || peer != nil && p.peers[*peer] >= p.each
}

// enter takes a place for a connection that had one already.
func (p *places) enter(peer *[32]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.enterLocked(peer)
}

func (p *places) enterLocked(peer *[32]byte) {
	p.all++
	if peer != nil {
		if p.peers == nil {
			p.peers = map[[32]byte]int{}
		}
		p.peers[*peer]++
	}
}

// tell says whether the log is to be told of a refusal.
func (p *places) tell() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tellLocked()
}

func (p *places) tellLocked() bool {
	due := time.Since(p.noted) >= 10*time.Second
	if due {
		p.noted = time.Now()
	}
	return due
}

// leave gives a place back that take gave.
func (p *places) leave(peer *[32]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all--
	if peer != nil {
		if p.peers[*peer]--; p.peers[*peer] == 0 {
			delete(p.peers, *peer)
		}
	}
	for _, try := range p.waits {
		try()
	}
}

// giveBack is leave for an inlet's client; p is nil where it has no place.
func (p *places) giveBack() {
	if p != nil {
		p.leave(nil)
	}
}

// await has try called whenever a place was given back, until stay. It must not block.
func (p *places) await(c *conn, try func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waits == nil {
		p.waits = map[*conn]func(){}
	}
	p.waits[c] = try
}

// stay ends what await began.
func (p *places) stay(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.waits, c)
}

// waiting returns how many connections of a peer wait for a place.
func (p *places) waiting(peer *[32]byte) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.waits {
		if c.peer == *peer {
			n++
		}
	}
	return n
}

// refused returns how many got no place.
func (p *places) refused() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.full
}

// taken returns how many places are taken, and how many there are.
func (p *places) taken() (now, most int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all, p.max
}
