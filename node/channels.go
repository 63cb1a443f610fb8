package node

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"sallyport/crypto/identity"
	"sallyport/node/admin"
	"sallyport/routing/multiaddr"
	"sallyport/routing/secure"
	"sallyport/routing/tcp"
)

// connectListener follows a route that ends in a secure channel listener, /service/api or /secure/api, and opens a channel to
// it.
func (n *Node) connectListener(ctx context.Context, to multiaddr.Addr, o connectOptions) (*connection, error) {
	if len(to) == 0 {
		return nil, fmt.Errorf("%w: the route is empty", admin.ErrInvalid)
	}
	last := to[len(to)-1]
	if last.Protocol != multiaddr.Service && last.Protocol != multiaddr.Secure {
		return nil, fmt.Errorf("%w: the route %s must end in /service/NAME or /secure/NAME of a secure channel listener", admin.ErrInvalid, to)
	}
	return n.eachAccess(ctx, to, o, func(ctx context.Context, o connectOptions) (*connection, error) {
		return n.connectListenerAt(ctx, to, last.Text, o)
	})
}

// connectListenerAt is connectListener through one of the project's nodes.
func (n *Node) connectListenerAt(ctx context.Context, to multiaddr.Addr, listener string, o connectOptions) (*connection, error) {
	return eachAddress(ctx, to, func(ctx context.Context, to multiaddr.Addr) (*connection, error) {
		c := &connection{router: n.router, closed: make(chan struct{})}
		err := n.follow(ctx, c, to[:len(to)-1], o)
		if err == nil {
			err = n.openChannel(ctx, c, listener, o, o.authorized)
		}
		if err != nil {
			c.close()
			return nil, err
		}
		return c, nil
	})
}

// CreateChannel opens a secure channel to a listener; it stays until DeleteChannel or until it breaks.
func (n *Node) CreateChannel(ctx context.Context, r admin.ChannelRequest) (admin.Channel, error) {
	to, err := multiaddr.Parse(r.To)
	if err != nil {
		return admin.Channel{}, fmt.Errorf("%w: --to: %w", admin.ErrInvalid, err)
	}
	o, err := n.connectOptions(ctx, r.Identity, "")
	if err != nil {
		return admin.Channel{}, err
	}
	for _, text := range r.Authorized {
		id, err := identity.ParseIdentifier(text)
		if err != nil {
			return admin.Channel{}, fmt.Errorf("%w: --authorized: %w", admin.ErrInvalid, err)
		}
		o.authorized = append(o.authorized, id)
	}
	if r.Credential != "" {
		raw, err := hex.DecodeString(r.Credential)
		if err != nil {
			return admin.Channel{}, fmt.Errorf("%w: --credential must be hex: %w", admin.ErrInvalid, err)
		}
		o.credential = func(context.Context) ([]byte, error) { return raw, nil }
	}
	if r.TimeoutMS > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(r.TimeoutMS)*time.Millisecond)
		defer cancel()
	}
	c, err := n.connectListener(ctx, to, o)
	if err != nil {
		return admin.Channel{}, err
	}
	ch := c.channels[len(c.channels)-1]
	for _, name := range reachableOutgoing {
		if err := n.router.AddConsumer(ctx, name, c.flow); err != nil {
			return admin.Channel{}, err
		}
	}
	n.mu.Lock()
	n.dialed[ch.Encryptor.Text()] = c
	n.mu.Unlock()
	go func() {
		<-ch.Done()
		c.close()
		n.mu.Lock()
		delete(n.dialed, ch.Encryptor.Text())
		n.mu.Unlock()
	}()
	return n.describeChannel(ctx, ch, r.Authorized), nil
}

func (n *Node) describeChannel(ctx context.Context, ch *secure.Channel, authorized []string) admin.Channel {
	var route string // to the listener, as it was asked for
	_ = ch.Shard().Do(ctx, func() {
		for _, a := range ch.Remote().WithoutLast().Addresses() {
			route += "/service/" + a.Value
		}
	})
	if ch.Listener != "" {
		route += "/service/" + ch.Listener
	}
	history := ch.Identity.Hex()
	return admin.Channel{
		Address: "/service/" + ch.Encryptor.Text(), Route: route, Authorized: authorized, Flow: ch.Flow.ID(),
		Their: identity.Identifier(ch.Peer.ID).String(), TheirHistory: &history,
	}
}

// Channels lists the secure channels this node opened.
func (n *Node) Channels(ctx context.Context) []admin.Channel {
	list := []admin.Channel{}
	for _, ch := range n.channels.List() {
		if ch.Initiator {
			list = append(list, n.describeChannel(ctx, ch, nil))
		}
	}
	return list
}

// Channel returns one secure channel by its encryptor address.
func (n *Node) Channel(ctx context.Context, address string) (admin.Channel, error) {
	ch := n.channels.Find(address)
	if ch == nil {
		return admin.Channel{}, fmt.Errorf("%w: no secure channel with the address %q", admin.ErrNotFound, address)
	}
	return n.describeChannel(ctx, ch, nil), nil
}

// DeleteChannel closes a secure channel.
func (n *Node) DeleteChannel(_ context.Context, address string) error {
	ch := n.channels.Find(address)
	if ch == nil {
		return fmt.Errorf("%w: no secure channel with the address %q", admin.ErrNotFound, address)
	}
	ch.Close()
	return nil
}

// SendMessage sends a message along a multiaddr and waits for the answer.
func (n *Node) SendMessage(ctx context.Context, r admin.MessageRequest) (admin.MessageReply, error) {
	to, err := multiaddr.Parse(r.To)
	if err != nil {
		return admin.MessageReply{}, fmt.Errorf("%w: --to: %w", admin.ErrInvalid, err)
	}
	o, err := n.connectOptions(ctx, r.Identity, "")
	if err != nil {
		return admin.MessageReply{}, err
	}
	if r.TimeoutMS > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(r.TimeoutMS)*time.Millisecond)
		defer cancel()
	}
	c, err := n.connect(ctx, to, o)
	if err != nil {
		return admin.MessageReply{}, err
	}
	defer c.close()
	reply, err := n.router.Request(ctx, c.route, r.Payload)
	if err != nil {
		return admin.MessageReply{}, fmt.Errorf("no answer from %s in time", to)
	}
	return admin.MessageReply{Payload: reply.Payload}, nil
}

// CreateTCPConnection opens a TCP connection to another node; it stays until it is deleted or lost.
func (n *Node) CreateTCPConnection(ctx context.Context, r admin.TransportRequest) (admin.Transport, error) {
	to := tcp.Address{HostPort: r.Address}
	if strings.Contains(r.Address, "://") {
		s, err := multiaddr.ParseStream(r.Address)
		if err != nil {
			return admin.Transport{}, fmt.Errorf("%w: the address %w", admin.ErrInvalid, err)
		}
		to = addressOf(s)
	}
	c, err := n.tcp.Dial(ctx, to)
	if err != nil {
		return admin.Transport{}, err
	}
	for _, name := range reachableOutgoing {
		if err := n.router.AddConsumer(ctx, name, c.Flow); err != nil {
			return admin.Transport{}, err
		}
	}
	go func() {
		<-c.Done()
		for _, name := range reachableOutgoing {
			n.router.RemoveConsumer(name, c.Flow)
		}
	}()
	return describeTCPConnection(c), nil
}

func describeTCPConnection(c *tcp.Connection) admin.Transport {
	mode := "Incoming"
	if c.Outgoing {
		mode = "Outgoing"
	}
	return admin.Transport{Type: transportType(c.Layer), Mode: mode, Socket: c.PeerText(), Worker: "0#" + c.Sender.Text(), Processor: "0#" + c.Receiver.Text(), Flow: c.Flow.ID()}
}

// TCPConnections lists the TCP connections to and from other nodes.
func (n *Node) TCPConnections() []admin.Transport {
	byAddress := map[string]admin.Transport{}
	for _, c := range n.tcp.Connections() {
		byAddress[c.PeerText()+c.Sender.Text()] = describeTCPConnection(c)
	}
	list := make([]admin.Transport, 0, len(byAddress))
	for _, k := range sortedKeys(byAddress) {
		list = append(list, byAddress[k])
	}
	return list
}

// DeleteTCPConnection closes a TCP connection, named by its socket or worker address.
func (n *Node) DeleteTCPConnection(_ context.Context, address string) error {
	for _, c := range n.tcp.Connections() {
		if c.PeerText() == address || c.Sender.Text() == strings.TrimPrefix(address, "0#") {
			c.Close()
			return nil
		}
	}
	return fmt.Errorf("%w: no TCP connection %q", admin.ErrNotFound, address)
}

// Services lists the services started.
func (n *Node) Services() []admin.Service {
	n.mu.Lock()
	list := append([]admin.Service{}, n.services...)
	n.mu.Unlock()
	for _, more := range n.serviceLists {
		list = append(list, more()...)
	}
	return list
}

// Workers lists the addresses of all workers.
func (n *Node) Workers(ctx context.Context) ([]string, error) { return n.router.Addresses(ctx) }

// AddConsumer makes a worker reachable from a flow.
func (n *Node) AddConsumer(ctx context.Context, r admin.ConsumerRequest) error {
	f := n.router.LookupFlow(r.Flow)
	if f == nil {
		return fmt.Errorf("%w: no flow control with the id %q", admin.ErrNotFound, r.Flow)
	}
	return n.router.AddConsumer(ctx, r.Address, f)
}
