package main

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sallyport/bench/load"
	"sallyport/bench/load/postgres"
	"sallyport/bench/report"
)

// offered is one kind of request of the load curves.
type offered struct {
	key, title string
	within     time.Duration // the 99th percentile up to which a rate counts as kept up with
	dial       func(i *instance) (load.Dial, error)
}

var (
	loadEcho = offered{"echo", "Echo of 64 bytes", 50 * time.Millisecond, func(i *instance) (load.Dial, error) {
		return load.Echo(loopback(i.front[svcUtil]), []byte{cmdEcho}, 64), nil
	}}
	loadHTTP = offered{"http", "HTTP, GET of 1 KiB over connections that are kept", 50 * time.Millisecond, func(i *instance) (load.Dial, error) {
		return load.HTTP(loopback(i.front[svcHTTP]), "localhost", "/small")
	}}
	loadRedis = offered{"redis", "Redis, PING", 50 * time.Millisecond, func(i *instance) (load.Dial, error) {
		return load.Redis(loopback(i.front[svcRedis])), nil
	}}
	loadQuery = offered{"query", "PostgreSQL, SELECT 1 by the simple query protocol", 50 * time.Millisecond, func(i *instance) (load.Dial, error) {
		return postgres.Simple(pgURL(i.front[svcPG]), "SELECT 1"), nil
	}}
	loadTPCB = offered{"tpcb", "PostgreSQL, pgbench's transaction (like TPC-B): seven round trips", 200 * time.Millisecond, func(i *instance) (load.Dial, error) {
		return postgres.TPCB(pgURL(i.front[svcPG]), pgScale), nil
	}}
)

// loadConnections is over how many connections the requests of a curve are spread.
const loadConnections = 50

// loadShares are the rates of a curve, in per cent of the path's own capacity.
var loadShares = []float64{10, 30, 50, 70, 80, 90, 95}

// shortShares are those of a short or medium run.
var shortShares = []float64{10, 50, 90}

var latencies = []report.Metric{
	{Key: "p50", Title: "50th percentile", Unit: "ms"},
	{Key: "p99", Title: "99th percentile", Unit: "ms"},
	{Key: "p99_9", Title: "99.9th percentile", Unit: "ms"},
	{Key: "cpu_request", Title: "CPU of the nodes for each request", Unit: "µs"},
}

// variant says that a path is compared with ours only, so that curves of it would be the same curve again.
func variant(i *instance) bool { return slices.Contains(variants, i.name) }

var variants = []string{pathRefOpen, pathOursOpen, pathNoHold, pathNoRecords, pathOursWS, pathOursOTLS, pathOursWSS, pathBefore}

// measureLoad finds the path's capacity for a kind of request, and then offers parts of it in an open loop.
func measureLoad(of offered) func(context.Context, *bench, *instance) (sample, error) {
	return func(ctx context.Context, b *bench, i *instance) (sample, error) {
		dial, err := of.dial(i)
		if err != nil {
			return nil, err
		}
		o := load.Options{Dial: dial, Connections: loadConnections, Poisson: true, Seed: 1, Warmup: b.d.curve / 4, Duration: b.d.curve, Grace: 3 * time.Second}
		shares, steps := loadShares, 5
		if b.fewer {
			shares, steps = shortShares, 3
		}
		capacity, err := load.Capacity(ctx, o, load.Search{Within: of.within, Steps: steps})
		if err != nil {
			return nil, err
		}
		section := b.result.Section(report.Section{Key: "load-" + of.key, Title: of.title + ": latency under load",
			Note: fmt.Sprintf("Requests are due at random times (Poisson) at a fixed rate over %d connections, whether answers come or not, and each is measured from the time "+
				"it was due. 100 %% is what the path keeps up with: 98 %% answered in time, none failed, the 99th percentile within %d ms.", loadConnections, of.within.Milliseconds()),
			X: report.Axis{Title: "rate, of the path's own capacity", Unit: "%"},
			Y: append([]report.Metric{{Key: "rate", Title: "answers", Unit: "1/s", Higher: true}}, latencies...)})
		for _, share := range shares {
			o.Rate = capacity * share / 100
			before := cpuSeconds(i.nodes())
			r, err := load.Run(ctx, o)
			if err != nil {
				return nil, err
			}
			if r.Failed > 0 {
				return nil, fmt.Errorf("at %.0f %% of %.0f for each second %d requests failed: %s", share, capacity, r.Failed, r.FirstError)
			}
			v := map[string]float64{"rate": r.Achieved, "p50": r.Latency.P50, "p99": r.Latency.P99, "p99_9": r.Latency.P999, "late_p99": r.Late.P99}
			if all := o.Rate * (o.Warmup + o.Duration).Seconds(); !noNodes(i) && all > 0 {
				v["cpu_request"] = (cpuSeconds(i.nodes()) - before) / all * 1e6
			}
			if r.Latency.Count < 10_000 {
				v["p99_9"] = math.NaN() // of fewer than ten requests
			}
			section.Add(i.name, share, v)
		}
		return sample{"cap_" + of.key: capacity}, nil
	}
}

// messageSizes are the sizes of the sweep, in bytes.
var messageSizes = []int{64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20}

// measureSizes echoes messages of each size: one connection for the latency, eight for the rate.
func measureSizes(ctx context.Context, b *bench, i *instance) (sample, error) {
	section := b.result.Section(report.Section{Key: "sizes", Title: "Size of messages",
		Note: "Echo: a message there, the same back. The times are of one connection that asks again at once, the rate is of eight such connections, both directions counted.",
		X:    report.Axis{Title: "message", Unit: "B", Log: true},
		Y:    []report.Metric{{Key: "p50", Title: "50th percentile", Unit: "ms"}, {Key: "p99", Title: "99th percentile", Unit: "ms"}, {Key: "mbit", Title: "eight connections", Unit: "Mbit/s", Higher: true}}})
	sizes := messageSizes
	if b.fewer {
		sizes = []int{64, 16 << 10, 1 << 20}
	}
	for _, size := range sizes {
		o := load.Options{Dial: load.Echo(loopback(i.front[svcUtil]), []byte{cmdEcho}, size), Connections: 1, Duration: b.d.curve / 2, Warmup: b.d.curve / 8}
		one, err := load.Run(ctx, o)
		if err != nil {
			return nil, err
		}
		o.Connections = 8
		eight, err := load.Run(ctx, o)
		if err != nil {
			return nil, err
		}
		if n := one.Failed + eight.Failed; n > 0 {
			return nil, fmt.Errorf("%d messages of %d bytes failed: %s%s", n, size, one.FirstError, eight.FirstError)
		}
		section.Add(i.name, float64(size), map[string]float64{"p50": one.Latency.P50, "p99": one.Latency.P99, "mbit": eight.Achieved * float64(size) * 2 * 8 / 1e6})
	}
	return sample{}, nil
}

// scaleRate is how often each connection asks: seldom enough that one answer is there before the next request is due.
const scaleRate = 20

// measureScale opens more and more connections, and asks over a few of them.
func measureScale(ctx context.Context, b *bench, i *instance) (sample, error) {
	section := b.result.Section(report.Section{Key: "scale", Title: "Number of connections",
		Note: fmt.Sprintf("On a fresh path: idle connections are opened eight at a time; then %d of all, or all if that is less, echo 64 bytes, each %d times a second, in an open loop. Where a process may not have enough files open for 10,000, there are as many as it may.", loadConnections, scaleRate),
		X:    report.Axis{Title: "connections", Log: true},
		Y: []report.Metric{{Key: "opened", Title: "opened", Unit: "1/s", Higher: true}, {Key: "kib_each", Title: "memory of the nodes for each", Unit: "KiB"},
			{Key: "p50", Title: "50th percentile", Unit: "ms"}, {Key: "p99", Title: "99th percentile", Unit: "ms"}}})
	counts := []int{1, 10, 100, 1000, 10_000}
	if b.fewer {
		counts = []int{1, 100, 1000}
	}
	// Nodes that have had many connections have the memory for as many: only new ones tell.
	b.starts++
	m := b.paths[slices.IndexFunc(b.paths, func(m maker) bool { return m.name == i.name })]
	i, err := startPath(ctx, m, filepath.Join(b.dir, fmt.Sprintf("scale-%d", b.starts)), b.servers.ports)
	if err != nil {
		return nil, err
	}
	defer i.stop()
	if err := sleep(ctx, time.Until(i.started.Add(b.d.rest))); err != nil {
		return nil, err
	}
	base, err := memory(i.nodes())
	if err != nil {
		return nil, err
	}
	for _, n := range counts {
		n = min(n, mostOpen(i.name, fileLimit()))
		v, err := scaleTo(ctx, b, i, n, base.own)
		if err != nil {
			return nil, fmt.Errorf("%d connections: %w", n, err)
		}
		section.Add(i.name, float64(n), v)
	}
	return sample{}, nil
}

// mostOpen is how many connections a path can have where a process may have so many files open. What joins two sockets has two for each; nodes and sshd have one.
func mostOpen(path string, files int) int {
	each := 2
	if path == pathDirect || path == pathSSH || strings.HasPrefix(path, pathOurs) || strings.HasPrefix(path, pathRef) {
		each = 1
	}
	return (files - 1000) / each
}

// scaleTo measures with n connections; base is the memory of the nodes without any, in KiB.
func scaleTo(ctx context.Context, b *bench, i *instance, n int, base float64) (map[string]float64, error) {
	asking := min(n, loadConnections)
	start := time.Now()
	conns, err := openIdle(ctx, i.front[svcUtil], n-asking)
	took := time.Since(start)
	defer func() {
		for _, c := range conns {
			_ = c.Close() // nothing was sent
		}
	}()
	if err != nil {
		return nil, err
	}
	v := map[string]float64{"opened": math.NaN(), "kib_each": math.NaN()}
	if n >= 1000 { // of fewer the memory is lost in what a heap does by itself
		if err := sleep(ctx, b.d.settle); err != nil {
			return nil, err
		}
		now, err := memory(i.nodes())
		if err != nil {
			return nil, err
		}
		v["opened"], v["kib_each"] = float64(n-asking)/took.Seconds(), (now.own-base)/float64(n-asking)
	}
	r, err := load.Run(ctx, load.Options{Dial: load.Echo(loopback(i.front[svcUtil]), []byte{cmdEcho}, 64), Connections: asking, Rate: float64(scaleRate * asking), Poisson: true, Seed: 1,
		Warmup: b.d.curve / 4, Duration: b.d.curve})
	if err != nil {
		return nil, err
	}
	if r.Failed+r.Unanswered > 0 {
		return nil, fmt.Errorf("%d requests failed: %s", r.Failed+r.Unanswered, r.FirstError)
	}
	v["p50"], v["p99"] = r.Latency.P50, r.Latency.P99
	return v, nil
}
