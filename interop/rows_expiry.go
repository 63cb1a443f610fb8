package main

import (
	"context"
	"fmt"
	"net"
	"time"
)

// credentialTTL is the lifetime of credentials in the expiry rows. Members renew
// theirs 120 s before the end, or every 10 s when it is shorter than that.
const credentialTTL = 75 * time.Second

// expiryRows runs a story with short-lived credentials: authority, relay and inlet
// of program a, outlet of program b. Renewal must keep everything going past the
// lifetime; without the authority it must all stop at its end; and it must come
// back with the authority.
func expiryRows(ctx context.Context, r *rowRun) {
	s := seats{authority: r.a, relay: r.b, outlet: r.b, inlet: r.a, admin: r.a}
	o := storyOptions{
		authorityEnv: []string{fmt.Sprintf("CREDENTIAL_TTL_SECS=%d", int(credentialTTL.Seconds()))},
		xferTarget:   r.xfer.address(),
	}
	st := r.story(ctx, s, o, func(ctx context.Context, st *story) error { return st.start(ctx) })
	if st == nil {
		return
	}
	defer st.close(r.keep)

	var open net.Conn
	defer func() {
		if open != nil {
			open.Close()
		}
	}()
	ok := r.check("renewed, open connection", func() (string, error) {
		var err error
		if open, err = openTransfer(ctx, st.xferInlet, modeEcho, 0); err != nil {
			return "", err
		}
		return "past the lifetime", keepsGoing(ctx, open, credentialTTL+10*time.Second)
	})
	r.check("renewed, new connection", func() (string, error) {
		return "", portalWorks(ctx, st.xferInlet, 10*time.Second)
	})
	if !ok {
		return
	}
	var stopped time.Time
	r.check("authority killed, still valid", func() (string, error) {
		if err := st.authority.killNode(ctx, authorityNode); err != nil {
			return "", err
		}
		stopped = time.Now()
		return "", keepsGoing(ctx, open, 10*time.Second)
	})
	r.check("expired, open connection stops", func() (string, error) {
		return stopsWithin(ctx, open, time.Until(stopped.Add(credentialTTL+5*time.Second)))
	})
	r.check("expired, no new connection", func() (string, error) {
		if err := portalWorks(ctx, st.xferInlet, 3*time.Second); err == nil {
			return "", fmt.Errorf("a new connection worked %s after the last credential", time.Since(stopped).Round(time.Second))
		}
		return "", nil
	})
	r.check("authority back, new connection", func() (string, error) {
		if err := st.startAuthority(ctx); err != nil {
			return "", err
		}
		// A node of the reference that asked while the authority was away waits two minutes for that answer before it asks again.
		took, err := eventually(ctx, 180*time.Second, func() error { return portalWorks(ctx, st.xferInlet, 3*time.Second) })
		return fmt.Sprintf("after %.0fs", took.Seconds()), err
	})
}

// memberExpiryRows: authority and relay of program a, both boxes of program b, whose nodes renew their short-lived credentials in their own way.
func memberExpiryRows(ctx context.Context, r *rowRun) {
	s := seats{authority: r.a, relay: r.a, outlet: r.b, inlet: r.b, admin: r.a}
	o := storyOptions{
		authorityEnv: []string{fmt.Sprintf("CREDENTIAL_TTL_SECS=%d", int(credentialTTL.Seconds()))},
		xferTarget:   r.xfer.address(),
	}
	st := r.story(ctx, s, o, func(ctx context.Context, st *story) error { return st.start(ctx) })
	if st == nil {
		return
	}
	defer st.close(r.keep)
	r.check("open connection goes on", func() (string, error) {
		c, err := openTransfer(ctx, st.xferInlet, modeEcho, 0)
		if err != nil {
			return "", err
		}
		defer c.Close()
		length := 2*credentialTTL + 10*time.Second
		return fmt.Sprintf("for %s, credentials of %s", length, credentialTTL), keepsGoing(ctx, c, length)
	})
	r.check("new connection after it", func() (string, error) {
		return "", portalWorks(ctx, st.xferInlet, 10*time.Second)
	})
}

// keepsGoing echoes twice a second for a while; every echo must come back.
func keepsGoing(ctx context.Context, c net.Conn, length time.Duration) error {
	begin := time.Now()
	for time.Since(begin) < length {
		if err := pingEcho(c, 5*time.Second); err != nil {
			return fmt.Errorf("after %.0fs: %w", time.Since(begin).Seconds(), err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
	return nil
}

// stopsWithin echoes until nothing comes back any more, which must happen in time.
// A closed connection and a silent one are both fine; which it was is the note.
func stopsWithin(ctx context.Context, c net.Conn, limit time.Duration) (string, error) {
	begin := time.Now()
	for time.Since(begin) < limit {
		if err := pingEcho(c, 3*time.Second); err != nil {
			how := "closed"
			if e, ok := err.(net.Error); ok && e.Timeout() {
				how = "silent"
			}
			return fmt.Sprintf("%s after %.0fs", how, time.Since(begin).Seconds()), ctx.Err()
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
	return "", fmt.Errorf("still open after %s", limit.Round(time.Second))
}
