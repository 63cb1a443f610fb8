package node

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/portal"
)

// Times of an outlet's look at its target: how long one attempt may take, how often a target is looked at with --check, and how often
// one that did not answer is tried again without.
const (
	targetTimeout = 3 * time.Second
	targetCheck   = 10 * time.Second
	targetRetry   = 5 * time.Second
)

// target is what an outlet knows of its target: from its clients' connections, and from looks of its own, which connect and close. Without
// --check it looks only at a target that did not answer, until it does: a server may count connections.
type target struct {
	dial func(context.Context) error
	ctx  context.Context // ends with the outlet

	mu      sync.Mutex
	check   bool
	err     error     // of the last attempt
	since   time.Time // when err became what it is
	next    time.Time
	planned *time.Timer
}

// checkTargetCheck refuses a --check that there is not.
func checkTargetCheck(text string) error {
	if text != "" && text != "none" && text != "tcp" {
		return fmt.Errorf("%w: --check %q must be tcp or none", admin.ErrInvalid, text)
	}
	return nil
}

// newTarget begins to watch a target. dial is what the outlet dials with, nil for TCP, where
// begin makes what goes before all.
func newTarget(ctx context.Context, address, check string, begin greeting, dial dialer) *target {
	t := &target{ctx: ctx, dial: func(ctx context.Context) error {
		if dial != nil {
			p, err := dial(ctx, portal.Origin{})
			if err == nil {
				_ = unix.Close(p.FD)
			}
			return err
		}
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", address)
		if err == nil {
			_ = begin.write(c, portal.Origin{})
			_ = c.Close()
		}
		return err
	}}
	t.setCheck(check)
	return t
}

// setCheck turns looks of its own on or off.
func (t *target) setCheck(text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.check = text == "tcp"
	if t.check {
		t.plan(0)
	}
}

// plan has the target looked at after a while, unless that is planned. t.mu is held.
func (t *target) plan(after time.Duration) {
	if t.planned != nil || t.ctx.Err() != nil {
		return
	}
	t.next = time.Now().Add(after)
	t.planned = time.AfterFunc(after, t.look)
}

// tried notes how an attempt went.
func (t *target) tried(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.since.IsZero() || (t.err == nil) != (err == nil) {
		t.since = time.Now()
	}
	switch t.err = err; {
	case err != nil:
		t.plan(targetRetry)
	case t.check:
		t.plan(targetCheck)
	}
}

// look connects to the target and closes.
func (t *target) look() {
	ctx, cancel := context.WithTimeout(t.ctx, targetTimeout)
	err := t.dial(ctx)
	cancel()
	t.mu.Lock()
	t.planned = nil
	t.mu.Unlock()
	if t.ctx.Err() == nil {
		t.tried(err)
	}
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
