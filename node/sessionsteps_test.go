package node

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"sallyport/routing/multiaddr"
)

// TestStepsOfASilence: another path is made beside one that is silent, unless the session is a slow one; what can be resumed leaves it later, once; and
// neither goes on when the path is heard again.
func TestStepsOfASilence(t *testing.T) {
	takes := func(*connection, time.Time) {}
	for name, c := range map[string]struct {
		slow, told              bool // of the session
		silent                  time.Duration
		suspected, beside, held bool
		want                    silenceStep
	}{
		"it is heard":                                    {silent: besideAfter - 1, want: leaveBeside},
		"it is heard again":                              {silent: 0, beside: true, held: true, want: leaveBeside},
		"it is heard, and said to have moved":            {silent: 0, suspected: true, want: makeBeside},
		"it is heard, said to have moved, one is made":   {silent: 0, suspected: true, beside: true, want: goOn},
		"it is silent":                                   {silent: besideAfter, want: makeBeside},
		"it is silent, one is made":                      {told: true, silent: holdAfter - 1, beside: true, want: goOn},
		"it is silent, of a slow session":                {slow: true, silent: besideAfter, want: goOn},
		"it is silent for long, of a slow session":       {slow: true, told: true, silent: holdAfter, want: countAsLost},
		"it is silent for long, none is made":            {told: true, silent: holdAfter, want: makeBeside},
		"it is silent for long, one is made":             {told: true, silent: holdAfter, beside: true, want: countAsLost},
		"it is silent for long, and counts as lost":      {told: true, silent: holdAfter, beside: true, held: true, want: goOn},
		"it is silent for long, and nothing is told":     {silent: holdAfter, beside: true, want: goOn},
		"of a slow session, counts as lost":              {slow: true, told: true, silent: time.Hour, held: true, want: goOn},
		"said to have moved, and silent, of a slow one":  {slow: true, suspected: true, silent: besideAfter, want: goOn},
		"said to have moved, and silent for long enough": {told: true, suspected: true, beside: true, silent: holdAfter, want: countAsLost},
	} {
		s := session{slow: c.slow}
		if c.told {
			s.silent = takes
		}
		if got := s.atSilence(c.silent, c.suspected, c.beside, c.held); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

// TestPathThatCannotBeUsed: a path that nobody can make use of is closed; one that can be is not.
func TestPathThatCannotBeUsed(t *testing.T) {
	n := plainNode(t, "a", "127.0.0.1:0")
	for _, useless := range []error{errors.New("no use"), nil} {
		made := &connection{router: n.router, closed: make(chan struct{})}
		s := &session{
			log: slog.New(slog.DiscardHandler), router: n.router, spoken: true,
			connect: func(context.Context) (*connection, error) { return made, nil },
			up:      func(context.Context, *connection) error { return useless },
		}
		c, err := s.attempt(t.Context(), time.Minute, func(error) {})
		if !errors.Is(err, useless) || (c == made) != (useless == nil) {
			t.Errorf("%v: %v", useless, err)
		}
		select {
		case <-made.closed:
			if useless == nil {
				t.Error("a path that is used was closed")
			}
		default:
			if useless != nil {
				t.Error("a path that is not used was left open")
			}
		}
	}
}

// TestRoundTripOfALostPath: what was measured of a path is not shown of the next one.
func TestRoundTripOfALostPath(t *testing.T) {
	a, b := plainNode(t, "a", "127.0.0.1:0"), plainNode(t, "b", "127.0.0.1:0")
	to, err := multiaddr.Parse(tcpRoute(t, b) + "/secure/api")
	if err != nil {
		t.Fatal(err)
	}
	options, err := a.connectOptions(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	dialed := false
	s := &session{
		log: slog.New(slog.DiscardHandler), router: a.router,
		connect: func(ctx context.Context) (*connection, error) {
			if dialed { // there is no second one
				<-ctx.Done()
				return nil, ctx.Err()
			}
			dialed = true
			return a.connect(ctx, to, options)
		},
		up: func(context.Context, *connection) error { return nil }, down: func() {},
	}
	s.start(t.Context())
	defer s.stop()
	measured := func() (rtt time.Duration, lost uint64) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.rtt, s.retries
	}
	settles(t, "a round trip is measured", func() bool { rtt, _ := measured(); return rtt > 0 })
	_, path, _ := s.state()
	path.close()
	settles(t, "the path is lost", func() bool { _, lost := measured(); return lost == 1 })
	if rtt, _ := measured(); rtt != 0 {
		t.Errorf("a round trip of %v on no path", rtt)
	}
}
