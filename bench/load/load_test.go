package load

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// virtual is a server in virtual time: it answers after service, and answers nothing from stallAt for stall.
type virtual struct {
	service, stall time.Duration
	stallAt        time.Time
	asked          atomic.Int64
}

// connection is a client of virtual that writes down when it asked.
type connection struct {
	*virtual
	ctx  context.Context
	fail func(n int64) error
}

func (c *connection) Do() error {
	n := c.asked.Add(1)
	if c.fail != nil {
		if err := c.fail(n); err != nil {
			return err
		}
	}
	d := c.service
	if now := time.Now(); !now.Before(c.stallAt) && now.Before(c.stallAt.Add(c.stall)) {
		d += c.stallAt.Add(c.stall).Sub(now)
	}
	select {
	case <-time.After(d):
		return nil
	case <-c.ctx.Done():
		return c.ctx.Err()
	}
}

func (c *connection) Close() error { return nil }

func (v *virtual) dial(ctx context.Context) (Client, error) {
	return &connection{virtual: v, ctx: ctx}, nil
}

// asleep is sleepUntil in virtual time.
func asleep(_ context.Context, at time.Time) { time.Sleep(time.Until(at)) }

// longest are the latencies in d, the longest first.
func longest(d Distribution) (list []time.Duration, err error) {
	h, err := hdrhistogram.Decode(d.HDR)
	if err != nil {
		return nil, fmt.Errorf("the histogram does not decode: %w", err)
	}
	for _, b := range slices.Backward(h.Distribution()) {
		for range b.Count {
			list = append(list, time.Duration(b.To))
		}
	}
	return list, nil
}

// rounding is by how much a histogram's figure differs: three digits and a microsecond.
func rounding(d time.Duration) time.Duration { return d/500 + 2*time.Microsecond }

func about(got, want time.Duration) bool { return (got - want).Abs() <= rounding(want) }

// TestStallIsSeen: a server that stalls for S at a rate of R makes R*S requests late, the first by S and each after it by 1/R less, whatever the number of
// connections. Of a closed loop with one connection a single request is late: that is what an open loop is for.
func TestStallIsSeen(t *testing.T) {
	random := rand.New(rand.NewPCG(rand.Uint64(), 0))
	for range 20 {
		step, late, connections := time.Second/time.Duration(10+random.IntN(490)), 3+random.IntN(60), 1+random.IntN(8)
		synctest.Test(t, func(t *testing.T) {
			if err := errors.Join(stallOpen(t.Context(), step, late, connections), stallClosed(t.Context(), step, late)); err != nil {
				t.Fatalf("a request each %v, %d late, %d connections: %v", step, late, connections, err)
			}
		})
	}
}

// stallOpen has a server stall for late requests, one each step, and says what is wrong with what an open loop shows.
func stallOpen(ctx context.Context, step time.Duration, late, connections int) error {
	const service = 20 * time.Microsecond
	stall := step * time.Duration(late)
	// Half a step before a request is due, so that the count is not a matter of rounding.
	v := &virtual{service: service, stall: stall, stallAt: time.Now().Add(4*step - step/2)}
	r, err := Run(ctx, Options{Rate: float64(time.Second) / float64(step), Duration: stall + 10*step, Connections: connections, Dial: v.dial, Grace: time.Minute, sleepUntil: asleep})
	if err != nil {
		return err
	}
	got, err := longest(r.Latency)
	if err != nil {
		return err
	}
	if int(r.Due) != len(got) || len(got) < late+9 || len(got) > late+11 {
		return fmt.Errorf("%d were due, %d measured: it should be %d", r.Due, len(got), late+10)
	}
	// What has waited is answered one after the other by each connection, and while that goes on more is due.
	queued := service * time.Duration(late+late*int(service)/int(step)+1)
	for i := range late {
		want := stall - step*time.Duration(i) - step/2
		if d := got[i] - want; d < -rounding(want) || d > rounding(want)+queued {
			return fmt.Errorf("request %d of the stall took %v: it should be %v", i, got[i], want)
		}
	}
	if rest := got[late+int(queued/step)+1]; rest > queued {
		return fmt.Errorf("request %d took %v: the stall made %d late", late, rest, late)
	}
	return nil
}

// stallClosed does it with a closed loop.
func stallClosed(ctx context.Context, step time.Duration, late int) error {
	stall := step * time.Duration(late)
	v := &virtual{service: step, stall: stall, stallAt: time.Now().Add(4*step - step/2)}
	r, err := Run(ctx, Options{Duration: stall + 10*step, Connections: 1, Dial: v.dial, Grace: time.Minute})
	if err != nil {
		return err
	}
	got, err := longest(r.Latency)
	if err != nil {
		return err
	}
	if !about(got[0], stall+step/2) || !about(got[1], step) {
		return fmt.Errorf("the closed loop shows %v: it should be %v, and then %v", got[:2], stall+step/2, step)
	}
	return nil
}

// TestFigures: with a server that keeps up, what is due is answered, at the rate that was asked for, without the warm-up, in both kinds of arrivals.
func TestFigures(t *testing.T) {
	for _, poisson := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			v := &virtual{service: 3 * time.Millisecond}
			r, err := Run(t.Context(), Options{Rate: 1000, Poisson: poisson, Seed: 7, Warmup: time.Second, Duration: 4 * time.Second, Connections: 20, Dial: v.dial, sleepUntil: asleep})
			if err != nil {
				t.Fatal(err)
			}
			if math.Abs(r.Offered-1000) > 60 || math.Abs(r.Achieved-r.Offered) > 3 || r.Answered != r.Due || r.Failed+r.Unanswered != 0 {
				t.Errorf("%+v", r)
			}
			if all := v.asked.Load(); math.Abs(float64(all)-5000) > 250 || all-r.Due < 900 {
				t.Errorf("%d were asked, %d counted", all, r.Due)
			}
			if r.Latency.P50 < 2.9 || r.Latency.P50 > 3.1 || r.Latency.Max > 6 || r.Late.Count == 0 || r.Late.Max > 0.002 {
				t.Errorf("%+v", r)
			}
		})
	}
}

// TestUnanswered: what has no answer at the end of the grace counts with the time it has waited, whether it was sent, waited in the queue or was never taken.
func TestUnanswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &virtual{service: time.Millisecond, stall: time.Hour, stallAt: time.Now().Add(500*time.Millisecond - time.Microsecond)}
		r, err := Run(t.Context(), Options{Rate: 100, Duration: time.Second, Grace: 2 * time.Second, Connections: 2, Dial: v.dial, sleepUntil: asleep})
		if err != nil {
			t.Fatal(err)
		}
		got, err := longest(r.Latency)
		if err != nil {
			t.Fatal(err)
		}
		if r.Due != 100 || r.Answered != 50 || r.Unanswered != 50 || !about(got[0], 2500*time.Millisecond) || !about(got[49], 2010*time.Millisecond) || got[50] > 2*time.Millisecond {
			t.Errorf("%d %d %d, %v %v %v", r.Due, r.Answered, r.Unanswered, got[0], got[49], got[50])
		}
		if r.Took < 3*time.Second || r.Took > 3100*time.Millisecond {
			t.Errorf("it took %v", r.Took)
		}
	})
}

// TestFailures: a request that fails is counted, and the next one has a new connection; a failure is told.
func TestFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &virtual{service: time.Millisecond}
		dialled := 0
		o := Options{Rate: 100, Duration: time.Second, Connections: 1, sleepUntil: asleep}
		o.Dial = func(ctx context.Context) (Client, error) {
			dialled++
			if dialled == 3 {
				return nil, errors.New("refused")
			}
			return &connection{virtual: v, ctx: ctx, fail: func(n int64) error {
				if n%40 == 0 {
					return errors.New("reset")
				}
				return nil
			}}, nil
		}
		r, err := Run(t.Context(), o)
		if err != nil || r.Failed != 3 || r.Answered != 97 || r.FirstError != "reset" || dialled != 4 {
			t.Errorf("%+v %v, dialled %d", r, err, dialled)
		}
		o.Dial = func(context.Context) (Client, error) { return nil, errors.New("refused") }
		if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "connection 1 of 1: refused") {
			t.Error(err)
		}
		for _, bad := range []Options{{Rate: -1, Duration: 1, Connections: 1}, {Duration: 0, Connections: 1}, {Duration: 1}} {
			if _, err := Run(t.Context(), bad); err == nil {
				t.Errorf("%+v was taken", bad)
			}
		}
	})
}

// TestArrivals: equal times add up to the rate without drift; Poisson arrivals have it as mean, the square of the mean as variance, and are the same for equal
// seeds.
func TestArrivals(t *testing.T) {
	next := arrivals(3, false, 0)
	last := time.Duration(0)
	for range 300_001 {
		last = next()
	}
	if last != 100_000*time.Second {
		t.Errorf("request 300,001 is due at %v", last)
	}
	a, b, other := arrivals(1000, true, 1), arrivals(1000, true, 1), arrivals(1000, true, 2)
	const n = 50_000
	sum, squares, differ, before := 0.0, 0.0, 0, time.Duration(0)
	for range n {
		at := a()
		if at != b() {
			t.Fatal("equal seeds give other times")
		}
		if at != other() {
			differ++
		}
		gap := (at - before).Seconds() * 1000
		sum, squares, before = sum+gap, squares+gap*gap, at
	}
	mean := sum / n
	if variance := squares/n - mean*mean; math.Abs(mean-1) > 0.03 || math.Abs(variance-1) > 0.08 || differ < n-10 {
		t.Errorf("mean %v, variance %v, %d differ", mean, variance, differ)
	}
}

// TestCapacity finds what a server can do: 4 connections that take 2 ms each are 2000 for each second.
func TestCapacity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &virtual{service: 2 * time.Millisecond}
		o := Options{Duration: 4 * time.Second, Connections: 4, Dial: v.dial, sleepUntil: asleep}
		tried := 0
		rate, err := Capacity(t.Context(), o, Search{Within: 20 * time.Millisecond, Steps: 7, Tried: func(*Result, bool) { tried++ }})
		if err != nil || rate < 1950 || rate > 2010 || tried < 7 || tried > 14 {
			t.Errorf("%v %v, %d tried", rate, err, tried)
		}
		if _, err := Capacity(t.Context(), o, Search{Within: time.Millisecond}); !errors.Is(err, errTooSlow) {
			t.Errorf("a server that takes longer than the bound: %v", err)
		}
	})
}

// TestEnds: the end of the context ends a run, also one whose server does not answer.
func TestEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &virtual{stall: time.Hour}
		v.stallAt = time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_, err := Run(ctx, Options{Rate: 10, Duration: time.Minute, Connections: 2, Dial: v.dial, sleepUntil: asleep})
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 2*time.Minute {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}
