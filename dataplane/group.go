package dataplane

import (
	"fmt"
	"log/slog"
	"sync"
)

// Group is a fixed set of running loops, usually one per core.
type Group struct {
	loops []*Loop
	wg    sync.WaitGroup
	once  sync.Once
}

// NewGroup starts n loops, numbered from 0.
func NewGroup(n int, log *slog.Logger) (*Group, error) {
	g := &Group{}
	for i := range n {
		l, err := NewLoop(i, log)
		if err != nil {
			g.Stop()
			return nil, fmt.Errorf("start loop %d of %d: %w", i+1, n, err)
		}
		g.loops = append(g.loops, l)
		g.wg.Add(1)
		go func() {
			defer g.wg.Done()
			if err := l.Run(); err != nil {
				log.Error("event loop ended", "loop", i, "err", err)
			}
		}()
	}
	return g, nil
}

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
