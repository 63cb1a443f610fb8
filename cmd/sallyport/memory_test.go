package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestReleaseUnchanged: pages that were written to before they became read-only are not given back, since they would come back as they are in the file. Others are.
func TestReleaseUnchanged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "program")
	page := os.Getpagesize()
	if err := os.WriteFile(path, make([]byte, 2*page), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	mapped := func(change bool) ([]byte, uintptr) {
		b, err := unix.Mmap(int(f.Fd()), 0, 2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Munmap(b) })
		if change {
			b[page] = 1
		}
		if err := unix.Mprotect(b, unix.PROT_READ); err != nil {
			t.Fatal(err)
		}
		return b, uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	}
	changed, changedAt := mapped(true)
	_, sameAt := mapped(false)
	smaps, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Skip("this kernel does not say which pages have changed:", err)
	}
	defer smaps.Close()
	covers := func(at uintptr) func(mapping) bool { return func(m mapping) bool { return m.from <= at && at < m.to } }
	list := unchanged(smaps, path)
	if slices.ContainsFunc(list, covers(changedAt+uintptr(page))) || changed[page] != 1 {
		t.Error("a page that has changed would be given back")
	}
	if !slices.ContainsFunc(list, covers(sameAt)) {
		t.Errorf("a page as it is in the file would be kept: %x in %x", sameAt, list)
	}
}

// TestProgramReleased: the process has less of its program in memory afterwards, and says so.
func TestProgramReleased(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	smaps, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Skip("this kernel does not say which pages have changed:", err)
	}
	defer smaps.Close()
	var all int64
	for _, m := range unchanged(smaps, exe) {
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, m.from, m.to-m.from, unix.MADV_POPULATE_READ); errno != 0 {
			t.Skip("this kernel does not bring pages when told to:", errno)
		}
		all += int64(m.to - m.from)
	}
	// resident is how many bytes of files are in memory: next to all are the program's own.
	resident := func() int64 {
		raw, err := os.ReadFile("/proc/self/statm")
		var size, all, shared int64
		if err == nil {
			_, err = fmt.Sscan(string(raw), &size, &all, &shared)
		}
		if err != nil {
			t.Fatal(err)
		}
		return shared * int64(os.Getpagesize())
	}
	before := resident()
	if before < all {
		t.Fatalf("%d bytes are resident, of which the program is %d", before, all)
	}
	releaseProgram()
	if after := resident(); after > before-all/2 {
		t.Errorf("%d bytes were resident, %d are", before, after)
	}
}

// TestGiving: memory goes back when a node has more than its slack, and less of it when it rests; not while it grows, and not for a minute after it was in vain.
func TestGiving(t *testing.T) {
	const rest = 10 << 20
	g := giving{rest: rest, before: rest}
	looks := func(what string, now, slack uint64, want bool) {
		t.Helper()
		if got := g.due(now, slack); got != want {
			t.Errorf("%s: given back is %v", what, got)
		}
	}
	looks("at rest", rest, restingSlack, false)
	looks("it grows", rest+memorySlack, memorySlack, false)
	looks("as much as before", rest+memorySlack, memorySlack, true)
	g.gave(rest)
	looks("it grows again", rest+memorySlack/2, restingSlack, false)
	looks("at work", rest+memorySlack/2, memorySlack, false)
	looks("after it", rest+memorySlack/2, restingSlack, true)
	g.gave(rest + memorySlack/2)
	for range int(time.Minute/memoryTick) - 1 {
		looks("within a minute", rest+memorySlack/2, restingSlack, false)
	}
	looks("after a minute", rest+memorySlack/2, restingSlack, true)
}
