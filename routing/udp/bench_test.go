package udp

import (
	"testing"

	"sallyport/routing"
)

// BenchmarkLink moves messages of a portal's size over a link on the loopback interface, a window of them at a time, and BenchmarkLinkPing one small one
// after the other.
func BenchmarkLink(b *testing.B) { benchmarkLink(b, 64<<10, 48) }

func BenchmarkLinkPing(b *testing.B) { benchmarkLink(b, 64, 1) }

func benchmarkLink(b *testing.B, size, window int) {
	var listener *Listener
	_, far, p, err := meet(b, patient, nil, func(l *Listener, _ *Negotiation) { listener = l })
	if err != nil {
		b.Fatal(err)
	}
	const name = "far sink"
	far.serve(b, name, routing.WorkerFunc(func(s *routing.Shard, m *routing.Message) {
		m.SetPayloadBytes([]byte{1})
		m.Reply(s, routing.LocalAddress(name).Wire())
	}), listener.Flow)
	payload, left, under, done := make([]byte, size), b.N, 0, make(chan struct{})
	var own routing.WireAddress
	route := routing.RouteOf(p.Sender).Concat(routing.LocalRoute(name))
	send := func(s *routing.Shard) {
		for ; left > 0 && under < window; left, under = left-1, under+1 {
			m := s.NewMessage()
			m.Onward, m.Return = route, routing.RouteOf(own)
			m.SetPayloadBytes(payload)
			s.Deliver(m)
			s.Free(m)
		}
	}
	b.SetBytes(int64(size))
	b.ResetTimer()
	if err := p.shard.Do(limited(b), func() {
		own = p.shard.Start(routing.WorkerFunc(func(s *routing.Shard, _ *routing.Message) {
			if under--; left == 0 && under == 0 {
				close(done)
			}
			send(s)
		}), p.Flow)
		send(p.shard)
	}); err != nil {
		b.Fatal(err)
	}
	<-done
	b.StopTimer()
	// What the far side sends is acknowledgements, and a small answer to each message.
	b.ReportMetric(float64(far.udp.Stats.Out.Load())/float64(far.udp.Stats.In.Load()), "sent/received")
	p.Close()
	<-p.Done()
}
