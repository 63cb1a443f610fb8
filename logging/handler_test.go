package logging

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func text(w io.Writer) slog.Handler { return slog.NewTextHandler(w, nil) }

// sink is a writer that a test may read while it is written to, and hold up.
type sink struct {
	mu   sync.Mutex
	b    bytes.Buffer
	hold chan struct{} // not nil: Write waits for it
	err  error
}

func (s *sink) Write(p []byte) (int, error) {
	if s.hold != nil {
		<-s.hold
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, s.err
	}
	return s.b.Write(p)
}

func (s *sink) lines() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Split(strings.TrimSuffix(s.b.String(), "\n"), "\n")
}

// TestRate: a kind that comes too often is thinned out to its rate, other kinds are not touched, and what is missing is told.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out sink
		h := New(&out, text, Options{Rate: 10, Burst: 20})
		log := slog.New(h)
		for i := range 30_000 { // 30 s at a thousand a second
			log.Warn("refused", "n", i)
			if i%10_000 == 0 {
				log.Info("of our own", "n", i)
			}
			time.Sleep(time.Millisecond)
		}
		h.Close()
		refused, told, own, missing := 0, 0, 0, 0
		for _, line := range out.lines() {
			switch {
			case strings.Contains(line, "msg=refused"):
				refused++
			case strings.Contains(line, `msg="of our own"`):
				own++
			case strings.Contains(line, `msg="records left out" of=refused count=`):
				told++
				n := 0
				fmt.Sscanf(line[strings.Index(line, "count=")+6:], "%d", &n)
				missing += n
			}
		}
		if refused < 300 || refused > 330 || own != 3 || told < 3 || told > 5 {
			t.Errorf("%d refused, %d of our own, told %d times", refused, own, told)
		}
		if refused+missing != 30_000 {
			t.Errorf("%d written and %d told of, of 30000", refused, missing)
		}
		if c := h.Counts(); c.LeftOut != uint64(missing) || c.Written != uint64(len(out.lines())) {
			t.Errorf("%+v", c)
		}
	})
}

type loud string

func (l loud) String() string { return string(l) }

// TestLength: no value makes a record long, wherever it is and whatever its type; the stack of a fault is kept.
func TestLength(t *testing.T) {
	var out sink
	h := New(&out, text, Options{})
	long := strings.Repeat("\x00\xff\n", 100_000)
	log := slog.New(h)
	log.Warn("text", "name", long)
	log.Warn("error", "err", errors.New(long))
	log.Warn("stringer", "name", loud(long))
	log.Warn("bytes", "name", []byte(long))
	log.Warn("group", slog.Group("g", "name", long, slog.Group("h", "name", long)))
	log.With("name", long).Warn("with")
	log.Warn(long)
	var many []any
	for i := range 200 {
		many = append(many, fmt.Sprint("k", i), long)
	}
	log.Warn("many", many...)
	log.Error("fault", "stack", strings.Repeat("s", 10_000))
	h.Close()
	lines := out.lines()
	if len(lines) != 9 {
		t.Fatalf("%d lines", len(lines))
	}
	for _, line := range lines[:7] {
		if len(line) > 2500 || !strings.Contains(line, ellipsis) {
			t.Errorf("%d bytes: %.300s", len(line), line)
		}
	}
	if len(lines[7]) > 20_000 {
		t.Errorf("%d bytes of a record with many fields", len(lines[7]))
	}
	if len(lines[8]) < 10_000 {
		t.Error("the stack is cut")
	}
}

// TestNobodyWaits: while the writer stands still nobody who logs does, and memory is bounded; afterwards the log goes on.
func TestNobodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := sink{hold: make(chan struct{})}
		h := New(&out, text, Options{Rate: -1, Queue: 10_000})
		log := slog.New(h)
		before := time.Now()
		for i := range 10_000 {
			log.Info("record", "n", i)
		}
		if time.Since(before) != 0 {
			t.Error("somebody waited")
		}
		h.queue.mu.Lock()
		if n := cap(h.queue.waiting); n > 20_000 {
			t.Errorf("%d bytes wait", n)
		}
		h.queue.mu.Unlock()
		close(out.hold)
		h.Close()
		c := h.Counts()
		if c.Dropped == 0 || c.Written == 0 || c.Dropped+c.Written != 10_000 || c.Written != uint64(len(out.lines())) {
			t.Errorf("%+v, %d lines", c, len(out.lines()))
		}
	})
}

// TestStuckWriter: a log that takes nothing does not keep the program from ending.
func TestStuckWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := sink{hold: make(chan struct{})}
		h := New(&out, text, Options{})
		slog.New(h).Info("record")
		h.Close()
		close(out.hold)
	})
}

// TestFullDisk: a writer that fails loses records, which are counted, and nothing else.
func TestFullDisk(t *testing.T) {
	out := sink{err: errors.New("no space left on device")}
	h := New(&out, text, Options{})
	slog.New(h).Info("record")
	h.Close()
	if c := h.Counts(); c.Dropped != 1 || c.Written != 0 {
		t.Errorf("%+v", c)
	}
}
