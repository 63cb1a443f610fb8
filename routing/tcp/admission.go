package tcp

import (
	"container/list"
	"net/netip"
	"sync"
	"sync/atomic"

	"sallyport/routing"
)

// admission counts the connections that others opened, and says who goes when there are too many: the oldest that nobody has opened a
// secure channel over. A stranger who only connects so never keeps out whoever uses the node.
type admission struct {
	most, mostEach int
	refused        atomic.Uint64 // connections not begun, or ended to make room
	refusedEach    atomic.Uint64 // the same for those of an address that had too many

	mu     sync.Mutex
	count  int
	bare   *list.List // of *place: those without a channel, the oldest first
	byHost map[string]*host
}

// host is what one machine has.
type host struct {
	count int
	bare  *list.List // of *place
}

// place is one connection's. It is taken when the connection is accepted and given back when it has ended.
type place struct {
	name          string
	of            *host
	inAll, inHost *list.Element // nil once there is a channel
	end           func()        // ends the connection, from any goroutine; nil until there is one
	unwanted      bool
}

func newAdmission(most, mostEach int) *admission {
	return &admission{most: most, mostEach: mostEach, bare: list.New(), byHost: map[string]*host{}}
}

// take returns a place for a connection from an address, or nil.
func (a *admission) take(from netip.Addr) *place {
	name := routing.HostSource(from)
	a.mu.Lock()
	h := a.byHost[name]
	if h == nil {
		h = &host{bare: list.New()}
	}
	var gone func()
	if h.count >= a.mostEach {
		a.refusedEach.Add(1)
		gone = a.displace(h.bare)
	} else if a.count >= a.most {
		a.refused.Add(1)
		gone = a.displace(a.bare)
	}
	if gone == nil && (h.count >= a.mostEach || a.count >= a.most) {
		a.mu.Unlock()
		return nil
	}
	p := &place{name: name, of: h}
	p.inAll, p.inHost = a.bare.PushBack(p), h.bare.PushBack(p)
	h.count++
	a.count++
	a.byHost[name] = h
	a.mu.Unlock()
	if gone != nil {
		gone()
	}
	return p
}

// displace takes the first of l out of the account, and returns what ends its connection; nil if there is none.
func (a *admission) displace(l *list.List) func() {
	first := l.Front()
	if first == nil {
		return nil
	}
	p := first.Value.(*place)
	a.forget(p)
	if p.end == nil {
		p.unwanted = true // whoever gives it a connection sees to it
		return func() {}
	}
	return p.end
}

// forget takes p out of the account.
func (a *admission) forget(p *place) {
	if p.of == nil {
		return
	}
	a.unlist(p)
	a.count--
	if p.of.count--; p.of.count == 0 {
		delete(a.byHost, p.name)
	}
	p.of = nil
}

// unlist takes p out of the lists of those that may go.
func (a *admission) unlist(p *place) {
	if p.inAll != nil {
		a.bare.Remove(p.inAll)
		p.of.bare.Remove(p.inHost)
		p.inAll, p.inHost = nil, nil
	}
}

// move counts the connection of p, over which there is no channel yet, as one of another address from now on: the one that a proxy in front names. How it is
// ended is not known then until belongs says so. It reports false when the connection has to go: it had to already, or the address has too many.
func (a *admission) move(p *place, to netip.Addr) bool {
	name := routing.HostSource(to)
	a.mu.Lock()
	p.end = nil
	if p.of == nil || p.name == name {
		defer a.mu.Unlock()
		return p.of != nil
	}
	h := a.byHost[name]
	if h == nil {
		h = &host{bare: list.New()}
	}
	var gone func()
	if h.count >= a.mostEach {
		a.refusedEach.Add(1)
		if gone = a.displace(h.bare); gone == nil {
			a.mu.Unlock()
			return false
		}
	}
	if p.inHost != nil {
		p.of.bare.Remove(p.inHost)
		p.inHost = h.bare.PushBack(p)
	}
	if p.of.count--; p.of.count == 0 {
		delete(a.byHost, p.name)
	}
	h.count++
	p.name, p.of, a.byHost[name] = name, h, h
	a.mu.Unlock()
	if gone != nil {
		gone()
	}
	return true
}

// belongs says how to end the connection that has the place. It reports false when the connection has to go already.
func (a *admission) belongs(p *place, end func()) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	p.end = end
	return !p.unwanted
}

// vouch notes that the connection carries a channel.
func (a *admission) vouch(p *place) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p.of != nil {
		a.unlist(p)
	}
}

// give gives the place back.
func (a *admission) give(p *place) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.forget(p)
}

// use returns what is taken, and what was refused.
func (a *admission) use() Admitted {
	a.mu.Lock()
	defer a.mu.Unlock()
	u := Admitted{Open: a.count, Refused: a.refused.Load(), RefusedEach: a.refusedEach.Load()}
	for _, h := range a.byHost {
		u.OpenEach = max(u.OpenEach, h.count)
	}
	return u
}

// open returns how many places are taken.
func (a *admission) open() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.count
}
