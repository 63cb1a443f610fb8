package portal

import (
	"sync"

	"sallyport/dataplane"
	"sallyport/routing"
)

// arriveTurn is how many connections a shard takes up before others have their turn: about a third of a millisecond.
const arriveTurn = 32

// maxLater bounds what waits until all connections are there.
const maxLater = 1024

// arrivals counts the carried connections of a node's portals that are not taken up yet. Its methods are for any goroutine.
type arrivals struct {
	mu    sync.Mutex
	left  int
	after []func()
}

func (all *arrivals) add(n int) {
	all.mu.Lock()
	defer all.mu.Unlock()
	all.left += n
}

// underWay reports whether there are some.
func (all *arrivals) underWay() bool {
	all.mu.Lock()
	defer all.mu.Unlock()
	return all.left > 0
}

// done notes that one was taken up. What has waited for the last one is done by who took that up.
func (all *arrivals) done() {
	all.mu.Lock()
	var after []func()
	if all.left--; all.left == 0 {
		after, all.after = all.after, nil
	}
	all.mu.Unlock()
	for _, f := range after {
		f()
	}
}

// later has f run when all are there, and returns false if they are. Where too much waits already f is forgotten.
func (all *arrivals) later(f func()) bool {
	all.mu.Lock()
	defer all.mu.Unlock()
	if all.left == 0 {
		return false
	}
	if len(all.after) < maxLater {
		all.after = append(all.after, f)
	}
	return true
}

// arrival is a connection that was written down.
type arrival struct {
	k     *CarriedConn
	taken bool
}

// arriving is the carried connections of one portal. The shards take them up beside all else that they do, so that a node serves the sooner after an upgrade:
// nobody waits for a connection that has no path. One that is asked for is taken up where it is asked for. Its methods are for any goroutine; a nil arriving has
// none.
type arriving struct {
	all    *arrivals
	takeUp func(s *routing.Shard, k *CarriedConn)

	mu   sync.Mutex
	list []*arrival // those before next were taken
	next int
	byID map[token]*arrival
	left int
}

func newArriving(all *arrivals, list []CarriedConn, takeUp func(s *routing.Shard, k *CarriedConn)) *arriving {
	a := &arriving{all: all, takeUp: takeUp, list: make([]*arrival, len(list)), byID: make(map[token]*arrival, len(list)), left: len(list)}
	for i := range list {
		k := &arrival{k: &list[i]}
		a.list[i] = k
		if len(k.k.ID) != len(token{}) {
			continue
		}
		if id := token(k.k.ID); a.byID[id] == nil {
			a.byID[id] = k
		}
	}
	all.add(len(list))
	return a
}

// begin has the shards take up what there is.
func (a *arriving) begin(shards []*routing.Shard) {
	for _, s := range shards {
		a.post(s)
	}
}

func (a *arriving) post(s *routing.Shard) { s.Loop().Post(dataplane.TaskFunc(func() { a.turn(s) })) }

// turn takes up some on a shard, and others when all else there has had its turn.
func (a *arriving) turn(s *routing.Shard) {
	for range arriveTurn {
		k := a.take(nil)
		if k == nil {
			return
		}
		a.arrive(s, k)
	}
	a.post(s)
}

// want takes up the connection with an id on a shard, if it is still to come.
func (a *arriving) want(s *routing.Shard, id token) {
	if a == nil {
		return
	}
	if k := a.take(&id); k != nil {
		a.arrive(s, k)
	}
}

// take returns the next one, or the one with an id; nil if it was taken, or there is none.
func (a *arriving) take(id *token) *CarriedConn {
	a.mu.Lock()
	defer a.mu.Unlock()
	if id != nil {
		return a.takeLocked(a.byID[*id])
	}
	for a.next < len(a.list) {
		a.next++
		if k := a.takeLocked(a.list[a.next-1]); k != nil {
			return k
		}
	}
	return nil
}

func (a *arriving) takeLocked(x *arrival) *CarriedConn {
	if x == nil || x.taken {
		return nil
	}
	x.taken = true
	return x.k
}

func (a *arriving) arrive(s *routing.Shard, k *CarriedConn) {
	defer func() { // whatever becomes of it
		a.mu.Lock()
		if a.left--; a.left == 0 {
			a.list, a.byID = nil, nil
			a.next = 0
		}
		a.mu.Unlock()
		a.all.done()
	}()
	a.takeUp(s, k)
}

// number returns how many are still to come.
func (a *arriving) number() int {
	if a == nil {
		return 0
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.left
}
