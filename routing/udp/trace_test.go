package udp

import (
	"encoding/binary"
	"hash"
	"hash/crc64"
	"runtime"
	"testing"
	"time"
)

// course is what two sides did: when which packet went, and what could be seen of them meanwhile.
type course struct {
	*network
	t   *testing.T
	sum hash.Hash64
}

// figures are what came of a course. A change of anything that a side does, or of when it does it, changes sum; the others say what became of it.
type figures struct {
	took    time.Duration
	packets [2]uint64
	resent  [2]uint64
	lost    int
	sum     uint64
}

func newCourse(t *testing.T, set func(*network)) *course {
	n := newNetwork(17)
	set(n)
	c := &course{network: n, t: t, sum: crc64.New(crc64.MakeTable(crc64.ECMA))}
	n.sent = func(from int, packet []byte) {
		c.note(n.now.UnixNano(), int64(from), int64(len(packet)))
		c.sum.Write(packet)
	}
	n.whole = func(to int, message []byte) { c.note(n.now.UnixNano(), int64(to), int64(len(message))) }
	return c
}

func (c *course) note(numbers ...int64) {
	for _, v := range numbers {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], uint64(v))
		_, _ = c.sum.Write(b[:])
	}
}

// see notes what others see of the sides: what waits and may come, what was given up, and when they want to be called.
func (c *course) see() {
	for i, a := range c.sides {
		came := 0
		if !c.shut[i] {
			came = len(drain(a))
			a.open()
		}
		c.note(int64(came), int64(a.pending()), int64(a.waiting()), int64(a.loose.waiting()), int64(a.window), int64(a.looseLost), int64(a.looseIn.incomplete))
		if at := a.deadline(); !at.IsZero() {
			c.note(at.UnixNano())
		}
	}
}

// write puts down as much as may wait of what is left for each side to send.
func (c *course) write(left *[2]int) {
	for i, a := range c.sides {
		if k := min(left[i], 40<<10, c.ahead-a.waiting()); k > 0 {
			b := a.out.reserve(k)
			for j := range b {
				b[j] = byte(left[i] + j)
			}
			a.out.commit(k)
			left[i] -= k
		}
	}
}

// transfer sends bytes each way until all have arrived.
func (c *course) transfer(up, down int) {
	c.t.Helper()
	for left := [2]int{up, down}; left != [2]int{} || c.sides[0].pending()+c.sides[1].pending() > 0; {
		if c.write(&left); !c.step() {
			c.t.Fatal("nothing moves")
		}
		c.see()
	}
}

// during sends bytes each way for a time.
func (c *course) during(d time.Duration, left [2]int) {
	for end := c.now.Add(d); c.now.Before(end); {
		c.until = end
		if c.write(&left); !c.step() {
			break
		}
		c.see()
	}
	c.until = time.Time{}
}

// trim has both sides give up what they do not need, and notes what they keep.
func (c *course) trim() {
	for _, a := range c.sides {
		a.trim()
		c.note(int64(cap(a.in)), int64(len(a.blocks.free)), int64(len(a.out.list)), int64(cap(a.loose.buf)), int64(len(a.looseIn.parts)), int64(a.looseIn.bytes), int64(a.window))
	}
}

func (c *course) figures(began time.Time) figures {
	a, b := c.sides[0], c.sides[1]
	return figures{c.now.Sub(began), [2]uint64{a.number, b.number}, [2]uint64{a.resent, b.resent}, c.lost, c.sum.Sum64()}
}

// TestARQCourse: over networks of many kinds both sides send these packets at these times, and no others. What a link does is the work of some hundred decisions, of which most
// show in a transfer as a few packets more or a millisecond less: here each shows. Whoever means to change what a link does, sees by the other tests that it is
// better, and puts the new figures here.
func TestARQCourse(t *testing.T) {
	if runtime.GOARCH != "amd64" || raced {
		t.Skip("others round a rate in other places, by fused multiplication; one goroutine has no races")
	}
	search := func(n *network, carries int) {
		n.carries = carries - 1 - tokenSize
		for _, a := range n.sides {
			a.search(linkMinPacketSize-1-tokenSize, maxPacketSize-1-tokenSize)
		}
	}
	for _, tc := range []struct {
		name string
		set  func(*network)
		run  func(*course)
		want figures
	}{
		{"a path shorter than timers are exact", func(n *network) { n.delay = 200 * time.Microsecond }, func(c *course) { c.transfer(3<<20, 1<<20) }, figures{15600000, [2]uint64{2688, 948}, [2]uint64{0, 0}, 0, 0x7577e24efc43b1c2}},
		{"a line with a queue", func(n *network) { n.delay, n.rate, n.wait = 15*time.Millisecond, 2.5e6, 60*time.Millisecond }, func(c *course) { c.transfer(4<<20, 300<<10) }, figures{1738512000, [2]uint64{3776, 3679}, [2]uint64{137, 0}, 137, 0xe3dfa8a3132c3176}},
		{"losses, repetitions and other orders", func(n *network) {
			n.delay, n.jitter, n.lose, n.twice = 12*time.Millisecond, 6*time.Millisecond, 0.06, 0.05
		}, func(c *course) { c.transfer(2<<20, 1<<20) }, figures{2612833187, [2]uint64{3996, 3985}, [2]uint64{962, 873}, 484, 0xb8c6554a0981896e}},
		{"much is lost", func(n *network) { n.lose, n.jitter = 0.4, 30*time.Millisecond }, func(c *course) { c.transfer(60<<10, 20<<10) }, figures{568243486, [2]uint64{215, 166}, [2]uint64{133, 42}, 153, 0x8b3c534d6b6d6b69}},
		{"a slow line for longer than a round trip is believed", func(n *network) { n.delay, n.rate, n.wait = 40*time.Millisecond, 1.5e5, 300*time.Millisecond }, func(c *course) {
			c.during(25*time.Second, [2]int{1 << 30, 0})
		}, figures{25000000000, [2]uint64{3193, 3118}, [2]uint64{77, 0}, 65, 0xc8acb4ae568d18b1}},
		{"a line that becomes faster, slower and longer", func(n *network) { n.delay, n.rate, n.wait = 10*time.Millisecond, 1e6, 50*time.Millisecond }, func(c *course) {
			c.transfer(1<<20, 0)
			c.rate *= 4
			c.transfer(3<<20, 0)
			c.rate /= 8
			c.transfer(1<<20, 0)
			c.delay *= 3
			c.transfer(1<<20, 0)
		}, figures{6269054250, [2]uint64{7490, 5318}, [2]uint64{2176, 0}, 2172, 0xd600584c605ae1da}},
		{"a long line and its windows", func(n *network) {
			n.delay, n.ahead = 120*time.Millisecond, 16<<20
			for _, a := range n.sides {
				a.grown = &grownWindows{most: 24 << 20}
			}
		}, func(c *course) {
			c.transfer(20<<20, 0)
			for range 8 {
				c.trim()
			}
			c.transfer(1<<20, 0)
		}, figures{5664662102, [2]uint64{18608, 1853}, [2]uint64{0, 0}, 0, 0x8ff5c6d2abaff159}},
		{"nothing passes for a while", func(n *network) {}, func(c *course) {
			c.transfer(100<<10, 100<<10)
			c.lose = 1
			c.during(9*time.Second, [2]int{200 << 10, 3000})
			c.lose = 0
			c.transfer(100<<10, 0)
			c.lose = 1
			c.during(70*time.Millisecond, [2]int{100 << 10, 0})
			c.lose = 0
			c.transfer(0, 0)
		}, figures{10430343912, [2]uint64{640, 189}, [2]uint64{199, 28}, 227, 0x465a4f835e44d19a}},
		{"pings, and a transfer at last", func(n *network) { n.delay, n.rate, n.wait = 25*time.Millisecond, 5e6, 100*time.Millisecond }, func(c *course) {
			c.transfer(2<<20, 2<<20)
			for range 15 {
				c.during(time.Second, [2]int{60, 60})
				c.trim()
			}
			c.transfer(2<<20, 0)
		}, figures{16064751600, [2]uint64{5193, 4884}, [2]uint64{309, 0}, 309, 0xcc5a6838233014fc}},
		{"sizes of packets", func(n *network) { n.delay = 8 * time.Millisecond; search(n, 1430) }, func(c *course) {
			c.transfer(2<<20, 500<<10)
			c.carries = 1300 - 1 - tokenSize
			c.transfer(1<<20, 100<<10)
			c.carries = 600 - 1 - tokenSize
			c.transfer(1<<20, 0)
			c.carries, c.lose = 1472-1-tokenSize, 0.02
			c.during(6*time.Second, [2]int{4 << 20, 100 << 10})
			c.now = c.now.Add(pmtuAgain)
			c.transfer(3<<20, 1000)
		}, figures{606957902749, [2]uint64{17646, 918}, [2]uint64{2430, 92}, 2269, 0xafa38f7e0d08a5c8}},
		{"a peer that hands nothing on", func(n *network) { n.ahead = 8 << 20 }, func(c *course) {
			c.shut[1] = true
			c.during(5*time.Second, [2]int{5 << 20, 100 << 10})
			c.shut[1] = false
			c.transfer(0, 0)
			c.trim()
		}, figures{5214905977, [2]uint64{4677, 388}, [2]uint64{0, 0}, 0, 0x8e822b35ba102570}},
		{"nodes that are busy", func(n *network) {
			n.delay, n.rate, n.wait, n.turns = 10*time.Millisecond, 10e6, 100*time.Millisecond, [2]time.Duration{6 * time.Millisecond, 2 * time.Millisecond}
		}, func(c *course) { c.transfer(6<<20, 100<<10) }, figures{704000000, [2]uint64{5315, 407}, [2]uint64{0, 0}, 0, 0x58f6302aa9345854}},
		{"messages beside a stream", func(n *network) {
			n.delay, n.jitter, n.lose, n.twice = 10*time.Millisecond, time.Millisecond, 0.03, 0.03
		}, func(c *course) {
			for _, beside := range []int{0, 2 << 20} {
				left := [2]int{beside, beside / 8}
				for k := range 400 {
					c.until = c.now.Add(3 * time.Millisecond)
					for i := range 1 + k%3 {
						size := []int{1, 60, 300, 1150, 1180, 2500, 9000}[(k+i)%7]
						o := &c.sides[k%2].loose
						if b := o.reserve(size); b != nil {
							copy(b, "message")
							o.commit(size)
						}
					}
					for end := c.until; c.now.Before(end); {
						c.write(&left)
						c.step()
						c.see()
					}
					if k%50 == 49 {
						c.trim()
					}
				}
				c.until = time.Time{}
				c.transfer(left[0], left[1])
			}
			c.trim()
			c.trim()
		}, figures{2400000000, [2]uint64{6663, 6694}, [2]uint64{1177, 101}, 372, 0x42ad99073fec7201}},
		{"messages alone, over a line with a queue", func(n *network) { n.delay, n.rate, n.wait = 20*time.Millisecond, 1e6, 40*time.Millisecond }, func(c *course) {
			for range 60 {
				for range 20 {
					if b := c.sides[0].loose.reserve(1100); b != nil {
						c.sides[0].loose.commit(1100)
					}
				}
				c.during(20*time.Millisecond, [2]int{0, 500})
			}
			c.during(3*time.Second, [2]int{})
			c.trim()
		}, figures{4200000000, [2]uint64{1243, 1241}, [2]uint64{0, 0}, 20, 0x22d62016a8f97e3a}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newCourse(t, tc.set)
			began := c.now
			tc.run(c)
			if got := c.figures(began); got != tc.want {
				t.Errorf("%#v\nis not\n%#v", got, tc.want)
			}
		})
	}
}
