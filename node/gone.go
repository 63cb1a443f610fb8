package node

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"os"
	"strings"
	"time"

	"sallyport/routing"
	"sallyport/routing/control"
	"sallyport/routing/secure"
)

// A process that is killed says nothing, but its machine closes its connections. Whoever accepted them concludes that it has ended when it has not come back a
// moment later, and tells those who reach it through this node and have asked (docs/protocol/05 §1, gone).

// errGone ends a path: the process at its other end has ended.
var errGone = errors.New("the process of the node there has ended")

// goneWait is how long one question waits for its answer.
const goneWait = 50 * time.Second

// answerGone tells when the process has ended that an address leads to.
func (n *Node) answerGone(c *control.Call) {
	address := c.Request.Name
	if link, rest, ok := strings.Cut(address, hopMark); ok && !strings.HasPrefix(address, routing.RelayPrefix) {
		n.passGone(c, link, rest)
		return
	}
	if name, ok := strings.CutPrefix(address, routing.RelayPrefix); ok {
		address = n.relaySvc.Way(name)
	}
	ch := n.channels.Find(address)
	if ch == nil {
		c.Answer(control.StatusAbsent, control.Fields{})
		return
	}
	c.Await(control.Fields{}, ch.AwaitGone(func() { c.Answer(control.StatusGone, control.Fields{}) }))
}

// awaitGone asks the node at the end of relay until it says that the process has ended that name leads to: then it returns true. where returns both; an empty
// name is none.
func (n *Node) awaitGone(ctx context.Context, where func() (relay routing.Route, name string)) bool {
	for lost := 0; ctx.Err() == nil && lost < 2; {
		relay, name := where()
		if name == "" {
			return false
		}
		asking, cancel := context.WithTimeout(ctx, goneWait+2*time.Second)
		m, err := control.Ask(asking, n.router, relay, control.OpGone, control.Fields{Name: name, Wait: goneWait})
		cancel()
		switch {
		case err != nil:
			lost++ // or the node there does not tell
			continue
		case m.Code == uint64(control.StatusGone):
			return true
		case m.Code == uint64(control.StatusOK):
		case m.Code == uint64(control.StatusUnknown):
			return false
		default: // busy, or nobody is there now
			select {
			case <-ctx.Done():
			case <-time.After(jitter(checkInterval)):
			}
		}
		lost = 0
	}
	return false
}

// watchPeer waits for the end of the process at the other end of a channel that came through another node.
func (n *Node) watchPeer(ch *secure.Channel) {
	if ch.Remote().Len() < 3 {
		return
	}
	go func() {
		ctx, cancel := context.WithCancel(n.ctx)
		defer cancel()
		go func() {
			defer cancel()
			select {
			case <-ch.Done():
			case <-ctx.Done():
			}
		}()
		if n.awaitGone(ctx, func() (relay routing.Route, name string) {
			if way := ch.Way(ctx); way.Len() > 2 {
				return routing.NewRoute(way.First()), hops(way)
			}
			return relay, ""
		}) {
			ch.PeerGone()
		}
	}()
}

// watchGone is told by the relay that a path leads through when the process behind the relay's name has ended.
func (n *Node) watchGone(ctx context.Context, c *connection) <-chan struct{} {
	gone := make(chan struct{})
	if c.name != "" {
		go func() {
			if n.awaitGone(ctx, func() (routing.Route, string) {
				if way := c.way(ctx); way.Len() > 2 { // others may have the name by now
					return c.relay, hops(way)
				}
				return c.relay, routing.RelayPrefix + c.name
			}) {
				close(gone)
			}
		}()
	}
	return gone
}

// newProcess returns what a node is known by to others that hold connections of its inlets: the node, in the first half, and its process. One of the same node
// with another process says that those of the first are no more.
func newProcess(o *Options) (id [32]byte) {
	host, _ := os.Hostname()
	node := sha256.Sum256([]byte("sallyport node\x00" + o.Self.String() + "\x00" + host + "\x00" + o.Name))
	_, _ = rand.Read(id[copy(id[:], node[:16]):]) // never fails (crypto/rand)
	return id
}
