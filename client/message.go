package client

import (
	"context"
	"fmt"
	"maps"
	"net"

	"sallyport/node"
	"sallyport/routing"
)

// MaxMessage is the largest payload of a message.
const MaxMessage = 1 << 20

// Message is what a Worker or a Route has received.
type Message struct {
	Payload []byte
	// Peer is who sent it.
	Peer Peer

	answer func([]byte)
}

// Answer sends a payload back to who sent m. Messages arrive at most once: a lost answer is not sent again.
func (m *Message) Answer(payload []byte) error {
	if len(payload) > MaxMessage {
		return fmt.Errorf("%w: %d bytes", ErrTooLarge, len(payload))
	}
	m.answer(payload)
	return nil
}

// Worker takes messages under a name.
type Worker struct {
	c     *Client
	w     *node.ProgramWorker
	relay *registered
}

// WorkerOptions say who is heard.
type WorkerOptions struct {
	// Allow is a policy expression about who sends; empty: the members of the project.
	Allow string
	// NoRelay is as in ListenOptions.
	NoRelay bool
}

// Worker starts a worker that other members reach under a name: RELAY/WORKER, or WORKER alone where there is no relay. handle is called for one
// message after the other on one goroutine, so what it keeps needs no lock; ctx ends with the worker. What comes while 1024 messages or 16 MiB
// wait is dropped: who must know that a message was worked on asks for an answer.
func (c *Client) Worker(ctx context.Context, name string, o WorkerOptions, handle func(context.Context, *Message)) (*Worker, error) {
	relay, worker, err := c.served(name, o.NoRelay)
	if err != nil {
		return nil, err
	}
	if c.isClosed() {
		return nil, net.ErrClosed
	}
	w := &Worker{c: c}
	w.w, err = c.node.StartWorker(ctx, worker, o.Allow, func(ctx context.Context, w *node.ProgramWorker, m node.Mail) {
		received := &Message{Payload: m.Payload, answer: func(b []byte) { w.Answer(m, b) }}
		if m.Peer != nil {
			received.Peer = Peer{Identifier: m.Peer.String(), Attributes: maps.Clone(c.node.Attributes(*m.Peer))}
		}
		handle(ctx, received)
	})
	if err != nil {
		return nil, c.ofNode(err)
	}
	if w.relay, err = c.register(ctx, relay); err != nil {
		_ = w.Close()
		return nil, err
	}
	return w, nil
}

// Close stops the worker and waits for its handler. It must not be called from the handler.
func (w *Worker) Close() error {
	w.c.unregister(w.relay)
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err := w.w.Close(ctx)
	if w.c.isClosed() {
		return nil
	}
	return err
}

// Route is a path to a worker of another member. It is not made anew when it breaks: Done tells, and its user opens another.
type Route struct {
	c    *Client
	path *node.Path
	box  *routing.Mailbox
	ctx  context.Context // ends with the path
}

// Route opens a path to a worker: RELAY/WORKER, or a whole route.
func (c *Client) Route(ctx context.Context, name string) (*Route, error) {
	to, err := c.route(name)
	if err != nil {
		return nil, err
	}
	if c.isClosed() {
		return nil, net.ErrClosed
	}
	p, err := c.node.OpenPath(ctx, to, "", "")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	r := &Route{c: c, path: p}
	if r.box, err = p.Mailbox(ctx); err != nil {
		p.Close()
		return nil, err
	}
	broken, cancel := context.WithCancel(context.Background())
	r.ctx = broken
	go func() {
		<-p.Done()
		cancel()
	}()
	return r, nil
}

// Done is closed when the path has broken, or with Close.
func (r *Route) Done() <-chan struct{} { return r.ctx.Done() }

// Peer is who is at the end of the path.
func (r *Route) Peer() Peer {
	id := r.path.Peer()
	if id == nil {
		return Peer{}
	}
	return Peer{Identifier: id.String(), Attributes: maps.Clone(r.c.node.Attributes(*id))}
}

// Send sends a message. It does not wait: whether the message arrives is not known.
func (r *Route) Send(payload []byte) error { return r.send(r.box, payload) }

func (r *Route) send(box *routing.Mailbox, payload []byte) error {
	switch {
	case len(payload) > MaxMessage:
		return fmt.Errorf("%w: %d bytes", ErrTooLarge, len(payload))
	case r.ctx.Err() != nil:
		return errRouteBroken
	}
	box.Send(r.path.Route(), append([]byte(nil), payload...))
	return nil
}

var errRouteBroken = &reasonError{ErrBroken, "the route has broken"}

// Receive waits for the next message that came back to what Send sent. Of those that nobody receives 8 are kept.
func (r *Route) Receive(ctx context.Context) (*Message, error) { return r.receive(ctx, r.box) }

func (r *Route) receive(ctx context.Context, box *routing.Mailbox) (*Message, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(r.ctx, func() { cancel(errRouteBroken) })()
	m, err := box.Receive(ctx)
	if err != nil {
		return nil, context.Cause(ctx)
	}
	return &Message{Payload: m.Payload, Peer: r.Peer(), answer: func(b []byte) { box.Send(m.Return, append([]byte(nil), b...)) }}, nil
}

// Request sends a message and waits for one answer to it. Requests may be made at the same time.
func (r *Route) Request(ctx context.Context, payload []byte) (*Message, error) {
	box, err := r.path.Mailbox(ctx)
	if err != nil {
		return nil, err
	}
	defer box.Close()
	if err := r.send(box, payload); err != nil {
		return nil, err
	}
	return r.receive(ctx, box)
}

// Close closes the path.
func (r *Route) Close() error {
	r.box.Close()
	r.path.Close()
	return nil
}
