package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"sallyport/crypto/identity"
	"sallyport/names"
	"sallyport/routing"
	"sallyport/routing/multiaddr"
	"sallyport/routing/secure"
	"sallyport/routing/tcp"
	"sallyport/routing/udp"
)

var (
	errTwoTransports = errors.New("a route may hold one transport connection")
	errUnsupported   = errors.New("not supported here")
)

// connectOptions say how the secure channels of a connection are made.
type connectOptions struct {
	// self is who this side is.
	self identity.Identifier
	// authorized are the identities accepted behind the last /secure; empty accepts everybody.
	authorized []identity.Identifier
	// pin, if set, says who is expected there.
	pin *pin
	// credential, if set, replaces the node's own credential source.
	credential func(context.Context) ([]byte, error)
	// noCredential presents none.
	noCredential bool
	// access, if set, is the one of the project's nodes that is used, by its route. name is what decides which one is tried first: a relay's name, so that
	// who registers it and who looks for it come to the same node; empty for what the route says.
	access multiaddr.Addr
	name   string
	// project, if set, is the one that the route begins with.
	project *Project
	// whole: the route leads to the other node itself, and the worker there is named later; else its last hop is that worker.
	whole bool
	// spread decides in which order the addresses of a host's name are tried; empty: as the resolver says.
	spread string
}

// connection is what was opened to follow a multiaddr: at most one TCP connection or UDP socket, and channels over it.
type connection struct {
	// route leads from this node to the last worker named.
	route routing.Route
	// whole is that of connectOptions.
	whole bool
	// flows are the flows of what was opened, outermost last: what may reach this node through the connection.
	flow     *routing.Flow
	tcp      *tcp.Connection
	losses   lossWatch // of tcp
	udp      *udp.Bind
	puncture *udp.Puncture // that the channel was moved onto
	channels []*secure.Channel
	// authority is the authority of the project that the route begins with, if it does.
	authority *identity.Identifier
	// project is the identity of that project's node, expects who the project says may be behind it; empty for anybody.
	project *identity.Identifier
	expects []identity.Identifier

	// access is the route of the project's node that the connection leads through, if it has several.
	access multiaddr.Addr

	// relay leads to a relay's node through a channel, and name is the relay's there that the innermost channel was opened through; empty
	// if that is not how it was.
	relay routing.Route
	name  string
	// control tells whether the node behind it has a control service, as far as is known, strays how often a message by its relay name did not come
	// back. For the session's check.
	control controlKnown
	strays  int
	// unseeing tells that the first node of the way does not say from where datagrams come.
	unseeing atomic.Bool

	router *routing.Router
	once   sync.Once
	closed chan struct{}
}

// controlKnown is what is known of a node's control service.
type controlKnown uint8

const (
	maybeControl controlKnown = iota
	hasControl
	noControl
)

// done is closed when the connection cannot be used any more.
func (c *connection) done() <-chan struct{} {
	if k := len(c.channels); k > 0 {
		return c.channels[k-1].Done()
	}
	if c.tcp != nil {
		return c.tcp.Done()
	}
	if c.udp != nil {
		return c.udp.Done()
	}
	return c.closed
}

// severed reports whether the machine at the other end of a connection that leads through no other node has closed it. When it is done.
func (c *connection) severed() bool {
	// If the channel was closed in so many words, what it ran on is still there.
	return c.tcp != nil && len(c.channels) == 1 && c.tcp.Severed()
}

// close ends what was opened, innermost first.
func (c *connection) close() {
	c.once.Do(func() {
		close(c.closed)
		if c.flow != nil {
			for _, name := range reachableOutgoing {
				c.router.RemoveConsumer(name, c.flow)
			}
		}
	})
	for i := len(c.channels) - 1; i >= 0; i-- {
		c.channels[i].Close()
	}
	if c.tcp != nil {
		c.tcp.Close()
	}
	if c.udp != nil {
		c.udp.Close()
	}
	if c.puncture != nil {
		c.puncture.Close()
	}
}

// owns reports whether what the connection goes over ends with it. It does not where the route begins with a worker that was there.
func (c *connection) owns() bool { return c.tcp != nil || c.udp != nil || len(c.channels) > 0 }

// pingRoute is the route to the node behind the connection: all hops before the final service, and that one only if it is
// the way out itself (docs/protocol/03 §2.3) or no service is named yet.
func (c *connection) pingRoute() routing.Route {
	if c.whole {
		return c.route
	}
	last := c.route.Last().Value
	for _, ch := range c.channels {
		if ch.Encryptor.Text() == last {
			return c.route
		}
	}
	if c.tcp != nil && c.tcp.Sender.Text() == last || c.udp != nil && c.udp.Sender.Text() == last {
		return c.route
	}
	return c.route.WithoutLast()
}

// connect follows a multiaddr: it opens what it names, from left to right, and returns the route that is left
// (docs/protocol/01 §4.5, 03 §4.2).
func (n *Node) connect(ctx context.Context, to multiaddr.Addr, o connectOptions) (*connection, error) {
	return n.eachAccess(ctx, to, o, func(ctx context.Context, o connectOptions) (*connection, error) { return n.connectAt(ctx, to, o) })
}

// connectAt is connect through one of the project's nodes.
func (n *Node) connectAt(ctx context.Context, to multiaddr.Addr, o connectOptions) (*connection, error) {
	open := func(ctx context.Context, to multiaddr.Addr) (*connection, error) { return n.connectOnce(ctx, to, o) }
	if !slices.ContainsFunc(to, func(v multiaddr.Value) bool { return v.Protocol == multiaddr.Secure }) {
		return open(ctx, to)
	}
	return eachAddress(ctx, to, open)
}

// eachAddress opens a route with a channel. Over UDP nobody says that nobody is there, so the channel's handshake tells which address of a
// name is the right one: each gets an attempt of its own.
func eachAddress(ctx context.Context, to multiaddr.Addr, open func(context.Context, multiaddr.Addr) (*connection, error)) (*connection, error) {
	network, hostport, at, ok := to.HostPort()
	if !ok || network != multiaddr.UDP.String() {
		return open(ctx, to) // a TCP connection is either there or not
	}
	list, err := names.LookupIPv4(ctx, hostport)
	if err != nil || len(list) == 1 {
		return open(ctx, to)
	}
	return names.Race(ctx, list, func(ctx context.Context, a netip.AddrPort) (*connection, error) {
		one := slices.Clone(to)
		one[at] = multiaddr.Value{Protocol: multiaddr.IP4, Text: a.Addr().String()}
		return open(ctx, one)
	}, (*connection).close)
}

// connectOnce is connect over one address of a name that is reached over UDP.
func (n *Node) connectOnce(ctx context.Context, to multiaddr.Addr, o connectOptions) (_ *connection, err error) {
	c := &connection{router: n.router, whole: o.whole, closed: make(chan struct{})}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if err := n.follow(ctx, c, to, o); err != nil {
		return nil, err
	}
	if c.route.Len() == 0 {
		return nil, fmt.Errorf("%s: the route is empty", to)
	}
	if err := n.reachable(ctx, c); err != nil {
		return nil, err
	}
	return c, nil
}

// reachable lets the peer reach what it may through a connection that this node opened.
func (n *Node) reachable(ctx context.Context, c *connection) error {
	for _, name := range reachableOutgoing {
		if err := n.router.AddConsumer(ctx, name, c.flow); err != nil {
			return err
		}
	}
	return nil
}

// follow opens the pieces of a multiaddr one after the other.
func (n *Node) follow(ctx context.Context, c *connection, to multiaddr.Addr, o connectOptions) error {
	last := len(to) - 1
	for last >= 0 && to[last].Protocol != multiaddr.Secure {
		last--
	}
	between := o // whom the channels in between lead to is not what is asked for
	between.authorized, between.pin = nil, nil
	for i := 0; i < len(to); i++ {
		piece := to[i]
		o := o
		if i != last {
			o = between
		}
		switch piece.Protocol {
		case multiaddr.Project:
			if err := n.openProject(ctx, c, piece.Text, o); err != nil {
				return fmt.Errorf("project %s: %w", piece.Text, err)
			}
		case multiaddr.IP4, multiaddr.IP6, multiaddr.DNSAddr:
			parts := 2
			if s, k := to[i:].Stream(); k > 0 {
				if err := n.openStream(ctx, c, s, o.spread); err != nil {
					return err
				}
				parts = k
			} else if i+1 < len(to) && to[i+1].Protocol == multiaddr.UDP {
				if err := n.openUDP(ctx, c, to[i:i+2]); err != nil {
					return err
				}
			} else {
				return fmt.Errorf("%s: %w: only /tcp and /udp may follow a host", to, errUnsupported)
			}
			i += parts - 1
		case multiaddr.Secure:
			if err := n.openChannel(ctx, c, piece.Text, o, o.authorized); err != nil {
				return fmt.Errorf("secure channel to %s: %w", to[:i+1], err)
			}
		case multiaddr.Service, multiaddr.Worker:
			c.route = c.route.Concat(routing.LocalRoute(piece.Text))
		default:
			return fmt.Errorf("%s: %w: /%s has to be resolved first", to, errUnsupported, piece.Protocol)
		}
	}
	return nil
}

// reachableOutgoing are the services that can be reached through a connection this node opened (docs/protocol/01 §5.4).
var reachableOutgoing = []string{routing.ChannelService, routing.KeyService, routing.UppercaseService, routing.EchoService}

func (n *Node) openStream(ctx context.Context, c *connection, s multiaddr.Stream, spread string) error {
	if c.tcp != nil || c.udp != nil {
		return fmt.Errorf("%s: %w", s, errTwoTransports)
	}
	to := addressOf(s)
	to.Spread = spread
	conn, err := n.tcp.Dial(ctx, to)
	if err != nil {
		return err
	}
	gotOn(ctx)
	c.tcp = conn
	c.flow = c.tcp.Flow
	c.route = c.route.Concat(routing.NewRoute(c.tcp.Sender.Address()))
	return nil
}

// addressOf is where a stream transport of a multiaddr leads.
func addressOf(s multiaddr.Stream) tcp.Address {
	return tcp.Address{Layer: tcp.Layer(s.Layer), HostPort: s.HostPort, Name: s.Name, Path: s.Path}
}

// openChannel opens a channel to the listener `name` at the end of the route so far; the channel replaces that route.
func (n *Node) openChannel(ctx context.Context, c *connection, name string, o connectOptions, authorized []identity.Identifier) error {
	opts := n.channelOptions(o.self, authorized)
	if o.pin != nil {
		opts.Known = func(peer identity.Identifier) error { return o.pin.check(peer, c.expects) }
	}
	if o.credential != nil {
		opts.Credential = o.credential
	}
	if o.noCredential {
		opts.Credential = nil
	}
	ch, err := n.dialChannel(ctx, c, c.route.Concat(routing.LocalRoute(name)), opts)
	if err != nil {
		return err
	}
	gotOn(ctx)
	c.relay, c.name = c.relayAt()
	c.channels = append(c.channels, ch)
	c.flow = ch.Flow
	c.route = routing.RouteOf(ch.Encryptor)
	return nil
}

// openProject connects to a project's node and opens a channel that only the project's identity can answer.
func (n *Node) openProject(ctx context.Context, c *connection, name string, o connectOptions) error {
	p := o.project
	if p == nil {
		var err error
		if p, err = n.project(ctx, name); err != nil {
			return err
		}
	}
	route := p.Route
	if o.access != nil {
		route, c.access = o.access, o.access
	}
	if len(route) == 0 {
		return errors.New("the project has no access route")
	}
	last := route[len(route)-1]
	if last.Protocol != multiaddr.Service && last.Protocol != multiaddr.Secure {
		return fmt.Errorf("access route %s does not end in a secure channel listener", route)
	}
	if err := n.follow(ctx, c, route[:len(route)-1], o); err != nil {
		return err
	}
	n.projectNodes.Store(p.Identifier, struct{}{})
	if err := n.openChannel(ctx, c, last.Text, o, []identity.Identifier{p.Identifier}); err != nil {
		return err
	}
	id := p.Identifier
	c.project, c.authority, c.expects = &id, p.Authority, p.Expects
	n.learnRoutes(name, c)
	return nil
}
