package authority

import (
	"context"
	"sync"
	"time"

	"sallyport/crypto/identity"
)

// Bounds of what strangers can do to the audit trail and to the guessing of codes.
const (
	// denialPause is how often the trail has an entry about one kind of refusal from one source; those between are counted.
	denialPause = time.Minute
	// maxDenials is how many kinds of refusals are counted apart. Beyond that sources are not told apart.
	maxDenials = 1000
	// freeGuesses is how many unknown codes a source may try before it is slowed down, and guessRefill how long it takes until it may
	// try one more.
	freeGuesses = 5
	guessRefill = 10 * time.Second
	// guessDelay is how long the answer to any further one takes, and guessesWaiting how many of one source are waited for at a time.
	guessDelay     = 2 * time.Second
	guessesWaiting = 4
)

// denial is a kind of refusal that goes into the trail once in a while.
type denial struct {
	event, reason, source string
}

type denialCount struct {
	recorded time.Time
	since    uint64 // refusals since it was recorded
	actor    identity.Identifier
}

// denials counts what was refused. The zero value is ready.
type denials struct {
	mu     sync.Mutex
	counts map[denial]*denialCount
}

// add counts a refusal and returns the entry to record, nil if it is too early.
func (d *denials) add(k denial, o Origin) *AuditEntry {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.counts == nil {
		d.counts = map[denial]*denialCount{}
	}
	c := d.counts[k]
	if c == nil && len(d.counts) >= maxDenials {
		k.source = "many sources"
		c = d.counts[k]
	}
	if c == nil {
		c = &denialCount{}
		d.counts[k] = c
	}
	c.since++
	c.actor = o.Actor
	return c.due(k, o.Time)
}

func (c *denialCount) due(k denial, now time.Time) *AuditEntry {
	if c.since == 0 || !c.recorded.IsZero() && now.Sub(c.recorded) < denialPause {
		return nil
	}
	e := &AuditEntry{Time: now, Event: k.event, Reason: k.reason, Source: k.source, Actor: c.actor, Count: c.since}
	c.recorded, c.since = now, 0
	return e
}

// flush returns what was counted and whose time has come, and forgets what has been quiet.
func (d *denials) flush(now time.Time) (entries []AuditEntry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for k, c := range d.counts {
		if e := c.due(k, now); e != nil {
			entries = append(entries, *e)
		} else if c.since == 0 && now.Sub(c.recorded) > 2*denialPause {
			delete(d.counts, k)
		}
	}
	return entries
}

// deny counts a refusal, and records it if that is due.
func (a *Authority) deny(ctx context.Context, event, reason string) {
	o := originOf(ctx)
	if e := a.denials.add(denial{event, reason, o.Source}, o); e != nil {
		a.record(ctx, *e)
	}
}

// record writes an entry that is not part of another change. That it could not is for the log.
func (a *Authority) record(ctx context.Context, e AuditEntry) {
	if err := a.o.Store.Record(context.WithoutCancel(ctx), e); err != nil {
		a.o.Log.ErrorContext(ctx, "audit entry not written", "event", e.Event, "error", err)
	}
}

// guesses counts unknown codes by source. The zero value is ready.
type guesses struct {
	mu      sync.Mutex
	sources map[string]*guesser
}

type guesser struct {
	left    float64 // free ones
	at      time.Time
	waiting int // answers that are held back
}

// unknown counts an unknown code. It returns how long the answer takes, and in that time further ones of the source wait; done is to be
// called when it has gone out. With full set nothing more of the source is waited for: it is refused at once, unlooked at.
func (g *guesses) unknown(source string, now time.Time) (delay time.Duration, done func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.sources == nil {
		g.sources = map[string]*guesser{}
	}
	s := g.sources[source]
	if s == nil {
		if len(g.sources) >= maxDenials {
			g.forget(now)
		}
		s = &guesser{left: freeGuesses, at: now}
		g.sources[source] = s
	}
	s.left = min(s.left+float64(now.Sub(s.at))/float64(guessRefill), freeGuesses)
	s.at = now
	if s.left >= 1 {
		s.left--
		return 0, func() {}
	}
	s.waiting++
	return guessDelay, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		s.waiting--
	}
}

// full reports whether so many answers to a source are held back that it has to wait with everything.
func (g *guesses) full(source string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.sources[source]
	return s != nil && s.waiting >= guessesWaiting
}

// forget makes room: sources that may try freely again go first, else any.
func (g *guesses) forget(now time.Time) {
	for name, s := range g.sources {
		if now.Sub(s.at) > freeGuesses*guessRefill && s.waiting == 0 {
			delete(g.sources, name)
		}
	}
	for name, s := range g.sources {
		if len(g.sources) < maxDenials {
			return
		}
		if s.waiting == 0 {
			delete(g.sources, name)
		}
	}
}
