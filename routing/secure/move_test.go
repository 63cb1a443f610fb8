package secure

import (
	"errors"
	"sync/atomic"
	"testing"

	"sallyport/crypto/channel"
	"sallyport/routing"
)

// TestMove moves a channel by its own means: the peer follows, the first way may end, and the channel ends with the second.
func TestMove(t *testing.T) {
	a, b := newNode(t, 1, nil), newNode(t, 2, nil)
	first, second := a.connect(t, b), a.connect(t, b)
	c := a.dial(t, first.Sender, "api")
	a.through(t, c, []byte("over the first"))
	if err := c.Move(limited(t), routing.RouteOf(second.Sender)); err != nil {
		t.Fatal(err)
	}
	a.through(t, c, []byte("over the second"))
	first.Close()
	<-first.Done()
	a.through(t, c, []byte("without the first"))
	if err := c.Move(limited(t), routing.LocalRoute("nobody")); err == nil {
		t.Error("moved to where nobody is")
	}
	second.Close()
	<-second.Done()
	on(t, c.Shard(), func() {
		if !c.closed {
			t.Error("the channel was not told of the end of the way that it moved to")
		}
	})
	<-c.Done()
	if err := c.Move(limited(t), routing.RouteOf(second.Sender)); !errors.Is(err, ErrClosed) {
		t.Errorf("moved after its end: %v", err)
	}
}

// lossWatcher counts what it is told.
type lossWatcher struct{ lost, closed atomic.Int64 }

func (w *lossWatcher) MessageLost()    { w.lost.Add(1) }
func (w *lossWatcher) TerminalClosed() { w.closed.Add(1) }

// TestLossIsTold: whoever watches a channel learns of a message that was lost or overtaken, and of no other.
func TestLossIsTold(t *testing.T) {
	a, b := newNode(t, 1, nil), newNode(t, 1, nil)
	c := a.dial(t, a.connect(t, b).Sender, "api")
	a.through(t, c, []byte("first"))
	d := b.channels.List()[0]
	var w lossWatcher
	on(t, d.Shard(), func() { (*encryptor)(d).Watch(&w) })
	seal := func() []byte {
		var out []byte
		on(t, c.Shard(), func() {
			plain := append([]byte{0x82, 0x82, 0x00, 0x81}, routing.AppendMessage(nil, routing.LocalRoute("nobody"), routing.Route{}, nil)...)
			plain = append(plain, 0x40)
			out = make([]byte, len(plain)+channel.Overhead)
			if err := c.sealer.Seal(out, plain); err != nil {
				t.Error(err)
			}
		})
		return out
	}
	for range 100 {
		a.through(t, c, []byte("all is well"))
	}
	if n := w.lost.Load(); n != 0 {
		t.Fatalf("%d told, nothing was lost", n)
	}
	late := seal()
	a.through(t, c, []byte("after a gap"))
	if n := w.lost.Load(); n != 1 {
		t.Errorf("%d told after a gap", n)
	}
	a.through(t, c, []byte("and on"))
	var remote routing.Route
	on(t, c.Shard(), func() { remote = c.remote })
	a.router.Inject(remote, routing.Route{}, late) // it was only overtaken
	eventually(t, "told of what was overtaken", func() bool { return w.lost.Load() == 2 })
	a.through(t, c, []byte("the channel stays"))
	if n := b.channels.Stats.Gaps.Load(); n != 2 || w.lost.Load() != 2 {
		t.Errorf("%d gaps counted, %d told", n, w.lost.Load())
	}
	c.Close()
	<-d.Done()
	eventually(t, "told of the end", func() bool { return w.closed.Load() == 1 })
}
