package node

import (
	"context"
	"sync"
	"time"
)

// patience is how long an attempt may take without getting on; what it waits for its turn does not count. On a machine that makes hundreds of paths at once,
// attempts that were given up before they had begun, or one step before their end, would be work that is done twice.
type patience struct {
	ctx    context.Context // that of the attempt
	whole  time.Duration
	mu     sync.Mutex
	timer  *time.Timer
	left   time.Duration
	since  time.Time
	paused bool
	// waiting is how many of its pieces a relay tells when they can be made, until when that is waited for.
	waiting int
	until   time.Time
}

type patienceKey struct{}

// withPatience returns a context that ends when an attempt has not got on for d, with the cause context.DeadlineExceeded.
func withPatience(parent context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	p := &patience{ctx: ctx, whole: d, left: d, since: time.Now()}
	p.timer = time.AfterFunc(d, func() { cancel(context.DeadlineExceeded) })
	return context.WithValue(ctx, patienceKey{}, p), func() {
		p.timer.Stop()
		cancel(nil)
	}
}

// gotOn notes that an attempt has made one of the pieces that its path consists of: for the next one it has its whole time again, and others beside it wait.
func gotOn(ctx context.Context) {
	nextAfter(ctx, accessBusy)
	p, ok := ctx.Value(patienceKey{}).(*patience)
	if !ok {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.restart()
}

// restart gives the attempt its whole time again. p.mu is held.
func (p *patience) restart() {
	whole := p.whole
	if p.waiting > 0 {
		whole = max(whole, time.Until(p.until))
	}
	if p.paused { // another piece waits for its turn
		p.left = whole
		return
	}
	if p.timer.Stop() { // else it has ended, or will
		p.left, p.since = whole, time.Now()
		p.timer.Reset(whole)
	}
}

// isTold notes that a relay tells when an attempt can get on, until told is called: for as long as attemptTimeout in all it is not given up for that, since what was made
// so far would have to be made again.
func isTold(ctx context.Context) (told func()) {
	p, ok := ctx.Value(patienceKey{}).(*patience)
	if !ok {
		return func() {}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := time.Now(); p.until.IsZero() {
		p.until = now.Add(attemptTimeout)
	} else if !now.Before(p.until) {
		return func() {}
	}
	p.waiting++
	p.restart()
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.waiting--
		p.restart()
	}
}

// pausePatience stops the clock of an attempt until resume is called.
func pausePatience(ctx context.Context) (resume func()) {
	p, ok := ctx.Value(patienceKey{}).(*patience)
	if !ok {
		return func() {}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.paused || !p.timer.Stop() { // it has ended, or will not
		return func() {}
	}
	p.left -= time.Since(p.since)
	p.paused = true
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.ctx.Err() == nil {
			p.since = time.Now()
			p.timer.Reset(max(p.left, 0))
		}
		p.paused = false
	}
}
