//go:build !small

package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"sallyport/bench/load"
	"sallyport/node/admin"
)

// offering is what `bench --send` offers to a target.
type offering struct {
	kind, path  string
	rate        float64
	connections int
}

// mostOffered bounds the rate: the command is for looking at a portal, not for flooding what is behind it.
const mostOffered = 100_000

// offer sends requests through an inlet at a fixed rate, and prints how long they took.
func (a *app) offer(ctx context.Context, at, inlet string, span time.Duration, o offering) error {
	switch {
	case o.rate <= 0 || o.rate > mostOffered:
		return usageError("invalid value '%v' for '--rate': it must be more than 0 and at most %d", o.rate, mostOffered)
	case o.connections < 1 || o.connections > 1000:
		return usageError("invalid value '%d' for '--connections': it must be from 1 to 1000", o.connections)
	case !strings.HasPrefix(o.path, "/"):
		return usageError("invalid value '%s' for '--path': it must begin with /", o.path)
	}
	c, node, err := a.nodeClient(at)
	if err != nil {
		return err
	}
	in, err := admin.Get[admin.Inlet](ctx, c, admin.Item(admin.PathInlets, inlet))
	if err != nil {
		return withHint(err, "sallyport tcp-inlet list --at %s shows those there are", node)
	}
	var dial load.Dial
	switch o.kind {
	case "echo":
		dial = load.Echo(in.Bind, nil, 64)
	case "redis":
		dial = load.Redis(in.Bind)
	case "http":
		if dial, err = load.HTTP(in.Bind, in.Bind, o.path); err != nil {
			return usageError("invalid value '%s' for '--path': %v", o.path, err)
		}
	default:
		return usageError("invalid value '%s' for '--send': it must be http, redis or echo", o.kind)
	}
	r, err := load.Run(ctx, load.Options{Rate: o.rate, Poisson: true, Seed: 1, Duration: span, Connections: o.connections, Dial: dial})
	if err != nil {
		return fmt.Errorf("inlet %s at %s: %w", inlet, in.Bind, err)
	}
	r.Latency.HDR, r.Late.HDR = nil, nil // for machines that merge histograms; here it is noise
	text := table([]string{"DUE", "ANSWERED", "A SECOND", "50 %", "90 %", "99 %", "99.9 %", "LONGEST"}, [][]string{{fmt.Sprint(r.Due), fmt.Sprint(r.Answered), fmt.Sprintf("%.0f", r.Achieved),
		ms(r.Latency.P50), ms(r.Latency.P90), ms(r.Latency.P99), ms(r.Latency.P999), ms(r.Latency.Max)}})
	if err := a.print(result{human: text, machine: strings.TrimSpace(text), json: r}); err != nil {
		return err
	}
	if bad := r.Failed + r.Unanswered; bad > 0 {
		return fmt.Errorf("%d of %d requests had no good answer: %s", bad, r.Due, firstOr(r.FirstError, "nothing came in time"))
	}
	return nil
}

func ms(v float64) string { return fmt.Sprintf("%.2f ms", v) }

func firstOr(text, other string) string {
	if text == "" {
		return other
	}
	return text
}
