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
	unnamed map[fetchPart]struct{}  // what else is in the session: the topics' names are not known yet
}

// maxUnnamed is how many partitions of topics without a name a connection remembers.
const maxUnnamed = 10_000

func (r *readings) all() (list []partition) {
	for p := range r.at {
		list = append(list, p)
	}
	r.at, r.session, r.unnamed = nil, nil, nil
	return list
}

// named returns what a request asks for by its topics' names, which nameOf knows. What has no name yet stays in the session, and is returned with a later
// request when it has one: that does not list it again. unknown are the topics that were asked for now and have none.
func (r *readings) named(ask fetchAsk, nameOf func(topicRef) string) (listed, gone []partition, unknown map[topicID]struct{}) {
	if ask.epoch <= 0 {
		r.unnamed = nil
	}
	for p := range r.unnamed {
		if name := nameOf(p.topic); name != "" {
			delete(r.unnamed, p)
			listed = append(listed, partition{name, p.number})
		}
	}
	for _, p := range ask.listed {
		if name := nameOf(p.topic); name != "" {
			listed = append(listed, partition{name, p.number})
			continue
		}
		if unknown == nil {
			unknown = map[topicID]struct{}{}
		}
		unknown[p.topic.id] = struct{}{}
		if ask.epoch >= 0 && len(r.unnamed) < maxUnnamed {
			if r.unnamed == nil {
				r.unnamed = map[fetchPart]struct{}{}
			}
			r.unnamed[p] = struct{}{}
		}
	}
	for _, p := range ask.gone {
		delete(r.unnamed, p)
		if name := nameOf(p.topic); name != "" {
			gone = append(gone, partition{name, p.number})
		}
	}
	return listed, gone, unknown
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
	c.mu.Lock()
	if c.ended {
		c.mu.Unlock()
		return
	}
	listed, gone, unknown := c.reading.named(ask, in.nameOf)
	known := make(map[partition]bool, len(listed))
	for _, p := range listed {
		_, known[p] = c.reading.at[p]
	}
	left := c.reading.note(ask.epoch, listed, gone, time.Now(), in.readers.opts.Idle)
	c.mu.Unlock()
	for id := range unknown {
		in.opts.Log.Warn("consumer not published yet: the topic's name is not known", "topic", id.String())
	}
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
