package dataplane

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"testing"
)

// lender gives every frame to another connection without copying it, spoils what of the frame's surroundings it may, and writes
// small pieces of its own in between.
type lender struct {
	*frames
	to    *Conn
	small func(i int) []byte
}

func (h *lender) OnFrame(buf []byte, low, start, end int) error {
	for i := start - 4; i < start; i++ {
		buf[i] = 0xee
	}
	h.to.WriteBorrowed(buf[start:end])
	h.mu.Lock()
	i := len(h.list)
	h.list = append(h.list, nil)
	h.mu.Unlock()
	if s := h.small(i); len(s) > 0 {
		if i%2 == 0 {
			h.to.Write(s)
			return nil
		}
		mine := bytes.Clone(s) // not of the input: it is the writer's again when WriteBorrowed has returned
		h.to.WriteBorrowed(mine)
		for i := range mine {
			mine[i] = 0xdd
		}
	}
	return nil
}

// TestLentOutput: what frames bring for another connection arrives there whole and in order, whatever their sizes, with
// copied output in between, while that connection takes it slowly, and with its end right behind.
func TestLentOutput(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		for seed := range uint64(2) {
			t.Run(network, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 1))
				l := newLoop(t)
				outFD, out := pair(t, network)
				h := &lender{frames: newFrames()}
				var want, wire bytes.Buffer
				var smalls [][]byte
				wire.WriteByte(testPreamble)
				for n := range 60 + 1200 {
					size := []int{1, 100, borrowedDirect - 1, borrowedDirect, 60 << 10, 200 << 10}[rng.IntN(6)]
					if n > 60 {
						size = 1 + rng.IntN(3) // crumbs behind what was lent, more than the system takes in one call
					} else if n == 60 {
						size = borrowedDirect
					}
					frame := make([]byte, size)
					for i := 0; i+8 <= size; i += 8 {
						binary.LittleEndian.PutUint64(frame[i:], rng.Uint64())
					}
					_ = binary.Write(&wire, binary.BigEndian, uint32(size))
					wire.Write(frame)
					want.Write(frame)
					var s []byte
					if rng.IntN(4) == 0 && n < 60 {
						s = bytes.Repeat([]byte{byte(size)}, rng.IntN(1000))
					}
					smalls = append(smalls, s)
					want.Write(s)
				}
				h.small = func(i int) []byte { return smalls[i] }
				rec := newRecorder()
				on(t, l, func() {
					var err error
					if h.to, err = l.Adopt(outFD, rec); err != nil {
						t.Error(err)
					}
				})
				f, in := newFramed(t, l, network, h)
				go func() {
					_, _ = in.Write(wire.Bytes())
					_ = in.(interface{ CloseWrite() error }).CloseWrite()
				}()
				go func() {
					<-h.closed
					l.Post(TaskFunc(func() { h.to.CloseWrite() }))
				}()
				got := bytes.NewBuffer(make([]byte, 0, want.Len()))
				if seed%2 == 1 { // a reader that takes little at a time
					buf := make([]byte, 3000)
					if _, err := io.CopyBuffer(got, struct{ io.Reader }{io.LimitReader(out, 200<<10)}, buf); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := io.Copy(got, out); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got.Bytes(), want.Bytes()) {
					t.Fatalf("%d bytes arrived, %d expected, or others", got.Len(), want.Len())
				}
				on(t, l, func() {
					if n := h.to.Pending(); n != 0 || len(l.lenders) != 0 || l.input != nil {
						t.Errorf("%d bytes pending, %d lenders, input %d bytes", n, len(l.lenders), len(l.input))
					}
					f.Abort()
					h.to.Abort()
				})
			})
		}
	}
}

// TestReadBlocks: blocks of a row are filled one after the other, and nothing around them is touched.
func TestReadBlocks(t *testing.T) {
	l := newLoop(t)
	fd, peer := pair(t, "unix")
	const head, size, stride = 10, 100, 150
	buf := bytes.Repeat([]byte{0xee}, 6*stride)
	got := make(chan int, 1)
	on(t, l, func() {
		if _, err := l.Adopt(fd, &recorder{closed: make(chan struct{}), readable: func(c *Conn) {
			if n, err := c.ReadBlocks(buf, head, size, stride); err == nil {
				got <- n
				c.Abort()
			}
		}}); err != nil {
			t.Error(err)
		}
	})
	sent := make([]byte, 2*size+30)
	for i := range sent {
		sent[i] = byte(i)
	}
	if _, err := peer.Write(sent); err != nil {
		t.Fatal(err)
	}
	if n := <-got; n != len(sent) {
		t.Fatalf("read %d bytes, want %d", n, len(sent))
	}
	for i, b := range buf {
		block, at := i/stride, i%stride-head
		want := byte(0xee)
		if k := block*size + at; at >= 0 && at < size && k < len(sent) {
			want = sent[k]
		}
		if b != want {
			t.Fatalf("byte %d is %#x, want %#x", i, b, want)
		}
	}
}
