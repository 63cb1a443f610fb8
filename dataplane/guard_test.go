package dataplane

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// faulty panics when its peer says "fault", and answers anything else.
type faulty struct{ closed chan error }

func (f faulty) OnReadable(c *Conn) {
	b := make([]byte, 64)
	n, err := c.Read(b)
	if err != nil {
		return
	}
	if strings.Contains(string(b[:n]), "fault") {
		panic("as asked")
	}
	c.Write(b[:n])
}
func (f faulty) OnDrain(*Conn)              {}
func (f faulty) OnClose(_ *Conn, err error) { f.closed <- err }

// syncBuffer is a buffer for a log.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// TestFaultEndsOne: a fault in handling one connection's input ends that one with a reset; the others go on, and so do tasks and timers.
func TestFaultEndsOne(t *testing.T) {
	var out syncBuffer
	g, err := NewGroup(1, slog.New(slog.NewTextHandler(&out, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Stop)
	l := g.Loop(0)
	bad, badPeer := adopt(t, l, "tcp", faulty{make(chan error, 1)})
	_, goodPeer := adopt(t, l, "tcp", faulty{make(chan error, 1)})
	order := false
	on(t, l, func() { l.OnFault(func() { order = true }) })
	if _, err := badPeer.Write([]byte("fault")); err != nil {
		t.Fatal(err)
	}
	if n, err := badPeer.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read %d, %v; want a reset", n, err)
	}
	on(t, l, func() {
		if !bad.Closed() || !order {
			t.Errorf("closed %v, brought in order %v", bad.Closed(), order)
		}
	})
	l.Post(TaskFunc(func() { panic("in a task") }))
	if err := l.Do(limited(t), func() { panic("in Do") }); !errors.Is(err, ErrFault) {
		t.Errorf("Do: %v", err)
	}
	ran := make(chan struct{})
	on(t, l, func() {
		l.After(0, func() { panic("in a timer") })
		l.After(0, func() { close(ran) })
	})
	<-ran
	if _, err := goodPeer.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(goodPeer, b); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
	if n := g.Use().Faults; n != 4 {
		t.Errorf("%d faults counted", n)
	}
	if text := out.String(); strings.Count(text, "internal fault") != 4 || !strings.Contains(text, "faulty.OnReadable") {
		t.Errorf("the log has no stack of it:\n%s", text)
	}
}

type faultyTask struct{ ended chan struct{} }

func (f faultyTask) Run()     { panic("as asked") }
func (f faultyTask) Faulted() { close(f.ended) }

// TestFaultTellsTask: a task that knows whom to end is told.
func TestFaultTellsTask(t *testing.T) {
	l := newLoop(t)
	f := faultyTask{make(chan struct{})}
	l.Post(f)
	<-f.ended
}

// faultyDrain panics when it is told that its output has gone.
type faultyDrain struct{ faulty }

func (faultyDrain) OnDrain(*Conn) { panic("as asked") }

// TestFaultInOutput: a fault while output is sent ends that one connection with a reset, too.
func TestFaultInOutput(t *testing.T) {
	var out syncBuffer
	g, err := NewGroup(1, slog.New(slog.NewTextHandler(&out, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Stop)
	l := g.Loop(0)
	bad, badPeer := adopt(t, l, "tcp", faultyDrain{faulty{make(chan error, 1)}})
	_, goodPeer := adopt(t, l, "tcp", faulty{make(chan error, 1)})
	on(t, l, func() { bad.WantDrain(0) })
	if n, err := badPeer.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read %d, %v; want a reset", n, err)
	}
	if _, err := goodPeer.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(goodPeer, b); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
	if n := g.Use().Faults; n != 1 || !strings.Contains(out.String(), "the sending of output") {
		t.Errorf("%d faults counted; the log says\n%s", n, out.String())
	}
}
