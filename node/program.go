package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/crypto/identity"
	"sallyport/node/resource"
	"sallyport/node/table"
	"sallyport/policy"
	"sallyport/portal"
	"sallyport/routing"
	"sallyport/routing/multiaddr"
)

// A program that has a node within itself needs no ports: one end of a socket pair is given to an inlet, or is the target of an outlet, and the other
// end is the program's. The data plane, policies, limits and metrics are those of every portal.

// program is where such portals lead to, as lists show it.
const (
	program     = "program:0"
	programPart = "program"
)

// maxAccepting is how many connections wait for Accept.
const maxAccepting = 128

// Stream is the program's end of a portal connection. Who holds it closes it.
type Stream struct {
	Conn *net.UnixConn
	// Peer is the node at the other end, nil over a path without channel.
	Peer *identity.Identifier
	// Client is the address of whom the node at the other end serves, if it says.
	Client netip.AddrPort

	closing *closing // of the node
	dialer  *Dialer  // nil for one that was accepted
	dropped atomic.Bool

	mu     sync.Mutex
	over   bool
	reason portal.Reason
	opened chan struct{}
	ended  chan struct{}
	left   chan struct{} // closed when both ends know that it is over
}

// Ended returns why the connection has ended, when it has: portal.ReasonNone when both directions had finished. It is known before Conn reads
// an end.
func (s *Stream) Ended() (portal.Reason, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reason, s.over
}

// newStream makes the pair. fd is for the portal.
func (n *Node) newStream() (s *Stream, fd int, w *portal.Watch, err error) {
	fd, local, err := localPair()
	if err != nil {
		return nil, -1, nil, err
	}
	s = &Stream{Conn: local, closing: &n.closing, opened: make(chan struct{}), ended: make(chan struct{}), left: make(chan struct{})}
	return s, fd, &portal.Watch{
		Opened: func(peer *[32]byte) {
			if peer != nil {
				id := identity.Identifier(*peer)
				s.Peer = &id
			}
			close(s.opened)
		},
		Ended: func(r portal.Reason) {
			s.mu.Lock()
			s.over, s.reason = true, r
			s.mu.Unlock()
			close(s.ended)
		},
		Left: func() { s.closing.remove(s) },
	}, nil
}

// StreamError says why a portal connection could not be opened.
type StreamError struct {
	Reason portal.Reason
	// Detail is what is known beyond the reason; may be empty.
	Detail string
}

func (e *StreamError) Error() string {
	if e.Detail == "" {
		return e.Reason.String()
	}
	return e.Detail
}

// Dialer opens portal connections to one outlet for this program: it is an inlet without a port.
type Dialer struct {
	n  *Node
	in *inlet
}

// OpenDialer starts to keep a path to an outlet. From of the request is ignored. It does not wait for the path.
func (n *Node) OpenDialer(ctx context.Context, r resource.Inlet) (*Dialer, error) {
	r.From = program
	i, err := n.inlets.CreatePart(ctx, programPart, r, func(ctx context.Context, o *table.Opening[resource.Inlet]) (*inlet, error) {
		return n.openInlet(ctx, o, nil)
	})
	if err != nil {
		return nil, err
	}
	return &Dialer{n: n, in: i.Value}, nil
}

// Dial opens a connection. It waits for the path and for the other end's answer. Errors match *StreamError, or ctx's error.
func (d *Dialer) Dial(ctx context.Context) (*Stream, error) {
	if err := d.heard(ctx); err != nil {
		return nil, err
	}
	s, fd, w, err := d.n.newStream()
	if err != nil {
		return nil, err
	}
	s.dialer = d
	d.in.portal.Give(fd, w)
	doubt := time.AfterFunc(askDoubted, d.in.answer.doubt) // the outlet may have gone since it was asked for
	defer doubt.Stop()
	select {
	case <-s.opened:
		return s, nil
	case <-s.ended:
		select {
		case <-s.opened: // it was opened and has ended since: what it brought can still be read
			return s, nil
		default:
		}
		err = d.failure(s)
	case <-ctx.Done():
		err = d.noPath(ctx.Err())
	}
	_ = s.Conn.Close()
	return nil, err
}

// heard waits until the node at the end of the path has said whether the outlet is there: a connection to one that is not would wait for its answer. A
// node of the reference does not say.
func (d *Dialer) heard(ctx context.Context) error {
	patience := time.NewTimer(d.n.portals.Limits.HoldTimeout)
	defer patience.Stop()
	select {
	case <-d.in.answer.first:
		return nil
	case <-d.n.ctx.Done():
		return &StreamError{Reason: portal.ReasonShutdown}
	case <-patience.C:
		return &StreamError{Reason: portal.ReasonPath, Detail: d.noPath(errors.New(portal.ReasonPath.String())).Error()}
	case <-ctx.Done():
		return d.noPath(ctx.Err())
	}
}

// noPath adds why there is no path, if there is none.
func (d *Dialer) noPath(err error) error {
	if up, _, failed := d.in.path().state(); failed != nil && !up {
		return &noPathError{err, failed}
	}
	return err
}

// noPathError says why a program waits no more, and why there was no path.
type noPathError struct{ err, failed error }

func (e *noPathError) Error() string   { return e.err.Error() + ": " + e.failed.Error() }
func (e *noPathError) Unwrap() []error { return []error{e.err, e.failed} }

// Timeout is as of net.Error: whoever wraps e for the net package is asked that, of no error further in.
func (e *noPathError) Timeout() bool { return errors.Is(e.err, context.DeadlineExceeded) }

// failure says why a connection was not opened.
func (d *Dialer) failure(s *Stream) error {
	reason, _ := s.Ended()
	e := &StreamError{Reason: reason}
	if st := d.in.status(); reason == portal.ReasonRefused && st.Refused {
		e.Detail = st.Reason
		if st.Denied {
			e.Reason = portal.ReasonPolicy
		}
	} else if _, _, failed := d.in.path().state(); failed != nil && reason == portal.ReasonPath {
		e.Detail = failed.Error()
	}
	return e
}

// Status is how the outlet is, as far as is known.
func (d *Dialer) Status() resource.Status { return d.in.status() }

// AwaitClosed waits until those of its connections that the program has closed have ended, or until ctx does: what was written is at the other end then.
func (d *Dialer) AwaitClosed(ctx context.Context) {
	d.n.closing.wait(ctx, func(s *Stream) bool { return s.dialer == d })
}

// Close ends the connections, too.
func (d *Dialer) Close(ctx context.Context) error {
	return d.n.inlets.DeletePart(ctx, d.in.request.Alias)
}

// Listener takes portal connections for this program: it is the target of an outlet.
type Listener struct {
	n       *Node
	name    string
	queue   chan *Stream
	once    sync.Once
	closed  chan struct{}
	mu      sync.Mutex
	open    int           // connections of which something is left, and one more until Close
	drained chan struct{} // closed when there are none
}

// errNoListener is what a connection gets that comes when the listener closes.
var errNoListener = fmt.Errorf("the program does not listen any more: %w", unix.ECONNREFUSED)

// OpenListener starts an outlet whose connections are the program's. To, TLS and all else that is about a target of the request are ignored.
func (n *Node) OpenListener(ctx context.Context, r resource.Outlet) (*Listener, error) {
	r.To = program
	l := &Listener{n: n, queue: make(chan *Stream, maxAccepting), closed: make(chan struct{}), open: 1, drained: make(chan struct{})}
	i, err := n.outlets.CreatePart(ctx, programPart, r, func(ctx context.Context, o *table.Opening[resource.Outlet]) (*outlet, error) {
		return n.openProgramOutlet(ctx, o.Request, l)
	})
	if err != nil {
		return nil, err
	}
	l.name = i.Value.name
	return l, nil
}

func (n *Node) openProgramOutlet(ctx context.Context, r resource.Outlet, l *Listener) (*outlet, error) {
	hold, err := holdOf(r.Hold)
	if err != nil {
		return nil, err
	}
	g, err := n.portalGuard(policy.Own(resource.KindOutlet, r.Name), policy.TCPOutlet, n.authority(), r.Allow)
	if err != nil {
		return nil, err
	}
	o := portal.OutletOptions{Name: r.Name, Target: "this program", Flows: n.outletFlows(), Hold: hold, MaxConnections: r.MaxConnections,
		MaxConnectionsPerMember: r.MaxConnectionsPerMember, Dial: l.take}
	if g != nil {
		o.Guard = g
	}
	out := &outlet{name: r.Name, guard: g, cancel: func() {}, stop: func(context.Context) error { return nil }}
	if out.portal, err = portal.NewOutlet(ctx, n.portals, n.router, o); err != nil {
		g.close()
		return nil, existsError(err)
	}
	return out, nil
}

// take queues a connection for Accept, as an outlet's Dial.
func (l *Listener) take(ctx context.Context, from portal.Origin) (portal.Piped, error) {
	s, fd, w, err := l.n.newStream()
	if err != nil {
		return portal.Piped{}, err
	}
	if s.Client = from.Address; from.Peer != nil {
		id := identity.Identifier(*from.Peer)
		s.Peer = &id
	}
	w.Opened = nil
	if err = errNoListener; l.begin() {
		w.Left = func() {
			s.closing.remove(s)
			l.end()
		}
		select {
		case l.queue <- s:
			select {
			case <-l.closed: // perhaps after Close has looked
				l.drop()
			default:
			}
			return portal.Piped{FD: fd, Broken: s.dropped.Load, Watch: w}, nil
		case <-l.closed:
		case <-l.n.ctx.Done():
		case <-ctx.Done():
			err = ctx.Err()
		}
		l.end()
	}
	return portal.Piped{}, errors.Join(err, s.Conn.Close(), unix.Close(fd))
}

// Accept waits for the next connection. After Close, and when the node has stopped, it is net.ErrClosed.
func (l *Listener) Accept(ctx context.Context) (*Stream, error) {
	select {
	case <-l.closed:
		return nil, net.ErrClosed
	default:
	}
	select {
	case s := <-l.queue:
		return s, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-l.n.ctx.Done():
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// begin counts a connection, unless the listener has closed.
func (l *Listener) begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.closed:
		return false
	default:
	}
	l.open++
	return true
}

// end is for a connection of which nothing is left, and for Close.
func (l *Listener) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open--; l.open == 0 {
		close(l.drained)
	}
}

// drop breaks off what nobody accepts: an end would look like that of a whole stream.
func (l *Listener) drop() {
	for {
		select {
		case s := <-l.queue:
			s.dropped.Store(true)
			_ = s.Conn.Close()
		default:
			return
		}
	}
}

// Close ends the listener; connections that were accepted stay, those that wait are broken off.
func (l *Listener) Close(ctx context.Context) error {
	var err error
	l.once.Do(func() {
		close(l.closed)
		err = l.n.outlets.DeletePart(ctx, l.name)
		l.drop()
		l.end()
	})
	return err
}

// Drained is closed when, after Close, nothing is left of its connections: nobody needs the way to them any more.
func (l *Listener) Drained() <-chan struct{} { return l.drained }

// Registration is a name that a relay has for this node.
type Registration struct {
	n    *Node
	name string
	rel  *relay
}

// Register starts to register a name at a relay, and keeps it registered.
func (n *Node) Register(ctx context.Context, r resource.Relay) (*Registration, error) {
	i, err := n.relays.CreatePart(ctx, programPart, r, n.relayOpener(retryMax))
	if err != nil {
		return nil, err
	}
	return &Registration{n: n, name: i.Request.Name, rel: i.Value}, nil
}

// Wait waits until the name is registered for the first time. When ctx ends before, its error comes with why the name is not.
func (r *Registration) Wait(ctx context.Context) error {
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for {
		r.rel.session.first(ctx)
		up, _, failure := r.rel.session.state()
		switch {
		case up:
			return nil
		case errors.Is(failure, ErrRelayDenied):
			return failure
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return errors.Join(ctx.Err(), failure)
		}
	}
}

// Close gives the name up.
func (r *Registration) Close(ctx context.Context) error { return r.n.relays.DeletePart(ctx, r.name) }

// Path is a way to another node's worker, for messages. It is not made anew when it breaks: Done tells.
type Path struct {
	n *Node
	c *connection
}

// OpenPath follows a multiaddress and opens what it names.
func (n *Node) OpenPath(ctx context.Context, to multiaddr.Addr, identityName, authorized string) (*Path, error) {
	o, err := n.connectOptions(ctx, identityName, authorized)
	if err != nil {
		return nil, err
	}
	c, err := n.connect(ctx, to, o)
	if err != nil {
		return nil, err
	}
	return &Path{n, c}, nil
}

// Done is closed when the path has broken.
func (p *Path) Done() <-chan struct{} { return p.c.done() }

// Peer is the node at the end of the innermost channel, nil without one.
func (p *Path) Peer() *identity.Identifier {
	if k := len(p.c.channels); k > 0 {
		id := identity.Identifier(p.c.channels[k-1].Peer.ID)
		return &id
	}
	return nil
}

// Mailbox opens a mailbox that answers over the path can reach.
func (p *Path) Mailbox(ctx context.Context) (*routing.Mailbox, error) {
	return p.n.router.OpenMailbox(ctx, p.c.route)
}

// Route is where messages go.
func (p *Path) Route() routing.Route { return p.c.route }

// Close closes what was opened.
func (p *Path) Close() { p.c.close() }
