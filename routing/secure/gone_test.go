package secure

import (
	"testing"
	"time"
)

// goneWatcher notes what it is told.
type goneWatcher struct{ gone, closed chan struct{} }

func (w *goneWatcher) PeerGone()       { close(w.gone) }
func (w *goneWatcher) TerminalClosed() { close(w.closed) }

// TestGone: a peer whose machine closes the connection without a word of it, and that does not come back, has gone. One that says that it ends the channel, or
// opens another one, has not.
func TestGone(t *testing.T) {
	for _, how := range []string{"killed", "came back", "said so"} {
		t.Run(how, func(t *testing.T) {
			a, b := newNode(t, 1, nil), newNode(t, 1, nil)
			t.Parallel()
			b.channels.goneAfter = 5 * time.Second // a busy machine takes a while to come back
			if how == "killed" {
				b.channels.goneAfter = 200 * time.Millisecond
			}
			conn := a.connect(t, b)
			c := a.dial(t, conn.Sender, "api")
			eventually(t, "open", func() bool { return len(b.channels.List()) == 1 })
			d := b.channels.List()[0]
			told, w := make(chan struct{}), &goneWatcher{make(chan struct{}), make(chan struct{})}
			d.AwaitGone(func() { close(told) })
			d.AwaitGone(func() { t.Error("told though undone") })()
			on(t, d.Shard(), func() { d.watchers.Watch(w) })
			if how == "said so" {
				c.Close()
				<-w.closed
			}
			conn.Close()
			if how == "came back" {
				a.dial(t, a.connect(t, b).Sender, "api")
			}
			if how == "killed" {
				<-told
				<-w.gone
				<-w.closed
				ended(t, d)
				again := make(chan struct{})
				d.AwaitGone(func() { close(again) })
				<-again
				return
			}
			over := make(chan struct{})
			on(t, d.Shard(), func() { d.Shard().Loop().After(2*b.channels.goneAfter, func() { close(over) }) })
			<-over
			select {
			case <-told:
				t.Error("said to have gone")
			case <-w.gone:
				t.Error("a watcher was told that it has gone")
			default:
			}
		})
	}
}
