package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"sallyport/portal"
)

const (
	// stallStreams never read anything; stallGrown read until their windows have grown, and then stop.
	stallStreams = 1000
	stallGrown   = 8
	// stallLimits lets an outlet take so many: without it one peer gets 800.
	stallLimits = `{"outlet-connections": 2000}`
	// stallFor is how long memory is watched then.
	stallFor = 15 * time.Second
)

// stalled puts readers that do not read on our path over 300 ms and 1 Gbit/s, and watches what the nodes hold, and whether others go on.
func stalled(ctx context.Context, program string) error {
	sc := scenario{name: "300 ms", trip: 300 * time.Millisecond, rate: gbit, queue: 100 * time.Millisecond}
	dir, err := os.MkdirTemp("", "distance")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	w, err := newWorld(sc, "")
	if err != nil {
		return err
	}
	defer w.close()
	srv, err := newServer(w)
	if err != nil {
		return err
	}
	defer srv.ln.Close()
	srv.small = true
	p, err := newPath(ctx, pathOurs, w, dir, program, "--limits", stallLimits)
	if err != nil {
		return err
	}
	defer p.close()
	before := p.resident()

	var streams []*stream
	defer func() {
		for _, st := range streams {
			st.close()
		}
	}()
	hold := make(chan struct{})
	defer close(hold)
	open := func(n int, read func(*stream)) error {
		for range n {
			st, err := p.openWith(srv, askDown, read)
			if err != nil {
				return err
			}
			streams = append(streams, st)
		}
		return nil
	}
	until := time.Now().Add(8 * time.Second)
	if err := open(stallGrown, func(st *stream) {
		buf := make([]byte, block)
		for time.Now().Before(until) {
			n, err := st.conn.Read(buf)
			st.bytes.Add(int64(n))
			if err != nil {
				return
			}
		}
		<-hold
	}); err != nil {
		return err
	}
	time.Sleep(time.Until(until))
	moved := 0.0
	for _, st := range streams {
		moved += float64(st.bytes.Load()) * 8 / 1e6 / 8
	}
	if err := open(stallStreams, func(*stream) { <-hold }); err != nil {
		return err
	}
	neighbour, err := p.open(srv, askDown)
	if err != nil {
		return err
	}
	streams = append(streams, neighbour)
	asking, stop := context.WithTimeout(ctx, stallFor)
	defer stop()
	answers := make(chan []time.Duration, 1)
	go func() {
		list, _ := p.requests(asking, 100*time.Millisecond)
		answers <- list
	}()
	most := 0.0
	for begun := time.Now(); time.Since(begun) < stallFor; time.Sleep(250 * time.Millisecond) {
		most = max(most, p.resident())
	}
	list := <-answers
	got := float64(neighbour.bytes.Load()) * 8 / 1e6 / stallFor.Seconds()

	limits := portal.Limits{}.WithDefaults()
	// The inlet's node holds first windows, as many as come to the budget and small ones beyond, and the budget of what has grown; the
	// outlet's what it may have to send again. What the garbage collector has not looked at yet is as much again.
	allowed := float64(2*(2*limits.Budget+limits.KeepBudget+64<<20)) / (1 << 20)
	fmt.Printf("%d readers stopped after %.0f Mbit/s together, %d never began: the three nodes grew from %.0f to %.0f MiB, %.0f allowed; "+
		"a stream beside them had %.2f Mbit/s, %d requests p50 %.0f ms, p99 %.0f ms\n",
		stallGrown, moved, stallStreams, before, most, allowed, got, len(list), percentile(list, 0.5), percentile(list, 0.99))
	var errs []error
	if most-before > allowed {
		errs = append(errs, fmt.Errorf("the nodes grew by %.0f MiB, more than %.0f", most-before, allowed))
	}
	if got < 0.1 {
		errs = append(errs, fmt.Errorf("a stream beside the stalled readers had %.2f Mbit/s", got))
	}
	if len(list) < 5 {
		errs = append(errs, fmt.Errorf("%d requests were answered beside the stalled readers", len(list)))
	}
	return errors.Join(errs...)
}
