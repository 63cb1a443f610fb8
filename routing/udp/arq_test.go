package udp

import (
	"bytes"
	"container/heap"
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// flying is a packet on its way.
type flying struct {
	at   time.Time
	to   int
	data []byte
}

// airHeap orders packets on their way by when they arrive.
type airHeap []flying

func (h airHeap) Len() int           { return len(h) }
func (h airHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h airHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *airHeap) Push(x any)        { *h = append(*h, x.(flying)) }
func (h *airHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	old[len(old)-1] = flying{}
	*h = old[:len(old)-1]
	return x
}

// network carries packets between two sides, in simulated time, and damages what it carries.
type network struct {
	rnd             *rand.Rand
	now             time.Time
	sides           [2]*arq
	air             airHeap
	under           [2]int // packets of each side on their way
	lose, twice     float64
	delay, jitter   time.Duration
	queue           int           // packets under way in one direction at most
	rate            float64       // bytes a second in each direction; 0 for any
	wait            time.Duration // how long a packet waits for that at most
	idle            [2]time.Time  // when all that waits has been sent
	ahead           int           // bytes that wait to be sent at most
	lost, delivered int
	turns           [2]time.Duration              // a side that is busy with other things looks this often
	whole           func(to int, message []byte)  // is given loose messages
	until           time.Time                     // something else happens then
	gone            map[uint64]bool               // loose messages of which a packet was lost
	carries         int                           // bytes of the largest packet that passes; 0 for any
	largest         int                           // that was sent
	sent            func(from int, packet []byte) // is given each packet, lost or not; nil: nobody
	shut            [2]bool                       // a side that lets the other send no more than it has been told
}

// pump lets a side send what it may.
func (n *network) pump(from int) {
	a := n.sides[from]
	for {
		out := a.packet(make([]byte, 0, a.size), n.now)
		if out == nil {
			return
		}
		if len(out) > max(a.size, a.larger()) {
			panic("packet too large")
		}
		if n.sent != nil {
			n.sent(from, out)
		}
		if n.largest = max(n.largest, len(out)); n.carries > 0 && len(out) > n.carries {
			n.lost++
			continue
		}
		copies := 1
		if n.rnd.Float64() < n.twice {
			copies = 2
		}
		if n.rnd.Float64() < n.lose || n.under[from] > n.queue {
			n.lost++
			n.note(out)
			continue
		}
		start := n.now
		if n.rate > 0 {
			if n.idle[from].After(start) {
				start = n.idle[from]
			}
			if start.Sub(n.now) > n.wait {
				n.lost++
				continue
			}
			start = start.Add(time.Duration(float64(len(out)) / n.rate * 1e9))
			n.idle[from] = start
		}
		for range copies {
			at := n.turn(1-from, start.Add(n.delay+time.Duration(n.rnd.Float64()*float64(n.jitter))))
			heap.Push(&n.air, flying{at, 1 - from, out})
			n.under[from]++
		}
	}
}

// note notes which loose message a packet that was lost is of.
func (n *network) note(packet []byte) {
	v := numbers{b: packet}
	v.next()
	if flags := v.b[0]; flags&arqLoose != 0 {
		v.b = v.b[1:]
		if flags&arqAck != 0 {
			v.next()
			v.next()
			for k := 2*v.next() - 1; k > 0; k-- {
				v.next()
			}
		}
		if n.gone == nil {
			n.gone = map[uint64]bool{}
		}
		n.gone[v.next()] = true
	}
}

// turn returns when a side looks at what happens at a time.
func (n *network) turn(side int, at time.Time) time.Time {
	every := n.turns[side]
	if every == 0 || at.IsZero() {
		return at
	}
	if rest := time.Duration(at.UnixNano()) % every; rest > 0 {
		return at.Add(every - rest)
	}
	return at
}

// step goes on to the next event. It reports false when nothing will happen any more.
func (n *network) step() bool {
	n.pump(0)
	n.pump(1)
	next := time.Time{}
	sooner := func(at time.Time) {
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	if len(n.air) > 0 {
		sooner(n.air[0].at)
	}
	for i, a := range n.sides {
		sooner(n.turn(i, a.deadline()))
	}
	sooner(n.until)
	if next.IsZero() {
		return false
	}
	if next.After(n.now) {
		n.now = next
	}
	for len(n.air) > 0 && !n.air[0].at.After(n.now) {
		f := heap.Pop(&n.air).(flying)
		n.under[1-f.to]--
		n.delivered++
		if err := n.sides[f.to].receive(f.data, n.now); err != nil {
			panic(err)
		}
		if m := n.sides[f.to].looseIn.whole; m != nil {
			n.whole(f.to, m)
		}
		if !n.shut[f.to] {
			n.sides[f.to].open()
		}
	}
	for i, a := range n.sides {
		if at := n.turn(i, a.deadline()); !at.IsZero() && !at.After(n.now) {
			a.timeout(n.now)
		}
	}
	return true
}

// drain takes all that has come in order.
func drain(a *arq) (got []byte) {
	for {
		got = append(got, a.ready()...)
		a.take(len(a.ready()))
		if !a.more() {
			return got
		}
	}
}

func newNetwork(seed uint64) *network {
	return &network{
		rnd: rand.New(rand.NewPCG(seed, 1)), now: time.Unix(1000, 0), sides: [2]*arq{newARQ(1191), newARQ(1191)},
		delay: 10 * time.Millisecond, queue: 1 << 20, ahead: linkHighWater,
	}
}

// run writes streams on both sides, a bit at a time, and returns what has come when both are through or nothing moves.
func (n *network) run(streams [2][]byte, chunk int) (got [2][]byte) {
	left := streams
	for range 2_000_000 {
		for i, a := range n.sides {
			if k := min(len(left[i]), 1+n.rnd.IntN(chunk), n.ahead-a.waiting()); k > 0 {
				copy(a.out.reserve(k), left[i][:k])
				a.out.commit(k)
				left[i] = left[i][k:]
			}
		}
		moved := n.step()
		for i, a := range n.sides {
			got[1-i] = append(got[1-i], drain(a)...)
			a.open()
		}
		if !moved || len(got[0])+len(got[1]) == len(streams[0])+len(streams[1]) && n.sides[0].pending()+n.sides[1].pending() == 0 {
			break
		}
	}
	return got
}

func random(rnd *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	return b
}

// TestARQProperty: over any network that lets something through, both streams arrive whole and in order.
func TestARQProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := newNetwork(rapid.Uint64().Draw(t, "seed"))
		n.lose = rapid.Float64Range(0, 0.4).Draw(t, "loss")
		n.twice = rapid.Float64Range(0, 0.3).Draw(t, "duplication")
		n.delay = time.Duration(rapid.IntRange(0, 200).Draw(t, "delay")) * time.Millisecond
		n.jitter = time.Duration(rapid.IntRange(0, 100).Draw(t, "jitter")) * time.Millisecond
		n.queue = rapid.IntRange(8, 200).Draw(t, "queue")
		size := rapid.IntRange(500, 1191).Draw(t, "packet size")
		n.sides = [2]*arq{newARQ(size), newARQ(size)}
		streams := [2][]byte{random(n.rnd, rapid.IntRange(0, 200_000).Draw(t, "up")), random(n.rnd, rapid.IntRange(0, 50_000).Draw(t, "down"))}
		got := n.run(streams, 20_000)
		for i := range streams {
			if !bytes.Equal(got[i], streams[i]) {
				t.Fatalf("stream %d: %d of %d bytes", i, len(got[i]), len(streams[i]))
			}
		}
		for i, a := range n.sides {
			if a.pending() != 0 || a.inFlight != 0 && a.under == 0 {
				t.Fatalf("side %d: %d bytes pending, %d in flight", i, a.pending(), a.inFlight)
			}
		}
	})
}

// TestARQUsesThePath: with little loss a transfer takes not much longer than the path needs, and a path that cannot keep up is not
// flooded for ever.
func TestARQUsesThePath(t *testing.T) {
	for _, c := range []struct {
		name  string
		lose  float64
		queue int
		limit time.Duration
		waste float64 // packets lost or sent again, of all
	}{
		{"clean", 0, 1 << 20, 2 * time.Second, 0},
		{"1 % loss", 0.01, 1 << 20, 15 * time.Second, 0.03},
		{"a short queue", 0, 100, 5 * time.Second, 0.2}, // as BBR's start finds its end
	} {
		n := newNetwork(7)
		n.lose, n.queue, n.delay = c.lose, c.queue, 25*time.Millisecond
		began := n.now
		stream := random(n.rnd, 5<<20)
		if got := n.run([2][]byte{stream, nil}, 2<<20); !bytes.Equal(got[0], stream) {
			t.Fatalf("%s: %d bytes", c.name, len(got[0]))
		}
		took, waste := n.now.Sub(began), float64(n.lost)/float64(n.delivered+n.lost)
		t.Logf("%s: 5 MiB in %v, %.2f %% lost, %d sent again, round trip %v, window %d KiB", c.name, took, 100*waste, n.sides[0].resent, n.sides[0].rtt, n.sides[0].cwnd>>10)
		if took > c.limit || waste > c.waste {
			t.Errorf("%s: took %v, %.3f lost", c.name, took, waste)
		}
	}
}

// TestARQLongLine: what is under way grows with the distance, at both ends, within its bound.
func TestARQLongLine(t *testing.T) {
	n := newNetwork(3)
	n.delay, n.ahead = 150*time.Millisecond, 32<<20 // all that comes in one round trip comes at once here
	began := n.now
	stream := random(n.rnd, 32<<20)
	if got := n.run([2][]byte{stream, nil}, 64<<20); !bytes.Equal(got[0], stream) {
		t.Fatalf("%d bytes", len(got[0]))
	}
	took := n.now.Sub(began)
	t.Logf("32 MiB in %v, window %d KiB, cwnd %d KiB", took, n.sides[1].window>>10, n.sides[0].cwnd>>10)
	if took > 5*time.Second { // 2 MiB in each round trip take this, and 1 MiB twice as long
		t.Errorf("32 MiB took %v", took)
	}
	if n.sides[1].window > arqWindowMost || n.sides[0].cwnd > arqMaximum {
		t.Errorf("a window of %d bytes, %d under way", n.sides[1].window, n.sides[0].cwnd)
	}
}

// TestARQBottleneck: a transfer has most of a line, whatever its queue holds and however much is lost, does not fill a long queue for good, and
// finds the line's length again and again.
func TestARQBottleneck(t *testing.T) {
	const rate = 2.5e6 // 20 Mbit/s
	for _, c := range []struct {
		name string
		lose float64
		wait time.Duration
		most time.Duration // round trip at the end
	}{
		{"long queue", 0, time.Second, 130 * time.Millisecond},
		{"short queue", 0, 20 * time.Millisecond, 80 * time.Millisecond},
		{"1 % loss", 0.01, 100 * time.Millisecond, 130 * time.Millisecond},
		{"5 % loss", 0.05, 100 * time.Millisecond, 130 * time.Millisecond},
	} {
		n := newNetwork(11)
		n.delay, n.rate, n.wait, n.lose = 25*time.Millisecond, rate, c.wait, c.lose
		began := n.now
		stream := random(n.rnd, 32<<20) // 13 s
		if got := n.run([2][]byte{stream, nil}, 2<<20); !bytes.Equal(got[0], stream) {
			t.Fatalf("%s: %d bytes", c.name, len(got[0]))
		}
		share := float64(len(stream)) / n.now.Sub(began).Seconds() / (rate * (1 - c.lose))
		waste := float64(n.lost) / float64(n.delivered+n.lost)
		t.Logf("%s: %.2f of the line, %.1f %% lost, round trip %v, shortest %v", c.name, share, 100*waste, n.sides[0].rtt, n.sides[0].bbr.shortest)
		if share < 0.85 || waste > c.lose+0.05 {
			t.Errorf("%s: %.2f of the line, %.3f lost", c.name, share, waste)
		}
		if n.sides[0].rtt > c.most || n.sides[0].bbr.shortest > 60*time.Millisecond {
			t.Errorf("%s: a round trip of %v, shortest %v, where the line has 50 ms", c.name, n.sides[0].rtt, n.sides[0].bbr.shortest)
		}
	}
}

// TestARQLossyLine: on a long fast line a transfer has what passes, whatever is lost at random, as far as the model of the congestion control lets it:
// an eighth of the time it sends a quarter less, and the stream waits for none of what was lost.
func TestARQLossyLine(t *testing.T) {
	for _, c := range []struct {
		mbit  float64
		trip  time.Duration
		lose  float64
		share float64 // of what passes
	}{
		{200, 50 * time.Millisecond, 0.01, 0.9},
		{200, 50 * time.Millisecond, 0.05, 0.9},
		{1000, 50 * time.Millisecond, 0.01, 0.9},
		{1000, 50 * time.Millisecond, 0.05, 0.9},
		{1000, 50 * time.Millisecond, 0.1, 0.85},
		{200, 300 * time.Millisecond, 0.01, 0.9},
	} {
		if c.mbit*c.trip.Seconds() > 10 && (testing.Short() || raced) {
			continue // each a second or two of processor time, and ten times that with the race detector
		}
		rate := c.mbit * 1e6 / 8
		n := newNetwork(5)
		n.delay, n.rate, n.wait, n.lose = c.trip/2, rate, 100*time.Millisecond, c.lose
		settle := 500*time.Millisecond + 15*c.trip
		for _, a := range n.sides {
			a.grown = &grownWindows{most: 128 << 20}
		}
		var got, from, lost, passed int
		filler := make([]byte, linkHighWater)
		n.sides[1].out.reserve(1)[0] = 'x' // a puncture's pings tell both sides how long the way is
		n.sides[1].out.commit(1)
		begun := n.now
		for n.now.Sub(begun) < settle+time.Second/2 {
			if k := linkHighWater - n.sides[0].waiting(); k > 0 {
				copy(n.sides[0].out.reserve(k), filler)
				n.sides[0].out.commit(k)
			}
			if !n.step() {
				t.Fatal("nothing moves")
			}
			drain(n.sides[1])
			n.sides[1].open()
			got = int(n.sides[1].came)
			if n.now.Sub(begun) < settle {
				from, lost, passed = got, n.lost, n.delivered
			}
		}
		share := float64(got-from) / (rate * (1 - c.lose) / 2)
		lost, passed = n.lost-lost, n.delivered-passed
		waste := float64(lost) / float64(passed+lost)
		t.Logf("%4.0f Mbit/s, %v, %2.0f %% loss: %.2f of what passes, %.1f %% lost, window %d KiB, under way %d KiB, round trip %v", c.mbit, c.trip, 100*c.lose, share, 100*waste,
			n.sides[1].window>>10, n.sides[0].cwnd>>10, n.sides[0].rtt)
		if share < c.share || waste > c.lose+0.05 {
			t.Errorf("%.0f Mbit/s, %v, %.0f %% loss: %.2f of what passes, %.3f lost", c.mbit, c.trip, 100*c.lose, share, waste)
		}
	}
}

// TestARQBusyNodes: nodes that come to look only now and then, as on a machine with much else to do, have most of the line all the same: what could not be sent
// meanwhile is made up for.
func TestARQBusyNodes(t *testing.T) {
	for _, c := range []struct {
		trip  time.Duration
		turns time.Duration
	}{{10 * time.Millisecond, 5 * time.Millisecond}, {50 * time.Millisecond, 8 * time.Millisecond}, {50 * time.Millisecond, 3 * time.Millisecond}} {
		n := newNetwork(9)
		n.delay, n.rate, n.wait = c.trip/2, 25e6, 100*time.Millisecond // 200 Mbit/s
		n.turns = [2]time.Duration{c.turns, c.turns}
		began := n.now
		stream := make([]byte, 48<<20)
		if got := n.run([2][]byte{stream, nil}, 2<<20); len(got[0]) != len(stream) {
			t.Fatalf("%d bytes", len(got[0]))
		}
		share := float64(len(stream)) / n.now.Sub(began).Seconds() / n.rate
		t.Logf("%v, looks every %v: %.2f of the line, round trip %v", c.trip, c.turns, share, n.sides[0].rtt)
		if share < 0.8 {
			t.Errorf("%v, looks every %v: %.2f of the line", c.trip, c.turns, share)
		}
	}
}

// TestARQAfterIdling: a link on which nothing but pings went for a while is as fast at once as it was before.
func TestARQAfterIdling(t *testing.T) {
	n := newNetwork(9)
	n.delay, n.rate, n.wait = 25*time.Millisecond, 25e6, 100*time.Millisecond // 200 Mbit/s
	stream := make([]byte, 16<<20)
	took := func() time.Duration {
		began := n.now
		if got := n.run([2][]byte{stream, nil}, 2<<20); len(got[0]) != len(stream) {
			t.Fatalf("%d bytes", len(got[0]))
		}
		return n.now.Sub(began)
	}
	took()
	for range 100 {
		n.now = n.now.Add(time.Second)
		if got := n.run([2][]byte{{1}, {2}}, 1); len(got[0])+len(got[1]) != 2 {
			t.Fatal("a ping is lost")
		}
	}
	again := took()
	t.Logf("16 MiB in %v, rate %.0f Mbit/s", again, n.sides[0].bbr.most()*8000)
	if again > time.Second { // 0.67 s for the bytes, 0.05 to hear of the last
		t.Errorf("16 MiB took %v after a pause", again)
	}
}

// TestARQWindowsShareABound: windows grow no further than the node allows for all of them, and what has ended is given back.
func TestARQWindowsShareABound(t *testing.T) {
	g := &grownWindows{most: 128 << 20}
	var list []*arq
	sum := 0
	for range 20 {
		a, now := newARQ(1191), time.Unix(1000, 0)
		a.grown = g
		for range 3 { // in each round trip
			a.widen(now)
			a.came += 20 << 20
			now = now.Add(a.rtt)
		}
		list = append(list, a)
		sum += a.window - arqWindow
	}
	if list[0].window != arqWindowMost || list[19].window != arqWindow {
		t.Errorf("windows of %d to %d MiB", list[0].window>>20, list[19].window>>20)
	}
	if got := g.bytes.Load(); got != int64(sum) || got > g.most || got < g.most-arqWindowMost {
		t.Errorf("%d MiB counted, windows grew by %d", got>>20, sum>>20)
	}
	for _, a := range list {
		a.giveBack()
	}
	if got := g.bytes.Load(); got != 0 {
		t.Errorf("%d bytes are never given back", got)
	}
}

// TestARQOutage: nothing passes for a while; then it goes on, and not much was sent into the void.
func TestARQOutage(t *testing.T) {
	n := newNetwork(3)
	stream := random(n.rnd, 300_000)
	copy(n.sides[0].out.reserve(len(stream)), stream)
	n.sides[0].out.commit(len(stream))
	for range 3 {
		n.step()
	}
	n.lose = 1
	began, sent := n.now, n.sides[0].number
	for n.now.Sub(began) < 30*time.Second {
		if !n.step() {
			t.Fatal("nothing is tried any more")
		}
	}
	if tried := n.sides[0].number - sent; tried > 2000 {
		t.Errorf("%d packets in an outage of 30 s", tried)
	}
	n.lose = 0
	back := n.now
	for n.sides[0].pending() > 0 && n.step() {
	}
	got := drain(n.sides[1])
	if took := n.now.Sub(back); !bytes.Equal(got, stream) || took > 10*time.Second {
		t.Errorf("%d bytes, %v after the outage", len(got), took)
	}
}

// TestARQWindow: a peer that hands nothing on is not sent more than its window, and the sender goes on when it does.
func TestARQWindow(t *testing.T) {
	a, b := newARQ(1191), newARQ(1191)
	now := time.Unix(1000, 0)
	stream := random(rand.New(rand.NewPCG(1, 1)), 2*arqWindow)
	copy(a.out.reserve(len(stream)), stream)
	a.out.commit(len(stream))
	exchange := func(open bool) {
		for range 20_000 {
			now = now.Add(time.Millisecond)
			if at := a.deadline(); !at.IsZero() && !now.Before(at) {
				a.timeout(now)
			}
			for p := a.packet(nil, now); p != nil; p = a.packet(nil, now) {
				if err := b.receive(p, now); err != nil {
					t.Fatal(err)
				}
			}
			if open {
				b.open()
			}
			for p := b.packet(nil, now); p != nil; p = b.packet(nil, now) {
				if err := a.receive(p, now); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	exchange(false)
	if len(b.ready()) != arqWindow {
		t.Fatalf("%d bytes sent into a window of %d", len(b.ready()), arqWindow)
	}
	exchange(true)
	if got := drain(b); !bytes.Equal(got, stream) || a.pending() != 0 {
		t.Fatalf("%d of %d bytes", len(got), len(stream))
	}
}

// TestARQSegments: a peer that sends its stream in crumbs costs no more than one that does not.
func TestARQSegments(t *testing.T) {
	a, refused := newARQ(1191), 0
	for i := range uint64(3 * arqEarly) {
		packet := binary.AppendUvarint(append(binary.AppendUvarint(nil, i), arqData), 2*i+1)
		if a.receive(append(packet, 'x'), time.Unix(1000, 0)) != nil {
			refused++
		}
	}
	if len(a.early) != arqEarly || refused != 2*arqEarly {
		t.Errorf("%d parts kept, %d refused", len(a.early), refused)
	}
}

// FuzzLinkPacket: no packet of a stranger destroys what honest packets carry, unless it brings bytes of the stream itself.
func FuzzLinkPacket(f *testing.F) {
	f.Add([]byte{0, arqAck, 0x80, 0x80, 0x80, 1, 0, 1, 1})
	f.Add([]byte{5, arqData, 0, 'x'})
	f.Add([]byte{9, arqAck | arqData, 1, 1, 2, 1, 1, 1, 0, 'y'})
	f.Add([]byte{5, arqLoose, 0, 2, 1, 'z'})
	f.Fuzz(func(t *testing.T, packet []byte) {
		a, b := newARQ(1191), newARQ(1191)
		now := time.Unix(1000, 0)
		copy(a.out.reserve(5000), bytes.Repeat([]byte("stream"), 1000))
		a.out.commit(5000)
		first := a.packet(nil, now)
		if a.receive(packet, now) != nil {
			if a.pending() != 5000 || a.limit != arqWindow || len(a.seen) != 0 || len(a.ready()) != 0 {
				t.Fatal("a malformed packet changed something")
			}
		}
		if a.looseIn.bytes > looseParts || len(a.looseIn.whole) > len(packet) {
			t.Fatal("more is kept than is allowed")
		}
		if len(a.ready())+len(a.early) > len(packet) || a.out.base > a.next || a.out.base > a.out.end {
			t.Fatal("more came than was sent")
		}
		for a.packet(nil, now) != nil {
		}
		a.timeout(now.Add(time.Minute))
		if err := b.receive(first, now); err != nil {
			t.Fatal(err)
		}
	})
}
