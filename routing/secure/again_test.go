package secure

import (
	"sync/atomic"
	"testing"
	"time"

	"sallyport/routing"
)

// swallow passes messages on, but for so many first ones.
type swallow struct{ left, seen atomic.Int64 }

func (w *swallow) PassesOn() {}

func (w *swallow) HandleMessage(s *routing.Shard, m *routing.Message) {
	if w.seen.Add(1); w.left.Add(-1) >= 0 {
		return
	}
	m.PopOnward()
	s.Deliver(m)
}

// TestFirstMessageAgain: a handshake whose first messages are lost on their way is begun again beside them, but not while so many are under way that answers are late
// for another reason.
func TestFirstMessageAgain(t *testing.T) {
	a, b := newNode(t, 1, nil), newNode(t, 1, nil)
	way := new(swallow)
	a.serve(t, "way", way)
	route := routing.LocalRoute("way").Concat(routing.RouteOf(a.connect(t, b).Sender), routing.LocalRoute("api"))
	o := a.options()
	o.Again = time.Millisecond
	var ch *Channel
	begin := func(lost int64) <-chan error {
		way.left.Store(lost)
		way.seen.Store(0)
		opened := make(chan error, 1)
		ctx := limited(t)
		go func() {
			var err error
			ch, err = a.channels.Dial(ctx, route, o)
			opened <- err
		}()
		return opened
	}
	if err := <-begin(3); err != nil {
		t.Fatal(err)
	}
	a.through(t, ch, []byte("abc"))

	a.channels.open.Add(maxAgain)
	opened := begin(1)
	eventually(t, "it has begun", func() bool { return way.seen.Load() > 0 })
	time.Sleep(20 * time.Millisecond) // many times Again
	if n := way.seen.Load(); n != 1 {
		t.Errorf("%d messages while many handshakes are under way", n)
	}
	a.channels.open.Add(-maxAgain)
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
	a.through(t, ch, []byte("abc"))
	eventually(t, "nothing is sent any more", func() bool {
		n := way.seen.Load()
		time.Sleep(20 * time.Millisecond)
		return way.seen.Load() == n && a.channels.UnderWay() == 0
	})
}
