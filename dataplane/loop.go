package dataplane

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// readBufferSize is the size of the one buffer a loop reads into: seven frames with 64 KiB of a portal's data, or three of the largest
// usual size (128 KiB). The more a loop takes in one turn, the fewer are the system calls, the acknowledgements and the times that the
// next process on the way is woken; 256 KiB cost a tenth more CPU in bulk.
const readBufferSize = 512 << 10

// ErrLoopClosed is returned by operations on a loop that has ended.
var ErrLoopClosed = errors.New("dataplane: loop is closed")

// Task is work handed to a loop with Post. A pooled struct with a Run method costs no allocation.
type Task = interface{ Run() }

// TaskFunc lets a function be a Task.
type TaskFunc func()

// Run calls f.
func (f TaskFunc) Run() { f() }

// pollable is what a loop calls when the kernel reports events on a descriptor.
type pollable interface{ onEvents(events uint32) }

// Loop is one event loop. Create it with NewLoop, run it with Run.
type Loop struct {
	id     int
	log    *slog.Logger
	poller *poller
	fds    []pollable // indexed by descriptor

	wakeFD  int // eventfd: inbox has tasks
	timerFD int
	timers  timerHeap
	armed   time.Time // when timerFD will fire; zero if it will not
	now     time.Time
	yielded time.Time // when other goroutines last had a chance to run

	inboxMu sync.Mutex
	inbox   []Task
	spare   []Task // the other half of the double buffer
	woken   atomic.Bool

	busy      atomic.Int64 // nanoseconds spent handling events, ever
	longest   peakTurn
	iovs      [maxIovecs]unix.Iovec
	dirty     []*Conn // have output to flush at the end of the turn
	ready     []*Conn // have input that was not read yet
	dirtyNext []*Conn
	readyNext []*Conn
	dirtyUDP  []*UDPSocket // have datagrams to send at the end of the turn
	udp       *datagrams   // scratch for their system calls

	pool    chunkPool
	readBuf []byte
	input   []byte  // whose frames are being handed out
	lenders []*Conn // have output that lies in input

	lingerFor, drainFor time.Duration // lingerTimeout and drainTimeout; shorter in tests

	shared  *shared
	uses    uses
	onFault func()

	stopped bool // leave Run; on the loop
	closing bool // take no more tasks; under inboxMu
	done    chan struct{}
}

// NewLoop makes a loop; id names it in logs and is what its owner calls the shard.
func NewLoop(id int, log *slog.Logger) (*Loop, error) {
	poller, err := openPoller()
	if err != nil {
		return nil, fmt.Errorf("open poller: %w", err)
	}
	l := &Loop{id: id, log: log, poller: poller, wakeFD: -1, timerFD: -1, done: make(chan struct{}), now: time.Now(),
		lingerFor: lingerTimeout, drainFor: drainTimeout, shared: newShared(Limits{})}
	l.shared.loops = []*Loop{l}
	if l.wakeFD, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		l.closeFDs()
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	if l.timerFD, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC); err != nil {
		l.closeFDs()
		return nil, fmt.Errorf("timerfd: %w", err)
	}
	for _, fd := range []int{l.wakeFD, l.timerFD} {
		if err := poller.add(fd); err != nil {
			l.closeFDs()
			return nil, fmt.Errorf("add to poller: %w", err)
		}
	}
	return l, nil
}

// ID returns the number given to NewLoop.
func (l *Loop) ID() int { return l.id }

// Log returns the loop's logger.
func (l *Loop) Log() *slog.Logger { return l.log }

// Now returns the time at which the current turn began. On the loop only.
func (l *Loop) Now() time.Time { return l.now }

// Post hands t to the loop, which runs it in one of its next turns, in the order posted. Any goroutine may call it.
// It reports false if the loop has ended; t is then never run. If it reports true, t is run, at the latest when the loop ends.
func (l *Loop) Post(t Task) bool {
	l.inboxMu.Lock()
	if l.closing {
		l.inboxMu.Unlock()
		return false
	}
	l.inbox = append(l.inbox, t)
	l.inboxMu.Unlock()
	if l.woken.CompareAndSwap(false, true) {
		l.wake()
	}
	return true
}

var one = [8]byte{0: 1}

func (l *Loop) wake() { rawWrite(l.wakeFD, one[:]) }

// Run runs the loop until Stop. It returns nil then, and the poller's error otherwise.
func (l *Loop) Run() error {
	defer close(l.done)
	defer l.shutdown()
	for !l.stopped {
		l.yield()
		if len(l.dirty) > 0 || len(l.ready) > 0 {
			l.poller.now() // this turn left something to do: look, but do not wait
		} else if err := l.poller.wait(); err != nil {
			return fmt.Errorf("poll: %w", err)
		}
		l.turn()
	}
	return nil
}

// yieldAfter is how long the loop runs without a pause before it lets other goroutines have its processor.
const yieldAfter = 50 * time.Millisecond

// yield lets other goroutines run when the loop has not waited for long. The scheduler alone might not see to that for seconds: its
// monitor sleeps as long as nobody makes a system call that it is told of.
func (l *Loop) yield() {
	switch {
	case l.poller.parked:
		l.poller.parked, l.yielded = false, l.now
	case l.now.Sub(l.yielded) >= yieldAfter:
		l.yielded = l.now
		runtime.Gosched()
	}
}

// turn handles the events at hand and ends with a flush.
func (l *Loop) turn() {
	l.now = time.Now()
	for i := range l.poller.n {
		l.handle(&l.poller.events[i])
	}
	l.flush()
	took := time.Since(l.now)
	l.busy.Add(int64(took))
	l.longest.add(took)
}

// Stop ends the loop: its connections are closed at once. It does not wait; Done does.
func (l *Loop) Stop() {
	l.Post(TaskFunc(func() {
		l.stopped = true
	}))
}

// Done is closed when the loop has ended.
func (l *Loop) Done() <-chan struct{} { return l.done }

func (l *Loop) handle(e *unix.EpollEvent) {
	switch fd := int(e.Fd); fd {
	case l.wakeFD:
		l.runInbox()
	case l.timerFD:
		var b [8]byte
		rawRead(l.timerFD, b[:])
		l.runTimers()
	default:
		if fd < len(l.fds) {
			if p := l.fds[fd]; p != nil {
				l.events(p, e.Events)
			}
		}
	}
}

// Busy returns how long the loop has been handling events since it started. Any goroutine may ask; two answers and the time
// between them give its load.
func (l *Loop) Busy() time.Duration { return time.Duration(l.busy.Load()) }

func (l *Loop) runInbox() {
	l.woken.Store(false) // before taking the tasks: a later Post wakes again
	l.inboxMu.Lock()
	tasks := l.inbox
	l.inbox = l.spare[:0]
	l.inboxMu.Unlock()
	for i, t := range tasks {
		l.task(t)
		tasks[i] = nil
	}
	l.spare = tasks[:0]
}

// flush ends a turn: first input that is still waiting (its handlers may write), then all output.
func (l *Loop) flush() {
	if len(l.ready) > 0 {
		ready := l.ready
		l.ready, l.readyNext = l.readyNext[:0], nil
		for i, c := range ready {
			ready[i] = nil
			c.inReady = false
			l.readInput(c)
		}
		l.readyNext = ready[:0]
	}
	if len(l.dirty) > 0 {
		dirty := l.dirty
		l.dirty, l.dirtyNext = l.dirtyNext[:0], nil
		for i, c := range dirty {
			dirty[i] = nil
			c.inDirty = false
			l.flushConn(c)
		}
		l.dirtyNext = dirty[:0]
	}
	for i := 0; i < len(l.dirtyUDP); i++ {
		u := l.dirtyUDP[i]
		l.dirtyUDP[i] = nil
		l.flushUDP(u)
	}
	l.dirtyUDP = l.dirtyUDP[:0]
}

func (l *Loop) register(fd int, p pollable) error {
	for fd >= len(l.fds) {
		l.fds = append(l.fds, make([]pollable, 64+len(l.fds)/2)...)
	}
	l.fds[fd] = p
	if err := l.poller.add(fd); err != nil {
		l.fds[fd] = nil
		return err
	}
	return nil
}

// unregister forgets a descriptor that is closed next, which takes it out of the kernel's set too. While a forked child still has the
// descriptor the kernel may go on telling of it; whoever has got its number by then looks, finds nothing, and is none the worse.
func (l *Loop) unregister(fd int) {
	if fd < len(l.fds) {
		l.fds[fd] = nil
	}
}

// unregisterShared is unregister for a socket of which another descriptor may stay open, that of a service manager: closing it leaves it in the kernel's set.
func (l *Loop) unregisterShared(fd int) {
	l.unregister(fd)
	l.poller.del(fd)
}

// lastRounds is how often a loop that ends runs what was posted meanwhile before it takes no more.
const lastRounds = 100

// shutdown runs what was posted and closes what is open, again and again, since the one may bring the other. Every task that was
// accepted has run when the loop has ended: somebody may wait for it, or it carries a descriptor.
func (l *Loop) shutdown() {
	for round := 0; !l.closing; round++ {
		l.runInbox()
		l.closeAll()
		l.inboxMu.Lock()
		l.closing = len(l.inbox) == 0 || round == lastRounds
		l.inboxMu.Unlock()
	}
	l.runInbox()
	l.closeAll()
	l.closeFDs()
}

func (l *Loop) closeAll() {
	for _, p := range l.fds {
		switch c := p.(type) {
		case *Conn:
			if c.shutting == lingering && c.Pending() == 0 {
				c.endWell() // the kernel has all of it, and sends what the peer has not taken
			}
			c.finish(ErrLoopClosed)
		case *Listener:
			c.Close()
		case *UDPSocket:
			c.Close()
		}
	}
}

func (l *Loop) closeFDs() {
	for _, fd := range []int{l.wakeFD, l.timerFD} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
	l.poller.close()
}

// ReadBuffer returns the loop's read buffer. It is borrowed: its content lives until the next read on the loop. While frames are handed out they
// may lie in it, so using it then is a fault that would damage them, and panics.
func (l *Loop) ReadBuffer() []byte {
	if l.input != nil {
		panic("dataplane: the read buffer was asked for while frames are handed out")
	}
	if l.readBuf == nil {
		l.readBuf = make([]byte, readBufferSize)
	}
	return l.readBuf
}

// handOut begins the handing out of b, of which parts may be lent to connections until settle.
func (l *Loop) handOut(b []byte) { l.input = b }

// inInput reports whether p lies in the input that is being handed out.
func (l *Loop) inInput(p []byte) bool {
	from, at := uintptr(unsafe.Pointer(unsafe.SliceData(l.input))), uintptr(unsafe.Pointer(unsafe.SliceData(p)))
	return at >= from && at < from+uintptr(len(l.input))
}

// settle ends what handOut began.
func (l *Loop) settle() {
	l.input = nil
	for i, c := range l.lenders {
		l.lenders[i] = nil
		c.takeLent()
	}
	l.lenders = l.lenders[:0]
}
