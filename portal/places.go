package portal

import (
	"sync"
	"time"
)

// places counts the connections of one outlet, and those of each peer. It is asked when a connection begins and told when it ends.
type places struct {
	mu    sync.Mutex
	max   int
	all   int
	peers map[[32]byte]int
	full  uint64    // refusals
	noted time.Time // when the log last said that they are short
}

// limit sets how many places there are; those who have one keep it.
func (p *places) limit(most int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.max = most
}

// perPeer is how many an outlet gives to one peer: four in five, so that no member can keep the others out.
func (p *places) perPeer() int { return max(p.max*4/5, 1) }

// take takes a place for a peer, nil for one without identity. tell is true at most once in ten seconds of refusals.
func (p *places) take(peer *[32]byte) (ok, tell bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all >= p.max || peer != nil && p.peers[*peer] >= p.perPeer() {
		p.full++
		return false, p.tellLocked()
	}
	p.enterLocked(peer)
	return true, false
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
	if peer == nil {
		return
	}
	if p.peers[*peer]--; p.peers[*peer] == 0 {
		delete(p.peers, *peer)
	}
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
