package node

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/routing"
	"sallyport/routing/multiaddr"
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

// TestNamesCostNoPatience: while a relay is to tell when somebody is registered an attempt is not given up, but for no longer than an attempt may take at all, however often
// that is said; what gets on beside makes it no shorter.
func TestNamesCostNoPatience(t *testing.T) {
	const whole = 4 * time.Second
	isTold(t.Context())() // not an attempt
	for name, c := range map[string]struct {
		do   func(ctx context.Context)
		want time.Duration
	}{
		"told":     {func(ctx context.Context) { defer isTold(ctx)(); time.Sleep(20 * time.Second) }, 24 * time.Second},
		"not told": {func(ctx context.Context) { defer isTold(ctx)(); <-ctx.Done() }, attemptTimeout},
		"again": {func(ctx context.Context) {
			for ctx.Err() == nil {
				told := isTold(ctx)
				time.Sleep(time.Second)
				told()
			}
		}, attemptTimeout + whole},
		"beside": {func(ctx context.Context) {
			defer isTold(ctx)()
			time.Sleep(time.Second)
			gotOn(ctx)
			<-ctx.Done()
		}, attemptTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				ctx, cancel := withPatience(t.Context(), whole)
				defer cancel()
				done := make(chan struct{})
				go func() {
					defer close(done)
					c.do(ctx)
				}()
				<-ctx.Done()
				if took := time.Since(began); took < c.want-time.Second || took > c.want {
					t.Errorf("given up after %v, want %v", took, c.want)
				}
				<-done
			})
		})
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

// TestProgressRenewsPatience: each piece of a path that was made gives its attempt the whole time again, also while another piece waits for its turn; one whose
// time is over stays given up.
func TestProgressRenewsPatience(t *testing.T) {
	gotOn(t.Context()) // not an attempt
	clock := func(ctx context.Context) *patience { return ctx.Value(patienceKey{}).(*patience) }
	spend := func(p *patience) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.left = time.Minute
	}
	left := func(p *patience) time.Duration {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.left
	}
	ctx, cancel := withPatience(within(t), time.Hour)
	defer cancel()
	spend(clock(ctx))
	gotOn(ctx)
	if d := left(clock(ctx)); d != time.Hour {
		t.Errorf("%v are left after a piece", d)
	}
	resume := pausePatience(ctx)
	spend(clock(ctx))
	gotOn(ctx)
	if d := left(clock(ctx)); d != time.Hour || !paused(ctx) {
		t.Errorf("%v are left after a piece while another one waits, the clock stands still: %v", d, paused(ctx))
	}
	resume()
	over, cancelOver := withPatience(t.Context(), time.Millisecond)
	defer cancelOver()
	<-over.Done()
	gotOn(over)
	if !errors.Is(context.Cause(over), context.DeadlineExceeded) {
		t.Errorf("ended with %v", context.Cause(over))
	}

	// What a node connects to is made of such pieces.
	bank, client := plainNode(t, "bank", "127.0.0.1:0"), plainNode(t, "client", "127.0.0.1:0")
	to, err := multiaddr.Parse(tcpRoute(t, bank) + "/secure/api")
	if err != nil {
		t.Fatal(err)
	}
	for _, pieces := range []int{2, 3} { // the TCP connection, and the channel over it
		ctx, cancel := withPatience(within(t), time.Hour)
		spend(clock(ctx))
		c, err := client.connect(ctx, to[:pieces], connectOptions{self: client.opts.Self})
		if err != nil {
			t.Fatal(err)
		}
		if d := left(clock(ctx)); d != time.Hour {
			t.Errorf("%v are left after %d pieces", d, pieces)
		}
		c.close()
		cancel()
	}
}
