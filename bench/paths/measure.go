package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// sample is the outcome of one measurement: metric key -> value.
type sample map[string]float64

// probe is one kind of measurement; it may yield several metrics.
type probe struct {
	name  string
	needs []tool
	// skip says that the probe has no meaning for this path.
	skip func(i *instance) bool
	run  func(ctx context.Context, b *bench, i *instance) (sample, error)
}

// durations are how long things are measured.
type durations struct {
	bulk   time.Duration // an iperf3 run
	load   time.Duration // a redis-benchmark or ab run
	rest   time.Duration // how old a path is before its memory at rest is read
	settle time.Duration // before its memory with connections is read
	stall  time.Duration // how long a reader is stalled
	window time.Duration // of the neighbours' throughput, before, during and after the stall
	curve  time.Duration // one rate of a load curve
	idle   int           // idle connections
	repeat int           // command runs
}

var (
	fullDurations = durations{bulk: 8 * time.Second, load: 4 * time.Second, rest: 6 * time.Second, settle: 2 * time.Second, curve: 3 * time.Second,
		stall: 20 * time.Second, window: 5 * time.Second, idle: 1000, repeat: 20}
	mediumDurations = durations{bulk: 2 * time.Second, load: time.Second, rest: 3 * time.Second, settle: time.Second, curve: time.Second,
		stall: 5 * time.Second, window: 1500 * time.Millisecond, idle: 500, repeat: 8}
	shortDurations = durations{bulk: time.Second, load: 600 * time.Millisecond, rest: 3 * time.Second, settle: 400 * time.Millisecond, curve: 500 * time.Millisecond,
		stall: 3 * time.Second, window: time.Second, idle: 300, repeat: 5}
)

var (
	toolIperf  = tool{"iperf3", "iperf3"}
	toolRedis  = tool{"redis-server", "redis-server"}
	toolRBench = tool{"redis-benchmark", "redis-tools"}
	toolAb     = tool{"ab", "apache2-utils"}
	toolNginx  = tool{"nginx", "nginx"}
	toolPG     = tool{"initdb", "postgresql"}
	toolPerf   = tool{"perf", "linux-perf"}
)

// probeProfile is the probe that runs only with --profiles.
const probeProfile = "profile"

// probes in the order in which they run on a fresh path: memory first, while
// nothing has been buffered yet, and the stall, which can break a path, last.
var probes = []probe{
	{name: "memory", skip: noNodes, run: measureMemory},
	{name: "up", needs: []tool{toolIperf}, run: measureUp},
	{name: "down", needs: []tool{toolIperf}, run: measureDown},
	{name: "ping", needs: []tool{toolRedis, toolRBench}, run: measurePing},
	{name: "rate", needs: []tool{toolRedis, toolRBench}, run: measureRate},
	{name: "pipeline", needs: []tool{toolRedis, toolRBench}, run: measurePipeline},
	{name: "conns", needs: []tool{toolAb, toolNginx}, run: measureConns},
	{name: "bulk", needs: []tool{toolIperf, toolRedis}, run: measureBulk},
	{name: "command", skip: func(i *instance) bool { return i.listInlets == nil }, run: measureCommand},
	{name: "load-echo", skip: variant, run: measureLoad(loadEcho)},
	{name: "load-http", skip: variant, needs: []tool{toolNginx}, run: measureLoad(loadHTTP)},
	{name: "load-redis", skip: variant, needs: []tool{toolRedis}, run: measureLoad(loadRedis)},
	{name: "load-query", skip: variant, needs: []tool{toolPG}, run: measureLoad(loadQuery)},
	{name: "load-tpcb", skip: variant, needs: []tool{toolPG}, run: measureLoad(loadTPCB)},
	{name: "sizes", skip: variant, run: measureSizes},
	{name: "scale", skip: func(i *instance) bool { return noNodes(i) || variant(i) }, run: measureScale},
	{name: "members", skip: sweepsOf(pathOurs), run: measureMembers},
	{name: "credentials", skip: sweepsOf(pathOurs), run: measureCredentials},
	{name: "handshakes", skip: sweepsOf(pathOurs1ch), run: measureHandshakes},
	{name: "hops", skip: sweepsOf(pathOurs1ch), run: measureHops},
	{name: "nested", skip: sweepsOf(pathOurs1ch), run: measureNested},
	{name: "shards", skip: sweepsOf(pathOurs), run: measureShards},
	{name: "hold", skip: sweepsOf(pathOurs), run: measureHold},
	{name: "records", skip: sweepsOf(pathOurs), run: measureRecords},
	{name: probeProfile, needs: []tool{toolPerf, toolIperf}, skip: noNodes, run: measureProfile},
	{name: "stall", run: measureStall},
	{name: "inlets", skip: sweepsOf(pathOurs), run: measureInlets}, // last: they stay
}

// curvePaths are those whose curves a medium run draws of every kind of request; the others have that of echoes.
var curvePaths = []string{pathPlain, pathRef, pathOurs, pathOurs1ch}

// mediumSkips says what a medium run leaves out: what a variant of ours or of the reference has in common with the path that it varies, and most curves.
func mediumSkips(probe, path string) bool {
	switch {
	case slices.Contains(variants, path):
		return slices.Contains([]string{"stall", "bulk", "command"}, probe)
	case strings.HasPrefix(probe, "load-") && probe != "load-echo":
		return !slices.Contains(curvePaths, path)
	}
	return false
}

func noNodes(i *instance) bool { return i.name == pathDirect }

func measureUp(ctx context.Context, b *bench, i *instance) (sample, error) {
	r, cpu, err := b.iperf(ctx, i)
	if err != nil {
		return nil, err
	}
	return bulkSample(i, r, cpu, "up", "cpu_up"), nil
}

func measureDown(ctx context.Context, b *bench, i *instance) (sample, error) {
	r, cpu, err := b.iperf(ctx, i, "-P", "8", "-R")
	if err != nil {
		return nil, err
	}
	return bulkSample(i, r, cpu, "down8", "cpu_down8"), nil
}

func bulkSample(i *instance, r iperfResult, cpu float64, rateKey, cpuKey string) sample {
	s := sample{rateKey: r.bitsPerSecond / 1e9}
	if !noNodes(i) {
		s[cpuKey] = cpu / (r.bytes / 1e9)
	}
	return s
}

// iperf runs iperf3 through the path and returns its result and the CPU seconds
// that the path's nodes used meanwhile.
func (b *bench) iperf(ctx context.Context, i *instance, args ...string) (iperfResult, float64, error) {
	seconds := max(1, int(b.d.bulk.Seconds()+0.5))
	server, err := b.iperfServer(ctx)
	if err != nil {
		return iperfResult{}, 0, err
	}
	defer server()
	before := cpuSeconds(i.nodes())
	out, err := b.tool(ctx, time.Duration(seconds)*time.Second+15*time.Second, "iperf3", append([]string{"-c", "127.0.0.1",
		"-p", strconv.Itoa(i.front[svcIperf]), "-t", strconv.Itoa(seconds), "-J", "--connect-timeout", "5000"}, args...)...)
	cpu := cpuSeconds(i.nodes()) - before
	if err != nil && out == "" {
		return iperfResult{}, 0, err
	}
	// iperf3 says what went wrong in its JSON.
	r, perr := parseIperf(out)
	return r, cpu, errors.Join(perr, err)
}

// iperfServer starts an iperf3 server for one test; the returned function ends it.
func (b *bench) iperfServer(ctx context.Context) (func(), error) {
	path, err := lookTool("iperf3")
	if err != nil {
		return nil, err
	}
	port := b.servers.ports[svcIperf]
	p, err := spawn("server", b.servers.dir+"/iperf3.log", b.servers.env, path,
		"-s", "-1", "-B", "127.0.0.1", "-p", strconv.Itoa(port))
	if err != nil {
		return nil, err
	}
	stop := func() {
		_ = p.cmd.Process.Kill() // it may have ended by itself, as it should
		<-p.done
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := waitListening(ctx, []*proc{p}, port); err != nil {
		stop()
		return nil, err
	}
	return stop, nil
}

// tool runs a client program with a limit on its time.
func (b *bench) tool(ctx context.Context, limit time.Duration, name string, args ...string) (string, error) {
	path, err := lookTool(name)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return run(ctx, b.dir, childEnv(b.dir), path, args...)
}

// redisBench runs redis-benchmark for about the load time: a first small run
// tells how many requests that takes. If that alone took as long, it counts.
func (b *bench) redisBench(ctx context.Context, i *instance, tests string, first, most int, args ...string) (map[string]redisResult, error) {
	bench := func(n int) (map[string]redisResult, time.Duration, error) {
		start := time.Now()
		out, err := b.tool(ctx, 4*b.d.load+20*time.Second, "redis-benchmark", append([]string{"-h", "127.0.0.1",
			"-p", strconv.Itoa(i.front[svcRedis]), "-t", tests, "-n", strconv.Itoa(n), "--csv"}, args...)...)
		if err != nil {
			return nil, 0, err
		}
		res, err := parseRedis(out)
		return res, time.Since(start), err
	}
	res, took, err := bench(first)
	if err != nil || took > b.d.load {
		return res, err
	}
	n := int(float64(first) * b.d.load.Seconds() / max(took.Seconds(), 1e-3))
	res, _, err = bench(min(max(n, first), most))
	return res, err
}

func measurePing(ctx context.Context, b *bench, i *instance) (sample, error) {
	res, err := b.redisBench(ctx, i, "ping", 300, 400_000, "-c", "1", "--precision", "3")
	if err != nil {
		return nil, err
	}
	inline, ok1 := res["PING_INLINE"]
	bulk, ok2 := res["PING_MBULK"]
	if !ok1 || !ok2 {
		return nil, errors.New("redis-benchmark: a PING test is missing")
	}
	return sample{"ping_inline": inline.p50, "ping": bulk.p50}, nil
}

func measureRate(ctx context.Context, b *bench, i *instance) (sample, error) {
	return b.redisRate(ctx, i, "req50", 2000, "-c", "50")
}

func measurePipeline(ctx context.Context, b *bench, i *instance) (sample, error) {
	return b.redisRate(ctx, i, "req50p16", 16000, "-c", "50", "-P", "16")
}

func (b *bench) redisRate(ctx context.Context, i *instance, key string, first int, args ...string) (sample, error) {
	res, err := b.redisBench(ctx, i, "ping_mbulk", first, 20_000_000, args...)
	if err != nil {
		return nil, err
	}
	r, ok := res["PING_MBULK"]
	if !ok {
		return nil, errors.New("redis-benchmark: no PING_MBULK in its output")
	}
	return sample{key: r.rps}, nil
}

// mostConns bounds the connections of one ab run: each leaves ports in TIME_WAIT
// on every hop.
const mostConns = 40_000

func measureConns(ctx context.Context, b *bench, i *instance) (sample, error) {
	url := fmt.Sprintf("http://%s/small", loopback(i.front[svcHTTP]))
	if err := fetchOnce(ctx, url); err != nil {
		return nil, err
	}
	ab := func(n int) (abResult, error) {
		// -r: go on after a refused connection; they are counted as failed.
		out, err := b.tool(ctx, 4*b.d.load+30*time.Second, "ab", "-q", "-r", "-s", "10", "-c", "16", "-n", strconv.Itoa(n), url)
		if err != nil {
			return abResult{}, err
		}
		return parseAb(out)
	}
	first, err := ab(200)
	if err != nil {
		return nil, err
	}
	r, err := ab(min(max(200, int(first.perSecond*b.d.load.Seconds())), mostConns))
	if err != nil {
		return nil, err
	}
	return sample{"conns": r.perSecond}, nil
}

// fetchOnce checks that the file comes through whole.
func fetchOnce(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.ContentLength != smallFile {
		return fmt.Errorf("%s: status %s, %d bytes", url, resp.Status, resp.ContentLength)
	}
	return nil
}
