package node

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/node/admin"
	"sallyport/routing/control"
)

// maxDrain bounds how long a node that is to end waits for connections.
const maxDrain = time.Hour

// drainTime reads a --drain; text is empty for the default.
func drainTime(text string, missing time.Duration) (time.Duration, error) {
	return boundedTime("--drain", text, missing, maxDrain)
}

const (
	// handOver is how long a node that is to end goes on at most where others share its relay names, and handedOver how long nothing has happened at its outlets when it need not.
	handOver   = time.Second
	handedOver = 300 * time.Millisecond
)

// HandOver lets the other members of shared relay names take over, if there are any: the relays give new clients to them, what has begun here may end. Clients that come here all the same are
// served, in the end left unanswered: their inlets begin anew over another path. It returns when nothing happens here any more, or after handOver.
func (n *Node) HandOver() {
	ctx, cancel := context.WithTimeout(n.ctx, handOver)
	defer cancel()
	if n.leaving.Load() || !n.handsOver(ctx) {
		return
	}
	n.log.Info("node hands over", "node", n.opts.Name, "connections", n.portals.Stats.Active.Load())
	last := time.AfterFunc(handOver-handedOver, func() {
		for _, o := range n.outlets.List() {
			if o.IsOpen {
				o.Value.portal.Fade()
			}
		}
	})
	defer last.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	opened, quiet := uint64(0), time.Now()
	for time.Since(quiet) < handedOver {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if now := n.portals.Stats.Opened.Load(); now != opened || n.portals.Stats.Active.Load() > 0 {
			opened, quiet = now, time.Now()
		}
	}
}

// handsOver tells the relays of shared names that this member's targets cannot be had any more. It reports false where it has no shared name, or nobody else that is up.
func (n *Node) handsOver(ctx context.Context) bool {
	var told sync.WaitGroup
	var any atomic.Bool
	for _, i := range n.relays.List() {
		if !i.IsOpen || !isGroup(&i.Request) {
			continue
		}
		rel, name := i.Value, relayNameOf(&i.Request)
		up, c, _ := rel.session.state()
		if !up {
			continue
		}
		told.Go(func() {
			if !slices.ContainsFunc(n.sharers(ctx, rel, name), func(m admin.RelayMember) bool { return !m.Self && m.State == memberWord(control.StateUp) }) {
				return
			}
			n.leaving.Store(true)
			if n.registerMember(ctx, rel, c, name, n.load()) == nil {
				any.Store(true)
			}
		})
	}
	told.Wait()
	return any.Load()
}

// leave takes no more clients, connections of other nodes and portal connections, tells those who asked that the node leaves, and waits until its portal
// connections have ended, at most for a time. Connections through a relay of this node are held at their ends when it has gone, so nobody waits for them.
func (n *Node) leave(longest time.Duration) {
	if longest == 0 {
		return
	}
	n.Ending()
	n.HandOver()
	n.log.Info("node leaves", "node", n.opts.Name, "connections", n.portals.Stats.Active.Load(), "drain", longest.String())
	ctx, cancel := context.WithTimeout(n.ctx, longest)
	defer cancel()
	for _, i := range n.inlets.List() {
		if i.IsOpen {
			_ = i.Value.portal.StopListening(ctx)
		}
	}
	for _, o := range n.outlets.List() {
		if o.IsOpen {
			o.Value.portal.Leave()
		}
	}
	n.tcp.StopListening(ctx)
	if n.control != nil {
		n.control.Close()
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for n.portals.Stats.Active.Load() > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			n.log.Warn("node leaves with open connections", "node", n.opts.Name, "connections", n.portals.Stats.Active.Load())
			return
		}
	}
}
