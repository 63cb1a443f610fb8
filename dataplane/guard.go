package dataplane

import (
	"errors"
	"fmt"
	"runtime/debug"
)

// A fault of this program that some peer's input brings to light ends that peer's connection, and not the node: whatever a loop runs is
// run by one of the functions here. It is written down with its stack and counted.

// ErrFault is what somebody gets who waited for what met with a fault of this program; the log has its stack.
var ErrFault = errors.New("dataplane: internal fault, see the log")

// Faulted is a Task that knows what to end when it fails.
type Faulted interface{ Faulted() }

// OnFault sets what brings the state of those who work on the loop in order after a fault, before anything else runs. On the loop.
func (l *Loop) OnFault(f func()) { l.onFault = f }

// fault handles what recover returned; what ends whoever brought it.
func (l *Loop) fault(in string, r any, end func()) {
	l.uses.faulted.Add(1)
	l.log.Error("internal fault", "in", in, "fault", fmt.Sprint(r), "stack", string(debug.Stack()))
	l.Guard("the cleaning up after a fault", func() {
		if l.onFault != nil {
			l.onFault()
		}
		l.settle()
	})
	if end != nil {
		l.Guard("the ending of what showed a fault", end)
	}
}

// Guard runs f and reports false when it panicked, which is written down and counted. It is for goroutines that handle what a peer
// sent; what runs on a loop is guarded by the loop. Any goroutine.
func (l *Loop) Guard(what string, f func()) (ok bool) {
	defer func() {
		if r := recover(); r != nil {
			ok = false
			l.uses.faulted.Add(1)
			l.log.Error("internal fault", "in", what, "fault", fmt.Sprint(r), "stack", string(debug.Stack()))
		}
	}()
	f()
	return true
}

func (l *Loop) events(p pollable, events uint32) {
	defer func() {
		if r := recover(); r != nil {
			l.fault("the handling of input", r, func() { l.end(p) })
		}
	}()
	p.onEvents(events)
}

func (l *Loop) readInput(c *Conn) {
	defer func() {
		if r := recover(); r != nil {
			l.fault("the handling of input", r, c.Abort)
		}
	}()
	c.readInput()
}

func (l *Loop) flushConn(c *Conn) {
	defer func() {
		if r := recover(); r != nil {
			l.fault("the sending of output", r, c.Abort)
		}
	}()
	c.flush()
}

func (l *Loop) flushUDP(u *UDPSocket) {
	defer func() {
		if r := recover(); r != nil {
			l.fault("the sending of datagrams", r, nil)
			u.inDirty = false
		}
	}()
	if !u.closed {
		u.handler.OnFlush()
	}
	u.inDirty = false
	u.flush()
}

func (l *Loop) task(t Task) {
	defer func() {
		if r := recover(); r != nil {
			var end func()
			if f, ok := t.(Faulted); ok {
				end = f.Faulted
			}
			l.fault("a task", r, end)
		}
	}()
	t.Run()
}

func (l *Loop) timer(t *Timer) {
	defer func() {
		if r := recover(); r != nil {
			l.fault("a timer", r, nil)
		}
	}()
	t.f()
}

// end ends whoever's events showed a fault. A listener and a socket for datagrams go on: they have many peers.
func (l *Loop) end(p pollable) {
	if c, ok := p.(*Conn); ok {
		c.Abort()
	}
}
