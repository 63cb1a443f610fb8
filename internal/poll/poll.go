// Package poll asks the kernel about descriptors without waiting.
package poll

import "golang.org/x/sys/unix"

// Now fills Revents of fds with what holds at this moment. The runtime's own signals interrupt the call even though it does not wait (EINTR, poll(2)):
// it is then made again, since who asks whether a stream has ended must not take a signal for an answer.
func Now(fds []unix.PollFd) error {
	for {
		if _, err := unix.Poll(fds, 0); err != unix.EINTR {
			return err
		}
	}
}
