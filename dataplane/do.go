package dataplane

import (
	"context"
	"sync/atomic"
)

// Do runs f on the loop and waits until it has run. When it returns an error, because ctx ended before f began or because the loop
// has ended, f has not run and never will: what f was to take over still belongs to the caller. Once f has begun it is waited
// for whatever ctx says; ErrFault then says that it panicked. Do must not be called on the loop itself.
func (l *Loop) Do(ctx context.Context, f func()) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c := &call{f: f, ran: make(chan struct{})}
	if !l.Post(c) {
		return ErrLoopClosed
	}
	select {
	case <-c.ran:
		return c.err
	case <-ctx.Done():
	}
	if c.taken.CompareAndSwap(false, true) {
		return ctx.Err()
	}
	<-c.ran
	return c.err
}

// Finish runs f on the loop, and waits until it has run or ctx ends. f runs in either case, unless Finish returns ErrLoopClosed. It is
// for what takes things down, which nobody may be left with half done. It must not be called on the loop itself.
func (l *Loop) Finish(ctx context.Context, f func()) error {
	c := &call{f: f, ran: make(chan struct{})}
	if !l.Post(c) {
		return ErrLoopClosed
	}
	select {
	case <-c.ran:
		return c.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// call is a function that somebody waits for. Whoever sets taken decides its fate: the loop runs it, the waiting one gives it up.
type call struct {
	f     func()
	taken atomic.Bool
	ran   chan struct{}
	err   error // ErrFault unless f came to its end; valid when ran is closed
}

// Run implements Task.
func (c *call) Run() {
	if c.taken.CompareAndSwap(false, true) {
		defer close(c.ran)
		c.err = ErrFault
		c.f()
		c.err = nil
	}
}
