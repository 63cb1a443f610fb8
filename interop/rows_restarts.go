package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// recovery bounds how long a portal may take to work again. The reference notices
// a lost peer after 30 to 40 s and then tries every 5 s.
const recovery = 100 * time.Second

// restartRows restarts one box after the other and waits for the portal. The
// relay runs program a, both ends run program b.
func restartRows(ctx context.Context, r *rowRun) {
	s := seats{authority: r.b, relay: r.a, outlet: r.b, inlet: r.b, admin: r.b}
	st := r.story(ctx, s, storyOptions{xferTarget: r.xfer.address()},
		func(ctx context.Context, st *story) error { return st.start(ctx) })
	if st == nil {
		return
	}
	defer st.close(r.keep)
	for _, step := range []struct {
		name    string
		restart func() error
	}{
		{"relay stopped and started", func() error {
			if _, err := st.relay.cli(ctx, "node", "stop", "relay"); err != nil {
				return err
			}
			_, err := st.relay.cli(ctx, "node", "start", "relay")
			return err
		}},
		{"relay killed and started", func() error { return st.restartRelay(ctx) }},
		{"outlet box killed and started", func() error { return st.restartOutlet(ctx) }},
		{"inlet box killed and started", func() error { return st.restartInlet(ctx) }},
	} {
		r.check(step.name, func() (string, error) {
			if err := portalWorks(ctx, st.xferInlet, 10*time.Second); err != nil {
				return "", fmt.Errorf("before the restart: %w", err)
			}
			if err := step.restart(); err != nil {
				return "", err
			}
			took, err := eventually(ctx, recovery, func() error { return portalWorks(ctx, st.xferInlet, 3*time.Second) })
			return fmt.Sprintf("works again after %.0fs", took.Seconds()), err
		})
	}
}

// restartRelay kills the relay node and starts it under its old address.
func (s *story) restartRelay(ctx context.Context) error {
	if err := s.relay.killNode(ctx, "relay"); err != nil {
		return err
	}
	return s.startAgain(ctx, s.relay, "relay")
}

// restartOutlet kills the outlet box's node and brings it back with its portals.
func (s *story) restartOutlet(ctx context.Context) error {
	if err := s.outlet.killNode(ctx, "blue"); err != nil {
		return err
	}
	if err := s.startAgain(ctx, s.outlet, "blue"); err != nil {
		return err
	}
	return s.startPortals(ctx)
}

// restartInlet kills the inlet box's node and brings it back with its inlets.
func (s *story) restartInlet(ctx context.Context) error {
	if err := s.inlet.killNode(ctx, "green"); err != nil {
		return err
	}
	if err := s.startAgain(ctx, s.inlet, "green"); err != nil {
		return err
	}
	return s.startInlets(ctx)
}

// startAgain starts a killed node. Its port may be in TIME_WAIT for a moment.
func (s *story) startAgain(ctx context.Context, b *box, node string) error {
	_, err := eventually(ctx, 20*time.Second, func() error {
		_, err := b.cli(ctx, "node", "start", node)
		return err
	})
	return err
}

// connectionEnd bounds how long the client of a broken portal may be left in the dark: two ends of ours hold its connection for 60 s
// (--hold), which begin when the loss of the path has been seen.
const connectionEnd = 90 * time.Second

// knownLimit is how long a portal with the reference's inlet is watched. That
// inlet does not close the client's connection when the far end disappears
// (measured: still open after 60 s), so waiting longer shows nothing.
const knownLimit = 10 * time.Second

// killRows kills one node of program a in the middle of a download. Authority and
// relay otherwise run program b, and so does the outlet box. The inlet box is
// ours unless it is the one that is killed, because it alone can end the client's
// connection, which must happen in bounded time. The portal must work again
// after the restart.
func killRows(ctx context.Context, r *rowRun) {
	base := seats{authority: r.b, relay: r.b, outlet: r.b, inlet: r.ours, admin: r.b}
	for _, seat := range []struct {
		name    string
		place   func(*seats)
		kill    func(*story) error
		restart func(*story) error
	}{
		{"outlet box", func(s *seats) { s.outlet = r.a },
			func(st *story) error { return st.outlet.killNode(ctx, "blue") },
			func(st *story) error {
				if err := st.startAgain(ctx, st.outlet, "blue"); err != nil {
					return err
				}
				return st.startPortals(ctx)
			}},
		{"relay", func(s *seats) { s.relay = r.a },
			func(st *story) error { return st.relay.killNode(ctx, "relay") },
			func(st *story) error { return st.startAgain(ctx, st.relay, "relay") }},
		{"inlet box", func(s *seats) { s.inlet = r.a },
			func(st *story) error { return st.inlet.killNode(ctx, "green") },
			func(st *story) error {
				if err := st.startAgain(ctx, st.inlet, "green"); err != nil {
					return err
				}
				return st.startInlets(ctx)
			}},
	} {
		if ctx.Err() != nil {
			return
		}
		s := base
		seat.place(&s)
		st := r.story(ctx, s, storyOptions{xferTarget: r.xfer.address()},
			func(ctx context.Context, st *story) error { return st.start(ctx) })
		if st == nil {
			continue
		}
		r.check(seat.name+" killed, client ends", func() (string, error) {
			return killMidway(ctx, st, s.inlet.quirks && seat.name != "inlet box", func() error { return seat.kill(st) })
		})
		r.check(seat.name+" back, portal works", func() (string, error) {
			if err := seat.restart(st); err != nil {
				return "", err
			}
			took, err := eventually(ctx, recovery, func() error { return portalWorks(ctx, st.xferInlet, 3*time.Second) })
			return fmt.Sprintf("after %.0fs", took.Seconds()), err
		})
		st.close(r.keep)
	}
}

// killMidway starts a long download, kills, and waits for the end of the
// connection. With limited, a connection that stays open is only noted.
func killMidway(ctx context.Context, st *story, limited bool, kill func() error) (string, error) {
	c, err := openTransfer(ctx, st.xferInlet, modeDownload, 1<<40)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(15 * time.Second))
	if _, err := io.CopyN(io.Discard, c, 8<<20); err != nil {
		return "", fmt.Errorf("before the kill: %w", err)
	}
	if err := kill(); err != nil {
		return "", err
	}
	begin, limit := time.Now(), connectionEnd
	if limited {
		limit = knownLimit
	}
	c.SetDeadline(begin.Add(limit))
	_, err = io.Copy(io.Discard, c)
	var timeout net.Error
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case !errors.As(err, &timeout) || !timeout.Timeout():
		return fmt.Sprintf("after %.1fs", time.Since(begin).Seconds()), nil
	case limited:
		return fmt.Sprintf("still open after %s: known limit of the reference's inlet", limit), nil
	}
	return "", fmt.Errorf("the client's connection is still open %s after the kill", limit)
}
