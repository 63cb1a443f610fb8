// Package interceptor puts workers between the two ends of a portal connection, which see the bytes of either direction and may change
// them (docs/protocol/03 §1.12). An inlet's stand on the inlet's node in front of the way out, an outlet's on the outlet's node.
//
// A Listener has a name. For the Ping of a new connection it starts two workers: one that takes the messages from inlet to outlet, one
// for the other way. The Ping and the Pong bring their addresses to both ends in place of the ends' own.
//
// What becomes of the bytes is a Filter's decision. It passes them on as they come, or collects a unit and works on it on a goroutine;
// what comes meanwhile waits, and whoever sends it is paused. Interceptors change how many bytes there are, so the windows of portal's
// extension would not add up: it is not offered through them. Instead
//
//   - a source of its own is paused while more than HighWater of its bytes wait for a unit in work or for a reader; a unit that is still coming
//     never pauses its source, and how long it may be is the Filter's business;
//   - all that waits on a node is counted in a Budget: above it sources are paused sooner, far above it connections are ended;
//   - a connection that is shared with others is paused for a moment only; a reader that takes nothing for Options.Patience, or
//     too little of very much, is cut off (routing.Backlog).
//
// A stream that a Filter refuses ends for both sides: nothing is left out silently.
package interceptor

import (
	"cmp"
	"context"
	"net/netip"
	"sync/atomic"
	"time"

	"sallyport/portal"
	"sallyport/routing"
)

// Step is what a Filter wants done with the bytes that have come.
type Step uint8

const (
	// Wait for more bytes.
	Wait Step = iota
	// Pass the first n bytes on as they are; n may be more than have come.
	Pass
	// Work on the first n bytes.
	Work
)

// Filter handles one direction of one connection.
type Filter interface {
	// Next looks at the bytes that were not passed on yet, at least one, borrowed. It is called on the event loop and must be quick.
	// For Pass and Work n is at least 1, for Work at most len(b). An error ends the connection.
	Next(b []byte) (step Step, n int, err error)
	// Work returns what goes on in place of unit, which it may change and keep. It runs on a goroutine of its own, one at a time,
	// and gives up when ctx ends: with the connection. An error ends the connection.
	Work(ctx context.Context, unit []byte) ([]byte, error)
}

// HighWater is how many bytes of one direction wait before its source is paused.
const HighWater = 4 << 20

// lowWater takes its place when the node's Budget is used up.
const lowWater = 64 << 10

// Budget counts the bytes that wait in all interceptors of a node. The zero Budget is ready.
type Budget struct {
	// Size is how many bytes may wait before sources are paused sooner; at twice as many, connections end. 0 is BudgetSize. It is not changed
	// once the Budget is in use.
	Size int64

	used, reserved atomic.Int64
	refused        atomic.Uint64
}

// BudgetSize is the size of a Budget that says nothing else, in bytes.
const BudgetSize = 256 << 20

func (b *Budget) size() int64 {
	if b.Size > 0 {
		return b.Size
	}
	return BudgetSize
}

// Used returns how many bytes wait now.
func (b *Budget) Used() int64 { return b.used.Load() }

// Refused returns how many connections have ended because too much waited.
func (b *Budget) Refused() uint64 { return b.refused.Load() }

// Reserve keeps room for n bytes that a filter has asked for and that have not come yet; a negative n gives room back. It refuses nothing.
func (b *Budget) Reserve(n int) { b.reserved.Add(int64(n)) }

// Left returns how many bytes are neither used nor reserved, at least 0.
func (b *Budget) Left() int { return int(max(b.size()-b.used.Load()-b.reserved.Load(), 0)) }

// Conn is what a filter may know of its connection.
type Conn struct {
	// Reached is the address of this node that the client has connected to; not valid before an outlet.
	Reached netip.AddrPort
}

// Options configure a Listener.
type Options struct {
	// Name is the listener's address.
	Name string
	// Filters makes the filters of a new connection: for what goes from inlet to outlet, and for the way back.
	Filters func(Conn) (up, down Filter)
	// Budget is the node's.
	Budget *Budget
	// Outlet tells that the listener stands before outlets of this node; otherwise it stands behind its inlets.
	Outlet bool
	// Next decides, before an outlet, which worker of this node may be next: one that is there. Nothing else can be reached through the listener. It is
	// called on the event loop and must be quick.
	Next func(name string) bool
	// Guard decides, before an outlet, who may use the listener; nil lets everybody.
	Guard portal.Guard
	// Patience is how long a reader may take nothing while the other node's connection, which others share, brings more; 0 is the portals' StallTimeout.
	Patience time.Duration
	// Flows are consumed by the listener: from where it can be reached.
	Flows []*routing.Flow
}

// Listener begins the interception of connections.
type Listener struct {
	env    *portal.Env
	router *routing.Router
	opts   Options
}

// New starts a listener. routing.ErrExists when its name is taken. Not on a shard.
func New(ctx context.Context, env *portal.Env, r *routing.Router, o Options) (*Listener, error) {
	o.Patience = cmp.Or(o.Patience, env.Limits.StallTimeout)
	l := &Listener{env: env, router: r, opts: o}
	if err := r.StartNamed(ctx, o.Name, func(*routing.Shard) routing.Worker { return l }, o.Flows...); err != nil {
		return nil, err
	}
	return l, nil
}

// Close stops the listener; connections under way stay. Not on a shard.
func (l *Listener) Close(ctx context.Context) error { return l.router.StopNamed(ctx, l.opts.Name) }

// PassesOn implements routing.Through.
func (l *Listener) PassesOn() {}

// HandleMessage begins a connection: m must be a Ping.
func (l *Listener) HandleMessage(s *routing.Shard, m *routing.Message) {
	kind, _, _, err := portal.Read(m.Payload())
	m.PopOnward()
	if err != nil || kind != portal.KindPing || m.Return.Len() == 0 || m.Onward.Len() == 0 {
		l.env.Stats.Malformed.Add(1)
		return
	}
	if l.opts.Outlet && !l.admits(m) {
		l.env.Stats.Denied.Add(1)
		m.SetPayloadBytes([]byte{portal.KindDisconnect}) // an inlet of the reference's ignores it, and waits
		m.Reply(s, routing.LocalAddress(l.opts.Name).Wire())
		return
	}
	newPair(l, s, m)
}

// admits checks who wants to go where.
func (l *Listener) admits(m *routing.Message) bool {
	next := m.Onward.First()
	if m.Onward.Len() != 1 || next.Type != routing.Local || !l.opts.Next(next.Value) {
		l.env.Log.Warn("portal connection refused", "portal", l.opts.Name, "reason", "no such outlet behind it", "route", m.Onward.String())
		return false
	}
	if l.opts.Guard == nil {
		return true
	}
	var peer *[32]byte
	if m.Peer != nil {
		peer = &m.Peer.ID
	}
	if !l.opts.Guard.Grant(peer).Allowed() {
		l.env.Log.Warn("portal connection refused", "portal", l.opts.Name, "reason", portal.ReasonPolicy.String())
		return false
	}
	return true
}
