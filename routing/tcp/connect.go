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
	results, over := make(chan attempted), make(chan struct{})
	defer close(over)
	s := t.place()
	running := 0
	start := func(timeout time.Duration) {
		running++
		t.attempt(s, to, timeout, func(r attempted) {
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
	again := time.NewTicker(askAgain)
	defer again.Stop()
	for {
		select {
		case r := <-results:
			running--
			if r.err == nil || running == 0 || !errors.Is(r.err, os.ErrDeadlineExceeded) {
				return r.c, r.err
			}
		case <-again.C:
			start(askFor)
		case <-s.Loop().Done():
			return nil, dataplane.ErrLoopClosed
		case <-ctx.Done():
			return nil, fmt.Errorf("tcp: connect to %s: %w", hostport, ctx.Err())
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
