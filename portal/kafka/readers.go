package kafka

import (
	"context"
	"sync"
	"time"
)

// DefaultLinger is how long a partition counts as read after its last client has gone: it may only connect again.
const DefaultLinger = 10 * time.Second

// DefaultIdle is how long a client may leave out a partition that it has read. Clients do so while they are busy with its records, by
// default for up to five minutes (max.poll.interval.ms).
const DefaultIdle = 6 * time.Minute

type partition struct {
	topic  string
	number int32
}

// readers knows which partitions are read, and tells when that begins and ends.
type readers struct {
	opts InletOptions

	mu     sync.Mutex
	of     map[partition]*readership
	closed bool
}

// readership is who reads a partition.
type readership struct {
	by     map[*inletConn]struct{}
	ending *time.Timer // nobody does; nil while somebody does
}

func newReaders(o InletOptions) *readers {
	if o.Linger <= 0 {
		o.Linger = DefaultLinger
	}
	if o.Idle <= 0 {
		o.Idle = DefaultIdle
	}
	return &readers{opts: o, of: map[partition]*readership{}}
}

// begin notes a reader, and tells whether the partition has to be published.
func (r *readers) begin(c *inletConn, p partition) (fresh bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.of[p]
	if s == nil {
		if r.closed || len(r.of) >= maxPublished {
			return false
		}
		s, fresh = &readership{by: map[*inletConn]struct{}{}}, true
		r.of[p] = s
	}
	if s.ending != nil {
		s.ending.Stop()
		s.ending = nil
	}
	s.by[c] = struct{}{}
	return fresh
}

// end notes that a client does not read a partition any more.
func (r *readers) end(c *inletConn, p partition) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.of[p]
	if s == nil {
		return
	}
	if delete(s.by, c); len(s.by) > 0 || s.ending != nil || r.closed {
		return
	}
	s.ending = time.AfterFunc(r.opts.Linger, func() { r.withdraw(p, s) })
}

// withdraw ends a readership that nobody has taken up again.
func (r *readers) withdraw(p partition, s *readership) {
	r.mu.Lock()
	over := r.of[p] == s && len(s.by) == 0 && !r.closed
	if over {
		delete(r.of, p)
	}
	r.mu.Unlock()
	if over && r.opts.Withdraw != nil {
		r.opts.Withdraw(p.topic, p.number)
	}
}

func (r *readers) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for _, s := range r.of {
		if s.ending != nil {
			s.ending.Stop()
		}
	}
	clear(r.of)
}

// readings are what one client reads.
type readings struct {
	at      map[partition]time.Time // when it last asked
	session map[partition]struct{}  // what it asks for without naming it (KIP-227)
}

func (r *readings) all() (list []partition) {
	for p := range r.at {
		list = append(list, p)
	}
	r.at, r.session = nil, nil
	return list
}

// note adds what is asked for, and returns what has not been for as long as idle.
func (r *readings) note(epoch int32, listed, gone []partition, now time.Time, idle time.Duration) (left []partition) {
	if r.at == nil {
		r.at = map[partition]time.Time{}
	}
	if epoch <= 0 || r.session == nil {
		r.session = map[partition]struct{}{}
	}
	for _, p := range listed {
		r.at[p] = now
		if epoch >= 0 {
			r.session[p] = struct{}{}
		}
	}
	for _, p := range gone {
		delete(r.session, p)
	}
	for p, last := range r.at {
		if _, in := r.session[p]; in {
			r.at[p] = now
		} else if now.Sub(last) >= idle {
			delete(r.at, p)
			left = append(left, p)
		}
	}
	return left
}

// reads notes what a request reads, and publishes what nobody has read before.
func (c *inletConn) reads(ctx context.Context, ask fetchAsk) {
	in := c.in
	named := func(list []fetchPart) (named []partition) {
		for _, p := range list {
			name := in.nameOf(p.topic)
			if name == "" {
				in.opts.Log.Warn("consumer not published: the topic's name is not known", "topic", p.topic.id.String())
				continue
			}
			named = append(named, partition{name, p.number})
		}
		return named
	}
	listed := named(ask.listed)
	gone := named(ask.gone)
	c.mu.Lock()
	if c.ended {
		c.mu.Unlock()
		return
	}
	known := make(map[partition]bool, len(listed))
	for _, p := range listed {
		_, known[p] = c.reading.at[p]
	}
	left := c.reading.note(ask.epoch, listed, gone, time.Now(), in.readers.opts.Idle)
	c.mu.Unlock()
	for _, p := range left {
		in.readers.end(c, p)
	}
	var all sync.WaitGroup
	for _, p := range listed {
		if !known[p] && in.readers.begin(c, p) {
			all.Go(func() { in.opts.Publish(ctx, p.topic, p.number) })
		}
	}
	all.Wait()
	c.mu.Lock()
	ended := c.ended
	c.mu.Unlock()
	if ended { // meanwhile: the end did not see what was begun here
		for _, p := range listed {
			in.readers.end(c, p)
		}
	}
}
