package dataplane

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"testing"

	"sallyport/internal/logtext"
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

// loggedGroup is a group with one loop, and what it logs.
func loggedGroup(t *testing.T) (*Group, *logtext.Text) {
	t.Helper()
	out := &logtext.Text{}
	g, err := NewGroup(1, slog.New(slog.NewTextHandler(out, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Stop)
	return g, out
}

// goesOn expects an answer of faulty.
func goesOn(t *testing.T, peer net.Conn) {
	t.Helper()
	if _, err := peer.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(peer, b); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
}

// TestFaultEndsOne: a fault in handling one connection's input ends that one with a reset; the others go on, and so do tasks and timers.
func TestFaultEndsOne(t *testing.T) {
	g, out := loggedGroup(t)
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
	goesOn(t, goodPeer)
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
	g, out := loggedGroup(t)
	l := g.Loop(0)
	bad, badPeer := adopt(t, l, "tcp", faultyDrain{faulty{make(chan error, 1)}})
	_, goodPeer := adopt(t, l, "tcp", faulty{make(chan error, 1)})
	on(t, l, func() { bad.WantDrain(0) })
	if n, err := badPeer.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read %d, %v; want a reset", n, err)
	}
	goesOn(t, goodPeer)
	if n := g.Use().Faults; n != 1 || !strings.Contains(out.String(), "the sending of output") {
		t.Errorf("%d faults counted; the log says\n%s", n, out.String())
	}
}
