package portal

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"

	"sallyport/internal/histogram"
)

// Ends of a portal, as metrics and records name them.
const (
	EndInlet  = "inlet"
	EndOutlet = "outlet"
)

// maxMeters is how many portals of a node are counted apart. What is beyond shares one meter of each end, so that whoever makes portals without
// end does not make metrics without end.
const maxMeters = 128

// otherPortal is the name of the meter that they share. No portal has it as its own: names are words.
const otherPortal = "(other)"

// Meter counts what one portal does, for metrics. Its fields are for any goroutine.
type Meter struct {
	end, name string

	BytesIn, BytesOut atomic.Uint64 // from sockets, to sockets
	Opened            atomic.Uint64 // connections begun
	Open              atomic.Int64
	Ended             [reasonCount]atomic.Uint64 // connections, by Reason
	Refused           [reasonCount]atomic.Uint64 // clients and inlets that got no connection, by Reason
	Waited            atomic.Int64               // nanoseconds that sockets with data waited for windows
	// Reached and Unreached are when a target was last reached for a connection, and when one was not: Unix time in nanoseconds.
	Reached, Unreached atomic.Int64
	// Setup is how long it took until a connection was open: at an inlet since the client came, at an outlet since the inlet asked. Dial is the
	// part of the latter in which the target was found and reached.
	Setup, Dial *histogram.Histogram
	// Life is how long connections lived.
	Life *histogram.Histogram

	users int // portals that have it; under meters.mu
}

// End returns EndInlet or EndOutlet.
func (m *Meter) End() string { return m.end }

// Name returns the portal's name.
func (m *Meter) Name() string { return m.name }

// meters are the meters of a node.
type meters struct {
	mu   sync.Mutex
	list map[[2]string]*Meter
}

// take returns the meter of a portal that begins; give ends that.
func (ms *meters) take(end, name string) *Meter {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	m := ms.list[[2]string{end, name}]
	if m == nil {
		if len(ms.list) >= maxMeters && !ms.makeRoom() {
			name = otherPortal
		}
		m = ms.get(end, name)
	}
	m.users++
	return m
}

// get returns a meter, which is made if there is none. ms.mu is held.
func (ms *meters) get(end, name string) *Meter {
	key := [2]string{end, name}
	m := ms.list[key]
	if m == nil {
		if ms.list == nil {
			ms.list = map[[2]string]*Meter{}
		}
		m = &Meter{end: end, name: name, Setup: histogram.New(histogram.Setup), Dial: histogram.New(histogram.Setup), Life: histogram.New(histogram.Life)}
		ms.list[key] = m
	}
	return m
}

// give takes a meter back from a portal that has ended. What it counted stays until its place is wanted.
func (ms *meters) give(m *Meter) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	m.users--
}

// makeRoom moves what a portal has counted that has ended, and whose connections have, to those that share a meter. It reports false if there is none.
// ms.mu is held.
func (ms *meters) makeRoom() bool {
	for key, m := range ms.list {
		if m.users == 0 && m.Open.Load() == 0 && m.name != otherPortal {
			delete(ms.list, key)
			ms.get(m.end, otherPortal).add(m)
			return true
		}
	}
	return false
}

// add adds what o has counted.
func (m *Meter) add(o *Meter) {
	m.BytesIn.Add(o.BytesIn.Load())
	m.BytesOut.Add(o.BytesOut.Load())
	m.Opened.Add(o.Opened.Load())
	for i := range o.Ended {
		m.Ended[i].Add(o.Ended[i].Load())
		m.Refused[i].Add(o.Refused[i].Load())
	}
	m.Waited.Add(o.Waited.Load())
	m.Setup.Add(o.Setup)
	m.Dial.Add(o.Dial)
	m.Life.Add(o.Life)
}

// Meters returns the meters of all portals, sorted by end and name. Portals that have ended may be among them.
func (e *Env) Meters() []*Meter {
	ms := &e.meters
	ms.mu.Lock()
	defer ms.mu.Unlock()
	list := make([]*Meter, 0, len(ms.list))
	for _, m := range ms.list {
		list = append(list, m)
	}
	slices.SortFunc(list, func(a, b *Meter) int { return cmp.Or(cmp.Compare(a.end, b.end), cmp.Compare(a.name, b.name)) })
	return list
}
