package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sallyport/internal/freeport"
)

// The stall stories run the program itself: `make stall` sets STALL_PROGRAM, and STALL=short for the form that takes seconds.
const stallProgramVar = "STALL_PROGRAM"

// stage is the whole path with its server.
type stage struct {
	*instance
	port   int // of the inlet
	direct int // of the server itself
	server int // process
	short  bool
}

func newStage(t *testing.T) *stage {
	program := os.Getenv(stallProgramVar)
	if program == "" {
		t.Skipf("%s does not name the program to try: make stall does", stallProgramVar)
	}
	if err := checkProgram(program); err != nil {
		t.Fatal(err)
	}
	adoptOrphans()
	dir, err := os.MkdirTemp("", "stall")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	port, err := freeport.Get()
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p, err := spawn("server", filepath.Join(dir, "server.log"), childEnv(dir, stallServerVar+"="+strconv.Itoa(port), tagVar+"="+dir+"/server"), self)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { endAll(dir, []*proc{p}) })
	back := map[string]int{}
	for _, s := range services {
		back[s] = port
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := waitListening(ctx, []*proc{p}, port); err != nil {
		t.Fatal(err)
	}
	i, err := startPath(ctx, maker{"stall", nil, story{program: program}.start}, filepath.Join(dir, "path"), back)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(i.stop)
	return &stage{instance: i, port: i.front[svcUtil], direct: port, server: p.cmd.Process.Pid, short: os.Getenv("STALL") == "short"}
}

// span returns the length of a stall: long, or a few seconds in the short form.
func (s *stage) span(long, short time.Duration) time.Duration {
	if s.short {
		return short
	}
	return long
}

// resident returns the resident memory of each node in bytes.
func (s *stage) resident() (map[string]int64, error) {
	m := map[string]int64{}
	for role, pids := range s.nodesByRole() {
		for _, pid := range pids {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
			if err != nil {
				return nil, err
			}
			_, rest, _ := strings.Cut(string(text), "VmRSS:")
			value, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
			kib, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return nil, fmt.Errorf("memory of the %s: %w", role, err)
			}
			m[role] += kib << 10
		}
	}
	return m, nil
}

// memoryNow is resident for the test's own goroutine.
func (s *stage) memoryNow(t *testing.T) map[string]int64 {
	t.Helper()
	m, err := s.resident()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// watchMemory samples until the function it returns is called, which gives the most that each node had.
func (s *stage) watchMemory(t *testing.T) func() map[string]int64 {
	most, stop, done := s.memoryNow(t), make(chan struct{}), make(chan struct{})
	var failed error
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(250 * time.Millisecond):
			}
			now, err := s.resident()
			if err != nil {
				failed = err
				return
			}
			for role, n := range now {
				most[role] = max(most[role], n)
			}
		}
	}()
	return func() map[string]int64 {
		close(stop)
		<-done
		if failed != nil {
			t.Error(failed)
		}
		return most
	}
}

// allowance is how much more memory a node may take while `windows` of its portal connections wait for a reader: their windows, which
// grow to a few times their first size on a path within the machine, what waits on the two connections to other nodes, the loops' pools and buffers, and as much again for what the garbage
// collector has not looked at yet.
func allowance(windows int) int64 {
	const (
		highWater = 1 << 20             // tcp.Options.HighWater
		overshoot = 512 << 10           // what one turn of the loop still brings after a pause
		perLoop   = (3<<10 + 256) << 10 // dataplane's free chunks
		readBuf   = 256 << 10
		grown     = 4 << 20
	)
	return 2 * int64(windows*grown+2*(highWater+overshoot)+runtime.NumCPU()*(perLoop+readBuf))
}

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// bounded compares memory with the allowance, given how many connections wait at each node.
func bounded(t *testing.T, before, most map[string]int64, waiting map[string]int) {
	t.Helper()
	for _, role := range slices.Sorted(maps.Keys(before)) {
		grown, allowed := most[role]-before[role], allowance(waiting[role])
		t.Logf("memory of the %s: %s before, %s at most, %s allowed more", role, mib(before[role]), mib(most[role]), mib(allowed))
		if grown > allowed {
			t.Errorf("the %s grew by %s, more than %s", role, mib(grown), mib(allowed))
		}
	}
}

// traffic is what the neighbours of stalled connections move: requests at a steady pace and two transfers at a steady rate.
type traffic struct {
	stop            atomic.Bool
	requests, bytes atomic.Int64
	wg              sync.WaitGroup
	mu              sync.Mutex
	errs            []error
}

const (
	requestPause = 100 * time.Millisecond
	bulkRate     = 8 << 20
)

// neighbours starts n connections to port.
func (s *stage) neighbours(port, n int) *traffic {
	f := &traffic{}
	run := func(work func() error) {
		f.wg.Go(func() {
			if err := work(); err != nil && !f.stop.Load() {
				f.mu.Lock()
				f.errs = append(f.errs, err)
				f.mu.Unlock()
			}
		})
	}
	for k := range n - 2 {
		run(func() error { return ask(port, f, uint64(k)) })
	}
	ending := errors.New("enough")
	run(func() error {
		o := order{What: orderDownload, Size: 1 << 40, Seed: 1, Rate: bulkRate}
		c, err := place(port, o)
		if err != nil {
			return err
		}
		defer c.Close()
		var last uint64
		return verify(c, o, func(n uint64) {
			f.bytes.Add(int64(n - last))
			if last = n; f.stop.Load() {
				c.Close()
			}
		})
	})
	run(func() error {
		o := order{What: orderUpload, Size: 1 << 40, Seed: 2}
		c, err := place(port, o)
		if err != nil {
			return err
		}
		defer c.Close()
		o.Rate = bulkRate
		return pour(writerFunc(func(b []byte) (int, error) {
			if f.stop.Load() {
				return 0, ending
			}
			n, err := c.Write(b)
			f.bytes.Add(int64(n))
			return n, err
		}), o)
	})
	return f
}

type writerFunc func([]byte) (int, error)

func (w writerFunc) Write(b []byte) (int, error) { return w(b) }

// ask sends requests and compares the answers until the traffic is stopped.
func ask(port int, f *traffic, seed uint64) error {
	c, err := place(port, order{What: orderEcho})
	if err != nil {
		return err
	}
	defer c.Close()
	from, block, back := stream(seed), make([]byte, 300), make([]byte, 300)
	time.Sleep(time.Duration(seed) * time.Millisecond) // not all at once
	for tick := time.Now(); !f.stop.Load(); {
		_, _ = from.Read(block)
		if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			return err
		}
		if _, err := c.Write(block); err != nil {
			return fmt.Errorf("request: %w", err)
		}
		for got := 0; got < len(back); {
			n, err := c.Read(back[got:])
			if err != nil {
				return fmt.Errorf("answer: %w", err)
			}
			got += n
		}
		if string(back) != string(block) {
			return errors.New("the answer is another one")
		}
		f.requests.Add(1)
		if tick = tick.Add(requestPause); time.Since(tick) > requestPause {
			tick = time.Now() // late: do not make up for it
		}
		time.Sleep(time.Until(tick))
	}
	return nil
}

// end stops the traffic; nothing may have failed.
func (f *traffic) end(t *testing.T) {
	t.Helper()
	f.stop.Store(true)
	f.wg.Wait()
	for _, err := range f.errs {
		t.Errorf("neighbour: %v", err)
	}
}

// compared measures the requests and bytes that f moves in d, for each one that control moves.
func (f *traffic) compared(control *traffic, d time.Duration) (requests, bytes float64) {
	now := func() [4]int64 {
		return [4]int64{f.requests.Load(), f.bytes.Load(), control.requests.Load(), control.bytes.Load()}
	}
	from := now()
	time.Sleep(d)
	to := now()
	return float64(to[0]-from[0]) / float64(max(to[2]-from[2], 1)), float64(to[1]-from[1]) / float64(max(to[3]-from[3], 1))
}

// crowd is several transfers at the same time.
type crowd struct {
	wg   sync.WaitGroup
	mu   sync.Mutex
	errs []error
}

func (c *crowd) add(n int, work func(k int) error) {
	for k := range n {
		c.wg.Go(func() {
			if err := work(k); err != nil {
				c.mu.Lock()
				c.errs = append(c.errs, fmt.Errorf("transfer %d: %w", k, err))
				c.mu.Unlock()
			}
		})
	}
}

func (c *crowd) wait(t *testing.T) {
	t.Helper()
	c.wg.Wait()
	for _, err := range c.errs {
		t.Error(err)
	}
}

func (s *stage) signal(t *testing.T, pids []int, sig syscall.Signal) {
	t.Helper()
	for _, pid := range pids {
		if err := syscall.Kill(pid, sig); err != nil {
			t.Fatal(err)
		}
	}
}

// quiet waits until the server has no connection left: every end of every story arrived there.
func (s *stage) quiet(t *testing.T) {
	t.Helper()
	var n int64
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if n, err = othersAt(s.direct); err == nil && n == 0 {
			return
		}
	}
	t.Errorf("the server still has %d connections, %v", n, err)
}

// warm moves a transfer each way, so that memory is compared with nodes that have worked.
func (s *stage) warm(t *testing.T) {
	t.Helper()
	o := order{Size: 32 << 20, Seed: 77}
	if err := errors.Join(upload(s.port, o), download(s.port, o, false, 0, nil, nil)); err != nil {
		t.Fatal(err)
	}
}
