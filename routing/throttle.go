package routing

import "sallyport/dataplane"

// Throttle lets destinations pause a source when they cannot take more (backpressure). Every connection that brings messages has one; a
// message points to it. It belongs to the shard of its source.
type Throttle struct {
	shard  *Shard
	source Source
	pauses int
	gone   bool
}

// NewThrottle makes the throttle of a source on shard s.
func NewThrottle(s *Shard, source Source) *Throttle { return &Throttle{shard: s, source: source} }

// Close is called when the source has ended: pauses and resumes do nothing any more. On the source's shard.
func (t *Throttle) Close() { t.gone = true }

func (t *Throttle) pause() {
	if t.pauses++; t.pauses == 1 && !t.gone {
		t.source.PauseSource()
	}
}

func (t *Throttle) resume() {
	if t.pauses--; t.pauses == 0 && !t.gone {
		t.source.ResumeSource()
	}
}

// Gate is the destination's half: while it is shut, every source that sends to it is paused. It belongs to one shard.
type Gate struct {
	shard  *Shard
	paused []*Throttle
}

// NewGate makes a gate on shard s.
func NewGate(s *Shard) *Gate { return &Gate{shard: s} }

// Pause pauses the source of a message that the destination has taken but after which it wants no more, until Open.
func (g *Gate) Pause(t *Throttle) {
	if t == nil {
		return
	}
	for _, p := range g.paused {
		if p == t {
			return
		}
	}
	g.paused = append(g.paused, t)
	if t.shard == g.shard {
		t.pause()
		return
	}
	t.shard.loop.Post(dataplane.TaskFunc(t.pause))
}

// Shut reports whether a source is paused.
func (g *Gate) Shut() bool { return len(g.paused) > 0 }

// Open lets all paused sources go on.
func (g *Gate) Open() {
	for i, t := range g.paused {
		g.paused[i] = nil
		if t.shard == g.shard {
			t.resume()
		} else {
			t.shard.loop.Post(dataplane.TaskFunc(t.resume))
		}
	}
	g.paused = g.paused[:0]
}
