package routing

import (
	"context"
	"errors"
	"sync"
	"testing"

	"sallyport/dataplane"
)

// hang keeps s from its inbox until release is called.
func hang(t *testing.T, s *Shard) (release func()) {
	t.Helper()
	free, began := make(chan struct{}), make(chan struct{})
	s.Loop().Post(dataplane.TaskFunc(func() { close(began); <-free }))
	<-began
	var once sync.Once
	release = func() { once.Do(func() { close(free) }) }
	t.Cleanup(release)
	return release
}

// TestStartNamedRollsBack: when one shard does not answer, the name is free again, on every shard.
func TestStartNamedRollsBack(t *testing.T) {
	for _, start := range []struct {
		name string
		f    func(*Router, context.Context, string, func(*Shard) Worker, ...*Flow) error
	}{{"start", (*Router).StartNamed}} {
		t.Run(start.name, func(t *testing.T) {
			r := newRouter(t, 3)
			release := hang(t, r.Shards()[1])
			ctx, cancel := context.WithCancel(t.Context())
			err := start.f(r, ctx, "service", func(*Shard) Worker {
				cancel() // the first shard has it, the second one hangs
				return Echo(nil, nil)
			})
			if !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			release()
			for i, s := range r.Shards() {
				on(t, s, func() {
					if s.Worker("service") != nil {
						t.Errorf("shard %d has the worker", i)
					}
				})
			}
			if r.HasNamed("service") {
				t.Error("the name is taken")
			}
			named(t, r, "service", Echo(nil, nil))
		})
	}
}

// TestStopNamedFinishes: a worker whose stopping nobody waited for is gone all the same, on every shard.
func TestStopNamedFinishes(t *testing.T) {
	r := newRouter(t, 3)
	named(t, r, "service", Echo(nil, nil))
	release := hang(t, r.Shards()[1])
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.StopNamed(ctx, "service"); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	release()
	for i, s := range r.Shards() {
		on(t, s, func() {
			if s.Worker("service") != nil {
				t.Errorf("shard %d has the worker", i)
			}
		})
	}
}

// TestAddConsumerRollsBack: when one shard does not answer, no shard lets the flow in.
func TestAddConsumerRollsBack(t *testing.T) {
	r := newRouter(t, 3)
	named(t, r, "service", Echo(nil, nil))
	release := hang(t, r.Shards()[2])
	ctx, cancel := context.WithCancel(t.Context())
	f := NewFlow()
	go func() {
		for s := r.Shards()[1]; ; { // when the second shard has it, the third one is waited for
			if s.Do(t.Context(), func() {
				if len(s.Consumes("service")) > 0 {
					cancel()
				}
			}) != nil || ctx.Err() != nil {
				return
			}
		}
	}()
	if err := r.AddConsumer(ctx, "service", f); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	release()
	for i, s := range r.Shards() {
		on(t, s, func() {
			if len(s.Consumes("service")) > 0 {
				t.Errorf("shard %d lets the flow in", i)
			}
		})
	}
}
