package dataplane

import (
	"math"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of what is granted at once.
const (
	rateTick  = 4 * time.Millisecond // of rate, and between two looks at who waits
	rateBurst = 5                    // ticks that a rate that nobody uses saves up
	leastPart = 2 << 10
	mostPart  = 64 << 10
)

// Member is whose bytes a connection carries, for a Rate: each gets an equal share.
type Member [32]byte

// Rate is a limit in bytes a second that connections on any loops share. Who wants to move bytes takes a part; where there is none it waits, and is
// given one when its member's turn comes. So what one member does not use, others can, and a connection among many gets no less than its member's
// share. A connection that waits does not read its socket, or does not write to it, as if its peer were slow. All methods are for any goroutine.
type Rate struct {
	group *Group

	mu     sync.Mutex
	bucket bucket
	armed  bool
}

// NewRate makes a limit of so many bytes a second for connections on loops of g; 0 is none.
func NewRate(g *Group, bytes int64) *Rate {
	r := &Rate{group: g}
	r.bucket.set(bytes, time.Now())
	return r
}

// Set changes the limit; 0 is none.
func (r *Rate) Set(bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bucket.set(bytes, time.Now()) // who waits is looked at within a tick
}

// Limited reports whether there is a limit.
func (r *Rate) Limited() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bucket.rate > 0
}

// take returns how many bytes s may move now, 0 if it is told later.
func (r *Rate) take(s *share) int {
	r.mu.Lock()
	n := r.bucket.take(s, time.Now())
	arm := n == 0 && !r.armed
	if arm {
		r.armed = true
	}
	r.mu.Unlock()
	if arm {
		r.later(s.conn.loop)
	}
	return n
}

// giveBack takes back what a connection that has ended did not use.
func (r *Rate) giveBack(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bucket.tokens += float64(n)
}

// later looks again after a tick, on the loop of somebody who waits. On that loop only.
func (r *Rate) later(l *Loop) { l.After(rateTick, r.look) }

// look gives parts to those whose turn it is, and sees to it that somebody looks again.
func (r *Rate) look() {
	r.mu.Lock()
	granted, more := r.bucket.grant(time.Now())
	r.armed = more != nil
	r.mu.Unlock()
	for _, s := range granted {
		s.conn.loop.Post(s) // on a loop that has ended nobody waits
	}
	if more != nil {
		more.conn.loop.Post(TaskFunc(func() { r.later(more.conn.loop) }))
	}
}

// bucket is a Rate without clock and lock: a token bucket with those who wait for tokens.
type bucket struct {
	rate   int64   // bytes a second; 0: no limit
	tokens float64 // bytes
	at     time.Time
	lines  map[Member]*rateLine
	turns  []*rateLine // those in which somebody waits, in the order of their turns
}

// rateLine is those who wait of one member.
type rateLine struct {
	member Member
	wait   []*share
}

func (b *bucket) set(rate int64, now time.Time) {
	b.refill(now)
	b.rate = rate
	b.tokens = min(b.tokens, b.most())
}

// part is how much is granted at once.
func (b *bucket) part() int {
	if b.rate == 0 {
		return math.MaxInt32
	}
	return min(max(int(float64(b.rate)*rateTick.Seconds()), leastPart), mostPart)
}

// most is how much is saved up at most.
func (b *bucket) most() float64 {
	return max(float64(b.rate)*rateTick.Seconds()*rateBurst, float64(b.part()))
}

func (b *bucket) refill(now time.Time) {
	if passed := now.Sub(b.at); passed > 0 {
		b.tokens = min(b.tokens+float64(b.rate)*passed.Seconds(), b.most())
		b.at = now
	}
}

// take grants a part if there is one that nobody waits for, else s waits and the answer is 0.
func (b *bucket) take(s *share, now time.Time) int {
	if b.rate == 0 {
		return b.part()
	}
	b.refill(now)
	if part := b.part(); len(b.turns) == 0 && b.tokens >= float64(part) {
		b.tokens -= float64(part)
		return part
	}
	l := b.lines[s.member]
	if l == nil {
		if b.lines == nil {
			b.lines = map[Member]*rateLine{}
		}
		l = &rateLine{member: s.member}
		b.lines[s.member] = l
		b.turns = append(b.turns, l)
	}
	l.wait = append(l.wait, s)
	return 0
}

// grant gives parts to those whose turn it is; more is somebody who still waits, nil if nobody does.
func (b *bucket) grant(now time.Time) (granted []*share, more *share) {
	b.refill(now)
	part := b.part()
	for len(b.turns) > 0 && (b.rate == 0 || b.tokens >= float64(part)) {
		l := b.turns[0]
		b.turns[0], b.turns = nil, b.turns[1:]
		s := l.wait[0]
		l.wait[0], l.wait = nil, l.wait[1:]
		s.granted = part
		granted = append(granted, s)
		if b.rate > 0 {
			b.tokens -= float64(part)
		}
		if len(l.wait) > 0 {
			b.turns = append(b.turns, l) // behind the others
		} else {
			delete(b.lines, l.member)
		}
	}
	if len(b.turns) > 0 {
		more = b.turns[0].wait[0]
	}
	return granted, more
}

// share is one direction of a connection that a Rate limits.
type share struct {
	rate    *Rate
	member  Member
	conn    *Conn
	out     bool
	may     int  // bytes that may be moved
	waits   bool // for more
	granted int  // what it will be told
}

// left returns how many bytes may be moved now. With 0 the connection goes on by itself once there are some.
func (s *share) left() int {
	if s.may <= 0 && !s.waits {
		if n := s.rate.take(s); n > 0 {
			s.may += n
		} else {
			s.waits = true
		}
	}
	return max(s.may, 0)
}

// Run implements Task: the turn has come.
func (s *share) Run() {
	s.waits = false
	s.may += s.granted
	c := s.conn
	switch {
	case c.closed:
		s.end()
	case s.out:
		c.flush()
	default:
		c.offer()
	}
}

// end gives back what was not used.
func (s *share) end() {
	if s.may > 0 && s.may <= mostPart {
		s.rate.giveBack(s.may)
	}
	s.may = 0
}

// limits are the limits of a connection.
type limits struct{ in, out share }

// Limit has what is read from c and what is written to it take its turns at two rates from now on. It does nothing to one that has limits.
func (c *Conn) Limit(in, out *Rate, member Member) {
	if c.limits != nil || c.closed {
		return
	}
	c.limits = &limits{share{rate: in, member: member, conn: c}, share{rate: out, member: member, conn: c, out: true}}
}

// HasLimit reports whether c takes its turns at two rates.
func (c *Conn) HasLimit() bool { return c.limits != nil }

// readRoom returns how much of a read of size bytes may be done; 0 if none now.
func (c *Conn) readRoom(size int) int {
	if c.limits == nil || c.shutting == lingering { // what is not wanted any more
		return size
	}
	return min(size, c.limits.in.left())
}

// moved notes that n bytes were read.
func (c *Conn) moved(n int) {
	if c.limits != nil {
		c.limits.in.may -= n
	}
}

// waitsToRead reports whether nothing is read before a turn has come.
func (c *Conn) waitsToRead() bool {
	return c.limits != nil && c.limits.in.waits && c.shutting != lingering
}

func (c *Conn) endLimits() {
	if c.limits != nil {
		c.limits.in.end()
		c.limits.out.end()
	}
}

// writeSome writes what a connection with a limit may; it reports false when the connection has ended.
func (c *Conn) writeSome() (open bool) {
	out := &c.limits.out
	for c.outBytes > 0 && !c.blocked {
		n := out.left()
		if n == 0 {
			return true
		}
		head := c.out[0]
		p := head.buf[head.r:head.w]
		p = p[:min(len(p), n)]
		if len(p) == 0 {
			c.sent(0)
			continue
		}
		n, errno := rawWrite(c.fd, p)
		switch {
		case errno == 0:
			c.blocked = n < len(p)
			out.may -= n
			c.sent(n)
		case errno == unix.EINTR:
		case errno == unix.EAGAIN:
			c.blocked = true
		default:
			c.writeFailed(errno)
			return false
		}
	}
	return true
}
