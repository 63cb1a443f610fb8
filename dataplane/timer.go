package dataplane

import (
	"container/heap"
	"time"

	"golang.org/x/sys/unix"
)

// Timer calls a function on its loop at a time. Make it with Loop.After; all methods are for the loop's goroutine.
type Timer struct {
	loop  *Loop
	at    time.Time
	f     func()
	index int // in the heap; -1 when not waiting
}

// After runs f on the loop once d has passed. On the loop only.
func (l *Loop) After(d time.Duration, f func()) *Timer {
	t := &Timer{loop: l, at: time.Now().Add(d), f: f, index: -1}
	heap.Push(&l.timers, t)
	l.armTimer()
	return t
}

// Stop cancels t; it is fine to stop a nil timer, one that has run, or one twice.
func (t *Timer) Stop() {
	if t != nil && t.index >= 0 {
		heap.Remove(&t.loop.timers, t.index)
	}
}

// Reset makes t run d from now, whether it was waiting or not.
func (t *Timer) Reset(d time.Duration) {
	t.Stop()
	t.at = time.Now().Add(d)
	heap.Push(&t.loop.timers, t)
	t.loop.armTimer()
}

func (l *Loop) armTimer() {
	if len(l.timers) == 0 {
		return
	}
	first := l.timers[0].at
	if !l.armed.IsZero() && !first.Before(l.armed) {
		return // it fires early enough already
	}
	l.armed = first
	d := time.Until(first)
	if d <= 0 {
		d = time.Nanosecond // zero would disarm it
	}
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(d))}
	rawTimerfdSettime(l.timerFD, &spec)
}

func (l *Loop) runTimers() {
	l.armed = time.Time{}
	for len(l.timers) > 0 && !l.timers[0].at.After(l.now) {
		t := heap.Pop(&l.timers).(*Timer)
		l.timer(t)
	}
	l.armTimer()
}

// timerHeap orders timers by time.
type timerHeap []*Timer

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (h *timerHeap) Push(x any) {
	t := x.(*Timer)
	t.index = len(*h)
	*h = append(*h, t)
}
func (h *timerHeap) Pop() any {
	old := *h
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	t.index = -1
	return t
}
