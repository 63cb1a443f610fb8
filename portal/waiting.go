package portal

import (
	"time"

	"golang.org/x/sys/unix"
)

// sweepPause is how long a full list of waiting clients is not looked through again when nobody had left.
const sweepPause = 100 * time.Millisecond

// left says whether a waiting client has gone.
type left uint8

const (
	_ left = iota // it stays
	// halfClosed has sent its last byte. It may have gone, or wait for an answer: nothing tells, so it is served, and makes room
	// for others when there is none.
	halfClosed
	// gone was reset.
	gone
)

// look asks the kernel, once for all, which of the clients have left. Their input is not touched.
func look(list []waiting) []left {
	fds := make([]unix.PollFd, len(list))
	for i, w := range list {
		fds[i] = unix.PollFd{Fd: int32(w.fd), Events: unix.POLLRDHUP}
	}
	states := make([]left, len(list))
	if _, err := unix.Poll(fds, 0); err != nil {
		return states // EINTR: the next one looks again
	}
	for i, p := range fds {
		switch {
		case p.Revents&(unix.POLLERR|unix.POLLHUP|unix.POLLNVAL) != 0:
			states[i] = gone
		case p.Revents&unix.POLLRDHUP != 0:
			states[i] = halfClosed
		}
	}
	return states
}

// sweep makes room for another waiting client: it closes those that were reset, or when there is none the first that has sent its last
// byte. It reports whether there is room. in.mu is held.
func (in *Inlet) sweep() bool {
	if time.Since(in.sweptAt) < sweepPause {
		return false
	}
	states := look(in.waiting)
	any := false
	for _, s := range states {
		any = any || s == gone
	}
	for i := 0; i < len(states) && !any; i++ {
		if states[i] == halfClosed {
			states[i], any = gone, true
		}
	}
	if !any {
		in.sweptAt = time.Now()
		return false
	}
	rest := in.waiting[:0]
	for i, w := range in.waiting {
		if states[i] == gone {
			closeFD(w.fd)
		} else {
			rest = append(rest, w)
		}
	}
	left := len(in.waiting) - len(rest)
	clear(in.waiting[len(rest):])
	in.waiting = rest
	in.env.Stats.Held.Add(int64(-left))
	in.env.Stats.Ended[ReasonReset].Add(uint64(left))
	return true
}
