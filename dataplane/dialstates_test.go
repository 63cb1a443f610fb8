package dataplane

import (
	"errors"
	"os"
	"testing"
	"time"
)

// TestConnectingEnds: an attempt without a time waits for as long as it takes, one that is given up or made is told once, and is a connection like any other
// from then on.
func TestConnectingEnds(t *testing.T) {
	l := newLoop(t)
	to := fullListener(t)
	told := make(chan error, 10)
	var c *Conn
	on(t, l, func() { c = l.dial(to, TCPOptions{}, 0, func(_ *Conn, err error) { told <- err }) })
	for range 3 {
		on(t, l, func() {
			if c == nil || c.timer != nil || c.Closed() {
				t.Error("an attempt without a time has one, or has ended")
			}
			if _, ok := c.Detach(); ok {
				t.Error("an attempt is given away")
			}
			if _, ok := c.HandOver(); ok {
				t.Error("an attempt is handed over")
			}
			if _, ok := c.Copy(true); ok {
				t.Error("an attempt is copied")
			}
			c.onEvents(0) // of the descriptor's former life, or too early
			c.Write([]byte("later"))
			c.flush()
			if c.Pending() != 5 {
				t.Error("something is sent before it is connected")
			}
			c.dropOutput()
		})
	}
	on(t, l, func() { c.Close() })
	if err := <-told; err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("given up: %v", err)
	}
	on(t, l, func() {
		c.Close()
		c.Abort()
	})
	began := time.Now()
	on(t, l, func() { l.dial(to, TCPOptions{}, 20*time.Millisecond, func(_ *Conn, err error) { told <- err }) })
	if err := <-told; !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) < 20*time.Millisecond {
		t.Errorf("after its time: %v", err)
	}
	if len(told) != 0 {
		t.Error("told twice")
	}

	// One that is made is no attempt any more.
	rec := newRecorder()
	made, peer := adopt(t, l, "tcp", rec)
	tells := 0
	on(t, l, func() {
		made.connect = func(now *Conn, err error) {
			if tells++; now != made || err != nil {
				t.Errorf("told %v, %v", now, err)
			}
			now.Write([]byte("first"))
		}
		made.timer = l.After(time.Hour, func() { t.Error("its time is over") })
		made.onEvents(0)
		if made.connect != nil || made.timer != nil || !made.readable || tells != 1 {
			t.Error("it is an attempt still")
		}
	})
	b := make([]byte, 5)
	if _, err := peer.Read(b); err != nil || string(b) != "first" {
		t.Errorf("%q, %v", b, err)
	}
	on(t, l, made.Abort)
	if err := rec.wait(t); err != ErrConnClosed || tells != 1 {
		t.Errorf("ended with %v, told %d times", err, tells)
	}

	// What was given away is nobody's here any more.
	away, _ := adopt(t, l, "tcp", newRecorder())
	on(t, l, func() {
		fd, ok := away.Detach()
		if !ok || fd < 0 || !away.Closed() {
			t.Errorf("%d, %v", fd, ok)
		}
		if fd, ok := away.Detach(); ok || fd != -1 {
			t.Errorf("given away twice: %d", fd)
		}
		away.Write([]byte("x"))
		away.WriteBorrowed([]byte("x"))
		away.Abort()
		away.Close()
		if away.Pending() != 0 {
			t.Error("it has output")
		}
		Reset(fd)
	})
}
