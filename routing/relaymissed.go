package routing

import (
	"maps"
	"slices"
	"time"

	"sallyport/dataplane"
)

const (
	// missedMost is how many wait until the registry was asked for a name that nobody has here, missedSize how large a message is at most that does.
	missedMost = 256
	missedSize = 4 << 10
	// lookEvery is how often the registry is asked at most, for all names together.
	lookEvery = 20 * time.Millisecond
	// comesWithin is how long is waited for a way to the relay that has the name, and comesEvery how often it is looked whether there is one.
	comesWithin = 2 * time.Second
	comesEvery  = 50 * time.Millisecond
)

// missed is somebody who waits until the registry was asked for a name.
type missed struct {
	name  string
	who   [32]byte
	until time.Time // while there is no way to who has the name
	then  func()
}

// ask has the registry asked for a name that nobody has here: it may have been registered at another relay a moment ago, of which this one has not heard yet. then is called afterwards, on
// any goroutine; it must not block. ask reports false, and does not call it, where too many wait: one asker has as many places as are left free at most. Any goroutine.
func (fl *relayFleet) ask(name string, who [32]byte, then func()) bool {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	if fl.missing[who] >= missedMost-fl.asked {
		return false
	}
	fl.asked++
	fl.missing[who]++
	fl.missed = append(fl.missed, missed{name, who, time.Now().Add(comesWithin), then})
	select {
	case fl.look <- struct{}{}:
	default:
	}
	return true
}

// looks asks the registry, for all who wait together.
func (fl *relayFleet) looks() {
	for {
		select {
		case <-fl.ctx.Done():
			return
		case <-fl.look:
		}
		fl.mu.Lock()
		list := fl.missed
		fl.missed = nil
		fl.mu.Unlock()
		names := map[string]bool{}
		for _, w := range list {
			names[w.name] = true
		}
		fl.Registry.Look(fl.ctx, slices.Collect(maps.Keys(names)))
		fl.mu.Lock()
		fl.looked = append(fl.looked, list...)
		fl.mu.Unlock()
		fl.relays.poke() // what was found is taken over first
		select {
		case <-fl.ctx.Done():
		case <-time.After(lookEvery):
		}
	}
}

// takeLooked returns those for whom the registry was asked.
func (fl *relayFleet) takeLooked() (list []missed) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	list, fl.looked = fl.looked, nil
	return list
}

// goOn goes on with those for whom the registry was asked once what it said was taken over, but for those who wait for a way to another relay, which has just come up.
func (fl *relayFleet) goOn(looked []missed) {
	var list, rest []missed
	for now := time.Now(); len(looked) > 0; looked = looked[1:] {
		if w := looked[0]; now.Before(w.until) && fl.comes(w.name) {
			rest = append(rest, w)
		} else {
			list = append(list, w)
		}
	}
	fl.mu.Lock()
	if fl.looked = append(rest, fl.looked...); len(rest) > 0 {
		time.AfterFunc(comesEvery, fl.relays.poke)
	}
	for _, w := range list {
		fl.asked--
		if fl.missing[w.who]--; fl.missing[w.who] == 0 {
			delete(fl.missing, w.who)
		}
	}
	fl.mu.Unlock()
	for _, w := range list {
		w.then()
	}
}

// comes reports whether a name has members only at other relays to which a way is being made.
func (fl *relayFleet) comes(name string) bool {
	rs := fl.relays
	rs.mu.Lock()
	defer rs.mu.Unlock()
	n := rs.named[name]
	if n == nil || n.current.Load() != nil {
		return false
	}
	fl.mu.Lock()
	defer fl.mu.Unlock()
	for _, m := range n.members {
		if l := fl.links[m.key.relay]; l != nil && l.link == nil {
			return true
		}
	}
	return false
}

// Find calls then with what is registered under a name; a relay of a fleet asks the registry before it says that nobody is. who asks. then may be called on any goroutine, and must not block. Any
// goroutine.
func (rs *Relays) Find(name string, who [32]byte, then func(RelayState)) {
	if st := rs.State(name); st.ID != 0 || rs.fleet == nil || !rs.fleet.ask(name, who, func() { then(rs.State(name)) }) {
		then(st)
	}
}

// nobody answers a message for a name under which nobody can be reached. A relay of a fleet asks the registry first, and delivers the message if somebody is found.
func (rs *Relays) nobody(s *Shard, m *Message, name string) {
	self, notice := LocalAddress(RelayPrefix+name).Wire(), Notice{Kind: NoticeAbsent, Name: name}
	if rs.fleet == nil || len(m.Payload()) > missedSize {
		s.notify(m, self, notice)
		return
	}
	onward, back, payload := m.Onward.Clone(), m.Return.Clone(), slices.Clone(m.Payload())
	peer, from, producer := m.Peer, m.From, m.producer
	var who [32]byte
	if peer != nil {
		who = peer.ID
	}
	again := dataplane.TaskFunc(func() {
		m := s.NewMessage()
		defer s.Free(m)
		m.Onward, m.Return, m.Peer, m.From, m.producer = onward, back, peer, from, producer
		m.SetPayloadBytes(payload)
		if w, ok := s.workers[RelayPrefix+name].worker.(*relayWorker); ok && w.name.current.Load() != nil {
			s.Deliver(m)
		} else {
			s.notify(m, self, notice)
		}
	})
	if !rs.fleet.ask(name, who, func() { s.loop.Post(again) }) {
		s.notify(m, self, notice)
	}
}
