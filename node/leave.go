package node

import (
	"context"
	"time"
)

// maxDrain bounds how long a node that is to end waits for connections.
const maxDrain = time.Hour

// drainTime reads a --drain; text is empty for the default.
func drainTime(text string, missing time.Duration) (time.Duration, error) {
	return boundedTime("--drain", text, missing, maxDrain)
}

// leave takes no more clients, connections of other nodes and portal connections, tells those who asked that the node leaves, and waits until its portal
// connections have ended, at most for a time. Connections through a relay of this node are held at their ends when it has gone, so nobody waits for them.
func (n *Node) leave(longest time.Duration) {
	if longest == 0 {
		return
	}
	n.Ending()
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
