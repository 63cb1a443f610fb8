package tcp

import (
	"testing"

	"golang.org/x/sys/unix"

	"sallyport/routing"
)

// BenchmarkLayers sends messages of the size that portals send to a node that only counts them, over each layer: the figures of one run
// compare. cpu-ns/op is what both ends and the kernel took.
func BenchmarkLayers(b *testing.B) {
	for _, layer := range []Layer{Plain, WebSocket, TLS, SecureWS} {
		b.Run(string(layer), func(b *testing.B) {
			l := newLayered(b, layer, 1, loopback)
			arrived := make(chan struct{}, 1)
			n, total := 0, 0
			if err := l.b.router.StartNamed(limited(b), "sink", func(*routing.Shard) routing.Worker {
				return routing.WorkerFunc(func(*routing.Shard, *routing.Message) {
					if n++; n == total {
						arrived <- struct{}{}
					}
				})
			}, l.ln.Flow); err != nil {
				b.Fatal(err)
			}
			c, err := l.a.tcp.Dial(limited(b), l.to)
			if err != nil {
				b.Fatal(err)
			}
			const size = 64 << 10
			payload := make([]byte, size)
			total = b.N
			b.SetBytes(size)
			b.ReportAllocs()
			cpu := func() int64 {
				var u unix.Rusage
				_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
				return u.Utime.Nano() + u.Stime.Nano()
			}
			began := cpu()
			b.ResetTimer()
			s := c.Shard()
			sent := 0
			var more func()
			more = func() {
				for range 16 {
					if sent == b.N {
						return
					}
					if c.framed.Pending() > 1<<20 {
						break
					}
					if dst := c.ReserveFrame(routing.LocalRoute("sink"), routing.Route{}, size, nil); dst != nil {
						copy(dst, payload)
						c.CommitFrame(nil)
						sent++
					}
				}
				s.Loop().After(0, more)
			}
			if err := s.Do(limited(b), more); err != nil {
				b.Fatal(err)
			}
			<-arrived
			b.ReportMetric(float64(cpu()-began)/float64(b.N), "cpu-ns/op")
		})
	}
}
