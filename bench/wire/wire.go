package wire

import (
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// End is one end of a wire: a device in a namespace.
type End struct {
	Namespace *Namespace
	// Device is the name that its interface gets.
	Device string
	// Address is its address, with the network that is reached over the wire.
	Address netip.Prefix
}

// Wire joins two namespaces.
type Wire struct {
	stop  int // eventfd: readable when the wire is to end
	lines [2]*carrier
	fds   [2]int
	wg    sync.WaitGroup
}

// carrier moves what one device gives to the other.
type carrier struct {
	*line
	from, to int
	stop     int
	begun    time.Time
	mu       sync.Mutex // of the line
	free     [17][][]byte
}

// Connect makes a wire from a to b; there and back say what each direction does.
func Connect(a, b End, there, back Options) (*Wire, error) {
	if err := errors.Join(there.check(), back.check()); err != nil {
		return nil, err
	}
	w := &Wire{fds: [2]int{-1, -1}}
	var err error
	if w.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	for i, e := range []End{a, b} {
		if w.fds[i], err = openTUN(e); err != nil {
			w.closeFDs()
			return nil, err
		}
	}
	for i, o := range []Options{there, back} {
		c := &carrier{line: newLine(o), from: w.fds[i], to: w.fds[1-i], stop: w.stop, begun: time.Now()}
		w.lines[i] = c
		w.wg.Go(c.run)
	}
	return w, nil
}

// Counts says what the wire did so far, there and back.
func (w *Wire) Counts() (there, back Counts) {
	w.lines[0].mu.Lock()
	there = w.lines[0].counts
	w.lines[0].mu.Unlock()
	w.lines[1].mu.Lock()
	back = w.lines[1].counts
	w.lines[1].mu.Unlock()
	return there, back
}

// Set changes what the wire does from now on. What is under way arrives as it would have.
func (w *Wire) Set(there, back Options) error {
	if err := errors.Join(there.check(), back.check()); err != nil {
		return err
	}
	for i, o := range []Options{there, back} {
		c := w.lines[i]
		fresh := newLine(o)
		c.mu.Lock()
		c.o, c.toLoss = fresh.o, fresh.toLoss
		c.mu.Unlock()
	}
	return nil
}

// Close ends the wire; its devices go.
func (w *Wire) Close() {
	_, _ = unix.Write(w.stop, []byte{7: 1, 0: 1})
	w.wg.Wait()
	w.closeFDs()
}

func (w *Wire) closeFDs() {
	for _, fd := range append(w.fds[:], w.stop) {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// deviceQueue is how many packets may wait for the wire to look, about as many as 10 ms bring at 1 Gbit/s and little ones: what is lost there nobody has
// asked for.
const deviceQueue = "4000"

// openTUN makes the device of an end and brings it up.
func openTUN(e End) (fd int, err error) {
	err = e.Namespace.Do(func() error {
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err != nil {
			return fmt.Errorf("open /dev/net/tun: %w", err)
		}
		req, err := unix.NewIfreq(e.Device)
		if err != nil {
			return err
		}
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
			return fmt.Errorf("make the device %s: %w", e.Device, err)
		}
		const tcp = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6
		if unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tcp|unix.TUN_F_USO4|unix.TUN_F_USO6) != nil { // UDP since Linux 6.2
			if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tcp); err != nil {
				return fmt.Errorf("offloads of %s: %w", e.Device, err)
			}
		}
		if err := command("ip", "addr", "add", e.Address.String(), "dev", e.Device); err != nil {
			return err
		}
		return command("ip", "link", "set", e.Device, "up", "mtu", "1500", "txqueuelen", deviceQueue)
	})
	if err != nil && fd > 0 {
		_ = unix.Close(fd)
		fd = -1
	}
	return fd, err
}

// batch is how many packets are read before those that are due go out.
const batch = 32

// run carries until the wire is closed. It keeps a thread: sleeping in ppoll is exact to some microseconds, the runtime's timers to a
// millisecond.
func (c *carrier) run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	buf := make([]byte, headerSize+1<<16)
	fds := []unix.PollFd{{Fd: int32(c.from), Events: unix.POLLIN}, {Fd: int32(c.stop), Events: unix.POLLIN}}
	for {
		var wait *unix.Timespec
		if at, ok := c.next(); ok {
			ts := unix.NsecToTimespec(max(int64(at-time.Since(c.begun)), 0))
			wait = &ts
		}
		if _, err := unix.Ppoll(fds, wait, nil); err != nil && err != unix.EINTR {
			return
		}
		if fds[1].Revents != 0 || fds[0].Revents&(unix.POLLERR|unix.POLLNVAL) != 0 {
			return
		}
		c.mu.Lock()
		for range batch {
			n, err := unix.Read(c.from, buf)
			if err != nil || n <= 0 {
				break
			}
			c.put(buf[:n], time.Since(c.begun), c.get)
		}
		for now := time.Since(c.begun); ; {
			b := c.take(now)
			if b == nil {
				break
			}
			_, _ = unix.Write(c.to, b) // a device that is down or full loses it, as a line would
			c.giveBack(b)
		}
		c.mu.Unlock()
	}
}

// get returns memory for n bytes, giveBack takes it back. There is a list for each power of two.
func (c *carrier) get(n int) []byte {
	k := bits.Len(uint(n - 1))
	if list := c.free[min(k, 16)]; k <= 16 && len(list) > 0 {
		b := list[len(list)-1]
		c.free[k] = list[:len(list)-1]
		return b[:n]
	}
	if k > 16 {
		return make([]byte, n)
	}
	return make([]byte, n, 1<<k)
}

func (c *carrier) giveBack(b []byte) {
	if k := bits.Len(uint(cap(b) - 1)); k <= 16 && cap(b) == 1<<k {
		c.free[k] = append(c.free[k], b)
	}
}
