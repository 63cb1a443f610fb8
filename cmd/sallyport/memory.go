package main

import (
	"bufio"
	"context"
	"fmt"
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
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// address perms offset dev inode path; only read-only mappings of the program, which cannot have changed.
		line := lines.Text()
		var from, to uintptr
		var perms string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &perms); err != nil || !strings.HasSuffix(line, exe) || strings.Contains(perms, "w") {
			continue
		}
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED)
	}
}

const (
	memoryTick = 15 * time.Second
	// memorySlack is how much beyond what a node at rest takes is left to the collector and the system's own devices.
	memorySlack = 32 << 20
)

// youth is when a node that has begun has perhaps been told what it shall have: pages of the program that only this needed are given back.
var youth = []time.Duration{2 * time.Second, 5 * time.Second, 15 * time.Second, time.Minute}

// returnMemory gives memory back to the system that a burst or an attack took: the runtime alone keeps it for minutes, since a node at
// work allocates next to nothing and so has no reason to collect. It looks every 15 s, and once a minute when there was nothing to
// give. In the first minute it also gives back pages of the program. It returns when ctx ends.
func returnMemory(ctx context.Context) {
	sample := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	footprint := func() uint64 {
		metrics.Read(sample)
		return sample[0].Value.Uint64() - sample[1].Value.Uint64()
	}
	rest := footprint()
	before, wait := rest, 0
	for _, age := range youth {
		time.AfterFunc(age, releaseProgram)
	}
	tick := time.NewTicker(memoryTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := footprint()
		growing := now > before+before/20
		before = now
		if wait--; wait > 0 || growing || now < rest+memorySlack {
			continue
		}
		releaseStartup()
		if before = footprint(); before > now-now/10 {
			wait = int(time.Minute / memoryTick)
		}
	}
}
