package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"sallyport/bench/load"
	"sallyport/bench/profile"
)

// profileRate is how many samples a second perf takes of each processor; not a round number, so that it does not beat with timers.
const profileRate = 1997

// profiled is one load whose profile is taken.
type profiled struct {
	key, title, per string
	// run puts the load on and returns how many bytes, or messages, came through.
	run func(ctx context.Context, b *bench, i *instance) (float64, error)
}

var profiledLoads = []profiled{
	{"up", "upload, 1 stream", "byte", func(ctx context.Context, b *bench, i *instance) (float64, error) {
		r, _, err := b.iperf(ctx, i)
		return r.bytes, err
	}},
	{"down", "download, 8 streams", "byte", func(ctx context.Context, b *bench, i *instance) (float64, error) {
		r, _, err := b.iperf(ctx, i, "-P", "8", "-R")
		return r.bytes, err
	}},
	{"requests", "echoes of 64 bytes, 50 connections", "message", func(ctx context.Context, b *bench, i *instance) (float64, error) {
		r, err := load.Run(ctx, load.Options{Dial: load.Echo(loopback(i.front[svcUtil]), []byte{cmdEcho}, 64), Connections: loadConnections, Duration: b.d.bulk})
		if err != nil {
			return 0, err
		}
		return float64(r.Answered) * 2, nil // there and back
	}},
}

// measureProfile puts each load on the path, has perf look at each node, draws flame graphs, and writes down where the time went, beside what the machine can do.
func measureProfile(ctx context.Context, b *bench, i *instance) (sample, error) {
	dir := filepath.Join(b.profiles, i.name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	machine, err := profile.Measure()
	if err != nil {
		return nil, fmt.Errorf("what the machine can do: %w", err)
	}
	var text strings.Builder
	fmt.Fprintf(&text, "# Where the time goes: %s\n\n%s, load average %s. %s. Nanoseconds of the nodes' processors; cycles at %.2f GHz in brackets.\n", i.name, b.result.Machine, loadAverage(),
		b.result.When.Format("2006-01-02"), machine.GHz)
	for _, l := range profiledLoads {
		if err := b.profileLoad(ctx, i, l, machine, dir, &text); err != nil {
			return nil, fmt.Errorf("%s: %w", l.title, err)
		}
	}
	limit := func(what string, ns float64) {
		fmt.Fprintf(&text, "| %s | %s | %s |\n", what, number(ns), number(ns*machine.GHz))
	}
	text.WriteString("\n## What this machine can do\n\nOn one core, measured in the same run, the best of sixty short rounds.\n\n| | ns | cycles |\n|---|---:|---:|\n")
	limit("copy a byte (256 KiB in a cache)", machine.CopyNS)
	limit("seal a byte with AES-256-GCM (records of 16 KiB)", machine.SealNS)
	limit("a byte through a TCP connection of the loopback interface (write and read of 64 KiB)", machine.LoopNS)
	limit("64 bytes through it (write and read)", machine.MessageNS)
	limit("a system call that does nothing", machine.SyscallNS)
	limit("wake a thread that sleeps", machine.WakeNS)
	return sample{}, os.WriteFile(filepath.Join(dir, "README.md"), []byte(text.String()), 0o644)
}

// profileLoad is measureProfile for one load.
func (b *bench) profileLoad(ctx context.Context, i *instance, l profiled, machine profile.Machine, dir string, text *strings.Builder) error {
	perf, err := lookTool("perf")
	if err != nil {
		return err
	}
	roles := i.nodesByRole()
	var wg sync.WaitGroup
	errs := make([]error, len(i.roles))
	before := map[string]float64{}
	for n, role := range i.roles {
		before[role] = cpuSeconds(roles[role])
		pids := make([]string, len(roles[role]))
		for k, pid := range roles[role] {
			pids[k] = strconv.Itoa(pid)
		}
		wg.Go(func() {
			_, errs[n] = run(ctx, b.dir, childEnv(b.dir), perf, "record", "-q", "-g", "-F", strconv.Itoa(profileRate), "-e", "cpu-clock", "-o", filepath.Join(i.dir, l.key+"-"+role+".data"),
				"-p", strings.Join(pids, ","), "--", "sleep", fmt.Sprint(b.d.bulk.Seconds()))
		})
	}
	units, err := l.run(ctx, b, i)
	wg.Wait()
	if err != nil {
		return err
	}
	fmt.Fprintf(text, "\n## %s\n\nFor each %s, all three nodes: flame graphs ", strings.ToUpper(l.title[:1])+l.title[1:], l.per)
	table := map[string]map[string]float64{} // stage -> role -> ns
	for n, role := range i.roles {
		if errs[n] != nil {
			return errs[n]
		}
		used := (cpuSeconds(roles[role]) - before[role]) * float64(time.Second) / units
		file := filepath.Join(i.dir, l.key+"-"+role+".data")
		out := filepath.Join(i.dir, l.key+"-"+role+".txt")
		if _, err := run(ctx, b.dir, childEnv(b.dir), "/bin/sh", "-c", `exec "$0" script -F comm,ip,sym -i "$1" >"$2" 2>/dev/null`, perf, file, out); err != nil {
			return err
		}
		f, err := os.Open(out)
		if err != nil {
			return err
		}
		stacks, err := profile.Read(f)
		f.Close()
		if err != nil {
			return err
		}
		svg := l.key + "-" + role + ".svg"
		if err := os.WriteFile(filepath.Join(dir, svg), profile.Flame(i.name+", "+l.title+": the node of the "+role, stacks), 0o644); err != nil {
			return err
		}
		fmt.Fprintf(text, "[%s](%s) ", role, svg)
		for stage, count := range profile.ByStage(stacks) {
			if table[stage] == nil {
				table[stage] = map[string]float64{}
			}
			table[stage][role] = used * float64(count) / float64(len(stacks))
		}
	}
	figure := func(ns float64) string {
		if ns == 0 || math.IsNaN(ns) {
			return "-"
		}
		return fmt.Sprintf("%s (%s)", number(ns), number(ns*machine.GHz))
	}
	fmt.Fprintf(text, "\n\n| stage | %s | all | share |\n|---|%s---:|---:|\n", strings.Join(i.roles, " | "), strings.Repeat("---:|", len(i.roles)))
	sum, total := map[string]float64{}, 0.0
	for _, byRole := range table {
		for role, ns := range byRole {
			sum[role] += ns
			total += ns
		}
	}
	row := func(name string, byRole map[string]float64) {
		all := 0.0
		cells := []string{name}
		for _, role := range i.roles {
			all += byRole[role]
			cells = append(cells, figure(byRole[role]))
		}
		fmt.Fprintf(text, "| %s | %s | %.0f %% |\n", strings.Join(cells, " | "), figure(all), 100*all/total)
	}
	for _, stage := range profile.Stages {
		if table[stage] != nil {
			row(stage, table[stage])
		}
	}
	row("together", sum)
	return nil
}
