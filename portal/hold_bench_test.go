package portal

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkHold compares what the whole path costs with connections that outlive it and without: seconds of CPU for a gigabyte, of inlet, relay,
// outlet and the test's own client and server together. The two take turns, so that a slow spell of the machine meets both.
func BenchmarkHold(b *testing.B) {
	target, ch := served(b)
	type variant struct {
		name string
		hold time.Duration
		cpu  time.Duration
		sent int64
	}
	variants := []*variant{{name: "off"}, {name: "on", hold: time.Minute}}
	for _, m := range movers(b)[2:] {
		b.Run(m.name, func(b *testing.B) {
			var moves []func() error
			for _, v := range variants {
				c := newChain(b, 1, 1, false, Limits{}, OutletOptions{Target: target})
				c.in[0].opts.Hold = v.hold
				client, server := c.paired(b, 0, ch)
				v.cpu, v.sent = 0, 0
				moves = append(moves, func() error { return m.move(client, server) })
			}
			units := max(1, 16<<20/m.unit)
			for b.Loop() {
				for i, v := range variants {
					before := cpuTime(b)
					for range units {
						if err := moves[i](); err != nil {
							b.Fatal(err)
						}
					}
					v.cpu += cpuTime(b) - before
					v.sent += int64(units * m.unit)
				}
			}
			for _, v := range variants {
				b.ReportMetric(v.cpu.Seconds()/float64(v.sent)*1e9, "s/GB-"+v.name)
			}
			off, on := variants[0], variants[1]
			b.ReportMetric(on.cpu.Seconds()/float64(on.sent)/(off.cpu.Seconds()/float64(off.sent)), "ratio")
		})
	}
}

func cpuTime(t testing.TB) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(unix.TimevalToNsec(u.Utime) + unix.TimevalToNsec(u.Stime))
}
