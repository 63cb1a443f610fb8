package dataplane

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const testPreamble, testMaxFrame = 7, 1 << 20

// frames is a FrameHandler that keeps frames.
type frames struct {
	mu     sync.Mutex
	list   [][]byte
	onEach func(frame []byte) error
	spoil  bool // overwrite what may be overwritten
	drains int
	closed chan error
}

func newFrames() *frames { return &frames{closed: make(chan error, 2)} }

func (f *frames) OnFrame(buf []byte, low, start, end int) error {
	if start-low < 4 {
		return errors.New("no room before the frame")
	}
	frame := slices.Clone(buf[start:end])
	if f.spoil {
		for i := range buf[low:end] {
			buf[low+i] = 0xee
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = append(f.list, frame)
	if f.onEach != nil {
		return f.onEach(frame)
	}
	return nil
}
func (f *frames) OnDrain()          { f.mu.Lock(); f.drains++; f.mu.Unlock() }
func (f *frames) OnClose(err error) { f.closed <- err }

func (f *frames) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.list)
}

func (f *frames) wait(t testing.TB) error {
	t.Helper()
	select {
	case err := <-f.closed:
		return err
	case <-time.After(90 * time.Second):
		t.Fatal("not closed")
		return nil
	}
}

func newFramed(t testing.TB, l *Loop, network string, h FrameHandler) (*Framed, net.Conn) {
	t.Helper()
	fd, peer := pair(t, network)
	var f *Framed
	on(t, l, func() {
		c, err := l.Adopt(fd, nil)
		if err != nil {
			t.Error(err)
			return
		}
		f = NewFramed(c, NewLengths(testPreamble, testMaxFrame), h, nil)
	})
	var b [1]byte
	if _, err := io.ReadFull(peer, b[:]); err != nil || b[0] != testPreamble {
		t.Fatalf("preamble %x, %v", b, err)
	}
	return f, peer
}

func frame(body []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

// TestFrameSizes sends frames of all sizes up to 300 KiB, in writes cut anywhere.
func TestFrameSizes(t *testing.T) {
	for _, spoil := range []bool{false, true} {
		l := newLoop(t)
		h := newFrames()
		h.spoil = spoil
		var want [][]byte
		stream := []byte{testPreamble}
		rnd := rand.New(rand.NewPCG(5, 6))
		for _, size := range []int{1, 2, 3, 4, 5, 100, 4091, 4092, 4093, 4096, 16379, 16380, 16381, 16384, 32764, 32768, 65536, 131_072,
			262_135, 262_136, 262_139, 262_140, 262_141, 262_144, 300_000, 300 << 10, 700_000, 1, testMaxFrame, 2} {
			for range 1 + rnd.IntN(3) {
				b := random(size)
				b[0] = byte(len(want))
				want = append(want, b)
				stream = append(stream, frame(b)...)
			}
		}
		for range 300 {
			b := random(1 + rnd.IntN(2000))
			want = append(want, b)
			stream = append(stream, frame(b)...)
		}
		_, peer := newFramed(t, l, "unix", h)
		for at := 0; at < len(stream); {
			n := min(len(stream)-at, 1+rnd.IntN(1<<[]int{1, 3, 12, 16, 18, 19}[rnd.IntN(6)]))
			if _, err := peer.Write(stream[at : at+n]); err != nil {
				t.Fatal(err)
			}
			at += n
		}
		peer.Close()
		if err := h.wait(t); err != nil {
			t.Fatalf("closed with %v", err)
		}
		if len(h.list) != len(want) {
			t.Fatalf("%d frames, want %d", len(h.list), len(want))
		}
		for i := range want {
			if !bytes.Equal(h.list[i], want[i]) {
				t.Fatalf("frame %d of %d bytes differs (%d bytes)", i, len(want[i]), len(h.list[i]))
			}
		}
	}
}

// TestFrameByByte cuts at every single byte.
func TestFrameByByte(t *testing.T) {
	l := newLoop(t)
	h := newFrames()
	_, peer := newFramed(t, l, "unix", h)
	stream := append([]byte{testPreamble}, append(frame([]byte("first")), frame(random(50))...)...)
	for i := range stream {
		peer.Write(stream[i : i+1])
		on(t, l, func() {})
	}
	eventually(t, "frames", func() bool { return h.count() == 2 })
	if string(h.list[0]) != "first" || !bytes.Equal(h.list[1], random(50)) {
		t.Errorf("%q", h.list)
	}
}

func TestFrameRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		bytes  []byte
		err    error
		frames int
	}{
		"wrong preamble":               {[]byte{testPreamble + 1, 0, 0, 0, 1, 'x'}, ErrPreamble, 0},
		"length zero":                  {[]byte{testPreamble, 0, 0, 0, 0}, ErrFrameSize, 0},
		"one more than the limit":      {append([]byte{testPreamble}, binary.BigEndian.AppendUint32(nil, testMaxFrame+1)...), ErrFrameSize, 0},
		"4 GiB":                        {[]byte{testPreamble, 0xff, 0xff, 0xff, 0xff}, ErrFrameSize, 0},
		"good, then zero":              {append(append([]byte{testPreamble}, frame([]byte("ok"))...), 0, 0, 0, 0), ErrFrameSize, 1},
		"end before the preamble":      {nil, nil, 0},
		"end after the preamble":       {[]byte{testPreamble}, nil, 0},
		"end after a frame":            {append([]byte{testPreamble}, frame([]byte("ok"))...), nil, 1},
		"end within a length":          {[]byte{testPreamble, 0, 0}, io.ErrUnexpectedEOF, 0},
		"end within a frame":           {[]byte{testPreamble, 0, 0, 0, 9, 'x'}, io.ErrUnexpectedEOF, 0},
		"end within a large frame":     {append([]byte{testPreamble, 0, 4, 0, 0}, make([]byte, 100_000)...), io.ErrUnexpectedEOF, 0},
		"handler refuses":              {append(append([]byte{testPreamble}, frame([]byte("bad"))...), frame([]byte("ok"))...), errBad, 1},
		"handler refuses a split one":  {append([]byte{testPreamble}, frame(append([]byte("bad"), make([]byte, 200_000)...))...), errBad, 1},
		"length 0 after a large frame": {append(append([]byte{testPreamble}, frame(make([]byte, 400_000))...), 0, 0, 0, 0), ErrFrameSize, 1},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLoop(t)
			h := newFrames()
			h.onEach = func(f []byte) error {
				if bytes.HasPrefix(f, []byte("bad")) {
					return errBad
				}
				return nil
			}
			_, peer := newFramed(t, l, "unix", h)
			peer.Write(tc.bytes)
			if tc.err == nil || tc.err == io.ErrUnexpectedEOF {
				peer.Close()
			}
			if err := h.wait(t); !errors.Is(err, tc.err) || (tc.err == nil && err != nil) {
				t.Errorf("closed with %v, want %v", err, tc.err)
			}
			if len(h.list) != tc.frames {
				t.Errorf("%d frames, want %d", len(h.list), tc.frames)
			}
			if len(h.closed) != 0 {
				t.Error("closed twice")
			}
		})
	}
}

var errBad = errors.New("bad frame")

// TestFrameLengthCosts: a length above the limit costs no memory, and one below it no more than what has come of it.
func TestFrameLengthCosts(t *testing.T) {
	l := newLoop(t)
	grown := func(bytes []byte) int64 {
		h := newFrames()
		_, peer := newFramed(t, l, "unix", h)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		peer.Write(bytes)
		on(t, l, func() {})
		on(t, l, func() {})
		time.Sleep(2 * time.Millisecond)
		runtime.ReadMemStats(&after)
		return int64(after.TotalAlloc - before.TotalAlloc)
	}
	grown([]byte{testPreamble}) // the loop's own buffers
	if n := grown([]byte{testPreamble, 0xff, 0xff, 0xff, 0xff}); n > 64<<10 {
		t.Errorf("a length of 4 GiB cost %d bytes", n)
	}
	// What counts is what has come, not what was said to come.
	for sent, limit := range map[int]int64{1: 64 << 10, 10_000: 64 << 10, 20_000: 512 << 10, 300_000: 1536 << 10} {
		if n := grown(append([]byte{testPreamble, 0, 0x0f, 0xff, 0xff}, make([]byte, sent)...)); n > limit {
			t.Errorf("%d bytes of a frame of 1 MiB cost %d bytes", sent, n)
		}
	}
}

// TestFrameLengthsOfMany: many peers that begin the longest frame there is hold a few blocks, not its length each.
func TestFrameLengthsOfMany(t *testing.T) {
	l := newLoop(t)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 300 {
		_, peer := newFramed(t, l, "unix", newFrames())
		peer.Write([]byte{testPreamble, 0, 0x0f, 0xff, 0xff, 1, 2, 3})
	}
	on(t, l, func() {})
	on(t, l, func() {})
	runtime.ReadMemStats(&after)
	if n := int64(after.TotalAlloc - before.TotalAlloc); n > 16<<20 {
		t.Errorf("300 beginnings of a frame cost %d bytes", n)
	}
}

// TestFramedPause stops between frames and goes on without losing any.
func TestFramedPause(t *testing.T) {
	l := newLoop(t)
	h := newFrames()
	f, peer := newFramed(t, l, "unix", h)
	on(t, l, func() { f.Pause() })
	var stream = []byte{testPreamble}
	for i := range 50 {
		stream = append(stream, frame(bytes.Repeat([]byte{byte(i)}, 1+i*1000))...)
	}
	wrote := make(chan struct{})
	go func() { defer close(wrote); peer.Write(stream) }()
	time.Sleep(5 * time.Millisecond)
	if n := h.count(); n != 0 {
		t.Fatalf("%d frames while paused", n)
	}
	for range 200 { // on and off
		on(t, l, func() { f.Resume() })
		on(t, l, func() { f.Pause() })
	}
	on(t, l, func() { f.Resume() })
	<-wrote
	eventually(t, "all frames", func() bool { return h.count() == 50 })
	for i, b := range h.list {
		if len(b) != 1+i*1000 || b[0] != byte(i) {
			t.Fatalf("frame %d has %d bytes of %d", i, len(b), b[0])
		}
	}
}

// TestFramedClose closes while handling a frame: no further one is handed out after Abort, and Close still delivers.
func TestFramedClose(t *testing.T) {
	l := newLoop(t)
	h := newFrames()
	var f *Framed // for the loop
	h.onEach = func([]byte) error { f.Abort(); return nil }
	made, peer := newFramed(t, l, "unix", h)
	on(t, l, func() { f = made })
	peer.Write(append(append([]byte{testPreamble}, frame([]byte("a"))...), frame([]byte("b"))...))
	if err := h.wait(t); !errors.Is(err, ErrConnClosed) {
		t.Error(err)
	}
	if h.count() != 1 {
		t.Errorf("%d frames", h.count())
	}
	h = newFrames()
	h.onEach = func(b []byte) error {
		f.Write(frame(random(1 << 20)))
		f.Close()
		return nil
	}
	made, peer = newFramed(t, l, "unix", h)
	on(t, l, func() { f = made })
	peer.Write(append([]byte{testPreamble}, frame([]byte("a"))...))
	got, err := io.ReadAll(peer)
	if err != nil || !bytes.Equal(got, frame(random(1<<20))) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	peer.Close()
	h.wait(t)
}

// frameEcho sends every frame back.
type frameEcho struct{ f *Framed }

func (e *frameEcho) OnFrame(buf []byte, low, start, end int) error {
	n := end - start
	out := e.f.Reserve(4 + n)
	binary.BigEndian.PutUint32(out, uint32(n))
	copy(out[4:], buf[start:end])
	e.f.Commit(4 + n)
	return nil
}
func (e *frameEcho) OnDrain()      {}
func (e *frameEcho) OnClose(error) {}

// TestAllocsFramed: frames, whole and cut, are echoed without allocating.
func TestAllocsFramed(t *testing.T) {
	l := newLoop(t)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[1])
	if err := unix.SetNonblock(fds[0], true); err != nil {
		t.Fatal(err)
	}
	e := &frameEcho{}
	on(t, l, func() {
		var c *Conn
		if c, err = l.Adopt(fds[0], nil); err == nil {
			e.f = NewFramed(c, NewLengths(testPreamble, testMaxFrame), e, nil)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	exchange := func(out, in []byte, cuts []int) {
		at := 0
		for _, cut := range cuts {
			if _, err := unix.Write(fds[1], out[at:cut]); err != nil {
				t.Fatal(err)
			}
			at = cut
			runtime.Gosched()
		}
		for n := 0; n < len(in); {
			k, err := unix.Read(fds[1], in[n:])
			if err != nil && err != unix.EINTR {
				t.Fatal(err)
			}
			n += k
		}
	}
	exchange([]byte{testPreamble}, make([]byte, 1), []int{1})
	for _, size := range []int{100, 10_000, 60_000} {
		msg := frame(random(size))
		back := make([]byte, len(msg))
		whole, cut := []int{len(msg)}, []int{2, 50, len(msg) - 1, len(msg)}
		for range 200 {
			exchange(msg, back, cut)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		const rounds = 300
		for range rounds {
			exchange(msg, back, whole)
		}
		runtime.ReadMemStats(&after)
		if n := float64(after.Mallocs-before.Mallocs) / rounds; n > 0.02 {
			t.Errorf("frames of %d bytes: %.3f allocations each", size, n)
		}
		if !bytes.Equal(msg, back) {
			t.Errorf("frame of %d bytes came back changed", size)
		}
	}
}

// FuzzFramed feeds any bytes, in pieces, and compares with a plain reading of the same stream.
func FuzzFramed(f *testing.F) {
	f.Add([]byte{testPreamble, 0, 0, 0, 1, 'x'}, uint8(1))
	f.Add([]byte{testPreamble, 0, 0, 0, 0}, uint8(3))
	f.Add([]byte{testPreamble, 0xff, 0xff, 0xff, 0xff, 1}, uint8(200))
	f.Add([]byte{1, 2, 3}, uint8(2))
	f.Add(append([]byte{testPreamble, 0, 1, 0, 0}, make([]byte, 70_000)...), uint8(255))
	f.Add(append(append([]byte{testPreamble}, frame([]byte("one"))...), frame([]byte("two"))...), uint8(5))
	l := newLoop(f)
	f.Fuzz(func(t *testing.T, stream []byte, piece uint8) {
		step := 1 + int(piece)*int(piece)
		if len(stream)/step > 20_000 {
			return // nothing new comes of it, and a busy machine takes it for one that hangs
		}
		h := newFrames()
		h.spoil = piece%2 == 0
		_, peer := newFramed(t, l, "unix", h)
		want, wantErr := plainFrames(stream)
		for at := 0; at < len(stream); at += step {
			if _, err := peer.Write(stream[at:min(at+step, len(stream))]); err != nil {
				break // closed on us, as it may
			}
		}
		peer.Close()
		err := h.wait(t)
		if wantErr == nil && err != nil && !errors.Is(err, unix.EPIPE) {
			t.Fatalf("closed with %v", err)
		}
		if wantErr != nil && !errors.Is(err, wantErr) {
			t.Fatalf("closed with %v, want %v", err, wantErr)
		}
		if !slices.EqualFunc(h.list, want, bytes.Equal) {
			t.Fatalf("%d frames, want %d", len(h.list), len(want))
		}
	})
}

// plainFrames reads a whole stream at once.
func plainFrames(b []byte) (list [][]byte, err error) {
	if len(b) == 0 {
		return nil, nil
	}
	if b[0] != testPreamble {
		return nil, ErrPreamble
	}
	b = b[1:]
	for len(b) >= 4 {
		size := binary.BigEndian.Uint32(b)
		if size == 0 || size > testMaxFrame {
			return list, ErrFrameSize
		}
		n := int(size)
		if len(b) < 4+n {
			break
		}
		list = append(list, b[4:4+n])
		b = b[4+n:]
	}
	if len(b) > 0 {
		return list, io.ErrUnexpectedEOF
	}
	return list, nil
}
