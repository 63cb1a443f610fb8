package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// load is what is put on a path at once.
type load struct {
	down, up int
	requests bool // one client that asks beside the streams
}

func (l load) String() string {
	text := ""
	switch {
	case l.down > 0 && l.up > 0:
		text = fmt.Sprintf("%d down, %d up", l.down, l.up)
	case l.down > 0:
		text = fmt.Sprintf("%d down", l.down)
	case l.up > 0:
		text = fmt.Sprintf("%d up", l.up)
	default:
		return "requests alone"
	}
	if l.requests {
		text += ", requests"
	}
	return text
}

// figures are what one load came to on one path. Zero is not measured.
type figures struct {
	Down, Up  float64 // Mbit/s that arrived
	Half      float64 // ms until half of that rate was reached for the first time
	Early     float64 // ms until the first 10 MB had arrived
	Fair      float64 // Jain's index over the streams of one direction, the smaller one
	P50, P99  float64 // ms of requests
	First     float64 // ms of a request on a new connection, median
	Resent    float64 // TCP segments sent again
	Memory    float64 // MiB of the path's processes, at most
	Wire      float64 // processor seconds of this process, with the wires and the clients, per second
	Completed bool
}

const (
	sampleEvery  = 20 * time.Millisecond
	requestEvery = 25 * time.Millisecond
	earlyBytes   = 10e6
)

// measure puts a load on a path: first for as long as it takes to settle, then for the time given.
func (p *path) measure(ctx context.Context, s *server, sc scenario, l load, during time.Duration) (f figures, err error) {
	settle := 500*time.Millisecond + 15*sc.trip
	resent, memory := p.world.retransmitted(), 0.0
	asking, stopAsking := context.WithCancel(ctx)
	defer stopAsking()
	type answer struct {
		list []time.Duration
		err  error
	}
	asked := make(chan answer, 1)
	streams := make([]*stream, 0, l.down+l.up)
	defer func() {
		for _, st := range streams {
			st.close()
		}
	}()
	begun := time.Now()
	for k := range l.down + l.up {
		what := byte(askDown)
		if k >= l.down {
			what = askUp
		}
		st, err := p.open(s, what)
		if err != nil {
			return f, fmt.Errorf("%s: open a stream: %w", p.name, err)
		}
		streams = append(streams, st)
	}
	var totals []float64 // bytes at each sample
	total := func(list []*stream) (sum float64) {
		for _, st := range list {
			sum += float64(st.bytes.Load())
		}
		return sum
	}
	var before []float64
	var from time.Time
	cpu := 0.0
	for next := begun; ; {
		next = next.Add(sampleEvery)
		select {
		case <-ctx.Done():
			return f, ctx.Err()
		case <-time.After(time.Until(next)):
		}
		totals = append(totals, total(streams))
		if from.IsZero() && time.Since(begun) >= settle {
			from, cpu = time.Now(), ownCPU()
			for _, st := range streams {
				before = append(before, float64(st.bytes.Load()))
			}
			if l.requests || len(streams) == 0 {
				go func() {
					list, err := p.requests(asking, requestEvery)
					asked <- answer{list, err}
				}()
			}
		}
		if len(totals)%25 == 0 && p.name != pathTCP {
			memory = max(memory, p.resident())
		}
		if !from.IsZero() && time.Since(from) >= during {
			break
		}
	}
	seconds := time.Since(from).Seconds()
	f.Wire = (ownCPU() - cpu) / seconds
	moved := make([]float64, len(streams))
	for k, st := range streams {
		moved[k] = (float64(st.bytes.Load()) - before[k]) * 8 / 1e6 / seconds
		if k < l.down {
			f.Down += moved[k]
		} else {
			f.Up += moved[k]
		}
	}
	if l.requests || len(streams) == 0 {
		stopAsking()
		a := <-asked
		if a.err != nil && len(a.list) == 0 {
			return f, a.err
		}
		f.P50, f.P99 = percentile(a.list, 0.5), percentile(a.list, 0.99)
	}
	f.Fair = 1
	for _, list := range [][]float64{moved[:l.down], moved[l.down:]} {
		if len(list) > 1 {
			f.Fair = min(f.Fair, jain(list))
		}
	}
	if len(streams) > 0 {
		f.Half = firstAbove(totals, (f.Down+f.Up)/2*1e6/8, sc.trip)
		if k := slices.IndexFunc(totals, func(v float64) bool { return v >= earlyBytes }); k >= 0 {
			f.Early = float64(k+1) * sampleEvery.Seconds() * 1000
		}
	}
	f.Resent, f.Memory, f.Completed = p.world.retransmitted()-resent, memory, true
	return f, nil
}

// firstAbove returns, in ms, when the rate was above the given one for the first time, over what is left of a round trip's bursts.
func firstAbove(totals []float64, rate float64, trip time.Duration) float64 {
	span := max(int(trip/sampleEvery), 1)
	for k := range totals {
		from := 0.0
		if k >= span {
			from = totals[k-span]
		}
		if (totals[k]-from)/(float64(span)*sampleEvery.Seconds()) >= rate {
			return float64(k+1) * sampleEvery.Seconds() * 1000
		}
	}
	return 0
}

// jain is Jain's index of fairness: 1 when all are equal.
func jain(list []float64) float64 {
	var sum, squares float64
	for _, v := range list {
		sum += v
		squares += v * v
	}
	if squares == 0 {
		return 0
	}
	return sum * sum / (float64(len(list)) * squares)
}

// newConnections measures requests on new connections, one after the other.
func (p *path) newConnections(n int) (f figures, err error) {
	list := make([]time.Duration, 0, n)
	for range n {
		d, err := p.firstByte(20 * time.Second)
		if err != nil {
			return f, fmt.Errorf("%s: new connection: %w", p.name, err)
		}
		list = append(list, d)
	}
	f.First, f.Completed = percentile(list, 0.5), true
	return f, nil
}
