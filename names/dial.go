package names

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// AttemptDelay is how long an attempt has for itself before the next address is tried beside it (RFC 8305 section 5).
const AttemptDelay = 250 * time.Millisecond

// Dial connects to a name's first address that answers. Its form is that of net.Dialer.DialContext; the network is "tcp".
func Dial(ctx context.Context, network, hostport string) (net.Conn, error) {
	return (&Resolver{}).Dial(ctx, network, hostport)
}

// Dial is the function Dial for the names of r.
func (r *Resolver) Dial(ctx context.Context, network, hostport string) (net.Conn, error) {
	list, err := r.Lookup(ctx, hostport)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	return Race(ctx, list, func(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
		return d.DialContext(ctx, network, a.String())
	}, func(c net.Conn) { _ = c.Close() })
}

// Race tries addresses until one of them works, and returns what it made of that one. attempt runs on a goroutine for each address; its
// context ends when another one has won, and what it made nevertheless goes to discard. When all fail the error has the reason of each.
func Race[T any](ctx context.Context, list []netip.AddrPort, attempt func(context.Context, netip.AddrPort) (T, error), discard func(T)) (T, error) {
	return RaceEach(ctx, AttemptDelay, nil, list, attempt, discard)
}

// RaceEach is Race for whatever stands for places. delay is how long an attempt has for itself; a time that can be received from wait, which may be nil, is how long
// it is from then on instead.
func RaceEach[A, T any](ctx context.Context, delay time.Duration, wait <-chan time.Duration, list []A, attempt func(context.Context, A) (T, error), discard func(T)) (T, error) {
	var none T
	switch len(list) {
	case 0:
		return none, ErrNoAddress
	case 1:
		return attempt(ctx, list[0])
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		made T
		err  error
	}
	results := make(chan result)
	running := 0
	start := func() {
		a := list[0]
		list = list[1:]
		running++
		go func() {
			made, err := attempt(ctx, a)
			select {
			case results <- result{made, err}:
			case <-ctx.Done():
				if err == nil {
					discard(made)
				}
			}
		}()
	}
	start()
	next := time.NewTimer(delay)
	defer next.Stop()
	var failed error
	for {
		select {
		case r := <-results:
			if r.err == nil {
				return r.made, nil
			}
			running--
			failed = Join(failed, r.err)
			if len(list) > 0 {
				start()
				next.Reset(delay)
			} else if running == 0 {
				return none, failed
			}
		case <-next.C:
			if len(list) > 0 {
				start()
				next.Reset(delay)
			}
		case d := <-wait:
			next.Reset(d)
		case <-ctx.Done():
			return none, Join(failed, ctx.Err())
		}
	}
}

// Join puts the failures of several addresses on one line; errors.Is and errors.As find each. A nil error adds nothing.
func Join(a, b error) error {
	switch {
	case a == nil:
		return b
	case b == nil || errors.Is(a, b):
		return a
	}
	return fmt.Errorf("%w; %w", a, b)
}
