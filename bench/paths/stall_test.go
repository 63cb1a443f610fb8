package main

import (
	"errors"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestStalls is one story after the other on the same nodes; each leaves them as it found them.
func TestStalls(t *testing.T) {
	s := newStage(t)
	s.warm(t)
	for _, part := range []struct {
		name string
		run  func(*testing.T, *stage)
		long bool
	}{
		{"a reader of 100 stops", storyOneReader, false},
		{"clients stop", storyClients, false},
		{"the server does not read", storyServerSleeps, false},
		{"the server is stopped", storyServerStopped, false},
		{"the outlet's node is stopped for a moment", storyOutletMoment, false},
		{"the outlet's node is stopped for long", storyOutletLong, true},
	} {
		t.Run(part.name, func(t *testing.T) {
			if part.long && s.short {
				t.Skip("takes too long for the short form")
			}
			part.run(t, s)
			s.quiet(t)
			if err := s.alive(); err != nil {
				t.Error(err)
			}
		})
	}
}

// storyOneReader: one of 100 connections through an inlet stops to read; the others lose nothing, no path is lost (their connections
// would end with it), and the one gets the rest of its bytes when it reads on.
func storyOneReader(t *testing.T, s *stage) {
	window := s.span(15*time.Second, 2*time.Second)
	stall := s.span(time.Minute, 3*time.Second)
	others := s.neighbours(s.port, 99)
	// The same to the server itself: a machine that stands still for a moment takes as much from these.
	control := s.neighbours(s.direct, 10)
	time.Sleep(time.Second) // all are connected
	before := s.memoryNow(t)
	memory := s.watchMemory(t)
	requests1, bytes1 := others.compared(control, window)
	stalled, goOn := make(chan struct{}), make(chan struct{})
	var one crowd
	one.add(1, func(int) error {
		return download(s.port, order{Size: 48 << 20, Seed: 3}, false, 1<<20, func() { close(stalled) }, goOn)
	})
	select {
	case <-stalled:
	case <-time.After(20 * time.Second):
		t.Fatal("the reader never got its first MiB")
	}
	requests2, bytes2 := others.compared(control, stall)
	during := memory()
	close(goOn)
	one.wait(t)
	requests3, bytes3 := others.compared(control, window)
	others.end(t)
	control.end(t)
	after := s.memoryNow(t)
	// Seconds say little on a busy machine.
	limit := map[bool]float64{true: 50, false: 5}[s.short]
	for what, r := range map[string][3]float64{"requests": {requests1, requests2, requests3}, "bytes": {bytes1, bytes2, bytes3}} {
		// Against the lesser of before and after: what these two differ by is the machine's doing.
		loss := 100 * (1 - r[1]/min(r[0], r[2]))
		t.Logf("%s, for each of the control's: %.2f before, %.2f during %v of stall, %.2f after: %.1f %% lost", what, r[0], r[1], stall, r[2], max(loss, 0))
		if loss > limit {
			t.Errorf("the neighbours lost %.1f %% of their %s", loss, what)
		}
		if r[2] < r[0]/2 {
			t.Errorf("the neighbours' %s have not come back", what)
		}
	}
	for role, n := range after {
		t.Logf("memory of the %s after it: %s", role, mib(n))
	}
	bounded(t, before, during, map[string]int{roleInlet: 1})
}

// storyClients: clients stop to read their transfers and go on later. Half of them have said that they will send no more, so both
// directions have ended when the last bytes still wait for their reader.
func storyClients(t *testing.T, s *stage) {
	const clients = 8
	before := s.memoryNow(t)
	memory := s.watchMemory(t)
	goOn := make(chan struct{})
	var all crowd
	var ready sync.WaitGroup
	ready.Add(2 * clients)
	all.add(clients, func(k int) error {
		return download(s.port, order{Size: 24 << 20, Seed: uint64(100 + k)}, k%2 == 0, 64<<10, ready.Done, goOn)
	})
	// These fit into the buffers on the way, or nearly so: the server has ended long before its bytes are taken.
	all.add(clients, func(k int) error {
		return download(s.port, order{Size: uint64(3<<20 + k<<18), Seed: uint64(200 + k)}, true, 64<<10, ready.Done, goOn)
	})
	ready.Wait()
	time.Sleep(s.span(15*time.Second, 7*time.Second))
	most := memory()
	close(goOn)
	all.wait(t)
	bounded(t, before, most, map[string]int{roleInlet: 2 * clients})
}

// storyServerSleeps: the server accepts and reads nothing for a while.
func storyServerSleeps(t *testing.T, s *stage) {
	const clients = 8
	sleep := s.span(15*time.Second, 2*time.Second)
	others := s.neighbours(s.port, 20)
	time.Sleep(500 * time.Millisecond)
	before := s.memoryNow(t)
	memory := s.watchMemory(t)
	var all crowd
	all.add(clients, func(k int) error {
		return upload(s.port, order{Size: 24 << 20, Seed: uint64(k), Sleep: sleep})
	})
	all.wait(t)
	others.end(t)
	bounded(t, before, memory(), map[string]int{roleOutlet: clients})
}

// storyServerStopped: the server's process is stopped in the middle of transfers both ways, and goes on.
func storyServerStopped(t *testing.T, s *stage) {
	s.stopped(t, []int{s.server}, s.span(15*time.Second, 2*time.Second), map[string]int{roleOutlet: 8, roleInlet: 8})
}

// storyOutletMoment: the outlet's node is stopped for less than it takes to be noticed.
func storyOutletMoment(t *testing.T, s *stage) {
	s.stopped(t, s.nodesByRole()[roleOutlet], s.span(3*time.Second, time.Second), map[string]int{roleOutlet: 8, roleInlet: 8})
}

// stopped stops processes while transfers and requests are under way. All of it goes on where it was.
func (s *stage) stopped(t *testing.T, pids []int, d time.Duration, waiting map[string]int) {
	const transfers = 4
	others := s.neighbours(s.port, 20)
	before := s.memoryNow(t)
	memory := s.watchMemory(t)
	var all crowd
	all.add(transfers, func(k int) error { return upload(s.port, order{Size: 64 << 20, Seed: uint64(k), Rate: 32 << 20}) })
	all.add(transfers, func(k int) error {
		return download(s.port, order{Size: 64 << 20, Seed: uint64(k), Rate: 32 << 20}, k%2 == 0, 0, nil, nil)
	})
	time.Sleep(700 * time.Millisecond)
	s.signal(t, pids, syscall.SIGSTOP)
	time.Sleep(d)
	s.signal(t, pids, syscall.SIGCONT)
	all.wait(t)
	others.end(t)
	bounded(t, before, memory(), waiting)
}

// storyOutletLong: the outlet's node is stopped for longer. What was open ends as soon as it is noticed, within the eight seconds of
// the pings and not by waiting for the node; new clients are served again when the node goes on, and the server is left with nothing of old.
func storyOutletLong(t *testing.T, s *stage) {
	const transfers = 4
	pids := s.nodesByRole()[roleOutlet]
	before := s.memoryNow(t)
	memory := s.watchMemory(t)
	ended := make(chan error, 2*transfers)
	for k := range transfers {
		go func() { ended <- upload(s.port, order{Size: 1 << 30, Seed: uint64(k), Rate: 16 << 20}) }()
		go func() {
			ended <- download(s.port, order{Size: 1 << 30, Seed: uint64(k), Rate: 16 << 20}, false, 0, nil, nil)
		}()
	}
	time.Sleep(2 * time.Second)
	s.signal(t, pids, syscall.SIGSTOP)
	stopped := time.Now()
	defer s.signal(t, pids, syscall.SIGCONT)
	for range 2 * transfers {
		select {
		case err := <-ended:
			if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
				t.Errorf("a transfer ended with %v, want a reset", err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("transfers stay open while the outlet's node is stopped")
		}
	}
	noticed := time.Since(stopped)
	t.Logf("noticed after %.1f s", noticed.Seconds())
	if noticed > 12*time.Second {
		t.Errorf("noticed after %v, three lost pings are eight seconds", noticed)
	}
	// A client that comes now waits for the path.
	late := make(chan error, 1)
	go func() { late <- upload(s.port, order{Size: 1 << 20, Seed: 9}) }()
	time.Sleep(8 * time.Second)
	s.signal(t, pids, syscall.SIGCONT)
	resumed := time.Now()
	select {
	case err := <-late:
		t.Logf("the client that waited was served %.1f s after the node went on: %v", time.Since(resumed).Seconds(), err)
	case <-time.After(40 * time.Second):
		t.Error("the client that waited is neither served nor closed")
	}
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if err = upload(s.port, order{Size: 1 << 20, Seed: 10}); err == nil {
			break
		}
	}
	if err != nil {
		t.Errorf("not served again: %v", err)
	}
	t.Logf("served again %.1f s after the node went on", time.Since(resumed).Seconds())
	bounded(t, before, memory(), map[string]int{roleOutlet: 2 * transfers, roleInlet: 2 * transfers})
}
