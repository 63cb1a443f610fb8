package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/bench/load"
	"sallyport/bench/report"
	"sallyport/client"
	"sallyport/internal/freeport"
)

// sweepsOf lets a sweep run on one path, whose program it starts with other settings.
func sweepsOf(path string) func(*instance) bool {
	return func(i *instance) bool { return i.name != path }
}

// wayMetrics are what is measured of a way with way.
var wayMetrics = []report.Metric{
	{Key: "p50", Title: "50th percentile, 1 connection", Unit: "ms"},
	{Key: "requests", Title: "requests, 50 connections", Unit: "1/s", Higher: true},
	{Key: "cpu_request", Title: "CPU of the nodes for each request", Unit: "µs"},
	{Key: "mbit", Title: "echo of 64 KiB, 8 connections, both directions", Unit: "Mbit/s", Higher: true},
	{Key: "cpu_gb", Title: "CPU of the nodes for a GB", Unit: "s"},
	{Key: "opened", Title: "connections opened, asked once and closed, 8 at a time", Unit: "1/s", Higher: true},
	{Key: "cpu_opened", Title: "CPU of the nodes for each", Unit: "µs"},
}

// way measures the way of the util service: small echoes over one and over many connections, large ones over eight. Connections ask again at once.
func way(ctx context.Context, b *bench, i *instance, port int) (map[string]float64, error) {
	echo := func(connections, size int) (*load.Result, float64, error) {
		before := cpuSeconds(i.nodes())
		r, err := load.Run(ctx, load.Options{Dial: load.Echo(loopback(port), []byte{cmdEcho}, size), Connections: connections, Duration: b.d.curve / 2})
		if err == nil && r.Failed > 0 {
			err = errors.New(r.FirstError)
		}
		return r, cpuSeconds(i.nodes()) - before, err
	}
	one, _, err := echo(1, 64)
	if err != nil {
		return nil, err
	}
	many, cpu, err := echo(loadConnections, 64)
	if err != nil {
		return nil, err
	}
	v := map[string]float64{"p50": one.Latency.P50, "requests": many.Achieved, "cpu_request": cpu / float64(many.Answered) * 1e6}
	const size = 64 << 10
	bulk, cpu, err := echo(8, size)
	if err != nil {
		return nil, err
	}
	v["mbit"], v["cpu_gb"] = bulk.Achieved*size*2*8/1e6, cpu/(float64(bulk.Answered)*size*2/1e9)
	v["opened"], v["cpu_opened"], err = openAndClose(ctx, b, i, port)
	return v, err
}

// openAndClose opens connections, eight at a time, for half the time of a point of a curve; each is asked once and closed. It returns how many a second, and the nodes' CPU for each
// in microseconds.
func openAndClose(ctx context.Context, b *bench, i *instance, port int) (rate, cpu float64, err error) {
	before, start := cpuSeconds(i.nodes()), time.Now()
	var n atomic.Int64
	err = withoutEnough(parallel(8, mostConns, func(int) error {
		if time.Since(start) > b.d.curve/2 {
			return errEnough
		}
		c, err := dialUtil(ctx, port, cmdIdle, 0)
		if err != nil {
			return err
		}
		n.Add(1)
		return c.Close()
	}))
	took, made := time.Since(start).Seconds(), float64(n.Load())
	return made / took, (cpuSeconds(i.nodes()) - before) / made * 1e6, err
}

// measureVariants starts a path for each setting of a sweep, and measures its way.
func measureVariants(section report.Section, settings []float64, start func(st story, x float64) func(context.Context, *instance) error) func(context.Context, *bench, *instance) (sample, error) {
	return func(ctx context.Context, b *bench, i *instance) (sample, error) {
		to := b.result.Section(section)
		to.Y = wayMetrics
		for _, x := range settings {
			b.starts++
			m := maker{name: i.name, start: start(b.ours(), x)}
			made, err := startPath(ctx, m, filepath.Join(b.dir, fmt.Sprintf("%s-%d", section.Key, b.starts)), b.servers.ports)
			if err != nil {
				return nil, fmt.Errorf("%s %v: %w", section.X.Title, x, err)
			}
			v, err := way(ctx, b, made, made.front[svcUtil])
			made.stop()
			if err != nil {
				return nil, fmt.Errorf("%s %v: %w", section.X.Title, x, err)
			}
			to.Add(i.name, x, v)
		}
		return sample{}, nil
	}
}

var (
	measureHops = measureVariants(report.Section{Key: "hops", Title: "Hops", X: report.Axis{Title: "hops"},
		Note: "TCP connections between inlet's and outlet's node: 1 has no relay, n has n-1 of them in a row, with a channel to each within the one before. Echo; connections ask again at once."},
		[]float64{1, 2, 3, 6}, func(st story, x float64) func(context.Context, *instance) error { return st.startHops(int(x) - 1) })
	measureShards = measureVariants(report.Section{Key: "shards", Title: "Shards", X: report.Axis{Title: "event loops of each node"},
		Note: "The story's three nodes, each with so many processors (GOMAXPROCS), and with as many event loops. Echo; connections ask again at once."},
		[]float64{1, 2}, func(st story, x float64) func(context.Context, *instance) error {
			st.env = []string{fmt.Sprintf("GOMAXPROCS=%d", int(x))}
			return st.start
		})
	measureHold = measureVariants(report.Section{Key: "hold", Title: "Connections that outlive their path", X: report.Axis{Title: "hold", Unit: "s"},
		Note: "The story's three nodes, with portals whose connections are held for as long when their path breaks; 0 is off. Echo; connections ask again at once."},
		[]float64{0, 60}, func(st story, x float64) func(context.Context, *instance) error {
			st.portal = []string{"--hold", fmt.Sprintf("%ds", int(x))}
			return st.start
		})
	measureRecords = measureVariants(report.Section{Key: "records", Title: "Records of connections", X: report.Axis{Title: "records: 0 off, 1 on"},
		Note: "The story's three nodes, the two at the ends without and with records of connections. Echo; connections ask again at once."},
		[]float64{0, 1}, func(st story, x float64) func(context.Context, *instance) error {
			if x == 0 {
				st.node = append(st.node, "--records", "off")
			}
			return st.start
		})
)

// onInlet runs a command at the inlet's node.
func (b *bench) onInlet(ctx context.Context, i *instance, args ...string) (string, error) {
	c := b.ours().command(i, roleInlet, args...)
	return run(ctx, i.dir, c.env, c.name, c.args...)
}

// measureNested adds inlets whose way goes through one more channel each, between the same two nodes.
func measureNested(ctx context.Context, b *bench, i *instance) (sample, error) {
	section := b.result.Section(report.Section{Key: "nested", Title: "Nested channels", X: report.Axis{Title: "channels, each within the one before"}, Y: wayMetrics,
		Note: "Two nodes, one TCP connection, a number of secure channels each within the one before: what one more time sealing and opening costs. Echo; connections ask again at once."})
	for n := 1; n <= 4; n++ {
		port, err := freeport.Get()
		if err != nil {
			return nil, err
		}
		to := i.address + strings.Repeat("/secure/api", n) + "/service/" + svcUtil
		if _, err := b.onInlet(ctx, i, "tcp-inlet", "create", "--at", inletNode, "--from", loopback(port), "--to", to); err != nil {
			return nil, err
		}
		v, err := way(ctx, b, i, port)
		if err != nil {
			return nil, fmt.Errorf("%d channels: %w", n, err)
		}
		section.Add(i.name, float64(n), v)
	}
	return sample{}, nil
}

// measureInlets adds inlets to the inlet's node, and has the relay start again with all of them there.
func measureInlets(ctx context.Context, b *bench, i *instance) (sample, error) {
	section := b.result.Section(report.Section{Key: "inlets", Title: "Inlets on one node", X: report.Axis{Title: "inlets", Log: true},
		Note: "Inlets to one outlet, made by one command each, eight at a time. The relay is then stopped and started, and each inlet is asked once at the same time: how long until all have answered.",
		Y: []report.Metric{{Key: "made", Title: "made", Unit: "1/s", Higher: true}, {Key: "kib_each", Title: "memory of the inlet's node for each", Unit: "KiB"},
			{Key: "p50", Title: "50th percentile of echoes through one, 1000 a second", Unit: "ms"}, {Key: "p99", Title: "99th percentile", Unit: "ms"}, {Key: "back", Title: "all answer after the relay's start", Unit: "s"}}})
	counts := []int{1, 10, 100, 1000}
	if b.fewer {
		counts = []int{1, 10, 100}
	}
	inlet := i.nodesByRole()[roleInlet]
	base, err := memory(inlet)
	if err != nil {
		return nil, err
	}
	ports := []int{i.front[svcUtil]}
	for _, n := range counts {
		more, err := freePorts(n - len(ports))
		if err != nil {
			return nil, err
		}
		start := time.Now()
		err = parallel(8, len(more), func(k int) error {
			_, err := b.onInlet(ctx, i, "tcp-inlet", "create", "--at", inletNode, "--from", loopback(more[k]), "--to", svcUtil, "--via", outletNode)
			return err
		})
		if err != nil {
			return nil, err
		}
		ports = append(ports, more...)
		v := map[string]float64{"made": math.NaN(), "kib_each": math.NaN()}
		if n >= 100 {
			v["made"] = float64(len(more)) / time.Since(start).Seconds()
			now, err := memory(inlet)
			if err != nil {
				return nil, err
			}
			v["kib_each"] = (now.own - base.own) / float64(n-1)
		}
		r, err := load.Run(ctx, load.Options{Dial: load.Echo(loopback(ports[len(ports)-1]), []byte{cmdEcho}, 64), Connections: 10, Rate: 1000, Poisson: true, Seed: 1, Duration: b.d.curve})
		if err != nil {
			return nil, err
		}
		v["p50"], v["p99"] = r.Latency.P50, r.Latency.P99
		if v["back"], err = b.restartRelay(ctx, i, ports); err != nil {
			return nil, err
		}
		section.Add(i.name, float64(n), v)
	}
	return sample{}, nil
}

// restartRelay stops and starts the relay, and returns after how many seconds every inlet has passed a connection on.
func (b *bench) restartRelay(ctx context.Context, i *instance, ports []int) (float64, error) {
	for _, verb := range []string{"stop", "start"} {
		c := b.ours().command(i, roleRelay, "node", verb, "relay")
		if _, err := run(ctx, i.dir, c.env, c.name, c.args...); err != nil {
			return 0, err
		}
	}
	start := time.Now()
	err := parallel(len(ports), len(ports), func(k int) error {
		for {
			c, err := dialUtil(ctx, ports[k], cmdIdle, 0)
			if err == nil {
				return c.Close()
			}
			if sleep(ctx, 50*time.Millisecond) != nil {
				return err
			}
		}
	})
	return time.Since(start).Seconds(), err
}

// parallel calls do for 0 to n-1, so many at a time, until one fails.
func parallel(at, n int, do func(int) error) error {
	var next atomic.Int64
	errs := make([]error, min(at, max(n, 1)))
	var wg sync.WaitGroup
	for w := range errs {
		wg.Go(func() {
			for errs[w] == nil {
				k := int(next.Add(1)) - 1
				if k >= n {
					return
				}
				errs[w] = do(k)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// measureMembers has new members come, eight at a time: each makes an identity, opens a channel to the authority, redeems a ticket, gets a credential, and then reaches
// a service: a channel to the relay, and through it one to the outlet's node.
func measureMembers(ctx context.Context, b *bench, i *instance) (sample, error) {
	ticket, err := b.ticket(ctx, i)
	if err != nil {
		return nil, err
	}
	authority := processes(i.dir, i.procs)[roleAuthority]
	cpuAuthority, cpuNodes, start := cpuSeconds(authority), cpuSeconds(i.nodes()), time.Now()
	var made atomic.Int64
	err = parallel(8, math.MaxInt32, func(int) error {
		if time.Since(start) > b.d.load {
			return errEnough
		}
		member, err := client.Open(ctx, client.Options{Ticket: ticket, InMemory: true})
		if err != nil {
			return err
		}
		defer member.Close()
		conn, err := member.Dial(ctx, outletNode+"/"+svcUtil)
		if err != nil {
			return err
		}
		defer conn.Close()
		echo := []byte{cmdIdle}
		if _, err := conn.Write(echo); err != nil {
			return err
		}
		if _, err := conn.Read(echo); err != nil {
			return err
		}
		made.Add(1)
		return nil
	})
	took, n := time.Since(start).Seconds(), float64(made.Load())
	if err := withoutEnough(err); err != nil {
		return nil, err
	}
	return sample{"members": n / took, "cpu_member_authority": (cpuSeconds(authority) - cpuAuthority) / n * 1000, "cpu_member_nodes": (cpuSeconds(i.nodes()) - cpuNodes) / n * 1000}, nil
}
