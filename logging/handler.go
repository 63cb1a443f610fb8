// Package logging is the handler of a node's log. What a peer sends can make neither a record long nor the log fast, and nobody who logs
// waits for a disk: records are encoded where they are made and written by a goroutine of the log's own.
package logging

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Options configure a Handler. The zero value is completed with the defaults named.
type Options struct {
	// Rate is how many records with one text are written a second, once Burst were; default 10. Negative: no limit.
	Rate int
	// Burst is how many records with one text are written at once; default 200, as a node has portals to tell of when it starts.
	Burst int
	// Text is how many bytes one value may have, 256 by default; what is longer is cut. A field named "stack" may have 16 KiB.
	Text int
	// Queue is how many bytes may wait to be written; default 1 MiB. What comes while it is full is dropped and counted.
	Queue int
	// Tell is how often a kind of which records were left out is told of; default 10 s.
	Tell time.Duration
}

func (o Options) withDefaults() Options {
	set := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	set(&o.Rate, 10)
	set(&o.Burst, 200)
	set(&o.Text, 256)
	set(&o.Queue, 1<<20)
	if o.Tell == 0 {
		o.Tell = 10 * time.Second
	}
	return o
}

// Counts is what became of a log's records. LeftOut are those beyond the rate, Dropped those for which the queue had no room. Busiest is how many
// records the kind with the most had in the last whole second.
type Counts struct {
	Written, LeftOut, Dropped uint64
	Busiest                   int
}

// Handler is a slog.Handler. Make it with New and end it with Close.
type Handler struct {
	inner slog.Handler
	*log
}

// log is what a handler and those derived from it share.
type log struct {
	opts    Options
	rates   rates
	queue   queue
	leftOut atomic.Uint64
	base    slog.Handler // tells of what was left out
	stop    chan struct{}
	once    sync.Once
	done    chan struct{}
}

// New makes a handler whose records encode makes and w gets, several in one Write. It starts a goroutine that Close ends.
func New(w io.Writer, encode func(io.Writer) slog.Handler, o Options) *Handler {
	o = o.withDefaults()
	l := &log{opts: o, rates: newRates(o.Rate, o.Burst), stop: make(chan struct{}), done: make(chan struct{})}
	l.queue.init(o.Queue)
	l.base = encode(&l.queue)
	go l.run(w)
	return &Handler{inner: l.base, log: l}
}

// Enabled implements slog.Handler.
func (h *Handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.inner.Enabled(ctx, level)
}

// WithAttrs implements slog.Handler.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	budget := maxRecord
	short := make([]slog.Attr, 0, len(attrs))
	for _, a := range attrs {
		short = append(short, h.shorten(a, &budget))
	}
	return &Handler{inner: h.inner.WithAttrs(short), log: h.log}
}

// WithGroup implements slog.Handler.
func (h *Handler) WithGroup(name string) slog.Handler {
	return &Handler{inner: h.inner.WithGroup(name), log: h.log}
}

// Handle implements slog.Handler. It never waits for the writer.
func (h *Handler) Handle(ctx context.Context, r slog.Record) error {
	if !h.rates.take(r.Message, r.Level, r.Time) {
		h.leftOut.Add(1)
		return nil
	}
	message, budget := cut(r.Message, h.opts.Text), maxRecord
	out := slog.NewRecord(r.Time, r.Level, message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		out.AddAttrs(h.shorten(a, &budget))
		return true
	})
	return h.inner.Handle(ctx, out)
}

// Counts returns what became of the records so far.
func (h *Handler) Counts() Counts {
	return Counts{
		Written: h.queue.written.Load(), LeftOut: h.leftOut.Load(), Dropped: h.queue.dropped.Load(), Busiest: h.rates.busiest(time.Now()),
	}
}

// Close writes what waits and ends the goroutine. It gives up when the writer takes nothing for a second. Records that come later are
// dropped.
func (h *Handler) Close() {
	h.once.Do(func() { close(h.stop) })
	select {
	case <-h.done:
	case <-time.After(time.Second):
	}
}

// run writes what is queued, and tells now and then of what was left out.
func (l *log) run(w io.Writer) {
	defer close(l.done)
	tick := time.NewTicker(l.opts.Tell)
	defer tick.Stop()
	for {
		select {
		case <-l.queue.filled:
		case now := <-tick.C:
			l.tell(now)
		case <-l.stop:
			l.tell(time.Now())
			l.queue.writeTo(w)
			return
		}
		l.queue.writeTo(w)
	}
}

func (l *log) tell(now time.Time) {
	for _, k := range l.rates.leftOut() {
		r := slog.NewRecord(now, k.level, "records left out", 0)
		r.AddAttrs(slog.String("of", cut(k.text, l.opts.Text)), slog.Uint64("count", k.count))
		_ = l.base.Handle(context.Background(), r)
	}
}
