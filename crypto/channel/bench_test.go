package channel

import (
	"crypto/rand"
	"fmt"
	"testing"
)

var sizes = []int{64, 1024, 16384, 65536}

func BenchmarkSeal(b *testing.B) {
	for _, size := range sizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			var s Sealer
			s.Init(&[32]byte{1})
			buf := make([]byte, size+Overhead)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if err := s.Seal(buf, buf[CounterSize:CounterSize+size]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkOpen opens the messages of two keys again and again, from a copy, with a new Opener for each round.
func BenchmarkOpen(b *testing.B) {
	for _, size := range sizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			var s Sealer
			var o Opener
			key := [32]byte{1}
			s.Init(&key)
			msgs := make([][]byte, 2*interval)
			for i := range msgs {
				msgs[i] = make([]byte, size+Overhead)
				if err := s.Seal(msgs[i], make([]byte, size)); err != nil {
					b.Fatal(err)
				}
			}
			dst := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if i%len(msgs) == 0 {
					o.Init(&key)
				}
				if _, err := o.OpenTo(dst, msgs[i%len(msgs)]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkParsePlaintext(b *testing.B) {
	msg := append([]byte(PayloadPrefix), 0x83, 0x80, 0x80, 0x40, EmptyPadding)
	for b.Loop() {
		if _, _, err := ParsePlaintext(msg); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkHandshake runs both sides.
func BenchmarkHandshake(b *testing.B) {
	payload := make([]byte, 300)
	ci, cr := randomSide(b, seeded(1), payload), randomSide(b, seeded(2), payload)
	ci.Rand, cr.Rand = rand.Reader, rand.Reader
	b.ReportAllocs()
	for b.Loop() {
		run(b, NewInitiator(ci), NewResponder(cr))
	}
}
