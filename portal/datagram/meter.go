package datagram

import (
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"sallyport/dataplane"
	"sallyport/portal"
)

// Ends of a portal.
const (
	EndInlet  = "udp-inlet"
	EndOutlet = "udp-outlet"
)

// Drop is why a datagram was not carried.
type Drop uint8

// Why datagrams are dropped.
const (
	DropPath    Drop = iota // there is no way to the other end
	DropPolicy              // the policy says no
	DropRefused             // the outlet's node has said that there is no such outlet, or not for this one
	DropBehind              // the path is behind, and as much as may wait does
	DropLimit               // there are too many flows, or no descriptor for one more
	DropSize                // longer than MaxSize
	DropTarget              // the target's name has no address
	DropLate                // for a flow that has ended
	DropRate                // beyond the portal's rate
	dropCount
)

// DropNames are the reasons' names in metrics.
var DropNames = [dropCount]string{"path", "policy", "refused", "behind", "limit", "size", "target", "late", "rate"}

// Meter counts what one inlet or outlet does. Any goroutine may read it.
type Meter struct {
	end, name string
	// Flows are those that there are; Opened were begun, Ended ended for each Reason.
	Flows  atomic.Int64
	Opened atomic.Uint64
	Ended  [reasonCount]atomic.Uint64
	// In are datagrams read from sockets, Out those given to them.
	In, Out, BytesIn, BytesOut atomic.Uint64
	// Dropped are those not carried, by Drop.
	Dropped [dropCount]atomic.Uint64
	// Malformed are messages that no node of ours sends.
	Malformed atomic.Uint64
	// Lost are those that the kernel dropped since they were not read in time.
	Lost atomic.Uint64
	// Sock are the sockets' own counts.
	Sock dataplane.UDPStats
}

// End is EndInlet or EndOutlet.
func (m *Meter) End() string { return m.end }

// Name is the portal's name.
func (m *Meter) Name() string { return m.name }

func (m *Meter) drop(why Drop) { m.Dropped[why].Add(1) }

// countLost counts what the kernel has dropped of what came for a socket since it was last asked. On the socket's loop.
func (m *Meter) countLost(u *dataplane.UDPSocket) { m.Lost.Add(uint64(u.Lost())) }

// Env is what the inlets and outlets of a node have in common.
type Env struct {
	Log *slog.Logger
	// Records, if set before the first portal, takes a record of each flow when it ends.
	Records portal.Recorder

	mu     sync.Mutex
	meters []*Meter
}

func (e *Env) take(end, name string) *Meter {
	m := &Meter{end: end, name: name}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.meters = append(e.meters, m)
	return m
}

func (e *Env) give(m *Meter) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.meters = slices.DeleteFunc(e.meters, func(o *Meter) bool { return o == m })
}

// Meters lists what is counted of each portal that is open, by end and name. Any goroutine.
func (e *Env) Meters() []*Meter {
	e.mu.Lock()
	defer e.mu.Unlock()
	list := slices.Clone(e.meters)
	slices.SortFunc(list, func(a, b *Meter) int { return strings.Compare(a.end+"\x00"+a.name, b.end+"\x00"+b.name) })
	return list
}
