package node

import (
	"context"
	"sync"
	"time"
)

// patience is how long an attempt may take; what it waits for its turn does not count. On a machine that makes hundreds of paths at once, attempts that were
// given up before they had begun would be work that is done twice.
type patience struct {
	ctx    context.Context // that of the attempt
	mu     sync.Mutex
	timer  *time.Timer
	left   time.Duration
	since  time.Time
	paused bool
}

type patienceKey struct{}

// withPatience returns a context that ends after d, with the cause context.DeadlineExceeded.
func withPatience(parent context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	p := &patience{ctx: ctx, left: d, since: time.Now()}
	p.timer = time.AfterFunc(d, func() { cancel(context.DeadlineExceeded) })
	return context.WithValue(ctx, patienceKey{}, p), func() {
		p.timer.Stop()
		cancel(nil)
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
