package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/node/table"
	"sallyport/routing"
	"sallyport/routing/bare"
	"sallyport/routing/control"
	"sallyport/routing/multiaddr"
)

var errRelayRefused = errors.New("the relay did not answer: it refuses the name, or its service cannot be reached")

// ErrRelayDenied reports a relay that refuses a name for good.
var ErrRelayDenied = errors.New("the relay refuses")

// relay is a name registered at another node, and the session that keeps it.
type relay struct {
	session *session
	member  routing.MemberID
	request atomic.Pointer[resource.Relay]

	mu     sync.Mutex
	remote string // address of the relay's worker there

	lanes relayLanes
}

// relayTimeout is how long a registration waits for its answer (docs/protocol/03 §3.2).
const relayTimeout = 10 * time.Second

func addRelays(n *Node) {
	n.relays = table.Add(n.set, table.Kind[resource.Relay, *relay]{
		Name: resource.KindRelay, Noun: "relay", Path: admin.PathRelays, After: []string{resource.KindOutlet}, Ends: true,
		Key: func(r *resource.Relay) *string { return &r.Name },
		Check: func(_ context.Context, r *resource.Relay, _ func(string) bool) error {
			if r.Name == "" {
				r.Name = "default"
			}
			if _, err := multiaddr.Parse(r.At); err != nil {
				return fmt.Errorf("%w: --at: %w", admin.ErrInvalid, err)
			}
			return checkGroup(r)
		},
		InPlace: []string{"rule", "share", "priority"},
		Update: func(_ context.Context, rel *relay, from, to *resource.Relay) error {
			rel.request.Store(to)
			if isGroup(from) != isGroup(to) {
				rel.session.renew() // it registers in another way
			}
			return nil
		},
		Open:     n.relayOpener(retryMax),
		Close:    func(_ context.Context, rel *relay) error { rel.lanes.stop(); rel.session.stop(); return nil },
		Status:   func(rel *relay) resource.Status { return rel.session.status() },
		Describe: func(i table.Item[resource.Relay, *relay]) any { return relayOf(i) },
		Show: func(ctx context.Context, i table.Item[resource.Relay, *relay]) any {
			d := relayOf(i)
			if i.IsOpen {
				d.Members = n.sharers(ctx, i.Value, relayNameOf(&i.Request))
			}
			return d
		},
		Created: func(ctx context.Context, i table.Item[resource.Relay, *relay]) error {
			return i.Value.wait(ctx, i.Request)
		},
	})
}

// relayOpener returns what starts to register a name, and to keep it registered. longest is the longest pause between attempts.
func (n *Node) relayOpener(longest time.Duration) func(context.Context, *table.Opening[resource.Relay]) (*relay, error) {
	return func(ctx context.Context, o *table.Opening[resource.Relay]) (*relay, error) {
		return n.openRelay(ctx, o, longest, nil)
	}
}

// openRelay does so at one of the project's nodes if access is set, which is its route; else at the first in order of those that can be reached.
func (n *Node) openRelay(ctx context.Context, o *table.Opening[resource.Relay], longest time.Duration, access multiaddr.Addr) (*relay, error) {
	r := o.Request
	at, err := multiaddr.Parse(r.At)
	if err != nil {
		return nil, fmt.Errorf("%w: --at: %w", admin.ErrInvalid, err)
	}
	options, err := n.connectOptions(ctx, "", r.Authorized)
	if err != nil {
		return nil, err
	}
	rel := &relay{member: n.memberID(r.Name)}
	rel.request.Store(&r)
	wanted := relayNameOf(&r)
	options.name, options.access, options.whole = wanted, access, true
	rel.session = &session{
		log: n.log.With("relay", r.Name), router: n.router, back: o.Again, longest: longest,
		connect: func(ctx context.Context) (*connection, error) { return n.connect(ctx, at, options) },
		up:      func(ctx context.Context, c *connection) error { return n.register(ctx, rel, c, wanted) },
		down:    func() {}, spoken: true,
		check: func(ctx context.Context, c *connection) error { return n.checkName(ctx, c, wanted) },
	}
	rel.session.start(n.ctx)
	return rel, nil
}

// relayNameOf is the name that is registered.
func relayNameOf(r *resource.Relay) string {
	if r.RelayAddress != "" {
		return r.RelayAddress
	}
	return r.Name
}

// wait waits for the first attempt, unless the request says otherwise.
func (rel *relay) wait(ctx context.Context, r resource.Relay) error {
	if r.NoConnectionWait {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	rel.session.first(ctx)
	return nil
}

// register asks the relay service at the end of c for a name (docs/protocol/03 §3.2).
func (n *Node) register(ctx context.Context, rel *relay, c *connection, name string) error {
	ctx, cancel := context.WithTimeout(ctx, relayTimeout)
	defer cancel()
	if isGroup(rel.request.Load()) {
		now := n.load()
		err := n.registerMember(ctx, rel, c, name, now)
		if err == nil {
			rel.setRemote(routing.RelayPrefix + name)
			go n.tellLoad(rel, c, name, now)
			return nil
		}
		if !errors.Is(err, errNoGroups) {
			return err
		}
		rel.session.log.Warn("this node is alone under its name", "reason", err.Error())
	}
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
		if n, ok := routing.ParseNotice(reply.Payload); ok {
			return fmt.Errorf("%w: %s", ErrRelayDenied, n.Kind)
		}
		text, _, err := bare.Bytes(reply.Payload)
		if err != nil || reply.Return.Len() == 0 || !strings.HasSuffix(string(text), name) {
			continue
		}
		remote := reply.Return.Last()
		if remote.Type != routing.Local {
			continue
		}
		rel.setRemote(remote.Value)
		return nil
	}
}

func (rel *relay) setRemote(address string) {
	rel.mu.Lock()
	defer rel.mu.Unlock()
	rel.remote = address
}

// errNameLost ends a path whose name is not registered any more.
var errNameLost = errors.New("the relay does not have the name any more")

// checkTimeout is how long an answer to a check may take.
const checkTimeout = 5 * time.Second

// checkName looks whether a name is still registered by what c leads through. A relay of ours says so; through one of the reference a message is sent to
// this node by the name, and comes back if it is there and leads here.
func (n *Node) checkName(ctx context.Context, c *connection, name string) error {
	if len(c.channels) > 0 && c.control != noControl {
		asking, cancel := context.WithTimeout(ctx, checkTimeout)
		m, err := n.askNode(asking, c, control.OpHeld, control.Fields{Name: name})
		cancel()
		if err == nil {
			c.control = hasControl
		}
		switch {
		case err == nil && m.Code == uint64(control.StatusAbsent):
			return errNameLost
		case err == nil || c.control == hasControl:
			return nil // it is there, or nobody can say now
		}
		c.control = noControl
	}
	box, err := n.router.OpenMailbox(ctx, c.route)
	if err != nil {
		return nil
	}
	defer box.Close()
	to := c.route.Concat(routing.LocalRoute(routing.RelayPrefix+name), routing.NewRoute(box.Address()))
	for range 2 {
		box.Send(to, []byte(name))
		asking, cancel := context.WithTimeout(ctx, checkTimeout)
		reply, err := box.Receive(asking)
		cancel()
		if err == nil && string(reply.Payload) == name {
			c.strays = 0
			return nil
		}
	}
	// Somebody else may hold the name: where the last one wins, two would take it from each other for ever.
	if c.strays++; c.strays < 2 {
		return nil
	}
	return errNameLost
}

// relayOf is what lists show of a relay.
func relayOf(i table.Item[resource.Relay, *relay]) admin.Relay {
	d := admin.Relay{
		ConnectionStatus: "Down", Destination: i.Request.At, Name: i.Request.Name, State: i.Status, Rule: i.Request.Rule, Share: i.Request.Share, Priority: i.Request.Priority,
	}
	if i.Status.Reason != "" {
		d.LastFailure = &i.Status.Reason
	}
	if !i.IsOpen {
		return d
	}
	rel := i.Value
	if up, c, _ := rel.session.state(); up {
		rel.mu.Lock()
		remote := rel.remote
		rel.mu.Unlock()
		route := c.route.Concat(routing.LocalRoute(remote)).String()
		worker, flow := c.route.First().String(), c.flow.ID()
		d.ConnectionStatus, d.ForwardingRoute, d.RemoteAddress, d.WorkerAddress, d.Flow = "Up", &route, &remote, &worker, &flow
	}
	return d
}

// CreateRelay registers a relay and keeps it registered.
func (n *Node) CreateRelay(ctx context.Context, r resource.Relay) (admin.Relay, error) {
	i, err := n.relays.Create(ctx, r)
	if err != nil {
		return admin.Relay{}, err
	}
	err = i.Value.wait(ctx, i.Request)
	i, _ = n.relays.Get(i.Request.Name)
	return relayOf(i), err
}

// DeleteRelay gives a relay up.
func (n *Node) DeleteRelay(ctx context.Context, name string) error { return n.relays.Delete(ctx, name) }

// Relays lists the relays by name.
func (n *Node) Relays() []admin.Relay { return each(n.relays.List(), relayOf) }
