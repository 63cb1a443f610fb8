package dataplane

import (
	"log/slog"
	"sync"
)

// Group is a fixed set of running loops, usually one per core.
type Group struct {
	// Inherited is the sockets that the program before has left; nil is none. It is set before anybody listens.
	Inherited *Inheritance

	loops []*Loop
	wg    sync.WaitGroup
	once  sync.Once
}

// NewGroup starts n loops, numbered from 0.
func NewGroup(n int, log *slog.Logger) (*Group, error) { return NewLimitedGroup(n, Limits{}, log) }

// Len returns the number of loops.
func (g *Group) Len() int { return len(g.loops) }

// Loop returns loop i.
func (g *Group) Loop(i int) *Loop { return g.loops[i] }

// Stop ends all loops, closing their connections, and waits until they have ended.
func (g *Group) Stop() {
	g.once.Do(func() {
		for _, l := range g.loops {
			l.Stop()
		}
	})
	g.wg.Wait()
}
