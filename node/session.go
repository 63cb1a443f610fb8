package node

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/node/resource"
	"sallyport/proxy"
	"sallyport/routing"
	"sallyport/routing/secure"
)

// Times of a session.
const (
	retryFirst   = 250 * time.Millisecond
	retryMax     = 5 * time.Second
	retryMaxSlow = 30 * time.Second
	// retryRefused is the pause where somebody has said that nobody is there: it costs next to nothing to ask again, and a relay or a node that comes
	// back is found at once.
	retryRefused = 300 * time.Millisecond
	// retryLost is the pause after a path that worked.
	retryLost      = 50 * time.Millisecond
	attemptTimeout = 30 * time.Second
	// The first attempt to come back is given up early, each further one twice as late up to attemptTimeout, then again from the start:
	// while the peer itself is coming back, what is sent to it through a relay of the reference may be lost without an answer. It is not less, since attempts of
	// hundreds of inlets that are given up on a busy machine are work that is done twice.
	comebackTimeout = 4 * time.Second
	// steady is how long a path works that counts as one that worked, and brief how long one does whose peer may only accept and close.
	steady = 10 * time.Second
	brief  = 2 * time.Second
	// retryUnsteady is the longest pause after brief ones. Its peer has answered, so it may be a relay that is restarted several times in a
	// row, and all who use it are to be back within seconds each time.
	retryUnsteady = 2 * time.Second
)

// A session comes back at once after losses that follow each other closely, as when several nodes on its path are upgraded one after the other: hasteMost times,
// and once more for each hasteEvery. Whoever ends paths more often than that is not hammered.
const (
	hasteMost  = 8
	hasteEvery = 5 * time.Second
)

// haste is how often a session has come back at once. The zero value is ready.
type haste struct {
	spent int
	since time.Time // what was given back by then is counted
}

// take reports whether the session may come back at once, and notes that it does.
func (h *haste) take(now time.Time) bool {
	if back := int(now.Sub(h.since) / hasteEvery); back >= h.spent {
		h.spent, h.since = 0, now
	} else {
		h.spent, h.since = h.spent-back, h.since.Add(time.Duration(back)*hasteEvery)
	}
	if h.spent == hasteMost {
		return false
	}
	h.spent++
	return true
}

// session keeps a path to another node alive: it connects, watches, and connects again (docs/protocol/03 §2.3).
type session struct {
	log     *slog.Logger
	router  *routing.Router
	connect func(context.Context) (*connection, error)
	up      func(context.Context, *connection) error           // uses a new path; an error counts as a failed attempt
	down    func()                                             // the path is gone
	gone    func(c *connection)                                // the process at the other end of a path that is no more has ended. May be nil
	watched func(context.Context, *connection) <-chan struct{} // closed when somebody between says so. May be nil
	lost    func(c *connection)                                // a path is no more, and there is no other one yet. May be nil
	silent  func(c *connection, since time.Time)               // nothing was heard over a path since then: connections that are held are. May be nil
	restart func(c *connection)                                // a path that was left for another does not answer. May be nil
	absent  func(reason string)                                // nobody has been registered at the relay for a while; empty: that has ended. May be nil
	check   func(context.Context, *connection) error           // asked from time to time while the path is up; an error ends it. May be nil
	spoken  bool                                               // up exchanges messages with the peer: no other answer is waited for
	back    bool                                               // the session existed before this start of the node
	slow    bool                                               // the path is not the only one: try again with longer pauses
	longest time.Duration                                      // pause between attempts; 0 is retryMax

	mu      sync.Mutex
	missing *time.Timer // tells absent; nil while somebody is registered, or nothing is known
	isUp    bool
	failure error
	current *connection
	tried   chan struct{} // closed after the first attempt
	retries uint64        // times that a path was lost
	failed  uint64        // attempts that failed
	rtt     time.Duration // of the path there is, as it was measured last; 0 for not yet
	since   time.Time     // when isUp became what it is
	next    time.Time     // when the next attempt begins, while it is not up

	haste  haste     // of run
	live   *liveness // of the path before; of run
	gaveUp bool      // that was given up because it was silent
	// followed is the registration at a relay for which another path was made last, though there was one; of run.
	followed uint64

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

// renew makes another path in place of the one there is.
func (s *session) renew() {
	if _, c, _ := s.state(); c != nil {
		c.close()
	}
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
	s.noteAbsent(!up && (errors.Is(failure, secure.ErrAbsent) || failure == nil && s.missing != nil), failure)
	if failure != nil || up {
		s.failure = failure
	}
	s.mu.Unlock()
}

// absentAfter is how long nobody may be registered under a relay's name until clients need not wait: a node that is restarted is back before. It is twice as long as
// it took to hear that nobody is there, absentMost at most: where the relay was away or is late it is so for the node that registers, too.
const (
	absentAfter = 5 * time.Second
	absentMost  = 15 * time.Second
)

// noteAbsent follows whether the relay says that nobody is registered. s.mu is held.
func (s *session) noteAbsent(is bool, why error) {
	switch {
	case s.absent == nil || is == (s.missing != nil):
	case is:
		reason, after := why.Error(), min(max(absentAfter, 2*time.Since(s.since)), absentMost)
		if s.retries == 0 && !s.back {
			after = 0 // nobody ever was there
		}
		var t *time.Timer
		t = time.AfterFunc(after, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.missing == t {
				s.absent(reason)
			}
		})
		s.missing = t
	default:
		s.missing.Stop()
		s.missing = nil
		s.absent("")
	}
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
	var severed *connection // the last path, if its other end's machine closed it: where nobody listens there either, the process has ended
	for ctx.Err() == nil {
		tries := time.Now()
		c, err := s.attempt(ctx, patience, func(err error) {
			s.set(false, nil, err)
			tried()
		})
		switch {
		case s.slow: // a negotiation takes its time
		case errors.Is(err, secure.ErrAbsent):
			patience = attemptTimeout // the relay says when somebody comes
		case err == nil || refused(err):
			patience = comebackTimeout
		default:
			if patience *= 2; patience > attemptTimeout {
				patience = comebackTimeout
			}
		}
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			s.set(false, nil, err)
			s.mu.Lock()
			s.failed++
			s.mu.Unlock()
			if severed != nil && errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, proxy.ErrProxy) { // a proxy's machine says nothing of the process behind it
				s.gone(severed)
				severed = nil
			}
			var pause time.Duration
			pause, wait = s.afterFailure(err, time.Since(tries), wait, longest)
			s.log.Warn("not connected", "reason", err.Error(), "retry", pause.String())
			tried()
			select {
			case <-ctx.Done():
				return
			case <-s.pause(pause):
			}
			continue
		}
		severed = nil
		s.set(true, c, nil)
		s.log.Info("connected", "route", c.route.String())
		tried()
		began := time.Now()
		c, err = s.keep(ctx, c)
		since := time.Now()
		if errors.Is(err, errNoPing) || errors.Is(err, errMoved) {
			since = s.live.lostAt()
		}
		s.down()
		s.set(false, nil, err)
		if s.silent != nil {
			s.silent(c, since)
		}
		if s.lost != nil {
			s.lost(c)
		}
		switch {
		case s.gone == nil:
		case errors.Is(err, errGone):
			s.gone(c)
		case errors.Is(err, errPathClosed) && c.severed():
			severed = c
		}
		c.close()
		if ctx.Err() != nil {
			return
		}
		s.mu.Lock()
		s.retries++
		s.rtt = 0
		s.mu.Unlock()
		var pause time.Duration
		pause, wait = s.afterLoss(time.Now(), time.Since(began), wait, longest)
		s.log.Warn("connection lost", "reason", err.Error(), "retry", pause.String())
		select {
		case <-ctx.Done():
			return
		case <-s.pause(pause):
		}
	}
}

// afterLoss returns the pause after a path that worked for a time until now, and the one after the next attempt if that fails too; wait is what this would have
// been before. A peer that accepts and closes at once, again and again, is not hammered.
func (s *session) afterLoss(now time.Time, worked, wait, longest time.Duration) (pause, next time.Duration) {
	if worked > steady {
		return retryLost, retryFirst
	}
	most := min(longest, retryUnsteady)
	if pause, next = min(wait, most), min(2*wait, most); worked > brief {
		pause, next = min(retryFirst, most), min(retryFirst, most)
	}
	if !s.slow && s.haste.take(now) {
		return min(retryLost, most), min(wait, most)
	}
	return pause, next
}

// afterFailure returns the pause after an attempt that has failed after a time, and what it would be after the next one; wait is what this would have been before.
func (s *session) afterFailure(err error, took, wait, longest time.Duration) (pause, next time.Duration) {
	switch {
	case s.slow:
	case refused(err):
		return min(retryRefused, longest), wait
	case took > wait: // whoever does not answer is not hammered by that
		return min(retryFirst, longest), wait
	}
	return wait, min(2*wait, longest)
}

// refused reports whether an attempt has failed because somebody has said that nobody is there.
func refused(err error) bool {
	return errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, secure.ErrAbsent)
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
		var rumour unproven
		st.Refused = errors.Is(s.failure, secure.ErrAbsent) && !errors.As(s.failure, &rumour)
	}
	return st
}

// attempt makes one path and starts to use it, unless it does not get on for patience. report is told why that takes long.
func (s *session) attempt(ctx context.Context, patience time.Duration, report func(error)) (*connection, error) {
	attempt, cancel := withPatience(ctx, patience)
	defer cancel()
	c, err := s.reach(attempt, report)
	if err == nil {
		s.mu.Lock()
		s.noteAbsent(false, nil)
		s.mu.Unlock()
		if err = s.up(attempt, c); err == nil {
			return c, nil
		}
		c.close()
	}
	if errors.Is(context.Cause(attempt), context.DeadlineExceeded) {
		err = fmt.Errorf("given up after %v without progress: %w", patience, err)
	}
	return nil, err
}

// reach makes a path to a node that answers.
func (s *session) reach(ctx context.Context, report func(error)) (*connection, error) {
	s.mu.Lock()
	comesBack := s.back || s.isUp || s.retries > 0
	s.mu.Unlock()
	ctx = context.WithValue(ctx, comesBackKey{}, comesBack)
	c, err := s.connect(context.WithValue(ctx, reportKey{}, report))
	if err != nil {
		return nil, err
	}
	if !s.spoken {
		if err := s.firstAnswer(ctx, c); err != nil {
			c.close()
			return nil, err
		}
	}
	return c, nil
}

// reportKey is of the context's value that is told why an attempt takes long.
type reportKey struct{}

// comesBackKey is of the context's value that tells whether there was a path before.
type comesBackKey struct{}

// randomNumber returns a random number.
func randomNumber() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return binary.BigEndian.Uint64(b[:])
}

// jitter spreads retries of many nodes: between d and 1.5 d.
func jitter(d time.Duration) time.Duration {
	var b [2]byte
	_, _ = rand.Read(b[:])
	return d + d*time.Duration(binary.BigEndian.Uint16(b[:]))/(2*65536)
}
