package portal

import (
	pq "container/heap"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// This is a model of a path with virtual time: two nodes and a relay between them, joined by two lines in each direction. What decides how
// much may be under way is the real window.

// clock runs functions at virtual times.
type clock struct {
	now   time.Time
	queue eventHeap
	count int
}

type event struct {
	at    time.Time
	order int
	run   func()
}

type eventHeap []event

func (h eventHeap) Len() int { return len(h) }
func (h eventHeap) Less(i, j int) bool {
	if !h[i].at.Equal(h[j].at) {
		return h[i].at.Before(h[j].at)
	}
	return h[i].order < h[j].order
}
func (h eventHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *eventHeap) Push(x any)   { *h = append(*h, x.(event)) }
func (h *eventHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	*h = old[:len(old)-1]
	return e
}

func (c *clock) after(d time.Duration, run func()) {
	c.count++
	pq.Push(&c.queue, event{c.now.Add(d), c.count, run})
}

// runFor handles what happens in the next d.
func (c *clock) runFor(d time.Duration) {
	until := c.now.Add(d)
	for len(c.queue) > 0 && !c.queue[0].at.After(until) {
		e := pq.Pop(&c.queue).(event)
		c.now = e.at
		e.run()
	}
	c.now = until
}

// packet is a message on its way: data of a stream, or a credit for it.
type packet struct {
	stream *stream
	size   int // bytes on the line
	data   int
	credit uint64
	asked  func() // a request or its answer: called where it arrives
}

// line is one direction of a TCP connection: what waits to be sent, at most hold bytes on the way, and in order also after a loss.
type line struct {
	clock   *clock
	rng     *rand.Rand
	rate    float64 // bytes a second
	delay   time.Duration
	hold    int
	loss    float64 // share of the segments that have to be sent again
	jitter  time.Duration
	turn    time.Duration // the node at the end is busy with others for so long
	awake   time.Duration // and then awake for so long
	first   int           // slow start: bytes on the way in a round trip at first, and more by what arrives; 0 for none
	mark    int           // bytes that may wait before the sources are paused
	deliver func(packet)
	resume  func() // the sources may go on

	held    []*stream
	waiting []packet
	bytes   int // of waiting
	most    int // highest of bytes
	flying  int
	busy    bool
	last    time.Time // when the last packet arrives, so that none overtakes it
}

func (l *line) full() bool { return l.bytes > l.mark }

func (l *line) send(p packet) {
	l.waiting = append(l.waiting, p)
	l.bytes += p.size
	l.most = max(l.most, l.bytes)
	l.pump()
}

func (l *line) pump() {
	if l.busy || len(l.waiting) == 0 || l.flying >= l.hold {
		return
	}
	p := l.waiting[0]
	l.waiting = l.waiting[1:]
	l.bytes -= p.size
	l.flying += p.size
	l.busy = true
	l.put(p.size, func() {
		l.busy = false
		// A message arrives with the last of its segments. What is lost is seen a round trip later, and again if it is lost again (RACK).
		arrives := l.clock.now.Add(l.delay + 2*l.delay*time.Duration(l.lost(p.size)))
		if l.jitter > 0 {
			arrives = arrives.Add(time.Duration(l.rng.Int64N(int64(l.jitter))))
		}
		if late := arrives.Sub(time.Unix(1000, 0)) % max(l.turn+l.awake, 1); late < l.turn {
			arrives = arrives.Add(l.turn - late)
		}
		if arrives.Before(l.last) {
			arrives = l.last
		}
		l.last = arrives
		l.clock.after(arrives.Sub(l.clock.now), func() { l.deliver(p) })
		l.clock.after(arrives.Sub(l.clock.now)+l.delay, func() {
			l.flying -= p.size
			l.pump()
		})
		l.pump()
		if l.bytes <= l.mark/4 {
			l.resume()
		}
	})
}

// put sends so many bytes, and calls done when they have gone out. In slow start they are paced at the rate so far, and that grows with what arrives.
func (l *line) put(size int, done func()) {
	if l.first == 0 || float64(l.first) >= l.rate*2*l.delay.Seconds() {
		l.clock.after(time.Duration(float64(size)/l.rate*1e9), done)
		return
	}
	n := min(size, firstFlight)
	l.clock.after(time.Duration(float64(n)/float64(l.first)*float64(2*l.delay)), func() {
		l.clock.after(2*l.delay, func() { l.first += n })
		if n == size {
			done()
			return
		}
		l.put(size-n, done)
	})
}

// lost returns how often a message of size bytes has to wait for segments that are sent again: as often as the unluckiest of them.
func (l *line) lost(size int) (most int) {
	if l.loss == 0 {
		return 0
	}
	for range (size + 1447) / 1448 {
		again := 0
		for l.rng.Float64() < l.loss {
			again++
		}
		most = max(most, again)
	}
	return most
}

// stream is one direction of a portal connection.
type stream struct {
	m         *model
	out, back *line // where data goes, and its credits
	credit    int
	top       int  // what credit was when the last came
	held      bool // the line has enough
	wasHeld   bool
	turn      bool // has another
	window    window
	pending   int     // what the reader has not taken
	reads     float64 // bytes a second; 0 for as fast as it comes
	reading   bool
	low       int // look again when so many bytes are pending; -1 for never
	mostHeld  int
	taken     int64
	overrun   bool
	from      time.Time
}

const (
	modelPayload = 64 << 10
	firstFlight  = 10 * 1448 // what TCP sends at first
)

// push lets the stream have a turn: it sends what conn would in one, and another turn follows unless the line has enough.
func (s *stream) push() {
	if s.turn || s.held || s.credit == 0 {
		return
	}
	blocks := readBudget
	if s.wasHeld {
		blocks = 1
	}
	for ; blocks > 0 && s.credit > 0; blocks-- {
		n := min(payloadSize(modelPayload, s.top), s.credit)
		s.credit -= n
		s.out.send(packet{stream: s, size: n + 100, data: n})
	}
	if s.wasHeld = s.out.full(); s.wasHeld {
		s.held = true
		s.out.held = append(s.out.held, s)
		return
	}
	s.turn = true
	s.m.clock.after(0, func() {
		s.turn = false
		s.push()
	})
}

// arrive takes a packet at its last stop.
func (m *model) arrive(p packet) {
	if p.asked != nil {
		p.asked()
		return
	}
	s := p.stream
	if p.credit > 0 {
		s.credit += int(p.credit)
		s.top = s.credit
		s.push()
		return
	}
	if !s.window.add(p.data, m.clock.now) {
		s.overrun = true
	}
	s.pending += p.data
	s.mostHeld = max(s.mostHeld, s.pending)
	if s.reads == 0 {
		s.take(s.pending)
	} else {
		s.read()
	}
	s.update()
}

func (s *stream) read() {
	if s.reading || s.pending == 0 || s.reads < 0 {
		return
	}
	s.reading = true
	n := min(s.pending, modelPayload)
	s.m.clock.after(time.Duration(float64(n)/s.reads*1e9), func() {
		s.reading = false
		s.take(n)
		if s.low >= 0 && s.pending <= s.low {
			s.update()
		}
		s.read()
	})
}

func (s *stream) take(n int) {
	s.pending -= n
	s.taken += int64(n)
}

func (s *stream) update() {
	limit, before := math.MaxInt, s.window.creditAt
	if s.m.pace != nil {
		limit = s.m.pace.limit(&s.window, s.m.clock.now)
	}
	credit, low := s.window.update(s.pending, limit, s.m.clock.now)
	s.low = low
	if credit > 0 {
		if s.m.pace != nil {
			s.m.pace.credit(before, s.m.clock.now)
		}
		s.back.send(packet{stream: s, size: 150, credit: credit})
	}
}

// model is the whole path.
type model struct {
	clock   *clock
	stats   *Stats
	limits  *Limits
	trips   [2]*roundTrip // of the node at each end
	pace    *pacer        // of the node where streams end; nil for none
	lines   [2][2]*line   // from each end: to the relay, and on from it
	streams []*stream
}

type modelOptions struct {
	trip   time.Duration // whole round trip; half of it on each side of the relay
	rate   float64       // bytes a second
	hold   int           // bytes on the way in one TCP connection; 0 for what fits, twice
	loss   float64
	turn   time.Duration
	awake  time.Duration // 0 for as long as turn
	near   time.Duration // round trip beside the first end; 0 for half
	slow   bool          // TCP's slow start on each leg, paced
	jitter float64       // by how much of its delay a message comes late at most, in order
	limits Limits
}

func newModel(o modelOptions) *model {
	limits := o.limits.WithDefaults()
	m := &model{clock: &clock{now: time.Unix(1000, 0)}, stats: &Stats{}, limits: &limits}
	for end := range m.trips {
		m.trips[end] = &roundTrip{share: share{unknown: limits.Window / unknownPart}}
	}
	rng := rand.New(rand.NewPCG(1, uint64(o.trip)))
	hold := o.hold
	if hold == 0 {
		hold = int(o.rate*o.trip.Seconds()) + 256<<10
	}
	awake := o.awake
	if awake == 0 {
		awake = o.turn
	}
	near := o.near
	if near == 0 {
		near = o.trip / 2
	}
	for end := range m.lines {
		for k := range m.lines[end] {
			delay := near / 2
			if end != k {
				delay = (o.trip - near) / 2
			}
			m.lines[end][k] = &line{clock: m.clock, rng: rng, rate: o.rate, delay: delay, jitter: time.Duration(o.jitter * float64(delay)), hold: hold, loss: o.loss, turn: o.turn, awake: awake, mark: 1 << 20}
			if o.slow {
				m.lines[end][k].first = firstFlight
			}
		}
		first, second := m.lines[end][0], m.lines[end][1]
		held := []packet{} // the relay stops reading while its way out is full
		first.deliver = func(p packet) {
			if len(held) > 0 || second.full() {
				held = append(held, p)
				return
			}
			second.send(p)
		}
		second.resume = func() {
			for len(held) > 0 && !second.full() {
				p := held[0]
				held = held[1:]
				second.send(p)
			}
		}
		second.deliver = m.arrive
		first.resume = func() {
			list := first.held
			first.held = nil
			for _, s := range list {
				s.held = false
			}
			for _, s := range list {
				m.clock.after(0, s.push)
			}
		}
	}
	return m
}

// open begins a stream from one end to the other.
func (m *model) open(from int, reads float64) *stream {
	m.stats.Active.Add(1)
	s := &stream{m: m, out: m.lines[from][0], back: m.lines[1-from][0], reads: reads, low: -1, from: m.clock.now}
	s.window = newWindow(windowMemory{m.limits, m.stats})
	s.window.usePath(m.trips[1-from], m.clock.now)
	s.credit, s.top = s.window.size, s.window.size
	m.streams = append(m.streams, s)
	// The handshake's round trip, with the connecting of the target in it.
	trip := 2 * (m.lines[from][0].delay + m.lines[from][1].delay)
	m.trips[1-from].sample(trip+2*time.Millisecond, m.clock.now)
	s.push()
	return s
}

// ask asks every 25 ms for d from one end: a request there, an answer back. It returns where it is noted how long they took.
func (m *model) ask(from int, d time.Duration) *[]time.Duration {
	took := new([]time.Duration)
	for at := time.Duration(0); at < d; at += 25 * time.Millisecond {
		m.clock.after(at, func() {
			begun := m.clock.now
			m.lines[from][0].send(packet{size: 300, asked: func() {
				m.lines[1-from][0].send(packet{size: 450, asked: func() {
					*took = append(*took, m.clock.now.Sub(begun))
					if m.pace != nil {
						m.pace.data(&window{}, m.clock.now)
					}
				}})
			}})
		})
	}
	return took
}

// requests returns how long requests for d took, in order.
func (m *model) requests(from int, d time.Duration) []time.Duration {
	took := m.ask(from, d)
	m.clock.runFor(d + 10*time.Second)
	slices.Sort(*took)
	return *took
}

// moved runs the model for d and returns what each stream's reader took meanwhile, in bytes a second.
func (m *model) moved(d time.Duration) []float64 {
	before := make([]int64, len(m.streams))
	for i, s := range m.streams {
		before[i] = s.taken
	}
	m.clock.runFor(d)
	list := make([]float64, len(m.streams))
	for i, s := range m.streams {
		list[i] = float64(s.taken-before[i]) / d.Seconds()
	}
	return list
}

// jain is Jain's index of fairness: 1 when all are equal.
func jain(list []float64) float64 {
	var sum, squares float64
	for _, v := range list {
		sum += v
		squares += v * v
	}
	return sum * sum / (float64(len(list)) * squares)
}
