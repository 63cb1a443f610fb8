package portal

import (
	"time"

	"golang.org/x/sys/unix"

	"sallyport/dataplane"
	"sallyport/internal/poll"
)

// sweepPause is how long a full list of waiting clients is not looked through again when nobody had left.
const sweepPause = 100 * time.Millisecond

// lookEvery is how often it is looked whether clients that wait are still there.
const lookEvery = time.Second

// left says whether a waiting client has gone.
type left uint8

const (
	_ left = iota // it stays
	// halfClosed has sent its last byte and may wait for an answer, as of nc -N. It is served, and makes room for others when there is none.
	halfClosed
	// gone was reset or closed, or has sent an end and nothing before it.
	gone
)

// look asks the kernel which of the clients have left. Their input is not touched.
//
// A client that sent a FIN has closed its socket, or only its sending direction. The kernel knows for one on this machine; whoever closed would
// make its target work for nobody. Of one on another machine only this is known: with bytes before the FIN it is a request that an answer may be
// wanted for, without any it is next to always somebody who gave up while the path was away.
func look(list []waiting) []left {
	fds := make([]unix.PollFd, len(list))
	for i, w := range list {
		fds[i] = unix.PollFd{Fd: int32(w.fd), Events: unix.POLLRDHUP}
	}
	states := make([]left, len(list))
	if err := poll.Now(fds); err != nil {
		return states
	}
	var half, at []int
	for i, p := range fds {
		switch {
		case p.Revents&(unix.POLLERR|unix.POLLHUP|unix.POLLNVAL) != 0:
			states[i] = gone
		case p.Revents&unix.POLLRDHUP != 0:
			half, at = append(half, list[i].fd), append(at, i)
		}
	}
	for k, owner := range dataplane.PeerOwners(half) {
		states[at[k]] = halfClosed
		if owner == dataplane.Orphaned || owner == dataplane.OwnerUnknown && nothingSent(half[k]) {
			states[at[k]] = gone
		}
	}
	return states
}

// nothingSent reports whether no byte of a client waits to be read.
func nothingSent(fd int) bool {
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	return err == nil && n == 0
}

// living closes those of list that have gone and returns the others, in the same memory. left is how many have gone.
func (in *Inlet) living(list []waiting, states []left) (rest []waiting, left int) {
	rest = list[:0]
	for i, w := range list {
		if states[i] == gone {
			w.drop(ReasonReset)
		} else {
			rest = append(rest, w)
		}
	}
	left = len(list) - len(rest)
	clear(list[len(rest):])
	in.env.Stats.Ended[ReasonReset].Add(uint64(left))
	in.meter.Ended[ReasonReset].Add(uint64(left))
	return rest, left
}

// sweep makes room for another waiting client: it closes those that have gone, or when there is none the first that has sent its last
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
	in.leave(states)
	return true
}

// leave takes those that have gone out of the list. in.mu is held.
func (in *Inlet) leave(states []left) {
	rest, left := in.living(in.waiting, states)
	in.waiting = rest
	in.env.Stats.Held.Add(int64(-left))
}
