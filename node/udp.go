package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"sallyport/crypto/identity"
	"sallyport/names"
	"sallyport/node/admin"
	"sallyport/routing"
	"sallyport/routing/multiaddr"
	"sallyport/routing/udp"
)

// EnvRendezvous names the environment variable that says where the rendezvous server is (docs/protocol/01 §3.4).
const EnvRendezvous = "OCKAM_RENDEZVOUS_SERVER"

// ErrNoRendezvous reports that a public address is needed and nobody is known who tells it.
var ErrNoRendezvous = errors.New("no rendezvous server is known: start the relay with --udp, or set the environment variable " + EnvRendezvous + " to the HOST:PORT of a `rendezvous create`")

// UDPOptions are a node's options of the UDP transport.
type UDPOptions struct {
	// Listen is where nodes reach this one, host:port; empty leaves UDP to the routes that this node begins. Where its port is 0,
	// ListenBefore is tried first: what the node chose last time.
	Listen, ListenBefore string
	// Rendezvous is the server that tells a node its public address where no relay of ours does, host:port; it may be empty.
	Rendezvous string
	// Transport are the settings of the transport.
	Transport udp.Options
}

// startUDP opens the node's socket, and makes what answers other nodes that want a puncture.
func (n *Node) startUDP(ctx context.Context) error {
	if n.opts.UDP.Listen == "" {
		return nil
	}
	bind := func(ctx context.Context, address string) (*udp.Bind, error) {
		at, err := udpAddresses(ctx, address)
		if err != nil {
			return nil, err
		}
		return n.udp.Bind(ctx, n.router.Shards()[0], at[0], netip.AddrPort{})
	}
	var err error
	if n.mainUDP, err = listenAgain(ctx, n.opts.UDP.Listen, n.opts.UDP.ListenBefore, n.log, bind); err != nil {
		return err
	}
	if err := n.mainUDP.Guard(ctx); err != nil {
		return err
	}
	n.negotiation = n.udp.NewListener(n.ctx, func(ctx context.Context, b *udp.Bind) (netip.AddrPort, error) {
		return n.public(ctx, b, n.relayWays()...)
	})
	if authority := n.authority(); authority != nil {
		// The reference lets everybody who can open a channel make the node send to any address. Whom a portal may serve has a credential.
		n.negotiation.Allow = func(m *routing.Message) bool {
			if m.Peer == nil {
				return false
			}
			_, ok := n.access.attributes(identity.Identifier(m.Peer.ID), *authority)
			return ok
		}
	}
	return nil
}

// udpAddresses returns the addresses of host:port: what it says itself, else those of IPv4 of a name.
func udpAddresses(ctx context.Context, hostport string) ([]netip.AddrPort, error) {
	if at, err := netip.ParseAddrPort(hostport); err == nil {
		return []netip.AddrPort{at}, nil
	}
	return names.LookupIPv4(ctx, hostport)
}

// anyUDP is where a socket is bound that reaches peer.
func anyUDP(peer netip.AddrPort) netip.AddrPort {
	if peer.Addr().Unmap().Is6() {
		return netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
}

// isSix reports whether the transport connection of c is of IPv6.
func (c *connection) isSix() bool {
	return c.tcp != nil && c.tcp.Remote.Addr().Unmap().Is6()
}

// rendezvous finds the rendezvous server.
func (n *Node) rendezvous(ctx context.Context) ([]netip.AddrPort, error) {
	if n.opts.UDP.Rendezvous == "" {
		return nil, ErrNoRendezvous
	}
	at, err := udpAddresses(ctx, n.opts.UDP.Rendezvous)
	if err != nil {
		return at, fmt.Errorf("rendezvous server of %s: %w", EnvRendezvous, err)
	}
	return at, nil
}

// ListeningUDP returns the address of the node's UDP socket, or "".
func (n *Node) ListeningUDP() string {
	if n.mainUDP == nil {
		return ""
	}
	return n.mainUDP.Local.String()
}

// udpTransports describes the node's UDP socket.
func (n *Node) udpTransports() []admin.Transport {
	if n.mainUDP == nil {
		return nil
	}
	b := n.mainUDP
	return []admin.Transport{{Type: "Udp", Mode: "Listen", Socket: b.Local.String(), Worker: "0#" + b.Sender.Text(), Processor: "0#" + b.Receiver.Text(), Flow: b.Flow.ID()}}
}

// openUDP opens a socket for one peer, which takes no packet to do.
func (n *Node) openUDP(ctx context.Context, c *connection, host multiaddr.Addr) error {
	if c.tcp != nil || c.udp != nil {
		return fmt.Errorf("%s: %w", host, errTwoTransports)
	}
	_, hostport, _, ok := host.HostPort()
	if !ok {
		return fmt.Errorf("%s: %w", host, errUnsupported)
	}
	peers, err := udpAddresses(ctx, hostport)
	if err != nil {
		return err
	}
	peer := peers[0] // of several, connect tries all
	if peer.Port() == 0 {
		return fmt.Errorf("%s: %w: the port must not be 0", host, errUnsupported)
	}
	if c.udp, err = n.udp.Bind(ctx, n.router.Shards()[0], anyUDP(peer), peer); err != nil {
		return err
	}
	c.flow = c.udp.Flow
	c.route = c.route.Concat(routing.NewRoute(c.udp.Sender.Address()))
	return nil
}

// errNoMainPath is why there is no puncture: what it is negotiated over is missing.
var errNoMainPath = errors.New("the main path, over which a puncture is negotiated, is down")

// puncture makes a direct path to the node at the end of another one (docs/protocol/03 §1.10): a second secure channel to it, which is
// moved onto UDP. The path ends at the same worker.
func (n *Node) puncture(ctx context.Context, main *connection, o connectOptions) (_ *connection, err error) {
	c := &connection{router: n.router, closed: make(chan struct{}), route: main.pingRoute(), expects: main.expects}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	node := c.route
	if err := n.openChannel(ctx, c, routing.ChannelService, o, o.authorized); err != nil {
		return nil, err
	}
	ch := c.channels[0]
	c.puncture, err = n.udp.Negotiate(ctx, udp.Negotiation{
		Shard: ch.Shard(), Route: node.Concat(routing.LocalRoute(udp.NegotiationService)), Six: main.isSix(),
		Public: func(ctx context.Context, b *udp.Bind) (netip.AddrPort, error) {
			return n.public(ctx, b, append([]*connection{main}, n.relayWays()...)...)
		},
	})
	if err != nil {
		return nil, err
	}
	if err := ch.Move(ctx, routing.RouteOf(c.puncture.Sender)); err != nil {
		return nil, err
	}
	c.route = c.route.Concat(routing.NewRoute(main.route.Last()))
	if err := n.reachable(ctx, c); err != nil {
		return nil, err
	}
	return c, nil
}
