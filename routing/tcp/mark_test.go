package tcp

import (
	"testing"
	"time"

	"sallyport/dataplane"
	"sallyport/routing"
)

// TestMark: what may wait for a connection follows the rate at which the peer takes it, within bounds.
func TestMark(t *testing.T) {
	for _, tc := range []struct {
		rate          float64 // bytes a second
		bytes, unsent int
	}{
		{250e3, leastMark, leastUnsent},
		{2.5e6, 125_000, 50_000},
		{25e6, 1 << 20, mostUnsent},
		{1e9, 1 << 20, mostUnsent},
	} {
		m := newMark(1 << 20)
		if m.bytes != 1<<20 {
			t.Errorf("%d bytes may wait before the rate is known", m.bytes)
		}
		now, taken := time.Unix(1000, 0), 0.0
		run := func(rate float64, seconds int) {
			for range seconds * 100 {
				m.note(512<<10, uint64(taken), now)
				now = now.Add(10 * time.Millisecond)
				taken += rate / 100
			}
		}
		run(tc.rate, 2)
		if m.bytes < tc.bytes*9/10 || m.bytes > tc.bytes*11/10 || m.unsent < tc.unsent*9/10 || m.unsent > tc.unsent*11/10 {
			t.Errorf("%.0f bytes/s: %d may wait, %d unsent; %d and %d expected", tc.rate, m.bytes, m.unsent, tc.bytes, tc.unsent)
		}
		run(1e9, 1) // the line gets faster
		if m.bytes != 1<<20 || m.unsent != mostUnsent {
			t.Errorf("%.0f bytes/s, then fast: %d may wait, %d unsent", tc.rate, m.bytes, m.unsent)
		}
		run(250e3, 5) // and slower
		if m.bytes != leastMark || m.unsent != leastUnsent {
			t.Errorf("%.0f bytes/s, then slow: %d may wait, %d unsent", tc.rate, m.bytes, m.unsent)
		}
	}
}

// TestMarkNeedsWaiting: as long as the peer takes all at once, the rate is what it is sent, and tells nothing.
func TestMarkNeedsWaiting(t *testing.T) {
	m := newMark(1 << 20)
	now := time.Unix(1000, 0)
	for k := range 1000 {
		m.note(100<<10, uint64(k)*100, now)
		m.drained()
		now = now.Add(10 * time.Millisecond)
	}
	if m.bytes != 1<<20 || m.unsent != mostUnsent {
		t.Errorf("%d may wait, %d unsent", m.bytes, m.unsent)
	}
}

// pourer is a source of its own: while it is not paused it sends a message in each turn.
type pourer struct {
	shard          *routing.Shard
	to             routing.WireAddress
	throttle       *routing.Throttle
	paused         bool
	left           int
	pauses, resume int
}

func (p *pourer) PauseSource()  { p.paused, p.pauses = true, p.pauses+1 }
func (p *pourer) ResumeSource() { p.paused, p.resume = false, p.resume+1; p.later() }

func (p *pourer) later() {
	p.shard.Loop().Post(dataplane.TaskFunc(func() {
		if p.paused || p.left == 0 {
			return
		}
		p.left--
		m := p.shard.NewMessage()
		m.SetRoutes(routing.RouteOf(p.to), routing.Route{})
		m.SetPayloadBytes(make([]byte, 32<<10))
		m.From = p.throttle
		p.shard.Deliver(m)
		p.shard.Free(m)
		p.later()
	}))
}

// TestMarkHolds: over a line that is known to be slow a source of its own is paused long before the high water mark, and goes on; all that
// it has to send arrives.
func TestMarkHolds(t *testing.T) {
	n := newNode(t, 1, Options{})
	reader := dialRaw(t, n)
	reader.SetDeadline(time.Now().Add(4 * time.Minute))
	_ = reader.SetReadBuffer(16 << 10)
	reader.hello()
	eventually(t, "accepted", func() bool { return len(n.tcp.Connections()) == 1 })
	c := n.tcp.Connections()[0]
	const count = 1000 // more than the kernel takes
	p := &pourer{shard: c.Shard(), to: c.Sender, left: count}
	most := 0
	if err := c.Shard().Do(limited(t), func() {
		p.throttle = routing.NewThrottle(c.Shard(), p)
		c.mark.bytes = leastMark
		p.later()
	}); err != nil {
		t.Fatal(err)
	}
	look := func() (paused bool) {
		if err := c.Shard().Do(limited(t), func() { most, paused = max(most, c.framed.Pending()), p.paused }); err != nil {
			t.Fatal(err)
		}
		return paused
	}
	eventually(t, "paused", look)
	if most > leastMark+64<<10 {
		t.Errorf("%d bytes waited", most)
	}
	for k := range count {
		reader.frame()
		if k%50 == 0 {
			look()
		}
	}
	eventually(t, "resumed as often as paused", func() bool {
		pauses, resumed := 0, 0
		if err := c.Shard().Do(limited(t), func() { pauses, resumed = p.pauses, p.resume }); err != nil {
			t.Fatal(err)
		}
		return pauses > 0 && pauses == resumed
	})
}
