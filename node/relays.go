package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"sallyport/node/admin"
	"sallyport/routing"
	"sallyport/routing/bare"
	"sallyport/routing/multiaddr"
)

var errRelayRefused = errors.New("the relay did not answer: it refuses the name, or its service cannot be reached")

// relay is a name registered at another node, and the session that keeps it.
type relay struct {
	owner   string // the Kafka inlet that publishes its consumers with it, and creates it again when it is needed
	request admin.RelayRequest
	at      multiaddr.Addr
	session *session

	mu     sync.Mutex
	remote string // address of the relay's worker there
}

// relayTimeout is how long a registration waits for its answer (docs/protocol/03 §3.2).
const relayTimeout = 10 * time.Second

// CreateRelay registers a relay and keeps it registered.
func (n *Node) CreateRelay(ctx context.Context, r admin.RelayRequest) (admin.Relay, error) {
	rel, err := n.startRelay(ctx, r)
	if err != nil {
		return admin.Relay{}, err
	}
	if !r.NoConnectionWait {
		waiting, cancel := context.WithTimeout(ctx, attemptTimeout)
		defer cancel()
		rel.session.first(waiting)
	}
	return rel.describe(), nil
}

func (n *Node) startRelay(ctx context.Context, r admin.RelayRequest) (*relay, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.openRelay(ctx, r, "")
}

// openRelay starts a relay that may belong to a Kafka inlet. n.mu is held.
func (n *Node) openRelay(ctx context.Context, r admin.RelayRequest, owner string) (*relay, error) {
	if r.Name == "" {
		r.Name = "default"
	}
	if n.relays[r.Name] != nil {
		return nil, fmt.Errorf("%w: a relay with the name '%s'", admin.ErrExists, r.Name)
	}
	at, err := multiaddr.Parse(r.At)
	if err != nil {
		return nil, fmt.Errorf("%w: --at: %w", admin.ErrInvalid, err)
	}
	options, err := n.connectOptions(ctx, "", r.Authorized)
	if err != nil {
		return nil, err
	}
	rel := &relay{owner: owner, request: r, at: at}
	wanted := r.Name
	if r.RelayAddress != "" {
		wanted = r.RelayAddress
	}
	rel.session = &session{
		log: n.log.With("relay", r.Name), router: n.router, back: n.restoring,
		connect: func(ctx context.Context) (*connection, error) { return n.connect(ctx, at, options) },
		up:      func(ctx context.Context, c *connection) error { return n.register(ctx, rel, c, wanted) },
		down:    func() {},
	}
	if owner != "" {
		rel.session.longest = consumerRetryMax
	}
	n.relays[r.Name] = rel
	rel.session.start(n.ctx)
	return rel, n.save()
}

// register asks the relay service at the end of c for a name (docs/protocol/03 §3.2).
func (n *Node) register(ctx context.Context, rel *relay, c *connection, name string) error {
	ctx, cancel := context.WithTimeout(ctx, relayTimeout)
	defer cancel()
	box, err := n.router.OpenMailbox(ctx, c.route)
	if err != nil {
		return err
	}
	defer box.Close()
	box.Send(c.route.Concat(routing.LocalRoute(routing.StaticRelayService)), bare.AppendString(nil, name))
	for {
		reply, err := box.Receive(ctx)
		if err != nil {
			return errRelayRefused
		}
		text, _, err := bare.Bytes(reply.Payload)
		if err != nil || reply.Return.Len() == 0 || !strings.HasSuffix(string(text), name) {
			continue
		}
		remote := reply.Return.Last()
		if remote.Type != routing.Local {
			continue
		}
		rel.mu.Lock()
		rel.remote = remote.Value
		rel.mu.Unlock()
		return nil
	}
}

func (rel *relay) describe() admin.Relay {
	up, c, failure := rel.session.state()
	d := admin.Relay{ConnectionStatus: "Down", Destination: rel.at.String(), Name: rel.request.Name}
	if up {
		rel.mu.Lock()
		remote := rel.remote
		rel.mu.Unlock()
		route := c.route.Concat(routing.LocalRoute(remote)).String()
		worker, flow := c.route.First().String(), c.flow.ID()
		d.ConnectionStatus, d.ForwardingRoute, d.RemoteAddress, d.WorkerAddress, d.Flow = "Up", &route, &remote, &worker, &flow
	} else if failure != nil {
		text := failure.Error()
		d.LastFailure = &text
	}
	return d
}

// DeleteRelay gives a relay up.
func (n *Node) DeleteRelay(_ context.Context, name string) error {
	n.mu.Lock()
	rel := n.relays[name]
	delete(n.relays, name)
	if rel == nil && n.lost.forgetRelay(name) {
		defer n.mu.Unlock()
		return n.save()
	}
	n.mu.Unlock()
	if rel == nil {
		return fmt.Errorf("%w: no relay %q", admin.ErrNotFound, name)
	}
	rel.session.stop()
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.save()
}

// Relays lists the relays by name.
func (n *Node) Relays() []admin.Relay {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := make([]admin.Relay, 0, len(n.relays))
	for _, name := range sortedKeys(n.relays) {
		list = append(list, n.relays[name].describe())
	}
	return list
}
