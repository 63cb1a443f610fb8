package records

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of a Log.
const (
	// maxWaiting is how many records wait to be written, some 400 bytes each; what comes while so many wait is dropped and counted.
	maxWaiting = 16 << 10
	// flushEvery is how long records wait at most, so that many are written at once.
	flushEvery = 500 * time.Millisecond
	// hurry is how many waiting records are written at once.
	hurry = maxWaiting / 4
	// refusedBurst and refusedRate bound the records of those who are turned away, who choose how often they come.
	refusedBurst, refusedRate = 200, 20
)

// Sink takes encoded records. Its methods are called by one goroutine.
type Sink interface {
	// Write takes one or more records. lines are them as JSON, each with the end of its line.
	Write(batch []*Record, lines []byte) error
	Close() error
}

// Options configure a Log.
type Options struct {
	// Node is the node's name.
	Node string
	// Sink is where records go. The Log closes it.
	Sink Sink
	// Attributes tells what an authority attested of a peer; nil tells nothing.
	Attributes func(peer *[32]byte) map[string]string
	// Receipts, if set, chains and signs the records.
	Receipts *Receipts
	// Log is told of what goes wrong.
	Log *slog.Logger
}

// Counts is what became of records. Dropped are those for which there was no room or whose sink failed, LeftOut those of refusals beyond
// their rate.
type Counts struct{ Written, Dropped, LeftOut uint64 }

// Log is where portals leave their records. It implements portal.Recorder.
type Log struct {
	opts  Options
	every time.Duration // flushEvery

	mu      sync.Mutex
	waiting []*Record
	spare   []*Record // the other half of the double buffer
	closed  bool
	tokens  float64 // for refusals
	filledA time.Time

	filled                    chan struct{} // has room for one: something waits
	much                      chan struct{} // has room for one: so much waits that it is written now
	stop                      chan struct{}
	syncs                     chan chan struct{}
	done                      chan struct{}
	written, dropped, leftOut atomic.Uint64
	buf                       []byte
	told                      time.Time // when Log was last told of a failure
}

// New makes a Log and starts its goroutine, which Close ends.
func New(o Options) *Log { return newLog(o, flushEvery) }

func newLog(o Options, every time.Duration) *Log {
	l := &Log{opts: o, every: every, filled: make(chan struct{}, 1), much: make(chan struct{}, 1), stop: make(chan struct{}), syncs: make(chan chan struct{}), done: make(chan struct{}), tokens: refusedBurst, filledA: time.Now()}
	go l.run()
	return l
}

// Attributes implements portal.Recorder.
func (l *Log) Attributes(peer *[32]byte) map[string]string {
	if l.opts.Attributes == nil {
		return nil
	}
	return l.opts.Attributes(peer)
}

// Record implements portal.Recorder. It never waits for the sink. Any goroutine.
func (l *Log) Record(r *Record) {
	l.mu.Lock()
	switch {
	case r.Refused && !l.mayRefuse(r.Ended):
		l.mu.Unlock()
		l.leftOut.Add(1)
		return
	case l.closed || len(l.waiting) >= maxWaiting:
		l.mu.Unlock()
		l.dropped.Add(1)
		return
	}
	l.waiting = append(l.waiting, r)
	n := len(l.waiting)
	l.mu.Unlock()
	switch n {
	case 1:
		signal(l.filled)
	case hurry:
		signal(l.much)
	}
}

// signal leaves word in a channel with room for one.
func signal(to chan struct{}) {
	select {
	case to <- struct{}{}:
	default:
	}
}

// mayRefuse takes a token of the refusals. l.mu is held.
func (l *Log) mayRefuse(now time.Time) bool {
	if d := now.Sub(l.filledA); d > 0 {
		l.tokens, l.filledA = min(l.tokens+d.Seconds()*refusedRate, refusedBurst), now
	}
	if l.tokens < 1 {
		return false
	}
	l.tokens--
	return true
}

// Counts returns what became of the records so far.
func (l *Log) Counts() Counts {
	return Counts{Written: l.written.Load(), Dropped: l.dropped.Load(), LeftOut: l.leftOut.Load()}
}

// Close writes what waits and ends the goroutine. It gives up when the sink takes nothing for two seconds.
func (l *Log) Close() {
	l.mu.Lock()
	was := l.closed
	l.closed = true
	l.mu.Unlock()
	if !was {
		close(l.stop)
	}
	select {
	case <-l.done:
	case <-time.After(2 * time.Second):
	}
}

// Sync writes what waits, and signs it, as far as the sink takes it within a second: this program is about to be replaced.
func (l *Log) Sync() {
	limit := time.After(time.Second)
	done := make(chan struct{})
	select {
	case l.syncs <- done:
	case <-l.done:
		return
	case <-limit:
		return
	}
	select {
	case <-done:
	case <-limit:
	}
}

func (l *Log) run() {
	defer close(l.done)
	defer func() { _ = l.opts.Sink.Close() }()
	for stopped := false; !stopped; {
		select {
		case <-l.filled:
			select {
			case <-time.After(l.every):
			case <-l.much:
			case done := <-l.syncs:
				l.flush(true)
				close(done)
				continue
			case <-l.stop:
				stopped = true
			}
		case <-l.stop:
			stopped = true
		case done := <-l.syncs:
			l.flush(true)
			close(done)
			continue
		}
		l.flush(stopped)
	}
}

// flush writes what waits; last signs what is not signed yet.
func (l *Log) flush(last bool) {
	l.mu.Lock()
	batch := l.waiting
	l.waiting, l.spare = l.spare[:0], nil
	l.mu.Unlock()
	l.buf = l.buf[:0]
	for _, r := range batch {
		start := len(l.buf)
		l.buf = r.AppendJSON(l.buf, l.opts.Node)
		if l.opts.Receipts != nil {
			l.buf = l.opts.Receipts.chain(l.buf, start)
		}
		l.buf = append(l.buf, '\n')
	}
	if rs := l.opts.Receipts; rs != nil {
		var err error
		if l.buf, err = rs.sign(context.Background(), l.buf, last); err != nil {
			l.failed("connection records were not signed", err)
		}
		if rs.unsigned() && !last {
			signal(l.filled) // come back for the signature
		}
	}
	if len(l.buf) > 0 {
		err := l.opts.Sink.Write(batch, l.buf)
		switch {
		case err == nil:
			l.written.Add(uint64(len(batch)))
		case errors.Is(err, errRotated):
			l.written.Add(uint64(len(batch)))
			l.failed("connection records are not rotated", err)
		default:
			l.dropped.Add(uint64(len(batch)))
			l.failed("connection records were not written", err)
		}
	}
	if cap(l.buf) > 1<<20 {
		l.buf = nil // a quiet log keeps nothing of a burst
	}
	clear(batch)
	if cap(batch) > 1024 {
		batch = nil
	}
	l.mu.Lock()
	l.spare = batch[:0]
	l.mu.Unlock()
}

// failed tells the log, at most once a minute.
func (l *Log) failed(what string, err error) {
	if now := time.Now(); now.Sub(l.told) > time.Minute && l.opts.Log != nil {
		l.told = now
		l.opts.Log.Error(what, "err", err.Error())
	}
}
