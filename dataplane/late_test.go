package dataplane

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"
)

// framedLate makes a framed connection with deadlines short enough for a test.
func framedLate(t *testing.T, l *Loop, d Deadlines, max int) (*frameLog, *Framed, net.Conn) {
	t.Helper()
	fd, peer := pair(t, "unix")
	log := &frameLog{ended: make(chan error, 1), frames: make(chan int, 100)}
	var f *Framed
	on(t, l, func() {
		c, err := l.Adopt(fd, nil)
		if err != nil {
			t.Error(err)
			return
		}
		f = NewFramed(c, NewLengths(1, max), log, nil)
		f.Expect(d)
	})
	b := make([]byte, 1)
	if _, err := io.ReadFull(peer, b); err != nil || b[0] != 1 {
		t.Fatal(b, err)
	}
	return log, f, peer
}

type frameLog struct {
	ended  chan error
	frames chan int
}

func (f *frameLog) OnFrame(_ []byte, low, start, end int) error { f.frames <- end - start; return nil }
func (f *frameLog) OnDrain()                                    {}
func (f *frameLog) OnClose(err error)                           { f.ended <- err }

func (f *frameLog) open(t *testing.T, when string) {
	t.Helper()
	select {
	case err := <-f.ended:
		t.Fatalf("%s: ended with %v", when, err)
	default:
	}
}

func (f *frameLog) end(t *testing.T, want error) {
	t.Helper()
	select {
	case err := <-f.ended:
		if !errors.Is(err, want) {
			t.Errorf("ended with %v, want %v", err, want)
		}
	case <-time.After(90 * time.Second):
		t.Errorf("still open; want %v", want)
	}
}

const short = 1500 * time.Millisecond // a busy machine may pause for a second

// TestLatePreamble: whoever says nothing is ended; whoever has begun may be silent for as long as it likes.
func TestLatePreamble(t *testing.T) {
	t.Parallel()
	l := newLoop(t)
	silent, _, _ := framedLate(t, l, Deadlines{Preamble: short, Frame: short}, 1<<20)
	begun, _, peer := framedLate(t, l, Deadlines{Preamble: short, Frame: short}, 1<<20)
	peer.Write([]byte{1})
	silent.end(t, ErrLatePreamble)
	time.Sleep(4 * short)
	begun.open(t, "silent between two frames")
	peer.Write([]byte{0, 0, 0, 1, 7})
	<-begun.frames
}

// TestLateFrame: a frame that gets a few bytes now and then is given up, whenever it began; one that makes progress is not, however
// long it takes; and one that this side does not read has all the time it needs.
func TestLateFrame(t *testing.T) {
	t.Parallel()
	d := Deadlines{Preamble: short, Frame: short}
	head := func(size int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(size)) }
	drip := func(peer net.Conn, log *frameLog, n int, b []byte) {
		for range n {
			peer.Write(b)
			time.Sleep(short / 3)
		}
	}
	t.Run("begun at once", func(t *testing.T) {
		t.Parallel()
		l := newLoop(t)
		log, _, peer := framedLate(t, l, d, 1<<20)
		peer.Write(append([]byte{1}, head(1000)...))
		dripped := make(chan struct{})
		go func() {
			defer close(dripped)
			drip(peer, log, 12, []byte{7})
		}()
		log.end(t, ErrLateFrame)
		<-dripped
	})
	t.Run("begun later", func(t *testing.T) {
		t.Parallel()
		l := newLoop(t)
		log, _, peer := framedLate(t, l, d, 1<<20)
		peer.Write([]byte{1, 0, 0, 0, 1, 7})
		<-log.frames
		time.Sleep(2 * short)
		peer.Write([]byte{0, 0}) // not even a whole length
		log.end(t, ErrLateFrame)
	})
	t.Run("progress", func(t *testing.T) {
		t.Parallel()
		l := newLoop(t)
		log, _, peer := framedLate(t, l, d, 1<<20)
		const size = 10 * 4000
		peer.Write(append([]byte{1}, head(size)...))
		drip(peer, log, 10, make([]byte, 4000))
		select {
		case n := <-log.frames:
			if n != size {
				t.Errorf("a frame of %d", n)
			}
		case err := <-log.ended:
			t.Fatal(err)
		}
	})
	t.Run("many small frames", func(t *testing.T) {
		t.Parallel()
		l := newLoop(t)
		log, _, peer := framedLate(t, l, d, 1<<20)
		peer.Write([]byte{1, 0, 0, 0, 1})
		for range 12 { // there is always an unfinished one, never the same
			time.Sleep(short / 4)
			log.open(t, "between small frames")
			peer.Write([]byte{7, 0, 0, 0, 1})
			<-log.frames
		}
	})
	t.Run("paused", func(t *testing.T) {
		t.Parallel()
		l := newLoop(t)
		log, f, peer := framedLate(t, l, d, 1<<20)
		peer.Write(append([]byte{1}, head(1000)...))
		time.Sleep(short / 4)
		on(t, l, func() { f.Pause() })
		time.Sleep(5 * short)
		log.open(t, "while paused")
		on(t, l, func() { f.Resume() })
		peer.Write(make([]byte, 1000))
		<-log.frames
	})
}

// TestUnfinishedBudget: what is unfinished on all loops stays within its bound, the largest go first, and those with small frames stay.
func TestUnfinishedBudget(t *testing.T) {
	const budget = 8 << 20
	g, err := NewLimitedGroup(2, Limits{Unfinished: budget}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Stop)
	small, _, smallPeer := framedLate(t, g.Loop(0), Deadlines{}, 16<<20)
	smallPeer.Write(append([]byte{1, 0, 0, 0x10, 0}, make([]byte, 100)...))
	var logs []*frameLog
	most := int64(0)
	for i := range 12 {
		log, _, peer := framedLate(t, g.Loop(i%2), Deadlines{}, 16<<20)
		logs = append(logs, log)
		go func() {
			peer.Write([]byte{1, 0, 0xff, 0, 0})
			peer.Write(make([]byte, 0xfe0000))
		}()
	}
	eventually(t, "eleven of twelve ended", func() bool {
		most = max(most, g.Use().Unfinished)
		return g.Use().NoRoom >= 11
	})
	if most > 3*budget {
		t.Errorf("%d bytes in unfinished frames", most)
	}
	eventually(t, "within the bound", func() bool { return g.Use().Unfinished <= budget })
	small.open(t, "beside large ones")
	smallPeer.Write(make([]byte, 0x1000-100))
	<-small.frames
	ended := 0
	eventually(t, "eleven are told", func() bool {
		for _, log := range logs {
			select {
			case err := <-log.ended:
				if !errors.Is(err, ErrNoRoom) {
					t.Error(err)
				}
				ended++
			default:
			}
		}
		return ended >= 11
	})
}

// TestUnfinishedAccount: what a connection is charged for is given back, however its frames come and whenever it ends.
func TestUnfinishedAccount(t *testing.T) {
	g, err := NewLimitedGroup(1, Limits{Unfinished: 64 << 20}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Stop)
	var stream bytes.Buffer
	stream.WriteByte(1)
	for _, size := range []int{1, 100, 70_000, 600_000, 3, 5_000_000, 64 << 10} {
		stream.Write(binary.BigEndian.AppendUint32(nil, uint32(size)))
		stream.Write(make([]byte, size))
	}
	whole := stream.Bytes()
	for _, cut := range []int{len(whole), len(whole) - 1, len(whole) - 70_000, 700_000, 50, 3, 1} {
		log, _, peer := framedLate(t, g.Loop(0), Deadlines{}, 16<<20)
		go func() {
			for b := whole[:cut]; len(b) > 0; {
				n := min(len(b), 33_333)
				if _, err := peer.Write(b[:n]); err != nil {
					return
				}
				b = b[n:]
			}
			peer.Close()
		}()
		<-log.ended
		eventually(t, fmt.Sprintf("cut at %d: nothing is charged", cut), func() bool { return g.Use().Unfinished == 0 })
	}
}

// TestKeepsDescriptors: connections leave the descriptors alone that are kept for others.
func TestKeepsDescriptors(t *testing.T) {
	fd, peer := pair(t, "tcp")
	defer peer.Close()
	l := newLoop(t)
	on(t, l, func() {
		l.shared.maxFD = fd // all lower ones are in use
		if l.mayUse(fd) || !l.mayUse(fd-1) {
			t.Error("the bound is not kept")
		}
		l.shared.maxFD = fd + 1
		if !l.mayUse(fd) {
			t.Error("the bound is kept too early")
		}
	})
	Reset(fd)
	if _, err := peer.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("peer read %v instead of a reset", err)
	}
}

// slowFrames takes its time over every frame.
type slowFrames struct{ frameLog }

func (s *slowFrames) OnFrame(_ []byte, low, start, end int) error {
	for began := time.Now(); time.Since(began) < 100*time.Microsecond; {
	}
	s.frames <- end - start
	return nil
}

// TestFramesTakeTurns: thousands of frames that came at once do not keep the loop from others, all of them are handed out in their order,
// and the end behind them is seen after them.
func TestFramesTakeTurns(t *testing.T) {
	const count = 3000
	l := newLoop(t)
	fd, peer := pair(t, "unix")
	log := &slowFrames{frameLog{ended: make(chan error, 1), frames: make(chan int, count)}}
	var stream bytes.Buffer
	stream.WriteByte(1)
	for i := range count {
		stream.Write(binary.BigEndian.AppendUint32(nil, uint32(1+i%100)))
		stream.Write(make([]byte, 1+i%100))
	}
	go func() {
		peer.Write(stream.Bytes())
		io.ReadFull(peer, make([]byte, 1)) // or the end would be a reset
		peer.Close()
	}()
	turns, running := 0, true
	var other TaskFunc
	other = func() {
		if turns++; running {
			l.Post(other)
		}
	}
	on(t, l, func() {
		c, err := l.Adopt(fd, nil)
		if err != nil {
			t.Error(err)
			return
		}
		NewFramed(c, NewLengths(1, 1<<20), log, nil)
		other()
	})
	for i := range count {
		if n := <-log.frames; n != 1+i%100 {
			t.Fatalf("frame %d has %d bytes", i, n)
		}
	}
	log.end(t, nil)
	on(t, l, func() {
		running = false
		if turns < 50 {
			t.Errorf("others had %d turns", turns)
		}
	})
}
