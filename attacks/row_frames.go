package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	mathrand "math/rand/v2"
	"time"

	"sallyport/routing"
)

func init() {
	rows = append(rows,
		row{
			name: "frame-lengths", attack: "frames that announce every power of two up to 2^32, one more and one less, and CBOR lengths up to 2^64 within",
			promised: "connections that announce too much end; memory stays",
			run:      frameLengths,
		},
		row{
			name: "garbage", attack: "10,000 connections with random bytes behind the version",
			promised: "every one ends or waits; no fault, no memory",
			run:      garbage,
		},
		row{
			name: "long-routes", attack: "messages with routes of 1 to 10,000 hops, one after the other",
			promised: "too long a route ends its connection; nobody waits",
			run:      longRoutes,
		})
}

func frameLengths(ctx context.Context, s *stage) (string, error) {
	before := s.rss("relay", "VmRSS")
	sent, cut := 0, 0
	send := func(b []byte, mustEnd bool) error {
		c, err := hello(s.relay)
		if err != nil {
			return err
		}
		defer c.Close()
		_, _ = c.Write(b)
		sent++
		if mustEnd {
			cut++
			return ended(c, 5*time.Second)
		}
		return nil
	}
	for bits := range 33 {
		for _, d := range []int64{-1, 0, 1} {
			n := int64(1)<<bits + d
			if n < 0 || n > 1<<32-1 {
				continue
			}
			if err := send(append(binary.BigEndian.AppendUint32(nil, uint32(n)), 0x82), n == 0 || n > 16<<20); err != nil {
				return "", fmt.Errorf("length %d: %w", n, err)
			}
		}
	}
	for bits := range 64 { // byte strings and arrays that say they are so long, within a small frame
		for _, major := range []byte{0x5b, 0x7b, 0x9b} {
			body := append([]byte{0x83, 0x01, major}, binary.BigEndian.AppendUint64(nil, 1<<bits)...)
			body = append(body, make([]byte, 20)...)
			if err := send(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...), false); err != nil {
				return "", err
			}
		}
	}
	grown := s.rss("relay", "VmRSS") - before
	if grown > 64<<20 {
		return "", fmt.Errorf("the relay grew by %d MB", grown>>20)
	}
	return fmt.Sprintf("%d frames sent, %d of %d connections that had to end did, relay grew by %d MB", sent, cut, cut, max(grown, 0)>>20), nil
}

func garbage(ctx context.Context, s *stage) (string, error) {
	for i := range 10_000 {
		c, err := dial(s.relay)
		if err != nil {
			return "", fmt.Errorf("connection %d: %w", i, err)
		}
		b := make([]byte, 1+mathrand.IntN(400))
		_, _ = rand.Read(b)
		b[0] = version
		if i%2 == 0 && len(b) > 8 { // a frame of the right length
			binary.BigEndian.PutUint32(b[1:], uint32(len(b)-5))
		}
		_, _ = c.Write(b)
		c.Close()
	}
	took, err := s.answers(ctx, "relay")
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("the relay answers in %d ms", took.Milliseconds()), nil
}

func longRoutes(ctx context.Context, s *stage) (string, error) {
	accepted := 0
	for _, hops := range []int{1, 10, 100, 1000, 5000, 10_000} {
		list := make([]string, hops)
		for i := range list {
			list[i] = "uppercase"
		}
		c, err := hello(s.relay)
		if err != nil {
			return "", err
		}
		defer c.Close()
		frame := message(routing.LocalRoute(list...), routing.LocalRoute(list...), []byte("\x03abc"))
		for range 100 {
			_ = c.SetWriteDeadline(time.Now().Add(5 * time.Second))
			if _, err := c.Write(frame); err != nil {
				break
			}
			accepted++
		}
	}
	took, err := s.answers(ctx, "relay")
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d messages taken, the relay answers in %d ms", accepted, took.Milliseconds()), nil
}
