package tcp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"sallyport/dataplane"
	"sallyport/routing"
)

const (
	// askAgain is after how long a connect without an answer gets another one beside it: the kernel repeats its first packet after 1, 3, 7 and 15 s, and a
	// network that is back would wait for the next of these. It counts from when the loop has begun the one before: a loop that is busy for seconds
	// would have the peer take connections that nobody needs, and itself be the busier for it.
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
	a := newAttempts(func(timeout time.Duration, done func(attempted)) { t.attempt(s, to, timeout, done) }, func(d time.Duration, f func()) { s.Loop().After(d, f) })
	if !s.Loop().Post(dataplane.TaskFunc(func() { a.start(timeout) })) {
		return nil, dataplane.ErrLoopClosed
	}
	r := a.wait(ctx, s.Loop().Done())
	if r.err != nil && errors.Is(r.err, ctx.Err()) {
		r.err = fmt.Errorf("tcp: connect to %s: %w", hostport, r.err)
	}
	return r.c, r.err
}

// attempts are several attempts to make one connection. Its fields belong to the loop, but decided and outcome.
type attempts struct {
	begin   func(timeout time.Duration, done func(attempted)) // done is called on the loop
	after   func(time.Duration, func())                       // calls on the loop
	running int
	decided atomic.Bool    // there is an outcome, or nobody waits for it any more
	outcome chan attempted // has room for the one that there is
}

func newAttempts(begin func(time.Duration, func(attempted)), after func(time.Duration, func())) *attempts {
	return &attempts{begin: begin, after: after, outcome: make(chan attempted, 1)}
}

// start begins one more, unless there is no use in it.
func (a *attempts) start(timeout time.Duration) {
	if a.decided.Load() {
		return
	}
	a.running++
	a.begin(timeout, a.ended)
	if !a.decided.Load() {
		a.after(askAgain, func() { a.start(askFor) })
	}
}

// ended is told what became of one. The first that succeeds is the outcome, or the first answer that is an error. One that got no answer in its time says
// nothing while others are under way.
func (a *attempts) ended(r attempted) {
	a.running--
	if r.err != nil && a.running > 0 && errors.Is(r.err, os.ErrDeadlineExceeded) {
		return
	}
	if a.decided.CompareAndSwap(false, true) {
		a.outcome <- r
	} else if r.c != nil {
		r.c.Close()
	}
}

// wait returns the outcome.
func (a *attempts) wait(ctx context.Context, ended <-chan struct{}) attempted {
	var why error
	select {
	case r := <-a.outcome:
		return r
	case <-ended:
		why = dataplane.ErrLoopClosed
	case <-ctx.Done():
		why = ctx.Err()
	}
	if a.decided.CompareAndSwap(false, true) {
		return attempted{err: why}
	}
	return <-a.outcome // it came in the very moment
}

// attempt begins to connect; done is called on the shard. On it.
func (t *Transport) attempt(s *routing.Shard, to []netip.AddrPort, timeout time.Duration, done func(attempted)) {
	s.Loop().DialAny(to, t.opts.socket(), timeout, func(c *dataplane.Conn, err error) {
		if err != nil {
			done(attempted{err: err})
			return
		}
		t.Stats.Connected.Add(1)
		done(attempted{c: t.start(s, c, Plain, nil, dataplane.NewLengths(version, t.opts.MaxMessage), nil)})
	})
}
