package routing

import (
	"encoding/binary"
	"sync/atomic"
	"testing"

	"sallyport/dataplane"
)

// pouring is a source that sends numbered messages to a worker of another shard, one in each turn, while it is not paused.
type pouring struct {
	s        *Shard
	to       Route
	left     int
	sent     atomic.Int64
	paused   atomic.Bool
	throttle *Throttle
	payload  [64 << 10]byte
}

func (p *pouring) PauseSource()  { p.paused.Store(true) }
func (p *pouring) ResumeSource() { p.paused.Store(false); p.s.loop.Post(p) }

func (p *pouring) Run() {
	if p.paused.Load() || p.left == 0 {
		return
	}
	p.left--
	binary.BigEndian.PutUint64(p.payload[:], uint64(p.sent.Add(1)))
	m := p.s.NewMessage()
	m.SetRoutes(p.to, Route{})
	m.SetPayloadBytes(p.payload[:])
	m.From = p.throttle
	p.s.Deliver(m)
	p.s.Free(m)
	p.s.loop.Post(p)
}

// TestInboxBounded: what is read for a shard that cannot keep up waits at its source, not in memory. When the shard goes on, all of it
// comes, in order.
func TestInboxBounded(t *testing.T) {
	const messages = 1000 // of 64 KiB
	r := newRouter(t, 3)
	var got atomic.Int64
	slow := r.shards[2]
	var sources []*pouring
	held, release := make(chan struct{}), make(chan struct{})
	for _, from := range r.shards[:2] {
		p := &pouring{s: from, left: messages}
		on(t, slow, func() {
			last := uint64(0)
			p.to = RouteOf(slow.Start(WorkerFunc(func(_ *Shard, m *Message) {
				if n := binary.BigEndian.Uint64(m.Payload()); n != last+1 {
					t.Errorf("message %d after %d", n, last)
				} else {
					last = n
				}
				got.Add(1)
			})))
		})
		on(t, from, func() { p.throttle = NewThrottle(from, p) })
		sources = append(sources, p)
	}
	slow.loop.Post(dataplane.TaskFunc(func() { close(held); <-release }))
	<-held
	for _, p := range sources {
		p.s.loop.Post(p)
	}
	eventually(t, "both sources paused", func() bool { return sources[0].paused.Load() && sources[1].paused.Load() })
	if n := slow.waiting.Load(); n > inboxHigh+int64(len(sources))*64<<10 {
		t.Errorf("%d bytes wait, at most %d should", n, inboxHigh)
	}
	close(release)
	eventually(t, "all delivered", func() bool { return got.Load() == 2*messages })
	on(t, slow, func() {})
	if n := slow.waiting.Load(); n != 0 {
		t.Errorf("%d bytes are said to wait", n)
	}
}
