package dataplane

import (
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"
)

// TestRateSavesUp: what came together while nobody asked is granted to the next who asks, without a look of the clock's.
func TestRateSavesUp(t *testing.T) {
	b, now := &bucket{}, time.Unix(100, 0)
	b.set(10_000_000, now)
	var s share
	for left := int(b.tokens) / b.part(); left > 0; left-- {
		if b.take(&s, now) == 0 {
			t.Fatalf("%d parts that were saved up are not granted", left)
		}
	}
	if got := b.take(&s, now.Add(2*rateTick)); got != b.part() {
		t.Errorf("%d bytes are granted after two ticks, not a part of %d", got, b.part())
	}
}

// TestRaceOutOfTime: an attempt that would begin after the deadline is not begun, and the race ends with what failed before and the deadline.
func TestRaceOutOfTime(t *testing.T) {
	l := newLoop(t)
	var err error
	ended := 0
	on(t, l, func() {
		r := &race{loop: l, left: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9")}, deadline: time.Now().Add(-time.Second), failed: os.ErrPermission}
		r.done = func(c *Conn, e error) {
			if c != nil {
				t.Error("a connection")
			}
			ended, err = ended+1, e
		}
		r.start()
		if !r.over || r.active != 0 {
			t.Error("an attempt was begun")
		}
	})
	if ended != 1 || !errors.Is(err, os.ErrDeadlineExceeded) || !errors.Is(err, os.ErrPermission) {
		t.Errorf("ended %d times, %v", ended, err)
	}
}
