package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/names"
	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/portal"
)

// Times of an outlet's look at its target: how long one attempt may take, how often a target is looked at with --check, and how often
// one that did not answer is tried again.
const (
	targetTimeout = 3 * time.Second
	targetCheck   = 10 * time.Second
	targetRetry   = 5 * time.Second
	// targetWait is for how long clients wait once their target was found down: their inlets hear of another outlet meanwhile, if there is one. So long it is tried each targetSoon.
	targetWait = 3 * time.Second
	targetSoon = time.Second
	// What --check-interval may be.
	leastInterval, mostInterval = 100 * time.Millisecond, time.Hour
)

// target is what an outlet knows of its target: from its clients' connections, and from looks of its own, which connect, ask what --check says, and close. Without
// --check it looks only at a target that did not answer, until it does: a server may count connections.
type target struct {
	dial func(context.Context) (net.Conn, error)
	host string          // of the target, for HTTP
	ctx  context.Context // ends with the outlet

	mu       sync.Mutex
	check    targetProbe // nil without --check
	interval time.Duration
	err      error     // of the last attempt
	failed   bool      // with --check: err is of a look of its own, or of a client that was refused
	failedAt time.Time // when failed became true last
	wait     time.Duration
	since    time.Time // when err became what it is
	next     time.Time
	planned  *time.Timer
}

// checkTargetCheck refuses a --check that there is not, and a --check-interval that cannot be.
func checkTargetCheck(r *resource.Outlet) error {
	if _, err := targetProbeOf(r.Check); err != nil {
		return err
	}
	_, err := targetIntervalOf(r.CheckInterval)
	return err
}

// targetIntervalOf reads a --check-interval.
func targetIntervalOf(text string) (time.Duration, error) {
	if text == "" {
		return targetCheck, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < leastInterval || d > mostInterval {
		return 0, fmt.Errorf("%w: --check-interval %q must be a time from %v to %v, as 10s", admin.ErrInvalid, text, leastInterval, mostInterval)
	}
	return d, nil
}

// newTarget begins to watch a target. dial is what the outlet dials with, nil for TCP, where
// begin makes what goes before all.
func newTarget(ctx context.Context, r *resource.Outlet, begin greeting, dial dialer) *target {
	t := &target{ctx: ctx, host: r.To, wait: targetWait, dial: func(ctx context.Context) (net.Conn, error) {
		if dial != nil {
			p, err := dial(ctx, portal.Origin{})
			if err != nil {
				return nil, err
			}
			f := os.NewFile(uintptr(p.FD), "target")
			defer f.Close()
			return net.FileConn(f)
		}
		c, err := names.Dial(ctx, "tcp", r.To) // to where clients' connections go
		if err == nil {
			_ = begin.write(c, portal.Origin{})
		}
		return c, err
	}}
	t.setCheck(r)
	return t
}

// setCheck sets how the target is looked at, which was checked before.
func (t *target) setCheck(r *resource.Outlet) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.check, _ = targetProbeOf(r.Check)
	t.interval, _ = targetIntervalOf(r.CheckInterval)
	if t.check == nil {
		t.failed = false
	} else {
		t.plan(0)
	}
}

// plan has the target looked at after a while, unless that is planned for sooner, or happens. t.mu is held.
func (t *target) plan(after time.Duration) {
	at := time.Now().Add(after)
	if t.ctx.Err() != nil || t.planned != nil && (!at.Before(t.next) || !t.planned.Stop()) {
		return
	}
	t.next = at
	t.planned = time.AfterFunc(after, t.look)
}

// tried notes how a client's attempt went.
func (t *target) tried(err error) { t.note(err, false) }

// note notes how an attempt went, which looked is true of if it was a look of its own.
func (t *target) note(err error, looked bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if looked {
		t.planned = nil
	}
	if t.since.IsZero() || (t.err == nil) != (err == nil) {
		t.since = time.Now()
	}
	switch {
	case err == nil:
		t.failed = false
	case t.check != nil && !t.failed && (looked || errors.Is(err, unix.ECONNREFUSED)): // a look would find a refusal too, but later
		t.failed, t.failedAt = true, time.Now()
	}
	switch t.err = err; {
	case err != nil && t.check != nil:
		retry := targetRetry
		if t.waitLocked() {
			retry = targetSoon
		}
		t.plan(min(retry, t.interval))
	case err != nil:
		t.plan(targetRetry)
	case t.check != nil:
		t.plan(t.interval)
	}
}

// look connects to the target, asks, and closes.
func (t *target) look() {
	t.mu.Lock()
	probe := t.check
	t.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.ctx, targetTimeout)
	c, err := t.dial(ctx)
	if err == nil {
		if probe != nil {
			deadline, _ := ctx.Deadline()
			_ = c.SetDeadline(deadline)
			err = probe(c, t.host)
		}
		_ = c.Close()
	}
	cancel()
	if t.ctx.Err() == nil {
		t.note(err, true)
	}
}

// waitLocked reports whether the target was found down a moment ago.
func (t *target) waitLocked() bool { return t.failed && time.Since(t.failedAt) < t.wait }

// unreachable reports whether the target is down, and whether clients wait for it or another one (portal.OutletOptions.Down). Any goroutine.
func (t *target) unreachable() (down, wait bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.failed, t.waitLocked()
}

// looks reports whether it looks at its target by itself (--check).
func (t *target) looks() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.check != nil
}

// down reports whether a look of its own, with --check, or a client's connection has found that the target does not answer. Any goroutine; t may be nil.
func (t *target) down() bool {
	if t == nil {
		return false
	}
	down, _ := t.unreachable()
	return down
}

// status says how the outlet is.
func (t *target) status() resource.Status {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil {
		return resource.Status{State: resource.Up, Since: t.since}
	}
	return resource.Status{
		State: resource.Degraded, Since: t.since, Reason: "its target does not answer: " + t.err.Error(), NextTry: t.next,
	}
}
