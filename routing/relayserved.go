package routing

import "slices"

// ServedName is a relay name as a relay service knows it.
type ServedName struct {
	Name string
	// Owner is the identity that has it; nil where its connection has shown none.
	Owner *[32]byte
	Rule  Rule
	// Share admits other identities, see Ownership.
	Share   string
	Members []MemberState
}

// Served returns the names that there are, at this relay or another one of its fleet, without lanes, in their order. Any goroutine.
func (rs *Relays) Served() (list []ServedName) {
	names := rs.Names()
	slices.Sort(names)
	for _, name := range names {
		if _, isLane := LaneOf(name); isLane {
			continue
		}
		s := ServedName{Name: name, Members: rs.Members(name)}
		if len(s.Members) == 0 {
			continue
		}
		rs.mu.Lock()
		if n := rs.named[name]; n != nil {
			s.Owner, s.Rule, s.Share = n.owner, n.rule, n.share
		}
		rs.mu.Unlock()
		list = append(list, s)
	}
	return list
}

// FleetUse is what a relay service has to do with the others of its fleet.
type FleetUse struct {
	// Relays are the others that are alive, Linked those of them that there is a way to.
	Relays, Linked int
	// Here are the names, with lanes, that somebody is registered under at this relay, Elsewhere those that others alone have.
	Here, Elsewhere int
	// PassedOn are messages that went by a name to another relay, Taken those that another one has sent here so. Later messages of a channel do not go by
	// the name.
	PassedOn, Taken uint64
}

// FleetUse returns what the service has to do with others; ok is false for one that is no part of a fleet. Any goroutine.
func (rs *Relays) FleetUse() (u FleetUse, ok bool) {
	fl := rs.fleet
	if fl == nil {
		return u, false
	}
	rs.mu.Lock()
	for _, n := range rs.named {
		isHere := func(g *registration) bool { return g.member.key.relay == "" }
		switch {
		case slices.ContainsFunc(n.regs, isHere):
			u.Here++
		case len(n.regs) > 0:
			u.Elsewhere++
		}
	}
	rs.mu.Unlock()
	fl.mu.Lock()
	defer fl.mu.Unlock()
	u.Relays = len(fl.links)
	for _, l := range fl.links {
		if l.link != nil {
			u.Linked++
		}
	}
	u.PassedOn, u.Taken = fl.passedOn.Load(), fl.taken.Load()
	return u, true
}
