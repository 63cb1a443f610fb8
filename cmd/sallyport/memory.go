package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// releaseStartup gives back the memory that only starting needed: free heap, and the pages of the program itself, of which a node at
// work uses a third. The kernel keeps them in its page cache and maps them again where they are used. A node's portals and relays are
// made after it began, so returnMemory does it again.
func releaseStartup() {
	debug.FreeOSMemory()
	releaseProgram()
}

// releaseProgram has the system take back the program's own pages. Those that are used come back one by one.
func releaseProgram() {
	exe, err := os.Executable()
	if err != nil {
		return
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer f.Close()
	for _, m := range unchanged(f, exe) {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.from, m.to-m.from, unix.MADV_DONTNEED)
	}
}

// mapping is a part of the address space.
type mapping struct{ from, to uintptr }

// unchanged returns the mappings of a file that are read-only and have no page of their own, of a table as in /proc/self/smaps. A page that was written to
// once, and made read-only then, would come back as it is in the file: the loader fills in addresses that way where the program is linked to libraries, or
// may lie anywhere.
func unchanged(smaps io.Reader, path string) (list []mapping) {
	var m mapping
	var candidate bool
	for lines := bufio.NewScanner(smaps); lines.Scan(); {
		// Each mapping begins with: address perms offset dev inode path. Lines with a name and a number follow.
		line := lines.Text()
		var next mapping
		var perms string
		var own uint64
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &next.from, &next.to, &perms); n == 3 {
			m, candidate = next, strings.HasSuffix(line, " "+path) && !strings.Contains(perms, "w")
		} else if n, _ := fmt.Sscanf(line, "Anonymous: %d kB", &own); n == 1 && own == 0 && candidate {
			list = append(list, m)
		}
	}
	return list
}

const (
	memoryTick = 15 * time.Second
	// memorySlack is how much beyond what a node at rest takes is left to the collector and the system's own devices while it is at work.
	memorySlack = 32 << 20
	// restingSlack is the same for a small node, and for one that has rested.
	restingSlack = 2 << 20
	// restingCPU is the processor time below which a node rested between two looks.
	restingCPU = memoryTick / 50
)

// youth is when a node that has begun has perhaps been told what it shall have: what only this needed is given back.
var youth = []time.Duration{2 * time.Second, 5 * time.Second, 15 * time.Second, time.Minute}

// processCPU is the processor time that the process has used.
func processCPU() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u) // cannot fail
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// footprint is the memory, in bytes, that the runtime has from the system.
func footprint() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64() - sample[1].Value.Uint64()
}

// giving decides when memory is worth giving back, of footprints at each look. rest is that of a node that has begun.
type giving struct {
	rest, before uint64
	wait         int // looks that are left out
}

// due reports whether memory should be given back now; slack is what the node may have beyond rest. While a node grows there is nothing to give.
func (g *giving) due(now, slack uint64) bool {
	growing := now > g.before+g.before/20
	g.before = now
	g.wait--
	return g.wait <= 0 && !growing && now >= g.rest+slack
}

// gave notes what giving back has left. If that was next to nothing, it is not tried for a minute.
func (g *giving) gave(left uint64) {
	if left > g.before-g.before/10 {
		g.wait = int(time.Minute / memoryTick)
	}
	g.before = left
}

// returnMemory gives memory back to the system that a burst or an attack took: the runtime alone keeps it for minutes, since a node at
// work allocates next to nothing and so has no reason to collect. It looks every 15 s, and once a minute when there was nothing to
// give. Pages of the program go back in the first minute, and whenever a node has rested for those 15 s: a command or a collection of garbage brings many that are
// not needed again for long. With later set what only starting needed goes back first. It returns when ctx ends.
func returnMemory(ctx context.Context, small, later bool) {
	if later {
		select {
		case <-ctx.Done():
			return
		case <-time.After(youth[0]):
		}
		releaseStartup()
	}
	rest := footprint()
	g := giving{rest: rest, before: rest}
	for _, age := range youth {
		time.AfterFunc(age, releaseStartup)
	}
	cpu := processCPU()
	tick := time.NewTicker(memoryTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		used, slack := processCPU(), uint64(memorySlack)
		if small || used-cpu < restingCPU { // less than a thousand page faults, in a quarter of a minute
			slack = restingSlack
			releaseProgram()
		}
		cpu = used
		if g.due(footprint(), slack) {
			releaseStartup()
			g.gave(footprint())
		}
	}
}
