package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"
)

// attemptDelay is how long an attempt to connect has for itself before the next address is tried beside it (RFC 8305 section 5).
const attemptDelay = 250 * time.Millisecond

// ErrNoAddress is what DialAny reports when it is given no address.
var ErrNoAddress = errors.New("dataplane: no address to connect to")

// race is a DialAny under way.
type race struct {
	loop     *Loop
	left     []netip.AddrPort
	opts     TCPOptions
	deadline time.Time // zero: none
	running  []*Conn   // attempts that have not ended
	active   int       // how many those are, with one that has just been started
	next     *Timer
	failed   error
	over     bool
	done     func(*Conn, error)
}

// DialAny connects to the first of several addresses that answers. They are tried in their order, each next one when the last has failed or
// has had a quarter of a second; the other attempts end when one has won. What it calls done with is as in Dial; when all
// have failed the error has the reason of each. timeout is for all of them together, zero for none. One address costs what Dial
// does. On the loop only; to is not changed, and not kept after done.
func (l *Loop) DialAny(to []netip.AddrPort, o TCPOptions, timeout time.Duration, done func(*Conn, error)) {
	switch len(to) {
	case 0:
		l.After(0, func() { done(nil, ErrNoAddress) })
		return
	case 1:
		l.Dial(to[0], o, timeout, done)
		return
	}
	r := &race{loop: l, left: to, opts: o, done: done}
	if timeout > 0 {
		r.deadline = time.Now().Add(timeout)
	}
	r.start()
}

// start begins the next attempt.
func (r *race) start() {
	r.next.Stop()
	r.next = nil
	to := r.left[0]
	r.left = r.left[1:]
	var timeout time.Duration
	if !r.deadline.IsZero() {
		if timeout = time.Until(r.deadline); timeout <= 0 {
			r.end(nil, join(r.failed, fmt.Errorf("connect to %s: %w", to, os.ErrDeadlineExceeded)))
			return
		}
	}
	r.active++
	var attempt *Conn
	ended := false
	attempt = r.loop.dial(to, r.opts, timeout, func(c *Conn, err error) {
		ended = true
		r.drop(attempt)
		r.attempted(c, err)
	})
	if ended || r.over {
		return
	}
	if attempt != nil {
		r.running = append(r.running, attempt)
	}
	if len(r.left) > 0 {
		r.next = r.loop.After(attemptDelay, r.start)
	}
}

// drop forgets an attempt.
func (r *race) drop(c *Conn) {
	for i, other := range r.running {
		if other == c {
			r.running = append(r.running[:i], r.running[i+1:]...)
			return
		}
	}
}

// attempted is told how an attempt ended.
func (r *race) attempted(c *Conn, err error) {
	r.active--
	switch {
	case r.over:
		if c != nil {
			c.Abort()
		}
	case err == nil:
		r.end(c, nil)
	default:
		r.failed = join(r.failed, err)
		if len(r.left) > 0 && !r.loop.stopped {
			r.start()
		} else if r.active == 0 {
			r.end(nil, r.failed)
		}
	}
}

// end ends the race and the attempts that still run.
func (r *race) end(c *Conn, err error) {
	r.over = true
	r.next.Stop()
	losers := r.running
	r.running, r.left = nil, nil
	for _, loser := range losers {
		loser.Abort()
	}
	r.done(c, err)
}

// join puts the failures of several addresses on one line.
func join(a, b error) error {
	if a == nil {
		return b
	}
	return fmt.Errorf("%w; %w", a, b)
}
