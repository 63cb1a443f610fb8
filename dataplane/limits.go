package dataplane

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Limits bound what the loops of a group take from strangers.
type Limits struct {
	// KeepDescriptors is how many of the process's descriptors its connections leave to others; 0 leaves none.
	KeepDescriptors int
	// Unfinished bounds the bytes of memory that unfinished frames of all connections take; 0 is no bound.
	Unfinished int64
}

// Use says how much of its limits a group uses, and how often it enforced them. Any goroutine may read it.
type Use struct {
	// Unfinished is the memory that unfinished frames take.
	Unfinished int64
	// NoRoom counts connections ended because unfinished frames took too much, NoDescriptor those not begun for want of a descriptor.
	NoRoom, NoDescriptor uint64
	// LatePreamble and LateFrame count connections ended because their peer did not go on.
	LatePreamble, LateFrame uint64
	// Faults counts faults of the program that one peer's input showed; each ended that peer's connection.
	Faults uint64
}

var (
	// ErrNoRoom ends a connection whose unfinished frame takes memory that others need.
	ErrNoRoom = errors.New("dataplane: no memory left for unfinished frames")
	// ErrLatePreamble ends a connection that has not said in time what it speaks.
	ErrLatePreamble = errors.New("dataplane: peer did not begin in time")
	// ErrLateFrame ends a connection whose unfinished frame makes no progress.
	ErrLateFrame = errors.New("dataplane: peer does not finish a frame")
	// ErrNoDescriptor is why a connection is not opened when only those descriptors are left that are kept for others. It matches EMFILE.
	ErrNoDescriptor = fmt.Errorf("dataplane: no descriptor left for connections: %w", unix.EMFILE)
)

// shared is what the loops of a group have in common.
type shared struct {
	loops         []*Loop
	maxUnfinished int64
	maxFD         int // connections have lower descriptors
}

func newShared(l Limits) *shared {
	s := &shared{maxUnfinished: math.MaxInt64, maxFD: math.MaxInt}
	if l.Unfinished > 0 {
		s.maxUnfinished = l.Unfinished
	}
	if l.KeepDescriptors > 0 {
		var r unix.Rlimit
		if unix.Getrlimit(unix.RLIMIT_NOFILE, &r) == nil && r.Cur < math.MaxInt32 {
			s.maxFD = max(int(r.Cur)-l.KeepDescriptors, 1)
		}
	}
	return s
}

// uses are a loop's counters. Each is written by its loop alone, so adding costs no other loop anything.
type uses struct {
	unfinished                                             atomic.Int64
	noRoom, noDescriptor, latePreamble, lateFrame, faulted atomic.Uint64
}

// Use returns how much of the limits the group uses.
func (g *Group) Use() (u Use) {
	for _, l := range g.loops {
		u.Unfinished += l.uses.unfinished.Load()
		u.NoRoom += l.uses.noRoom.Load()
		u.NoDescriptor += l.uses.noDescriptor.Load()
		u.LatePreamble += l.uses.latePreamble.Load()
		u.LateFrame += l.uses.lateFrame.Load()
		u.Faults += l.uses.faulted.Load()
	}
	return u
}

// mayUse reports whether a connection may have this descriptor. The kernel gives out the lowest that is free, so a high one
// says that those below are in use.
func (l *Loop) mayUse(fd int) bool {
	if fd < l.shared.maxFD {
		return true
	}
	l.uses.noDescriptor.Add(1)
	return false
}

// crowded reports whether unfinished frames take more memory than they may.
func (l *Loop) crowded() bool { return l.total() > l.shared.maxUnfinished }

// total is what unfinished frames of all loops take.
func (l *Loop) total() (n int64) {
	for _, other := range l.shared.loops {
		n += other.uses.unfinished.Load()
	}
	return n
}

// makeRoom ends connections with the largest unfinished frames until there is room. It reports false when f is to end.
func (l *Loop) makeRoom(f *framedConn) bool {
	if most := l.fullest(); most != l && l.total() <= 2*l.shared.maxUnfinished {
		return most.Post(TaskFunc(most.shed))
	}
	for l.crowded() {
		largest := l.largest()
		if largest == nil {
			return true
		}
		l.uses.noRoom.Add(1)
		if largest == f {
			return false
		}
		largest.fail(ErrNoRoom)
	}
	return true
}

// shed makes room for another loop.
func (l *Loop) shed() {
	for l.crowded() && l.fullest() == l {
		largest := l.largest()
		if largest == nil {
			return
		}
		l.uses.noRoom.Add(1)
		largest.fail(ErrNoRoom)
	}
}

// largest returns the connection whose unfinished frame takes the most memory.
func (l *Loop) largest() (largest *framedConn) {
	size := 0
	for _, p := range l.fds {
		if c, ok := p.(*Conn); ok {
			if f, ok := c.handler.(*framedConn); ok && f.memory() > size {
				largest, size = f, f.memory()
			}
		}
	}
	return largest
}

// memory is what the unfinished frame takes.
func (f *framedConn) memory() int {
	if f.part == nil {
		return f.kept
	}
	return f.kept + len(f.part.buf)
}

// fullest returns the loop with the most memory in unfinished frames.
func (l *Loop) fullest() *Loop {
	most := l
	for _, other := range l.shared.loops {
		if other.uses.unfinished.Load() > most.uses.unfinished.Load() {
			most = other
		}
	}
	return most
}

// NewLimitedGroup is NewGroup with limits.
func NewLimitedGroup(n int, limits Limits, log *slog.Logger) (*Group, error) {
	g, s := &Group{}, newShared(limits)
	for i := range n {
		l, err := NewLoop(i, log)
		if err != nil {
			g.Stop()
			return nil, fmt.Errorf("start loop %d of %d: %w", i+1, n, err)
		}
		l.shared = s
		g.loops = append(g.loops, l)
	}
	s.loops = g.loops
	for i, l := range g.loops {
		g.wg.Add(1)
		go func() {
			defer g.wg.Done()
			if err := l.Run(); err != nil {
				log.Error("event loop ended", "loop", i, "err", err)
			}
		}()
	}
	return g, nil
}

// Deadlines are how long a framed connection's peer may take. Zero is no bound.
type Deadlines struct {
	// Preamble is the time until its first byte.
	Preamble time.Duration
	// Frame is the time in which the rest of a frame must bring minProgress bytes, while it is read.
	Frame time.Duration
}

// minProgress is what an unfinished frame must bring in a Deadlines.Frame: at 10 s a peer sends at least 100 bytes a second.
const minProgress = 1 << 10
