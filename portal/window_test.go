package portal

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"
)

const mbit = 1e6 / 8 // bytes a second

// TestWindowFills: over every distance, at every rate, with any number of streams, with and without loss, and in both directions at
// once, the windows let the line be full, share it evenly, and come to little more than what it holds.
func TestWindowFills(t *testing.T) {
	if raced {
		t.Skip("one goroutine: nothing to race with")
	}
	for _, trip := range []time.Duration{100 * time.Microsecond, time.Millisecond, 20 * time.Millisecond, 100 * time.Millisecond, 300 * time.Millisecond} {
		for _, rate := range []float64{2 * mbit, 20 * mbit, 200 * mbit, 1000 * mbit} {
			for _, streams := range []int{1, 2, 8, 64} {
				for _, loss := range []float64{0, 0.001} {
					for _, both := range []bool{false, true} {
						if rate == 1000*mbit && (streams == 2 || streams == 64 || loss > 0 || both || trip == time.Millisecond) || (loss > 0 || both) && streams == 64 {
							continue // would take longer than they tell
						}
						name := fmt.Sprintf("%v/%.0fMbit/%d/loss=%v/both=%v", trip, rate/mbit, streams, loss, both)
						t.Run(name, func(t *testing.T) { fills(t, trip, rate, streams, loss, both) })
					}
				}
			}
		}
	}
}

func fills(t *testing.T, trip time.Duration, rate float64, streams int, loss float64, both bool) {
	m := newModel(modelOptions{trip: trip, rate: rate, loss: loss})
	ends := 1
	if both {
		ends = 2
	}
	for end := range ends {
		for range streams {
			m.open(end, 0)
		}
	}
	// First windows may hold what a slow line carries in minutes.
	m.clock.runFor(30*trip + 2*time.Second + time.Duration(float64(2*streams*512<<10)/rate*1e9))
	list := m.moved(max(8*time.Second, 20*trip))
	granted, extra := 0, 0
	for _, s := range m.streams {
		if s.overrun {
			t.Error("a stream sent more than it might")
		}
		granted += s.window.size
		extra += s.window.extra
		if s.window.size > s.window.first+s.window.extra {
			t.Errorf("a window of %d bytes, %d at first, and %d counted", s.window.size, s.window.first, s.window.extra)
		}
	}
	if counted := m.stats.WindowGranted.Load(); counted != int64(extra) {
		t.Errorf("windows say %d bytes more than at first, the node %d", extra, counted)
	}
	for end := range ends {
		list := list[end*streams:][:streams]
		sum := 0.0
		for _, v := range list {
			sum += v
		}
		t.Logf("%.2f of the line, Jain %.3f, windows of %d KiB, queues of %d and %d KiB", sum/rate, jain(list), granted>>10,
			m.lines[end][0].most>>10, m.lines[end][1].most>>10)
		least, fairest := 0.85, 0.9
		if both && loss > 0 {
			continue // credits wait for what is lost before them
		} else if both {
			least, fairest = 0.35, 0.5 // credits wait behind data
		}
		if sum < least*rate {
			t.Errorf("%.2f of the line", sum/rate)
		}
		if fair := jain(list); fair < fairest && sum*8 > float64(streams)*(8<<20) {
			t.Errorf("shares %.0f: Jain %.2f", list, fair)
		}
	}
	if most := int(6*rate*(trip.Seconds()+0.1))*ends + len(m.streams)*512<<10; granted > most && streams <= 8 {
		t.Errorf("windows of %d KiB, more than %d", granted>>10, most>>10)
	}
}

// TestWindowStalledReader: a reader that takes nothing keeps no more than its window, whatever it was before, and its neighbours go on.
func TestWindowStalledReader(t *testing.T) {
	m := newModel(modelOptions{trip: 300 * time.Millisecond, rate: 200 * mbit})
	stalled, other := m.open(0, 0), m.open(0, 0)
	m.clock.runFor(10 * time.Second)
	most := stalled.window.size
	if most < 4<<20 {
		t.Fatalf("a window of %d KiB: this test shows nothing", most>>10)
	}
	stalled.reads = -1
	m.clock.runFor(20 * time.Second)
	if stalled.mostHeld > most {
		t.Errorf("%d KiB held for a reader that takes none, window %d KiB", stalled.mostHeld>>10, most>>10)
	}
	if v := m.moved(10 * time.Second)[1]; v < 0.9*200*mbit {
		t.Errorf("the neighbour has %.2f of the line", v/(200*mbit))
	}
	held := stalled.mostHeld
	stalled.reads = 1 * mbit
	stalled.read()
	m.clock.runFor(5 * time.Minute)
	if stalled.window.size > 2<<20 || stalled.pending > held {
		t.Errorf("a slow reader has a window of %d KiB, %d KiB wait", stalled.window.size>>10, stalled.pending>>10)
	}
	if other.overrun || stalled.overrun {
		t.Error("overrun")
	}
}

// TestWindowBudget: a thousand streams over a long path whose readers all stall hold no more than first windows and the budget.
func TestWindowBudget(t *testing.T) {
	limits := Limits{Budget: 32 << 20}
	m := newModel(modelOptions{trip: 300 * time.Millisecond, rate: 1000 * mbit, limits: limits})
	big := []*stream{m.open(0, 0), m.open(0, 0)}
	m.clock.runFor(10 * time.Second)
	if got := m.stats.WindowGranted.Load(); got < 24<<20 || got > 32<<20 {
		t.Errorf("%d MiB granted of a budget of 32", got>>20)
	}
	late := m.open(0, 0)
	m.clock.runFor(20 * time.Second)
	if late.window.size < 4<<20 {
		t.Errorf("a late stream has %d KiB, the first two %d and %d", late.window.size>>10, big[0].window.size>>10, big[1].window.size>>10)
	}
	for range 1000 {
		m.open(0, -1)
	}
	m.clock.runFor(10 * time.Second)
	for _, s := range m.streams {
		s.reads = -1
	}
	m.clock.runFor(time.Minute)
	held := 0
	for _, s := range m.streams {
		held += s.pending
	}
	if most := 3*512<<10 + 1000*(32<<10) + 32<<20; held > most {
		t.Errorf("%d MiB held", held>>20)
	}
	for _, s := range m.streams {
		s.window.end()
	}
	if a, b := m.stats.WindowGranted.Load(), m.stats.WindowsGrown.Load(); a != 0 || b != 0 {
		t.Errorf("%d bytes and %d windows counted after all have ended", a, b)
	}
}

// TestWindowOpens: a stream alone on a path reaches half of the line hardly later than the slow starts of two TCP connections in a row let it, one on each
// leg, and what waits for credit in the meantime is not taken for a path that stands still.
func TestWindowOpens(t *testing.T) {
	for _, trip := range []time.Duration{20 * time.Millisecond, 100 * time.Millisecond, 300 * time.Millisecond} {
		m := newModel(modelOptions{trip: trip, rate: 1000 * mbit})
		m.open(0, 0)
		rounds := 0
		for m.moved(trip)[0] < 500*mbit {
			if rounds++; rounds > 40 {
				t.Fatalf("%v: never", trip)
			}
			if m.trips[1].stands() {
				t.Errorf("%v: after %d round trips the path counts as one that stands still", trip, rounds)
			}
		}
		// TCP begins with 10 segments and doubles them in each round trip, which takes a leg half of the path's.
		legs := int(math.Ceil(math.Log2(500*mbit*trip.Seconds()/2/(10*1448)) / 2))
		t.Logf("%v: half of the line after %d round trips, the legs alone would take %d", trip, rounds, legs)
		if rounds > legs+1 {
			t.Errorf("%v: half of the line after %d round trips, the legs alone would take %d", trip, rounds, legs)
		}
	}
}

// TestWindowOpensForReader: what a slow reader, or one that stops, leaves in a node while its window opens is not much more than it took in a few round trips.
func TestWindowOpensForReader(t *testing.T) {
	const trip = 100 * time.Millisecond
	for _, stops := range []bool{false, true} {
		m := newModel(modelOptions{trip: trip, rate: 1000 * mbit})
		s := m.open(0, 20*mbit)
		most := int(20 * mbit * (10 * trip).Seconds())
		if stops {
			s.reads = 0
			m.clock.runFor(3 * trip)
			most, s.reads = 5*int(s.taken), -1
		}
		m.clock.runFor(5 * time.Second)
		t.Logf("stops %v: %d KiB held at most, a window of %d KiB", stops, s.mostHeld>>10, s.window.size>>10)
		if s.overrun || s.mostHeld > most {
			t.Errorf("stops %v: %d KiB held, more than %d", stops, s.mostHeld>>10, most>>10)
		}
	}
}

// TestWindowLossy: where much is lost a line stands still again and again, and windows must be large enough for that too: streams have
// most of what they would have without windows.
func TestWindowLossy(t *testing.T) {
	for _, loss := range []float64{0.05, 0.2} {
		for _, streams := range []int{1, 8} {
			moved := func(windows bool) (sum float64, slow bool) {
				m := newModel(modelOptions{trip: 50 * time.Millisecond, rate: 1000 * mbit, loss: loss})
				for range streams {
					s := m.open(0, 0)
					if !windows {
						s.credit, s.window.allowed = math.MaxInt32, 1<<60
					}
				}
				m.clock.runFor(10 * time.Second)
				for _, v := range m.moved(20 * time.Second) {
					sum += v
				}
				return sum, m.trips[1].full(m.clock.now)
			}
			with, slow := moved(true)
			without, _ := moved(false)
			t.Logf("%v lost, %d streams: %.0f Mbit/s, %.0f without windows; slow: %v", loss, streams, with/mbit, without/mbit, slow)
			if with < 0.8*without {
				t.Errorf("%v lost, %d streams: %.2f of what it is without windows", loss, streams, with/without)
			}
		}
	}
}

// TestWindowBegins: streams that begin together over a long path, with TCP's slow start on each leg, have hardly less in the first seconds than they would have
// without windows, with and without loss.
func TestWindowBegins(t *testing.T) {
	for _, c := range []struct {
		trip time.Duration
		loss float64
	}{{50 * time.Millisecond, 0}, {100 * time.Millisecond, 0}, {300 * time.Millisecond, 0}, {50 * time.Millisecond, 0.01}, {50 * time.Millisecond, 0.05}} {
		for _, streams := range []int{1, 8} {
			moved := func(windows bool) (sum float64) {
				m := newModel(modelOptions{trip: c.trip, rate: 1000 * mbit, loss: c.loss, slow: true})
				for range streams {
					s := m.open(0, 0)
					if !windows {
						s.credit, s.window.allowed = math.MaxInt32, 1<<60
					}
				}
				for _, v := range m.moved(10*c.trip + 2*time.Second) {
					sum += v
				}
				return sum
			}
			with, without := moved(true), moved(false)
			t.Logf("%v, %v lost, %d streams: %.0f Mbit/s at first, %.0f without windows", c.trip, c.loss, streams, with/mbit, without/mbit)
			if with < 0.75*without {
				t.Errorf("%v, %v lost, %d streams: %.2f at first of what it is without windows", c.trip, c.loss, streams, with/without)
			}
		}
	}
}

// TestWindowStandingStillShares: a line on which now and then a segment is lost stands still again and again, and what comes at once then shows no stream how fast
// it is. Streams share the line evenly all the same, also those that have begun beside one that had it to itself.
func TestWindowStandingStillShares(t *testing.T) {
	for _, trip := range []time.Duration{50 * time.Millisecond, 100 * time.Millisecond} {
		for _, loss := range []float64{0.001, 0.01} {
			m := newModel(modelOptions{trip: trip, near: trip - 100*time.Microsecond, rate: 200 * mbit, loss: loss}) // a leg, as a direct path is
			m.open(1, 0)
			m.clock.runFor(3 * time.Second)
			for range 7 {
				m.open(1, 0)
			}
			m.clock.runFor(10 * time.Second)
			list := m.moved(5 * time.Second)
			sum := 0.0
			for _, v := range list {
				sum += v
			}
			t.Logf("%v, %v lost: %.2f of the line, Jain %.2f", trip, loss, sum/(200*mbit), jain(list))
			if fair := jain(list); fair < 0.9 {
				t.Errorf("%v, %v lost: shares %.0f, Jain %.2f", trip, loss, list, fair)
			}
		}
	}
}

// TestWindowBusyNodes: where nodes come late to what has arrived, a path is longer than its shortest round trip says. A stream has its line all
// the same, and no more waits than that takes.
func TestWindowBusyNodes(t *testing.T) {
	for _, trip := range []time.Duration{time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond} {
		for _, turn := range []time.Duration{time.Millisecond, 2 * time.Millisecond} {
			m := newModel(modelOptions{trip: trip, rate: 1000 * mbit, turn: turn})
			s := m.open(0, 0)
			m.clock.runFor(15 * time.Second)
			v := m.moved(10 * time.Second)[0]
			t.Logf("%v, nodes busy for %v: %.2f of the line, a window of %d KiB", trip, turn, v/(1000*mbit), s.window.size>>10)
			if v < 0.95*1000*mbit {
				t.Errorf("%v, nodes busy for %v: %.2f of the line", trip, turn, v/(1000*mbit))
			}
			if most := int(1000*mbit*(4*trip+16*turn).Seconds()) + 512<<10; s.window.size > most {
				t.Errorf("%v, nodes busy for %v: a window of %d KiB, more than %d", trip, turn, s.window.size>>10, most>>10)
			}
		}
	}
}

// TestWindowShortBusyPath: nodes of one machine take turns for longer than their path's round trip. With the window at its first size a stream has 0.57 of
// the line in the mean of these cases, since its sender runs dry; it has more with one that grows while that is so, which stays within what passes in 10 ms.
func TestWindowShortBusyPath(t *testing.T) {
	sum, n := 0.0, 0
	for _, turn := range []time.Duration{500, 1000, 1500, 2000, 3000} {
		for _, awake := range []time.Duration{500, 1000, 1300, 2000, 3000} {
			m := newModel(modelOptions{trip: 100 * time.Microsecond, rate: 600e6, turn: turn * time.Microsecond, awake: awake * time.Microsecond, hold: 4 << 20})
			s := m.open(0, 0)
			m.clock.runFor(time.Second)
			share := m.moved(time.Second)[0] / 600e6
			t.Logf("busy for %v us, awake for %v: %.2f of the line, a window of %d KiB", int(turn), int(awake), share, s.window.size>>10)
			if most := int(600e6*shareSlack.Seconds()) + 512<<10; s.window.size > most {
				t.Errorf("busy for %v us, awake for %v: a window of %d KiB, more than %d", int(turn), int(awake), s.window.size>>10, most>>10)
			}
			sum, n = sum+share, n+1
		}
	}
	if mean := sum / float64(n); mean < 0.75 {
		t.Errorf("%.2f of the line in the mean", mean)
	}
}

// TestWindowLateNowAndThen: nodes on one machine that are late now and then, since something else has the processor, do not hold a transfer back for longer than that.
func TestWindowLateNowAndThen(t *testing.T) {
	for _, turn := range []time.Duration{8 * time.Millisecond, 20 * time.Millisecond} {
		for _, awake := range []time.Duration{150 * time.Millisecond, time.Second} {
			m := newModel(modelOptions{trip: 100 * time.Microsecond, rate: 600e6, turn: turn, awake: awake})
			m.open(0, 0)
			m.moved(2 * time.Second)
			share := m.moved(4 * time.Second)[0] / 600e6
			awakeShare := float64(awake) / float64(awake+turn)
			t.Logf("late for %v after each %v: %.2f of the line, window %d", turn, awake, share, m.streams[0].window.size)
			if share < 0.8*awakeShare {
				t.Errorf("late for %v after each %v: %.2f of the line, want %.2f", turn, awake, share, 0.8*awakeShare)
			}
		}
	}
}

// TestWindowCoverStays: what a window covers because its peer ran dry stays for about a second after that, also where rounds are short, and goes by and by.
func TestWindowCoverStays(t *testing.T) {
	m := newModel(modelOptions{trip: time.Millisecond, rate: 1000 * mbit})
	s := m.open(0, 0)
	m.clock.runFor(time.Second)
	before := 10 * time.Millisecond
	s.window.cover = before
	m.clock.runFor(300 * time.Millisecond)
	if s.window.cover < before/2 {
		t.Errorf("after 0.3 s it covers %v", s.window.cover)
	}
	m.clock.runFor(5 * time.Second)
	if s.window.cover > before/20 {
		t.Errorf("after 5 s it covers %v", s.window.cover)
	}
}

// TestWindowUnequalLegs: a relay beside one of the ends, and messages that come late by up to two fifths of their delay, in either direction: streams
// have the line, and share it where messages do not come late. (Where the long leg's TCP connection is the limit, as with jitter here, they do not.)
func TestWindowUnequalLegs(t *testing.T) {
	for _, near := range []time.Duration{time.Millisecond, 50 * time.Millisecond, 99 * time.Millisecond} {
		for _, jitter := range []float64{0, 0.4} {
			for _, streams := range []int{1, 8, 64} {
				for from := range 2 {
					m := newModel(modelOptions{trip: 100 * time.Millisecond, rate: 200 * mbit, near: near, jitter: jitter})
					for range streams {
						m.open(from, 0)
					}
					m.clock.runFor(10*time.Second + time.Duration(streams)*100*time.Millisecond)
					list, sum := m.moved(10*time.Second), 0.0
					for _, v := range list {
						sum += v
					}
					t.Logf("%v of 100 ms beside end 0, jitter %v, %d from %d: %.2f of the line, Jain %.3f", near, jitter, streams, from, sum/(200*mbit), jain(list))
					if fair := jain(list); sum < 0.85*200*mbit || jitter == 0 && fair < 0.9 {
						t.Errorf("%v of 100 ms beside end 0, jitter %v, %d from %d: %.2f of the line, Jain %.3f", near, jitter, streams, from, sum/(200*mbit), fair)
					}
				}
			}
		}
	}
}

// TestWindowSlowLine: what waits in a slow line, before requests beside it, is not what first windows would hold.
func TestWindowSlowLine(t *testing.T) {
	for _, rate := range []float64{1 * mbit, 4 * mbit, 20 * mbit} {
		for _, streams := range []int{1, 8} {
			m := newModel(modelOptions{trip: 40 * time.Millisecond, rate: rate})
			for range streams {
				m.open(0, 0)
			}
			m.clock.runFor(time.Duration(float64(4*streams*512<<10) / rate * 1e9))
			granted, slowest := 0, time.Duration(0)
			for range 20 {
				m.clock.runFor(500 * time.Millisecond)
				now := 0
				for _, s := range m.streams {
					now += s.window.size
				}
				granted = max(granted, now)
			}
			slowest = time.Duration(float64(granted) / rate * 1e9)
			t.Logf("%.0f Mbit/s, %d streams: windows hold %d KiB, %v of the line", rate/mbit, streams, granted>>10, slowest)
			if most := 900*time.Millisecond + time.Duration(float64(4*streams*leastShare)/rate*1e9); slowest > most {
				t.Errorf("%.0f Mbit/s, %d streams: windows hold %v of the line, more than %v", rate/mbit, streams, slowest, most)
			}
			if late := m.open(0, 0); late.credit > granted {
				t.Errorf("a new stream begins with a window of %d KiB", late.credit>>10)
			}
		}
	}
}

// TestWindowFollowsPath: when the way becomes longer, or the reader slower, the window follows.
func TestWindowFollowsPath(t *testing.T) {
	m := newModel(modelOptions{trip: 20 * time.Millisecond, rate: 200 * mbit})
	s := m.open(0, 0)
	m.clock.runFor(5 * time.Second)
	short := s.window.size
	for end := range m.lines {
		for _, l := range m.lines[end] {
			l.delay, l.hold = 50*time.Millisecond, 64<<20
		}
	}
	m.clock.runFor(2 * time.Minute)
	if v := m.moved(10 * time.Second)[0]; v < 0.85*200*mbit {
		t.Errorf("%.2f of a line that has become longer; the window went from %d to %d KiB", v/(200*mbit), short>>10, s.window.size>>10)
	}
	s.reads = 10 * mbit
	m.clock.runFor(2 * time.Minute)
	if s.window.size > 1<<20 || s.pending > 1<<20 {
		t.Errorf("a slow reader has a window of %d KiB, %d KiB wait", s.window.size>>10, s.pending>>10)
	}
}

// TestWindowRequestsBeside: what transfers have under way is not much more than the path holds, so a request beside them is not much later than alone,
// and they have the line all the same.
func TestWindowRequestsBeside(t *testing.T) {
	for _, turn := range []time.Duration{0, 2 * time.Millisecond} {
		for _, trip := range []time.Duration{4 * time.Millisecond, 10 * time.Millisecond, 50 * time.Millisecond} {
			for _, rate := range []float64{4 * mbit, 20 * mbit, 200 * mbit} {
				m := newModel(modelOptions{trip: trip, rate: rate, turn: turn})
				for range 8 {
					m.open(1, 0)
				}
				m.clock.runFor(10 * time.Second)
				moved := 0.0
				for _, v := range m.moved(5 * time.Second) {
					moved += v
				}
				list := m.requests(0, 5*time.Second)
				p50, p99 := list[len(list)/2], list[len(list)*99/100]
				t.Logf("%v, %.0f Mbit/s, nodes busy for %v: %.2f of the line, requests p50 %v, p99 %v", trip, rate/mbit, turn, moved/rate, p50, p99)
				if moved < 0.95*rate {
					t.Errorf("%v, %.0f Mbit/s, nodes busy for %v: %.2f of the line", trip, rate/mbit, turn, moved/rate)
				}
				if most := 2*trip + 15*time.Millisecond + 2*turn + time.Duration(8*2*leastShare/rate*1e9); p50 > most || p99 > most*5/4 {
					t.Errorf("%v, %.0f Mbit/s, nodes busy for %v: requests p50 %v, p99 %v, more than %v", trip, rate/mbit, turn, p50, p99, most)
				}
			}
		}
	}
}

// TestWindowPaced: transfers that are held back beside requests have their line on a short path, also where nodes come late to what has arrived, and requests
// wait for a few milliseconds. Where all nodes are on one machine a request is hardly later than alone.
func TestWindowPaced(t *testing.T) {
	for _, c := range []struct {
		trip time.Duration
		rate float64
		part float64 // of the line
		late time.Duration
	}{
		{100 * time.Microsecond, 600e6, 0.4, 400 * time.Microsecond},
		{time.Millisecond, 1000 * mbit, 0.95, 10 * time.Millisecond},
		{1500 * time.Microsecond, 1000 * mbit, 0.95, 12 * time.Millisecond},
	} {
		for _, turn := range []time.Duration{0, 500 * time.Microsecond, time.Millisecond} {
			for _, streams := range []int{1, 8} {
				m := newModel(modelOptions{trip: c.trip, rate: c.rate, turn: turn})
				m.pace = &pacer{}
				for range streams {
					m.open(1, 0)
				}
				took := m.ask(0, 3*time.Second)
				m.clock.runFor(time.Second)
				n, part := len(*took), 0.0
				for _, v := range m.moved(2 * time.Second) {
					part += v / c.rate
				}
				list := (*took)[n:]
				slices.Sort(list)
				p50, p99 := list[len(list)/2], list[len(list)*99/100]
				t.Logf("%v, nodes busy for %v, %d streams: %.2f of the line, requests p50 %v, p99 %v", c.trip, turn, streams, part, p50, p99)
				if part < c.part || p99 > c.late+3*turn {
					t.Errorf("%v, nodes busy for %v, %d streams: %.2f of the line, requests p50 %v, p99 %v", c.trip, turn, streams, part, p50, p99)
				}
			}
		}
	}
}

// TestWindowSlowFromTheBeginning: the first windows of streams that begin together on a slow line of which nothing is known do not stand before
// others for long.
func TestWindowSlowFromTheBeginning(t *testing.T) {
	for _, c := range []struct {
		rate    float64
		streams int
		most    time.Duration
	}{{1 * mbit, 4, 2500 * time.Millisecond}, {4 * mbit, 16, time.Second}, {20 * mbit, 8, 300 * time.Millisecond}} {
		m := newModel(modelOptions{trip: 40 * time.Millisecond, rate: c.rate})
		for range c.streams {
			m.open(1, 0)
		}
		m.clock.runFor(100 * time.Millisecond)
		list := m.requests(0, 10*time.Second)
		t.Logf("%.0f Mbit/s, %d streams: requests p50 %v, at most %v", c.rate/mbit, c.streams, list[len(list)/2], list[len(list)-1])
		if worst := list[len(list)-1]; worst > c.most || list[len(list)/2] > c.most/2 {
			t.Errorf("%.0f Mbit/s, %d streams: requests p50 %v, at most %v", c.rate/mbit, c.streams, list[len(list)/2], worst)
		}
	}
}

// TestWindowLateMessages: where each leg brings messages late by up to some milliseconds, as on machines with too much to do, a path is several times as
// long as its shortest round trip, and nothing but trying shows that more under way brings more.
func TestWindowLateMessages(t *testing.T) {
	for _, trip := range []time.Duration{100 * time.Microsecond, 10 * time.Millisecond} {
		for _, late := range []time.Duration{5 * time.Millisecond} {
			for _, streams := range []int{1, 8} {
				m := newModel(modelOptions{trip: trip, rate: 1000 * mbit, hold: 64 << 20})
				for end := range m.lines {
					for _, l := range m.lines[end] {
						l.jitter = late
					}
				}
				for range streams {
					m.open(0, 0)
				}
				m.clock.runFor(10 * time.Second)
				sum := 0.0
				for _, v := range m.moved(5 * time.Second) {
					sum += v
				}
				t.Logf("%v, messages late by up to %v, %d streams: %.2f of the line", trip, late, streams, sum/(1000*mbit))
				if sum < 0.9*1000*mbit {
					t.Errorf("%v, messages late by up to %v, %d streams: %.2f of the line", trip, late, streams, sum/(1000*mbit))
				}
			}
		}
	}
}
