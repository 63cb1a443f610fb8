package routing

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Fleet is what a relay service needs in order to be one of several (docs/protocol/08 §5).
type Fleet struct {
	Registry Registry
	Self     RelayNode
	// Identity is that of all relays of the fleet.
	Identity [32]byte
	// Dial opens a channel to another relay, which has shown the identity of the fleet.
	Dial func(ctx context.Context, to RelayNode) (Link, error)
}

// Link is a channel to another relay.
type Link struct {
	// Route is the channel's encryptor.
	Route Route
	// Done is closed when it has ended.
	Done <-chan struct{}
	// Close ends it.
	Close func()
}

// localRelayService is the worker that takes what other relays of the fleet pass on.
const localRelayService = "relay_local"

const (
	// publishEvery is how often what a name's members are is told to the registry at most, unless a member comes, goes, or is down.
	publishEvery = time.Second
	// claimTimeout is how long the registry may take to say whose a name is, and claims how many are asked for at a time.
	claimTimeout = 2 * time.Second
	claims       = 16
	// toldPatience is how long a registration is not answered at most, so that the registry is told of it before.
	toldPatience = time.Second
	// linkAgain is how long a channel to another relay that could not be opened is not tried again.
	linkAgain = time.Second
)

// relayFleet keeps what other relays have in the tables of this one, and tells them what this one has. It runs beside the service's goroutine, and
// what has to do with names is done there.
type relayFleet struct {
	*Fleet
	relays *Relays
	ctx    context.Context
	end    context.CancelFunc
	all    sync.WaitGroup
	poked  chan struct{} // there is something to publish

	mu        sync.Mutex
	links     map[string]*fleetLink // by the ID of the relay
	changed   map[string]struct{}   // names whose members elsewhere have changed; "" for all
	dirty     map[string]struct{}   // names whose members here have
	answers   map[string][]func()   // who waits, by name, until the registry was told of it
	published map[string]publication

	look    chan struct{}    // somebody waits in missed
	missed  []missed         // until the registry is asked
	looked  []missed         // until what it said was taken over
	asked   int              // in both, and in the question that is under way
	missing map[[32]byte]int // the same by who asks

	passedOn, taken atomic.Uint64 // see FleetUse
}

// fleetLink is the way to another relay. Its fields are under relayFleet.mu.
type fleetLink struct {
	to     RelayNode
	cancel context.CancelFunc
	link   *Link // nil while there is none
	shard  *Shard
	by     Terminal
}

// publication is what the registry was told last.
type publication struct {
	list []RemoteMember
	at   time.Time
}

// startFleet begins to be one of several.
func (rs *Relays) startFleet(ctx context.Context, f *Fleet) error {
	fl := &relayFleet{
		Fleet: f, relays: rs, poked: make(chan struct{}, 1),
		links: map[string]*fleetLink{}, changed: map[string]struct{}{"": {}}, dirty: map[string]struct{}{}, published: map[string]publication{},
		answers: map[string][]func(){}, look: make(chan struct{}, 1), missing: map[[32]byte]int{},
	}
	worker := WorkerFunc(fl.local)
	if err := rs.router.StartNamed(ctx, localRelayService, func(*Shard) Worker { return worker }, rs.opts.Flows...); err != nil {
		return err
	}
	fl.ctx, fl.end = context.WithCancel(context.Background())
	rs.fleet = fl
	fl.all.Go(func() { f.Registry.Watch(fl.ctx, fl.note) })
	fl.all.Go(fl.publish)
	fl.all.Go(fl.looks)
	rs.poke()
	return nil
}

// stop ends all that runs.
func (fl *relayFleet) stop() {
	fl.end()
	fl.all.Wait()
}

// poke has the service's goroutine look at what has changed.
func (rs *Relays) poke() {
	select {
	case rs.wake <- struct{}{}:
	default:
	}
}

// note is told by the registry of a name whose members at other relays have changed.
func (fl *relayFleet) note(name string) {
	fl.mu.Lock()
	fl.changed[name] = struct{}{}
	fl.mu.Unlock()
	fl.relays.poke()
}

// touch notes that what a name's members are here has changed. Any goroutine; it may hold Relays.mu.
func (fl *relayFleet) touch(name string) {
	fl.mu.Lock()
	fl.dirty[name] = struct{}{}
	fl.mu.Unlock()
	select {
	case fl.poked <- struct{}{}:
	default:
	}
}

// whenTold calls answer when the registry was told of what has changed under a name so far, or cannot be told now: who is answered can be found at every relay. It does not wait for long.
func (fl *relayFleet) whenTold(name string, answer func()) {
	answer = sync.OnceFunc(answer)
	time.AfterFunc(toldPatience, answer)
	fl.mu.Lock()
	fl.answers[name] = append(fl.answers[name], answer)
	fl.mu.Unlock()
	fl.touch(name)
}

// publish tells the registry of this relay's members.
func (fl *relayFleet) publish() {
	tick := time.NewTicker(publishEvery)
	defer tick.Stop()
	for {
		select {
		case <-fl.ctx.Done():
			return
		case <-fl.poked:
		case <-tick.C:
		}
		fl.mu.Lock()
		names := slices.Collect(maps.Keys(fl.dirty))
		clear(fl.dirty)
		answers := fl.answers
		fl.answers = map[string][]func(){}
		fl.mu.Unlock()
		for _, name := range names {
			list := fl.here(name)
			last := fl.published[name]
			switch {
			case slices.Equal(last.list, list):
			case sameMembers(last.list, list) && time.Since(last.at) < publishEvery:
				fl.mu.Lock()
				fl.dirty[name] = struct{}{} // at the next tick
				fl.mu.Unlock()
			case len(list) == 0:
				fl.Registry.Put(name, list)
				delete(fl.published, name)
			default:
				fl.Registry.Put(name, list)
				fl.published[name] = publication{list, time.Now()}
			}
			for _, answer := range answers[name] {
				fl.Registry.Told(name, answer)
			}
		}
	}
}

// sameMembers reports whether two lists differ in nothing but connections.
func sameMembers(a, b []RemoteMember) bool {
	return slices.EqualFunc(a, b, func(x, y RemoteMember) bool {
		x.Connections, y.Connections = 0, 0
		return x == y
	})
}

// here returns the members of a name at this relay that have an identity and can be reached.
func (fl *relayFleet) here(name string) (list []RemoteMember) {
	rs := fl.relays
	rs.mu.Lock()
	defer rs.mu.Unlock()
	n := rs.named[name]
	if n == nil {
		return nil
	}
	for _, m := range n.members {
		if m.key.relay == "" && m.key.isIdentity && m.reachable() {
			list = append(list, RemoteMember{
				Name: name, Relay: fl.Self.ID, Member: m.key.id, Identity: m.key.identity, Priority: m.priority, Down: m.down,
				Connections: uint64(max(m.connections.Load()+m.given.Load(), 0)), Reports: m.reports.Load(), Since: m.since,
			})
		}
	}
	return list
}

// tag is what a member is called between relays.
func (k memberKey) tag() string {
	sum := sha256.Sum256(append(append([]byte("sallyport member\x00"), k.identity[:]...), k.id[:]...))
	return hex.EncodeToString(sum[:16])
}

// local takes a message that another relay of the fleet has passed on, for a member that is registered here: it is not passed on again.
func (fl *relayFleet) local(s *Shard, m *Message) {
	if m.Peer == nil || m.Peer.ID != fl.Identity {
		s.Drops.NotMember.Add(1)
		return
	}
	m.PopOnward()
	kind, value := m.Onward.first()
	address, ok := bytes.CutPrefix(value, []byte(RelayPrefix))
	if m.Onward.Len() == 0 || kind != Local || !ok || len(address) > maxRelayName+33 {
		s.Drops.Malformed.Add(1)
		return
	}
	name, isMember := LaneOf(string(address))
	if !isMember {
		s.Drops.Malformed.Add(1)
		return
	}
	to := fl.relays.registeredHere(name, string(address[len(name)+1:]))
	if to == nil {
		s.notify(m, LocalAddress(RelayPrefix+name).Wire(), Notice{Kind: NoticeAbsent, Name: name})
		return
	}
	fl.taken.Add(1)
	m.PopOnward()
	m.PushOnward(to.forward)
	(&relayWorker{relays: fl.relays}).grantReturn(s, m, to)
	s.Deliver(m)
}

// registeredHere returns the registration of a member of this relay, by its tag; nil if there is none that can be reached.
func (rs *Relays) registeredHere(name, tag string) *registration {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if n := rs.named[name]; n != nil {
		for _, m := range n.members {
			if m.key.relay == "" && m.key.tag() == tag {
				return m.current.Load()
			}
		}
	}
	return nil
}

// sync follows what has changed at other relays, and goes on with who has waited for that. On the service's goroutine.
func (fl *relayFleet) sync() {
	looked := fl.takeLooked()
	fl.takeChanges()
	fl.goOn(looked)
}

// takeChanges takes over what has changed at other relays.
func (fl *relayFleet) takeChanges() {
	fl.mu.Lock()
	changed := fl.changed
	fl.changed = map[string]struct{}{}
	fl.mu.Unlock()
	if len(changed) == 0 {
		return
	}
	names := slices.Collect(maps.Keys(changed))
	if _, all := changed[""]; all {
		fl.syncLinks()
		names = fl.Registry.Names()
		rs := fl.relays
		rs.mu.Lock()
		for name := range rs.named {
			names = append(names, name)
		}
		rs.mu.Unlock()
		slices.Sort(names)
		names = slices.Compact(names)
	}
	var fresh []*relayName
	for _, name := range names {
		if name == "" {
			continue
		}
		if n := fl.follow(name); n != nil {
			fresh = append(fresh, n)
		}
	}
	if len(fresh) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	rs := fl.relays
	if err := rs.router.putNames(ctx, fresh, func(n *relayName) Worker { return &relayWorker{relays: rs, name: n} }, rs.opts.Flows); err != nil {
		rs.opts.Log.Error("relays not started", "err", err)
	}
}

// follow takes over the members that a name has at other relays, and whose it is. It returns the name if it is new here.
func (fl *relayFleet) follow(name string) (fresh *relayName) {
	rs := fl.relays
	list := fl.Registry.Members(name)
	owner, owned := fl.Registry.Owner(name)
	rs.mu.Lock()
	n := rs.named[name]
	if n == nil {
		if len(list) == 0 || len(name) > maxRelayName {
			rs.mu.Unlock()
			return nil
		}
		n = &relayName{name: name, self: LocalAddress(RelayPrefix + name).Wire()}
		rs.named[name] = n
		fresh = n
	}
	if owned {
		id := owner.Owner
		n.owner, n.rule, n.share = &id, owner.Rule, owner.Share
	}
	there := map[memberKey]bool{}
	for _, r := range list {
		key := memberKey{identity: r.Identity, isIdentity: true, id: r.Member, relay: r.Relay}
		there[key] = true
		m := n.join(key)
		m.priority, m.down, m.since = min(r.Priority, maxPriority), r.Down, r.Since
		m.reports.Store(r.Reports)
		if connections := int64(min(r.Connections, 1<<40)); m.connections.Swap(connections) != connections {
			m.given.Store(0)
		}
		fl.reach(n, m)
	}
	for _, m := range n.members {
		if m.key.relay != "" && !there[m.key] {
			n.remove(m.regs...)
		}
	}
	if living := n.living(); living > 1 || len(list) > 0 {
		n.grouped.Store(true)
	}
	tell := rs.rechoose(n)
	if len(n.regs) == 0 {
		rs.ended = append(rs.ended, n.name)
		rs.poke()
	}
	rs.mu.Unlock()
	tell()
	return fresh
}

// reach gives a member at another relay the registration that leads there, if there is a way. rs.mu is held.
func (fl *relayFleet) reach(n *relayName, m *member) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	l := fl.links[m.key.relay]
	if len(m.regs) == 1 && l != nil && l.link != nil && m.regs[0].terminal == l.by {
		m.regs[0].away = false
		return
	}
	n.remove(m.regs...)
	g := &registration{relays: fl.relays, name: n, id: randomID(), member: m, elsewhere: true, away: true}
	if l != nil && l.link != nil {
		g.away, g.shard, g.terminal = false, l.shard, l.by
		g.forward = l.link.Route.Concat(LocalRoute(localRelayService, RelayPrefix+n.name+string(laneMark)+m.key.tag()))
	}
	m.regs = []*registration{g}
	n.regs = append(n.regs, g)
}

// syncLinks keeps a way to each of the other relays.
func (fl *relayFleet) syncLinks() {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	there := map[string]bool{}
	for _, r := range fl.Registry.Relays() {
		if r.ID == fl.Self.ID || r.Address == "" {
			continue
		}
		there[r.ID] = true
		if fl.links[r.ID] != nil || fl.ctx.Err() != nil {
			continue
		}
		l := &fleetLink{to: r}
		var ctx context.Context
		ctx, l.cancel = context.WithCancel(fl.ctx)
		fl.links[r.ID] = l
		fl.all.Go(func() { fl.keep(ctx, l) })
	}
	for id, l := range fl.links {
		if !there[id] {
			l.cancel()
			delete(fl.links, id)
		}
	}
}

// keep keeps a way to another relay.
func (fl *relayFleet) keep(ctx context.Context, l *fleetLink) {
	log := fl.relays.opts.Log.With("relay_node", l.to.ID, "address", l.to.Address)
	for ctx.Err() == nil {
		link, err := fl.Dial(ctx, l.to)
		if err == nil {
			err = fl.use(ctx, l, link)
		}
		if ctx.Err() != nil {
			return
		}
		log.Warn("no way to another relay of the fleet", "reason", err.Error())
		select {
		case <-ctx.Done():
		case <-time.After(linkAgain):
		}
	}
}

var (
	errLinkEnded  = errors.New("the channel has ended")
	errNoTerminal = errors.New("the route leads to no channel")
)

// use passes on over a link until it ends.
func (fl *relayFleet) use(ctx context.Context, l *fleetLink, link Link) error {
	defer link.Close()
	s := fl.relays.router.shardFor(link.Route)
	var by Terminal
	if err := s.Do(ctx, func() { by = s.FirstTerminal(link.Route) }); err != nil {
		return err
	}
	if by == nil {
		return errNoTerminal
	}
	fl.mu.Lock()
	l.link, l.shard, l.by = &link, s, by
	fl.mu.Unlock()
	fl.note("") // members there can be reached
	select {
	case <-ctx.Done():
	case <-link.Done:
	}
	fl.mu.Lock()
	l.link, l.by = nil, nil
	fl.mu.Unlock()
	fl.note("")
	return errLinkEnded
}

// claim asks the registry whose the names of requests are that nobody has here, or whose terms their owner changes. It may take its time.
func (fl *relayFleet) claim(list []request) {
	ctx, cancel := context.WithTimeout(fl.ctx, claimTimeout)
	defer cancel()
	var all sync.WaitGroup
	slots := make(chan struct{}, claims)
	for i := range list {
		q := &list[i]
		if q.owner == nil {
			continue
		}
		fl.relays.mu.Lock()
		n := fl.relays.named[q.name]
		known := n != nil && len(n.regs) > 0
		if known && sameOwner(n.owner, q.owner) && q.terms != nil && (n.rule != q.terms.Rule || n.share != q.terms.Share) {
			known = false
		}
		fl.relays.mu.Unlock()
		if known {
			continue
		}
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			o := Ownership{Name: q.name, Owner: *q.owner}
			if q.terms != nil {
				o.Rule, o.Share = q.terms.Rule, q.terms.Share
			}
			got, err := fl.Registry.Claim(ctx, o)
			if err != nil && got == (Ownership{}) {
				q.unknown = true
				return
			}
			q.claimed = &got
		})
	}
	all.Wait()
}
