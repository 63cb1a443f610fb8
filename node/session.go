package node

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/fxamacker/cbor/v2"

	"sallyport/node/resource"
	"sallyport/routing"
)

// Times of a session. The reference needs 30 to 40 seconds to notice a dead path; these notice it within seven, and a closed
// connection at once.
const (
	pingInterval   = 2 * time.Second
	pingsLost      = 3
	retryFirst     = 250 * time.Millisecond
	retryMax       = 5 * time.Second
	retryMaxSlow   = 30 * time.Second
	attemptTimeout = 30 * time.Second
	// The first attempt to come back is given up early, each further one twice as late up to attemptTimeout, then again from the start:
	// while the peer itself is coming back, what is sent to it through a relay is lost without an answer.
	comebackTimeout = 2 * time.Second
)

var (
	errPathClosed = errors.New("connection closed")
	errNoPing     = errors.New("peer does not answer")
)

// session keeps a path to another node alive: it connects, watches, and connects again (docs/protocol/03 §2.3).
type session struct {
	log     *slog.Logger
	router  *routing.Router
	connect func(context.Context) (*connection, error)
	up      func(context.Context, *connection) error // uses a new path; an error counts as a failed attempt
	down    func()                                   // the path is gone
	back    bool                                     // the session existed before this start of the node
	slow    bool                                     // the path is not the only one: try again with longer pauses
	longest time.Duration                            // pause between attempts; 0 is retryMax

	mu      sync.Mutex
	isUp    bool
	failure error
	current *connection
	tried   chan struct{} // closed after the first attempt
	retries uint64
	since   time.Time // when isUp became what it is
	next    time.Time // when the next attempt begins, while it is not up

	cancel context.CancelFunc
	done   chan struct{}
}

// start begins the session; it runs until stop.
func (s *session) start(parent context.Context) {
	ctx, cancel := context.WithCancel(parent)
	s.cancel, s.done, s.tried = cancel, make(chan struct{}), make(chan struct{})
	go s.run(ctx)
}

// stop ends the session and closes its path.
func (s *session) stop() {
	s.cancel()
	<-s.done
}

// first waits until the first attempt has ended, or for ctx.
func (s *session) first(ctx context.Context) {
	select {
	case <-s.tried:
	case <-ctx.Done():
	}
}

// state returns whether the path is up, what it is, and the last failure.
func (s *session) state() (up bool, c *connection, failure error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.isUp, s.current, s.failure
}

func (s *session) set(up bool, c *connection, failure error) {
	s.mu.Lock()
	if s.since.IsZero() || s.isUp != up {
		s.since = time.Now()
	}
	s.isUp, s.current = up, c
	if failure != nil || up {
		s.failure = failure
	}
	s.mu.Unlock()
}

func (s *session) run(ctx context.Context) {
	defer close(s.done)
	firstTried := false
	tried := func() {
		if !firstTried {
			firstTried = true
			close(s.tried)
		}
	}
	defer tried()
	wait, patience, longest := retryFirst, attemptTimeout, retryMax
	if s.slow {
		longest = retryMaxSlow
	}
	if s.longest > 0 {
		longest = s.longest
	}
	if s.back && !s.slow {
		patience = comebackTimeout
	}
	for ctx.Err() == nil {
		c, err := s.attempt(ctx, patience)
		if patience *= 2; patience > attemptTimeout || err == nil {
			patience = comebackTimeout
		}
		if s.slow {
			patience = attemptTimeout // a negotiation takes its time
		}
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			s.set(false, nil, err)
			s.log.Warn("not connected", "reason", err.Error(), "retry", wait.String())
			tried()
			select {
			case <-ctx.Done():
				return
			case <-s.pause(wait):
			}
			wait = min(2*wait, longest)
			continue
		}
		s.set(true, c, nil)
		s.log.Info("connected", "route", c.route.String())
		tried()
		began := time.Now()
		err = s.watch(ctx, c)
		s.down()
		s.set(false, nil, err)
		c.close()
		if ctx.Err() != nil {
			return
		}
		s.mu.Lock()
		s.retries++
		s.mu.Unlock()
		s.log.Warn("connection lost", "reason", err.Error())
		if time.Since(began) > 10*time.Second {
			wait = retryFirst
		}
		select { // a peer that accepts and closes at once is not hammered
		case <-ctx.Done():
			return
		case <-s.pause(wait):
		}
		wait = min(2*wait, longest)
	}
}

// pause begins the wait for the next attempt.
func (s *session) pause(wait time.Duration) <-chan time.Time {
	wait = jitter(wait)
	s.mu.Lock()
	s.next = time.Now().Add(wait)
	s.mu.Unlock()
	return time.After(wait)
}

// status says how the path is.
func (s *session) status() resource.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := resource.Status{State: resource.Opening, Since: s.since}
	switch {
	case s.isUp:
		st.State = resource.Up
	case s.failure != nil:
		st.State, st.Reason, st.NextTry = resource.Down, s.failure.Error(), s.next
	}
	return st
}

// attempt makes one path and starts to use it, within patience.
func (s *session) attempt(ctx context.Context, patience time.Duration) (*connection, error) {
	attempt, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, err := s.connect(attempt)
	if err != nil {
		return nil, err
	}
	if err := s.up(attempt, c); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// watch returns when the path has ended, or the node behind it has stopped to answer.
func (s *session) watch(ctx context.Context, c *connection) error {
	route := c.pingRoute()
	box, err := s.router.OpenMailbox(ctx, route)
	if err != nil {
		return err
	}
	defer box.Close()
	tick := time.NewTicker(pingInterval)
	defer tick.Stop()
	var (
		lost     int
		answered bool
		answers  = make(chan struct{}, 1)
	)
	watching, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		for {
			if _, err := box.Receive(watching); err != nil {
				return
			}
			select {
			case answers <- struct{}{}:
			default:
			}
		}
	}()
	ping := func() { box.Send(route.Concat(routing.LocalRoute(routing.EchoService)), pingPayload()) }
	ping()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.done():
			return errPathClosed
		case <-answers:
			lost, answered = 0, true
		case <-tick.C:
			// A peer that has never answered may forbid us its echo service; the path itself was shown to work by the
			// channel's handshake.
			if lost++; lost > pingsLost && answered {
				return errNoPing
			}
			ping()
		}
	}
}

// pingPayload is a random CBOR unsigned integer (docs/protocol/03 §2.3).
func pingPayload() []byte {
	var b [8]byte
	_, _ = rand.Read(b[:])
	p, _ := cbor.Marshal(binary.BigEndian.Uint64(b[:])) // an integer always encodes
	return p
}

// jitter spreads retries of many nodes: between d and 1.5 d.
func jitter(d time.Duration) time.Duration {
	var b [2]byte
	_, _ = rand.Read(b[:])
	return d + d*time.Duration(binary.BigEndian.Uint16(b[:]))/(2*65536)
}
