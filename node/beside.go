package node

import (
	"context"
	"time"
)

const (
	// besideAfter is how long a path is silent until another one is made beside it. Whichever has an answer first is the path: a wrong guess costs a handshake.
	besideAfter = silenceLimit
	// restartAfter is how long after a path was left clients that have no answer over it yet begin anew over the other one.
	restartAfter = 300 * time.Millisecond
	// holdAfter is how long it is silent until connections that can be resumed count it as lost, however long it may be silent.
	holdAfter = 4500 * time.Millisecond
)

// keep watches a path, and goes over to another one that has an answer while the first is silent. It returns the path that has ended, and why.
func (s *session) keep(ctx context.Context, c *connection) (*connection, error) {
	for {
		next, err := s.watch(ctx, c)
		if next == nil {
			return c, err
		}
		using, cancel := context.WithTimeout(ctx, attemptTimeout)
		err = s.up(using, next)
		cancel()
		if err != nil {
			next.close()
			return c, err
		}
		s.log.Warn("another path is used, the one before is silent or another member's turn has come", "route", next.route.String())
		s.mu.Lock()
		s.retries++
		s.current = next
		s.mu.Unlock()
		go s.linger(ctx, c)
		c = next
	}
}

// linger keeps a path that was left for another one, for what cannot go on over that: it ends when nothing uses it or its peer does not come back.
func (s *session) linger(ctx context.Context, c *connection) {
	defer c.close()
	p, err := s.ping(ctx, c)
	if err != nil {
		return
	}
	defer p.close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var gone <-chan struct{}
	if s.watched != nil && s.gone != nil {
		gone = s.watched(ctx, c)
	}
	heard, signs := time.Now(), c.signs()
	silent := time.After(restartAfter)
	p.send(true)
	tick := time.NewTicker(pingInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.done():
			return
		case <-gone:
			s.gone(c)
			return
		case <-silent:
			if s.restart != nil { // who was there answers perhaps, but not to them
				s.restart(c)
			}
		case reply := <-p.box.Replies():
			if _, ok, _ := p.answer(reply); ok {
				heard = time.Now()
			}
		case now := <-tick.C:
			if at := signs.fresh(ctx, now, false); at.After(heard) {
				heard = at
			}
			if !c.used(ctx) || now.Sub(heard) > silenceMost {
				return
			}
			p.send(false)
		}
	}
}

// used reports whether anything is told when the connection ends.
func (c *connection) used(ctx context.Context) bool {
	k := len(c.channels)
	return k > 0 && c.channels[k-1].Watched(ctx)
}

// standby is a path that is made while another one is silent.
type standby struct {
	made   chan *connection
	cancel context.CancelFunc
}

// beside begins to make another path.
func (s *session) beside(ctx context.Context) *standby {
	ctx, cancel := context.WithCancel(ctx)
	b := &standby{made: make(chan *connection), cancel: cancel}
	go func() {
		for patience := comebackTimeout; ctx.Err() == nil; patience = min(2*patience, attemptTimeout) {
			attempt, done := context.WithTimeout(ctx, patience)
			c, err := s.reach(attempt, func(error) {})
			done()
			if err != nil {
				select {
				case <-ctx.Done():
				case <-time.After(jitter(retryFirst)):
				}
				continue
			}
			select {
			case b.made <- c:
			case <-ctx.Done():
				c.close()
			}
			return
		}
	}()
	return b
}

// path returns what the path comes from; nil if none is made.
func (b *standby) path() <-chan *connection {
	if b == nil {
		return nil
	}
	return b.made
}

// stop gives it up; b may be nil.
func (b *standby) stop() {
	if b != nil {
		b.cancel()
	}
}
