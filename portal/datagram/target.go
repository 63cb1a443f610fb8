package datagram

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"
)

const (
	// refusedFor is how long the word of a host counts that nobody listens, and refusedAgain how long such an address is left alone whatever else there is.
	refusedFor   = time.Minute
	refusedAgain = time.Second
)

// target is where an outlet sends to: the addresses of a name, one of which is used for new flows. Any goroutine.
type target struct {
	mu   sync.Mutex
	list []address
	at   int // which is used
	// moved says that one refused before it, and answered that it has answered since.
	moved, answered bool
}

// address is one of a target's.
type address struct {
	to      netip.AddrPort
	refused time.Time // when its host last said that nobody listens; zero if it has answered since
}

// set gives the target the addresses that its name has now, at least one. The first is used, or the first that has not refused; one that answers where
// another refused stays in use.
func (t *target) set(list []netip.AddrPort, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next, used := make([]address, len(list)), -1
	for i, a := range list {
		next[i].to = a
		if old := t.find(a); old >= 0 {
			next[i].refused = t.list[old].refused
			if old == t.at {
				used = i
			}
		}
	}
	t.list = next
	if t.moved && t.answered && used >= 0 {
		t.at = used
		return
	}
	t.at = max(used, 0)
	for i, a := range next {
		if now.Sub(a.refused) >= refusedFor {
			t.at = i
			break
		}
	}
	t.moved, t.answered = t.at > 0, t.answered && t.at == used
}

// find returns which address a is, -1 if it is none. t.mu is held.
func (t *target) find(a netip.AddrPort) int {
	for i := range t.list {
		if t.list[i].to == a {
			return i
		}
	}
	return -1
}

// use returns the address for a new flow; ok is false while there is none.
func (t *target) use() (to netip.AddrPort, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.list) == 0 {
		return to, false
	}
	return t.list[t.at].to, true
}

// size returns how many addresses there are.
func (t *target) size() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.list)
}

// refused notes that nobody takes datagrams at an address.
func (t *target) refused(a netip.AddrPort, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := t.find(a); i >= 0 {
		t.list[i].refused = now
	}
}

// after returns the address to try after one that has refused, which new flows use from now on; ok is false if there is none now.
func (t *target) after(a netip.AddrPort, now time.Time) (next netip.AddrPort, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.list) == 0 {
		return next, false
	}
	at := t.at
	if t.list[at].to == a {
		at = (at + 1) % len(t.list)
	}
	n := t.list[at]
	if n.to == a || now.Sub(n.refused) < refusedAgain {
		return next, false
	}
	if at != t.at {
		t.at, t.moved, t.answered = at, true, false
	}
	return n.to, true
}

// answers notes that something came from an address. It is used again if it refused once and the one after it has said nothing yet.
func (t *target) answers(a netip.AddrPort) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := t.find(a)
	if i < 0 {
		return
	}
	t.list[i].refused = time.Time{}
	if t.moved && !t.answered {
		t.at = i
	}
	t.answered = t.answered || i == t.at
}

// failure returns an error if all addresses have refused lately.
func (t *target) failure(now time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []string
	for _, a := range t.list {
		if now.Sub(a.refused) >= refusedFor {
			return nil
		}
		all = append(all, a.to.String())
	}
	if all == nil {
		return nil
	}
	return fmt.Errorf("nobody takes datagrams at %s", strings.Join(all, ", "))
}
