package client

import (
	"context"
	"net"
	"strings"
	"time"

	"sallyport/node"
	"sallyport/node/resource"
)

// DialOptions say whom a Dialer trusts.
type DialOptions struct {
	// Identifier is who must serve; empty: whom the ticket names, else who was there first.
	Identifier string
	// Allow is a policy expression about the other end, as of `tcp-inlet create --allow`; empty: the members of the project.
	Allow string
}

// Dialer opens connections to one service, and keeps the path to it in between.
type Dialer struct {
	c    *Client
	name string
	d    *node.Dialer
}

// Dialer starts to keep a path to a service. It does not wait for the path.
func (c *Client) Dialer(ctx context.Context, name string, o DialOptions) (*Dialer, error) {
	to, err := c.route(name)
	if err != nil {
		return nil, err
	}
	if c.isClosed() {
		return nil, net.ErrClosed
	}
	d, err := c.node.OpenDialer(ctx, resource.Inlet{To: to.String(), Authorized: o.Identifier, Allow: o.Allow, Hold: c.hold()})
	if err != nil {
		return nil, c.ofNode(err)
	}
	return &Dialer{c: c, name: name, d: d}, nil
}

// hold is Options.Hold as nodes take it.
func (c *Client) hold() string {
	switch {
	case c.o.Hold < 0:
		return "0s"
	case c.o.Hold == 0:
		return ""
	}
	return c.o.Hold.Truncate(time.Millisecond).String()
}

// Dial opens a connection and waits until the service has taken it. The net.Conn is a *Conn. Errors match ErrDenied, ErrUnavailable, net.ErrClosed
// or ctx's error; without a path Dial waits for one, for 30 s unless ctx ends before.
func (d *Dialer) Dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(d.c.ended, cancel)()
	s, err := d.d.Dial(ctx)
	if err != nil && d.c.isClosed() {
		err = net.ErrClosed
	}
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: Network, Addr: &Addr{Service: d.name}, Err: notOpened(err)}
	}
	return d.c.newConn(s, d.name, ""), nil
}

// Close gives up the path; the Dialer's connections end as with Client.Close.
func (d *Dialer) Close() error {
	if d.c.isClosed() {
		return nil
	}
	closed, cancel := context.WithTimeout(d.c.ended, closeTimeout)
	defer cancel()
	d.d.AwaitClosed(closed)
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err := d.d.Close(ctx)
	if d.c.isClosed() {
		return nil
	}
	return err
}

// closeTimeout bounds the end of a Dialer, listener or worker, and how long connections that were closed are waited for.
const closeTimeout = 5 * time.Second

// Dial opens a connection to a service of another member. Paths are kept until Close, so that only the first connection to a service waits for one; a
// program that dials very many services makes and closes each Dialer itself.
func (c *Client) Dial(ctx context.Context, name string) (net.Conn, error) {
	c.mu.Lock()
	d := c.dialers[name]
	c.mu.Unlock()
	if d == nil {
		made, err := c.Dialer(ctx, name, DialOptions{})
		if err != nil {
			return nil, err
		}
		c.mu.Lock()
		if d = c.dialers[name]; d == nil {
			d, c.dialers[name] = made, made
			made = nil
		}
		c.mu.Unlock()
		if made != nil { // another goroutine was faster
			_ = made.Close()
		}
	}
	return d.Dial(ctx)
}

// DialContext is Dial in the form of net.Dialer.DialContext, for http.Transport, pgx, gRPC and others that dial HOST:PORT: the host is the
// name of the service, and network and port are ignored.
func (c *Client) DialContext(ctx context.Context, _, address string) (net.Conn, error) {
	name := address
	if host, _, err := net.SplitHostPort(address); err == nil && !strings.HasPrefix(address, "/") {
		name = host
	}
	return c.Dial(ctx, name)
}
