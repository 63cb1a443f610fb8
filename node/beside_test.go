package node

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/routing/multiaddr"
)

// TestBeside: a path that may be silent for long, since it was bad before, is left as soon as another one has an answer; it was not down meanwhile.
func TestBeside(t *testing.T) {
	a, b := plainNode(t, "a", "127.0.0.1:0"), plainNode(t, "b", "127.0.0.1:0")
	through := newFreezer(t, b.Listening())
	first, err := multiaddr.Parse(through.route() + "/secure/api")
	if err != nil {
		t.Fatal(err)
	}
	second, err := multiaddr.Parse(tcpRoute(t, b) + "/secure/api")
	if err != nil {
		t.Fatal(err)
	}
	options, err := a.connectOptions(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	var dialed, ups, downs, silent atomic.Int64
	s := &session{
		log: slog.New(slog.DiscardHandler), router: a.router,
		connect: func(ctx context.Context) (*connection, error) {
			if dialed.Add(1) == 1 {
				return a.connect(ctx, first, options)
			}
			return a.connect(ctx, second, options)
		},
		up:     func(context.Context, *connection) error { ups.Add(1); return nil },
		down:   func() { downs.Add(1) },
		silent: func(*connection, time.Time) { silent.Add(1) },
		live:   &liveness{peak: silenceMost, answers: learned},
	}
	s.start(t.Context())
	defer s.stop()
	until(t, "up", func() bool { return ups.Load() == 1 })
	_, before, _ := s.state()
	through.frozen.Store(true)
	until(t, "another path", func() bool { return ups.Load() == 2 })
	if up, now, _ := s.state(); !up || now == before || downs.Load() != 0 || silent.Load() != 0 {
		t.Errorf("up %v, the same path %v, down %d times, lost %d times", up, now == before, downs.Load(), silent.Load())
	}
	until(t, "the first is closed, nothing uses it", func() bool {
		select {
		case <-before.closed:
			return true
		default:
			return false
		}
	})
}
