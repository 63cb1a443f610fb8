package node

import (
	"context"
	"errors"
	"testing"
	"time"

	"sallyport/routing"
)

// paused reports whether the clock of an attempt stands still.
func paused(ctx context.Context) bool {
	p := ctx.Value(patienceKey{}).(*patience)
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.paused
}

// TestPatience: an attempt ends when its time is over, of which what it waits for its turn is no part.
func TestPatience(t *testing.T) {
	pausePatience(t.Context())() // not an attempt
	short, cancel := withPatience(t.Context(), time.Millisecond)
	defer cancel()
	<-short.Done()
	if !errors.Is(context.Cause(short), context.DeadlineExceeded) {
		t.Errorf("ended with %v", context.Cause(short))
	}
	pausePatience(short)()
	ended, cancel := withPatience(t.Context(), time.Hour)
	cancel()
	if context.Cause(ended) != context.Canceled {
		t.Errorf("given up with %v", context.Cause(ended))
	}

	ctx, cancel := withPatience(t.Context(), time.Hour)
	defer cancel()
	inner, giveUp := context.WithCancel(ctx)
	resume := pausePatience(inner)
	pausePatience(inner)() // who comes second stops nothing
	if !paused(ctx) {
		t.Error("the clock runs while it waits")
	}
	giveUp() // of the part that waited, not of the attempt
	p := ctx.Value(patienceKey{}).(*patience)
	p.left = time.Millisecond
	resume()
	<-ctx.Done()
	if paused(ctx) || !errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		t.Errorf("ended with %v", context.Cause(ctx))
	}
}

// TestTurnsCostNoPatience: while as many handshakes are begun as may be, the clock of one that waits for its turn stands still, and goes on when it has its turn, or
// when it is given up.
func TestTurnsCostNoPatience(t *testing.T) {
	m := newMember(t)
	for range cap(m.dialing) {
		m.dialing <- struct{}{}
	}
	ctx, cancel := withPatience(within(t), time.Hour)
	defer cancel()
	begin := func(ctx context.Context) <-chan error {
		done := make(chan error, 1)
		go func() {
			_, err := m.dialOnce(ctx, routing.LocalRoute("nobody"), m.channelOptions(m.self, nil))
			done <- err
		}()
		settles(t, "it waits for its turn", func() bool { return paused(ctx) })
		return done
	}
	inner, giveUp := context.WithCancel(ctx)
	done := begin(inner)
	giveUp()
	if err := <-done; !errors.Is(err, context.Canceled) || paused(ctx) {
		t.Errorf("given up: %v, paused %v", err, paused(ctx))
	}
	done = begin(ctx)
	<-m.dialing
	settles(t, "it has its turn", func() bool { return !paused(ctx) })
	cancel()
	<-done
}
