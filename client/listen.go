package client

import (
	"context"
	"errors"
	"net"
	"sync"

	"sallyport/node"
	"sallyport/node/resource"
)

// ListenOptions say who may connect.
type ListenOptions struct {
	// Allow is a policy expression about who connects, as of `tcp-outlet create --allow`; empty: the members of the project.
	Allow string
	// MaxConnections is how many connections there are at most; 0: 1000. One peer gets four in five, of two both.
	MaxConnections int
	// NoRelay registers no name at the project's relay: the service is reached at Options.ListenAddress, and the name is that of the outlet.
	NoRelay bool
}

// Listener takes connections of other members. It implements net.Listener.
type Listener struct {
	c     *Client
	l     *node.Listener
	addr  *Addr
	relay *registered

	once   sync.Once
	ctx    context.Context
	cancel context.CancelFunc
}

// registered is a name at the project's relay, which listeners and workers share.
type registered struct {
	name  string
	users int
	r     *node.Registration
	err   error
	made  chan struct{} // closed when r or err is set
	ended chan struct{} // not nil when nobody uses it any more; closed when the name has been given up
}

// Listen takes connections to a service of this name. It returns when the name is registered at the project's relay, or with why it is not
// when ctx ends. Whoever may use the name is said in tickets (`project ticket --relay NAME`).
func (c *Client) Listen(ctx context.Context, name string) (net.Listener, error) {
	return c.ListenWith(ctx, name, ListenOptions{})
}

// ListenWith is Listen with options.
func (c *Client) ListenWith(ctx context.Context, name string, o ListenOptions) (*Listener, error) {
	relay, outlet, err := c.served(name, o.NoRelay)
	if err != nil {
		return nil, err
	}
	if c.isClosed() {
		return nil, net.ErrClosed
	}
	l := &Listener{c: c, addr: &Addr{Service: name, Identifier: c.Identifier()}}
	l.l, err = c.node.OpenListener(ctx, resource.Outlet{Name: outlet, Allow: o.Allow, MaxConnections: o.MaxConnections, Hold: c.hold()})
	if err != nil {
		return nil, c.ofNode(err)
	}
	l.ctx, l.cancel = context.WithCancel(c.ended)
	if l.relay, err = c.register(ctx, relay); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// served is where a service of this Client is: its relay, empty for none, and its outlet or worker.
func (c *Client) served(name string, noRelay bool) (relay, worker string, err error) {
	if noRelay || c.project == "" {
		_, _, err := split(name + "/" + name)
		return "", name, err
	}
	return split(name)
}

// register makes sure of a name at the project's relay; the empty name is none. It ends with the Client.
func (c *Client) register(ctx context.Context, name string) (r *registered, err error) {
	if name == "" {
		return nil, nil
	}
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.ended, cancel)()
	for {
		r, err = c.registerOnce(waiting, name)
		// Who was first gave up, for a reason of its own: another begins again.
		if r != nil || waiting.Err() != nil || !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
			break
		}
	}
	if err != nil && c.isClosed() {
		err = net.ErrClosed
	}
	return r, err
}

func (c *Client) registerOnce(ctx context.Context, name string) (*registered, error) {
	c.mu.Lock()
	r := c.relays[name]
	for r != nil && r.ended != nil { // the node has the name still
		c.mu.Unlock()
		select {
		case <-r.ended:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		c.mu.Lock()
		r = c.relays[name]
	}
	first := r == nil
	if first {
		r = &registered{name: name, made: make(chan struct{})}
		c.relays[name] = r
	}
	r.users++
	c.mu.Unlock()
	if first {
		r.r, r.err = c.node.Register(ctx, resource.Relay{Name: name, At: "/project/" + c.project})
		if r.err != nil { // nobody else is to wait for it
			c.mu.Lock()
			delete(c.relays, name)
			c.mu.Unlock()
		}
		close(r.made)
	}
	var err error
	select {
	case <-r.made:
		err = r.err
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err == nil {
		err = r.r.Wait(ctx)
	}
	if err != nil {
		c.unregister(r)
		if errors.Is(err, node.ErrRelayDenied) {
			err = &reasonError{ErrDenied, err.Error()}
		}
		return nil, err
	}
	return r, nil
}

// unregister gives a name up when nobody uses it any more.
func (c *Client) unregister(r *registered) {
	if r == nil {
		return
	}
	c.mu.Lock()
	r.users--
	last := r.users == 0 && c.relays[r.name] == r
	if last {
		r.ended = make(chan struct{})
	}
	closed := c.closed
	c.mu.Unlock()
	if !last || closed {
		return
	}
	<-r.made
	if r.r != nil {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		_ = r.r.Close(ctx)
	}
	c.mu.Lock()
	delete(c.relays, r.name)
	c.mu.Unlock()
	close(r.ended)
}

// Accept waits for the next connection, a *Conn.
func (l *Listener) Accept() (net.Conn, error) {
	s, err := l.l.Accept(l.ctx)
	if err != nil {
		return nil, &net.OpError{Op: "accept", Net: Network, Addr: l.addr, Err: net.ErrClosed}
	}
	return l.c.newConn(s, "", l.addr.Service), nil
}

// Addr returns an *Addr.
func (l *Listener) Addr() net.Addr { return l.addr }

// Close ends the listener; connections that were accepted stay, and those that were not are broken off. The name at the project's relay is given up when the last of
// them has ended, since their paths go through it. Close does not wait for them.
func (l *Listener) Close() error {
	var err error
	l.once.Do(func() {
		l.cancel()
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		err = l.l.Close(ctx)
		if l.c.isClosed() {
			err = nil
		}
		select {
		case <-l.l.Drained():
			l.c.unregister(l.relay)
		default:
			go l.unregister()
		}
	})
	return err
}

// unregister gives the name up when nobody goes through it any more. It ends with the Client.
func (l *Listener) unregister() {
	select {
	case <-l.l.Drained():
		l.c.unregister(l.relay)
	case <-l.c.ended.Done():
	}
}
