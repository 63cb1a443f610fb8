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
	if p.paused { // another piece waits for its turn
		p.left = p.whole
		return
	}
	if p.timer.Stop() { // else it has ended, or will
		p.left, p.since = p.whole, time.Now()
		p.timer.Reset(p.whole)
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
