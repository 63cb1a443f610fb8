package tcp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"sallyport/dataplane"
	"sallyport/routing"
)

const (
	// askAgain is after how long a connect without an answer gets another one beside it: the kernel repeats its first packet after 1, 3, 7 and 15 s, and a
	// network that is back would wait for the next of these.
	askAgain = time.Second
	// askFor is how long each further one may take.
	askFor = 3 * time.Second
)

// attempted is what became of an attempt to connect.
type attempted struct {
	c   *Connection
	err error
}

// connect connects to the first of some addresses that answers, within timeout. What a later attempt makes is closed.
func (t *Transport) connect(ctx context.Context, to []netip.AddrPort, hostport string, timeout time.Duration) (*Connection, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	s := t.place()
	again := time.NewTicker(askAgain)
	defer again.Stop()
	a := attempts{
		begin: func(timeout time.Duration, done func(attempted)) { t.attempt(s, to, timeout, done) },
		again: again.C, ended: s.Loop().Done(),
	}
	c, err := a.first(ctx, timeout)
	if err != nil && errors.Is(err, ctx.Err()) {
		err = fmt.Errorf("tcp: connect to %s: %w", hostport, err)
	}
	return c, err
}

// attempts are several attempts to make one connection.
type attempts struct {
	begin func(timeout time.Duration, done func(attempted)) // done is called on the loop
	again <-chan time.Time                                  // when one more is begun beside those under way
	ended <-chan struct{}                                   // the loop has
}

// first returns the connection of the attempt that succeeds first, or the first answer that is an error. One that got no answer in its time says nothing
// while others are under way.
func (a *attempts) first(ctx context.Context, timeout time.Duration) (*Connection, error) {
	results, over := make(chan attempted), make(chan struct{})
	defer close(over)
	running := 0
	start := func(timeout time.Duration) {
		running++
		a.begin(timeout, func(r attempted) {
			go func() { // the loop does not wait
				select {
				case results <- r:
				case <-over:
					if r.c != nil {
						r.c.Close()
					}
				}
			}()
		})
	}
	start(timeout)
	for {
		select {
		case r := <-results:
			running--
			if r.err == nil || running == 0 || !errors.Is(r.err, os.ErrDeadlineExceeded) {
				return r.c, r.err
			}
		case <-a.again:
			start(askFor)
		case <-a.ended:
			return nil, dataplane.ErrLoopClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// attempt begins to connect; done is called on the shard.
func (t *Transport) attempt(s *routing.Shard, to []netip.AddrPort, timeout time.Duration, done func(attempted)) {
	s.Loop().Post(dataplane.TaskFunc(func() {
		s.Loop().DialAny(to, t.opts.socket(), timeout, func(c *dataplane.Conn, err error) {
			if err != nil {
				done(attempted{err: err})
				return
			}
			t.Stats.Connected.Add(1)
			done(attempted{c: t.start(s, c, Plain, nil, dataplane.NewLengths(version, t.opts.MaxMessage), nil)})
		})
	}))
}
