package dataplane

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// busy keeps l from its inbox until release is called.
func busy(t *testing.T, l *Loop) (release func()) {
	t.Helper()
	free, began := make(chan struct{}), make(chan struct{})
	l.Post(TaskFunc(func() { close(began); <-free }))
	<-began
	var once sync.Once
	release = func() { once.Do(func() { close(free) }) }
	t.Cleanup(release)
	return release
}

// TestDoNeverRunsLate: what Do gave up is not run afterwards, so what it was to take over can be closed at once.
func TestDoNeverRunsLate(t *testing.T) {
	l := newLoop(t)
	release := busy(t, l)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel) // while it waits
	ran := false
	if err := l.Do(ctx, func() { ran = true }); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	release()
	on(t, l, func() {
		if ran {
			t.Error("ran after Do had given it up")
		}
	})
}

// TestDoForNobody: for a context that has ended nothing runs, also on a loop that has nothing else to do.
func TestDoForNobody(t *testing.T) {
	l := newLoop(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 2000 {
		if err := l.Do(ctx, func() { t.Error("ran") }); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
}

// TestDoWaitsForWhatHasBegun: once f runs, Do returns after it and without an error, whatever the context says.
func TestDoWaitsForWhatHasBegun(t *testing.T) {
	l := newLoop(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := false
	if err := l.Do(ctx, func() {
		cancel()
		time.Sleep(20 * time.Millisecond)
		done = true
	}); err != nil || !done {
		t.Errorf("%v, done %v", err, done)
	}
}

// TestDoRace: in every round f has run if and only if Do returned nil.
func TestDoRace(t *testing.T) {
	l := newLoop(t)
	for i := range 2000 {
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			for range i % 50 {
			}
			cancel()
		}()
		var ran atomic.Bool
		err := l.Do(ctx, func() { ran.Store(true) })
		if got := ran.Load(); got != (err == nil) {
			t.Fatalf("round %d: ran %v, %v", i, got, err)
		}
		cancel()
	}
}

// TestFinishRuns: what takes something down runs though nobody waits for it any more.
func TestFinishRuns(t *testing.T) {
	l := newLoop(t)
	release := busy(t, l)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel) // while it waits
	ran := false
	if err := l.Finish(ctx, func() { ran = true }); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	release()
	on(t, l, func() {
		if !ran {
			t.Error("never ran")
		}
	})
}

// TestPostedBeforeEndRuns: a task that Post took runs, however close the loop's end is; one that it refused does not.
func TestPostedBeforeEndRuns(t *testing.T) {
	for range 50 {
		g, err := NewGroup(1, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		l := g.Loop(0)
		var taken, ran atomic.Int64
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for l.Post(TaskFunc(func() { ran.Add(1) })) {
					taken.Add(1)
				}
			})
		}
		g.Stop()
		wg.Wait()
		if taken.Load() != ran.Load() {
			t.Fatalf("%d tasks taken, %d run", taken.Load(), ran.Load())
		}
	}
}
