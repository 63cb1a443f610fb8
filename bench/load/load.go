// Package load offers requests at a rate of its own choosing and measures how long each takes from the moment it was due.
//
// A generator whose next request waits for the last answer (a closed loop) asks least where the server is slowest, so its percentiles leave out what
// clients at a fixed rate would have waited: coordinated omission. Here the times at which requests are due are fixed before the first is sent (an open
// loop). A request that finds all connections busy waits for one, and this wait counts.
package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Client is one connection with at most one request under way.
type Client interface {
	// Do makes one request and waits for its answer. It returns soon after the end of the context that the client was dialled with.
	Do() error
	// Close ends the connection. It is not called while Do runs.
	Close() error
}

// Dial opens a connection. The client must not outlive ctx: when that ends, its Do returns.
type Dial func(ctx context.Context) (Client, error)

// Options say what is offered.
type Options struct {
	Rate        float64       // requests for each second; 0 is a closed loop: each connection asks again at once
	Poisson     bool          // times between requests are exponentially distributed, else all equal
	Seed        uint64        // of the times with Poisson: equal seeds give equal times
	Duration    time.Duration // for how long requests are due, after Warmup
	Warmup      time.Duration // for how long they were due before, without being counted
	Grace       time.Duration // how long answers are waited for after the last request was due; 0 is 5 s
	Connections int           // how many requests are under way at most
	Dial        Dial

	sleepUntil func(context.Context, time.Time) // in tests: virtual time
}

// Bounds of latencies that are told apart, in nanoseconds: 1 us, 100 s, three significant digits.
const (
	leastLatency = 1_000
	mostLatency  = 100_000_000_000
	digits       = 3
)

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(leastLatency, mostLatency, digits)
}

func record(h *hdrhistogram.Histogram, d time.Duration) {
	_ = h.RecordValue(min(max(int64(d), 0), mostLatency)) // within the bounds it does not fail
}

// Result is what came of it. Requests of the warm-up are in none of its figures.
type Result struct {
	Offered    float64       `json:"offered"`    // requests for each second that were due; with a closed loop, those that were made
	Achieved   float64       `json:"achieved"`   // answers for each second of Duration, those in the grace not among them
	Due        int64         `json:"due"`        // requests
	Answered   int64         `json:"answered"`   // requests with a good answer, those in the grace among them
	Failed     int64         `json:"failed"`     // requests with an error in place of an answer
	Unanswered int64         `json:"unanswered"` // requests that had no answer at the end of the grace
	FirstError string        `json:"first_error,omitempty"`
	Latency    Distribution  `json:"latency"` // from the time due to the answer, failed and unanswered ones with the least that they waited
	Late       Distribution  `json:"late"`    // what of it is the generator's own: from the time due to its waking up for it
	Took       time.Duration `json:"took_ns"`
}

// Distribution is a summary of latencies in milliseconds, and the whole of it.
type Distribution struct {
	Count int64   `json:"count"`
	Mean  float64 `json:"mean"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p99_9"`
	Max   float64 `json:"max"`
	// HDR is the histogram in nanoseconds as HdrHistogram's compressed encoding V2, in base64.
	HDR []byte `json:"hdr,omitempty"`
}

func summary(h *hdrhistogram.Histogram) Distribution {
	ms := func(v int64) float64 { return float64(v) / float64(time.Millisecond) }
	d := Distribution{Count: h.TotalCount(), Mean: h.Mean() / float64(time.Millisecond), Max: ms(h.Max()),
		P50: ms(h.ValueAtPercentile(50)), P90: ms(h.ValueAtPercentile(90)), P99: ms(h.ValueAtPercentile(99)), P999: ms(h.ValueAtPercentile(99.9))}
	if d.Count == 0 {
		return Distribution{}
	}
	if b, err := h.Encode(hdrhistogram.V2CompressedEncodingCookieBase); err == nil {
		d.HDR = b
	}
	return d
}

// tally is what one worker counted.
type tally struct {
	latency          *hdrhistogram.Histogram
	answered, failed int64
	unanswered       int64
	inTime           int64 // answers within Duration
	firstError       error
}

// run is one run of Options.
type run struct {
	Options
	queue              chan time.Time // times due of requests that no connection has taken
	from, to, deadline time.Time      // what is due between from and to counts; at deadline everything ends
}

// Run offers the load and returns what came of it. Requests that fail are in the result; an error is something that kept the load from being offered, such as
// no connection at the beginning.
func Run(ctx context.Context, o Options) (*Result, error) {
	switch {
	case o.Rate < 0 || o.Rate > 1e7:
		return nil, fmt.Errorf("the rate is %v for each second: it must be from 0, as fast as answers come, to 10,000,000", o.Rate)
	case o.Duration <= 0:
		return nil, fmt.Errorf("the duration is %v: it must be more than 0", o.Duration)
	case o.Connections < 1:
		return nil, fmt.Errorf("the number of connections is %d: it must be 1 or more", o.Connections)
	}
	if o.Grace <= 0 {
		o.Grace = 5 * time.Second
	}
	if o.sleepUntil == nil {
		o.sleepUntil = sleepUntil
	}
	work, cancel := context.WithCancel(ctx)
	defer cancel()
	clients := make([]Client, 0, o.Connections)
	for i := range o.Connections {
		c, err := o.Dial(work)
		if err != nil {
			cancel()
			for _, c := range clients {
				_ = c.Close() // nothing was sent
			}
			return nil, fmt.Errorf("connection %d of %d: %w", i+1, o.Connections, err)
		}
		clients = append(clients, c)
	}

	start := time.Now()
	r := &run{Options: o, queue: make(chan time.Time, o.Connections), from: start.Add(o.Warmup), to: start.Add(o.Warmup + o.Duration)}
	r.deadline = r.to.Add(o.Grace)
	expire := time.AfterFunc(time.Until(r.deadline), cancel)
	defer expire.Stop()
	tallies := make([]tally, len(clients))
	var workers sync.WaitGroup
	for i, c := range clients {
		workers.Go(func() { tallies[i] = r.worker(work, c) })
	}
	late := newHistogram()
	var rest []time.Time
	if o.Rate > 0 {
		rest = r.offer(work, start, late)
	}
	close(r.queue)
	workers.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return r.sum(tallies, rest, late, start), nil
}

// offer puts each request into the queue when it is due. It returns those that no connection took before the deadline.
func (r *run) offer(ctx context.Context, start time.Time, late *hdrhistogram.Histogram) (rest []time.Time) {
	next := arrivals(r.Rate, r.Poisson, r.Seed)
	for {
		due := start.Add(next())
		if !due.Before(r.to) {
			return rest
		}
		if ctx.Err() == nil && time.Until(due) > 0 {
			r.sleepUntil(ctx, due)
			if !due.Before(r.from) {
				record(late, time.Since(due))
			}
		}
		select {
		case r.queue <- due:
			continue
		default:
		}
		select {
		case r.queue <- due:
		case <-ctx.Done():
			rest = append(rest, due)
		}
	}
}

// worker makes requests over one connection, and over another one in its place when it fails.
func (r *run) worker(ctx context.Context, c Client) tally {
	t := tally{latency: newHistogram()}
	defer func() {
		if c != nil {
			_ = c.Close() // nothing is under way
		}
	}()
	if r.Rate == 0 {
		for now := time.Now(); now.Before(r.to) && ctx.Err() == nil; now = time.Now() {
			c = r.request(ctx, c, now, &t)
		}
		return t
	}
	for due := range r.queue {
		c = r.request(ctx, c, due, &t)
	}
	return t
}

// request makes the request that was due at the given time, and counts it unless it was due in the warm-up. It returns the connection for the next one, nil
// if there is none.
func (r *run) request(ctx context.Context, c Client, due time.Time, t *tally) Client {
	var err error
	if c == nil && ctx.Err() == nil {
		c, err = r.Dial(ctx)
	}
	if err == nil && ctx.Err() == nil {
		err = c.Do()
	}
	end := time.Now()
	counts := !due.Before(r.from)
	switch {
	case ctx.Err() != nil:
		if counts {
			t.unanswered++
			record(t.latency, r.deadline.Sub(due))
		}
		return c
	case err != nil:
		if c != nil {
			_ = c.Close() // it has failed already
		}
		c = nil
		if t.firstError == nil {
			t.firstError = err
		}
		if counts {
			t.failed++
		}
	case counts:
		t.answered++
		if end.Before(r.to) {
			t.inTime++
		}
	}
	if counts {
		record(t.latency, end.Sub(due))
	}
	return c
}

func (r *run) sum(tallies []tally, rest []time.Time, late *hdrhistogram.Histogram, start time.Time) *Result {
	res := &Result{Took: time.Since(start)}
	all := newHistogram()
	var first error
	inTime := int64(0)
	for _, t := range tallies {
		all.Merge(t.latency)
		res.Answered += t.answered
		res.Failed += t.failed
		res.Unanswered += t.unanswered
		inTime += t.inTime
		if first == nil {
			first = t.firstError
		}
	}
	for _, due := range rest {
		if !due.Before(r.from) {
			res.Unanswered++
			record(all, r.deadline.Sub(due))
		}
	}
	if first != nil {
		res.FirstError = first.Error()
	}
	res.Due = res.Answered + res.Failed + res.Unanswered
	res.Offered = float64(res.Due) / r.Duration.Seconds()
	res.Achieved = float64(inTime) / r.Duration.Seconds()
	res.Latency, res.Late = summary(all), summary(late)
	return res
}

// errTooSlow is what Capacity returns when not even a small rate is kept up with.
var errTooSlow = errors.New("no rate was kept up with")
