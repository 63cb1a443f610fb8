package secure

import (
	"sync/atomic"
	"testing"

	"sallyport/routing"
)

// awayWatcher counts what it is told of the way.
type awayWatcher struct{ away, back, closed atomic.Int32 }

func (w *awayWatcher) TerminalClosed() { w.closed.Add(1) }
func (w *awayWatcher) TerminalAway(away bool) {
	if away {
		w.away.Add(1)
	} else {
		w.back.Add(1)
	}
}

// TestWayIsWatched: who relies on a channel that others began is told when what it runs on now has ended, not when what it ran on before has, and when there
// is a way again.
func TestWayIsWatched(t *testing.T) {
	a, b := newNode(t, 1, nil), newNode(t, 1, nil)
	first, second := a.connect(t, b), a.connect(t, b)
	c := a.dial(t, first.Sender, "api")
	a.through(t, c, []byte("over the first"))
	d := b.channels.List()[0]
	w := &awayWatcher{}
	on(t, d.shard, func() { (*encryptor)(d).Watch(w) })
	away := func(want bool) {
		t.Helper()
		on(t, d.shard, func() {
			if got := (*encryptor)(d).Away(d.shard); got != want {
				t.Errorf("away: %v", got)
			}
		})
	}
	away(false)
	if err := c.Move(limited(t), routing.RouteOf(second.Sender)); err != nil {
		t.Fatal(err)
	}
	a.through(t, c, []byte("over the second"))
	first.Close()
	<-first.Done()
	eventually(t, "the first has ended at the other side", func() bool { return len(b.tcp.Connections()) == 1 })
	a.through(t, c, []byte("goes on"))
	if w.away.Load() != 0 || w.closed.Load() != 0 {
		t.Error("told of what it ran on before")
	}
	away(false)
	second.Close()
	eventually(t, "told that there is no way", func() bool { return w.away.Load() == 1 })
	away(true)
	if w.closed.Load() != 0 || w.back.Load() != 0 {
		t.Errorf("ended %d times, back %d times", w.closed.Load(), w.back.Load())
	}
	third := a.connect(t, b)
	eventually(t, "the third is there", func() bool { return len(b.tcp.Connections()) == 1 })
	on(t, d.shard, func() { // as with the initiator's next message
		way := b.tcp.Connections()[0].Sender
		d.moved = d.opener.Last() - 1
		d.roam(routing.RouteOf(way))
		d.roam(routing.RouteOf(way))
	})
	if w.back.Load() != 1 {
		t.Errorf("told %d times that there is a way again", w.back.Load())
	}
	away(false)
	on(t, d.shard, func() { d.unwatchWay(); d.unwatchWay() })
	third.Close()
	<-third.Done()
	eventually(t, "the third has ended at the other side", func() bool { return len(b.tcp.Connections()) == 0 })
	on(t, d.shard, func() {})
	if w.away.Load() != 1 {
		t.Error("told of what it does not watch")
	}
}
