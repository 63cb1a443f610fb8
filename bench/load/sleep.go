package load

import (
	"context"
	"time"

	"golang.org/x/sys/unix"
)

// longestSleep bounds a sleep, so that the end of a context is seen.
const longestSleep = 50 * time.Millisecond

// sleepUntil returns at the given time, or soon after the end of ctx. The runtime's timers are late by up to a millisecond where the program is idle, since its
// poller waits in milliseconds; this asks the kernel.
func sleepUntil(ctx context.Context, at time.Time) {
	for ctx.Err() == nil {
		d := time.Until(at)
		if d <= 0 {
			return
		}
		ts := unix.NsecToTimespec(int64(min(d, longestSleep)))
		_ = unix.ClockNanosleep(unix.CLOCK_MONOTONIC, 0, &ts, nil) // a signal ends it early: once more
	}
}
