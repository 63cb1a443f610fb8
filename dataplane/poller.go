package dataplane

import (
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// poller is an epoll instance whose own descriptor is watched by the Go runtime. Events are fetched with a call that never blocks;
// when there are none, the loop's goroutine parks like any other that waits for a descriptor. So no thread blocks in a system
// call that the scheduler has to work around (hand the processor on, take it back, keep its monitor thread awake), which costs
// more than all other work of a small message (measured: BenchmarkPollers).
type poller struct {
	fd     int
	file   *os.File // owns fd
	raw    syscall.RawConn
	events [256]unix.EpollEvent
	n      int
	parked bool // wait had to; for the loop to clear
	fetch  func(uintptr) bool
}

// pollEvents is what every descriptor is watched for, once and for all: edge-triggered, both directions.
const pollEvents = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET

func openPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // makes the runtime watch it
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	p := &poller{fd: fd, file: os.NewFile(uintptr(fd), "epoll")}
	if p.raw, err = p.file.SyscallConn(); err != nil {
		_ = p.file.Close()
		return nil, fmt.Errorf("watch epoll descriptor: %w", err)
	}
	p.fetch = func(uintptr) bool {
		p.now()
		p.parked = p.parked || p.n == 0
		return p.n != 0
	}
	return p, nil
}

// now fetches the events there are, without waiting.
func (p *poller) now() {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)), 0, 0, 0)
	if errno != 0 {
		n = 0 // EINTR; anything else would be a fault of ours and shows as a loop that hangs
	}
	p.n = int(n)
}

// wait fetches events and waits until there is one.
func (p *poller) wait() error { return p.raw.Read(p.fetch) }

func (p *poller) add(fd int) error {
	return rawEpollCtl(p.fd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Fd: int32(fd), Events: pollEvents})
}

func (p *poller) del(fd int) { _ = rawEpollCtl(p.fd, unix.EPOLL_CTL_DEL, fd, nil) }

func (p *poller) close() { _ = p.file.Close() }
