package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"sallyport/node/resource"
	"sallyport/routing"
	"sallyport/routing/control"
	"sallyport/routing/udp"
)

const (
	// portTimeout is how long a node is given to say where its socket is.
	portTimeout = 1500 * time.Millisecond
	// seenTimeout is how long a node waits for a datagram with a token, and seenMost the longest that one of ours is asked to.
	seenTimeout = 3 * time.Second
	seenMost    = 5 * time.Second
)

// errUnseen reports a node that answers, but that no datagram comes to.
var errUnseen = errors.New("no datagram came to the UDP socket of the node that was asked")

// seers are the requests that wait for a datagram with their token. Any goroutine.
type seers struct {
	mu    sync.Mutex
	calls map[[udp.TokenSize]byte]*control.Call
}

// answerSeen tells a node through its channel from which address its datagrams come.
func (n *Node) answerSeen(c *control.Call) {
	switch token := c.Request.Data; {
	case n.mainUDP == nil:
		c.Answer(control.StatusAbsent, control.Fields{})
	case len(token) == 0:
		c.Answer(control.StatusOK, control.Fields{Name: n.mainUDP.Local.String()})
	case len(token) != udp.TokenSize || c.Request.Wait <= 0 || c.Request.Wait > seenMost:
		c.Answer(control.StatusMalformed, control.Fields{})
	default:
		key := [udp.TokenSize]byte(token)
		n.seers.mu.Lock()
		_, taken := n.seers.calls[key]
		if !taken {
			n.seers.calls[key] = c
		}
		n.seers.mu.Unlock()
		if taken {
			c.Answer(control.StatusBusy, control.Fields{})
			return
		}
		c.Await(control.Fields{}, func() {
			n.seers.mu.Lock()
			delete(n.seers.calls, key)
			n.seers.mu.Unlock()
		})
	}
}

// seen answers who waits for a token.
func (n *Node) seen(token [udp.TokenSize]byte, from netip.AddrPort) {
	n.seers.mu.Lock()
	c := n.seers.calls[token]
	n.seers.mu.Unlock()
	if c != nil {
		c.Answer(control.StatusOK, control.Fields{Name: from.String()})
	}
}

// publicBy asks the node at the other end of c's first channel from which address the datagrams of b come. That node alone can say so. It
// reports false if the node has no UDP socket, or does not know the question.
func (n *Node) publicBy(ctx context.Context, c *connection, b *udp.Bind) (public netip.AddrPort, asked bool, err error) {
	if c == nil || c.tcp == nil || len(c.channels) == 0 || c.unseeing.Load() {
		return public, false, nil
	}
	route := routing.RouteOf(c.channels[0].Encryptor)
	asking, cancel := context.WithTimeout(ctx, portTimeout)
	m, err := control.Ask(asking, n.router, route, control.OpSeen, control.Fields{})
	cancel()
	if err != nil && ctx.Err() == nil {
		c.unseeing.Store(true) // the reference's node, which has no such service
	}
	if err != nil || m.Code != uint64(control.StatusOK) {
		return public, false, nil
	}
	bound, err := netip.ParseAddrPort(m.Name)
	at := netip.AddrPortFrom(c.tcp.Remote.Addr().Unmap().WithZone(""), bound.Port())
	if err != nil || bound.Addr().IsLoopback() && !at.Addr().IsLoopback() {
		return public, false, nil // a socket that is not for other machines
	}
	if six := bound.Addr().Is6(); at.Addr().Is6() && !(six && b.Local.Addr().Is6()) || at.Addr().Is4() && six && !bound.Addr().IsUnspecified() {
		return public, false, nil // one of IPv4 and one of IPv6
	}
	var token [udp.TokenSize]byte
	_, _ = rand.Read(token[:]) // never fails (crypto/rand)
	showing, stop := context.WithCancel(ctx)
	defer stop()
	go func() { _ = b.Show(showing, at, token) }()
	ctx, cancel = context.WithTimeout(ctx, seenTimeout+2*time.Second)
	defer cancel()
	m, err = control.Ask(ctx, n.router, route, control.OpSeen, control.Fields{Data: token[:], Wait: seenTimeout})
	if err == nil {
		err = m.Err()
	}
	if err == nil && m.Name == "" {
		err = fmt.Errorf("%w: %s", errUnseen, at)
	}
	if err != nil {
		return public, true, err
	}
	public, err = udp.ParsePublic(m.Name)
	return public, true, err
}

// public finds the public address of b: what a relay's node says through its channel, else what the rendezvous server says, which somebody on
// the way could forge.
func (n *Node) public(ctx context.Context, b *udp.Bind, ways ...*connection) (netip.AddrPort, error) {
	var failed error
	for _, c := range ways {
		public, asked, err := n.publicBy(ctx, c, b)
		if asked && err == nil {
			return public, nil
		}
		failed = errors.Join(failed, err)
	}
	if failed != nil && n.opts.UDP.Rendezvous != "" {
		n.log.Warn("a node that knows the public address could not be asked for it; asking the rendezvous server", "reason", failed.Error())
	}
	at, err := n.rendezvous(ctx)
	if err != nil {
		return netip.AddrPort{}, errors.Join(failed, err)
	}
	return b.PublicAddress(ctx, at...)
}

// relayWays returns the connections to the relays that this node is registered at.
func (n *Node) relayWays() (list []*connection) {
	for _, i := range n.relays.List() {
		if !i.IsOpen || i.Status.State == resource.Down {
			continue
		}
		if up, c, _ := i.Value.session.state(); up {
			list = append(list, c)
		}
	}
	return list
}
