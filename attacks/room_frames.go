package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"sallyport/routing"
)

// frameRows are connections and messages that are too long, too many, too deep, or nothing at all.
var frameRows = []row{
	{
		name: "idle", number: 5, attack: "300 connections that say nothing, at 200 descriptors", stage: stageOptions{descriptors: 200},
		promised: "status and commands answer, each connection ends in 10 s, at most 100 kB of log",
		run:      idle,
	},
	{
		name: "unfinished", number: 6, attack: "40 unfinished frames of 16 MiB", stage: stageOptions{relay: []string{"--memory-limit", "256MiB"}}, pause: 5 * time.Second,
		promised: "the relay stays under its memory limit, and gives the memory back within a minute",
		long:     true, run: func(ctx context.Context, s *stage) (string, error) { return unfinished(ctx, s, 75*time.Second) },
	},
	{
		name: "unfinished-short", number: 6, attack: "40 unfinished frames of 16 MiB", stage: stageOptions{relay: []string{"--memory-limit", "256MiB"}}, pause: 5 * time.Second,
		promised: "the relay stays under its memory limit",
		run:      func(ctx context.Context, s *stage) (string, error) { return unfinished(ctx, s, 0) },
	},
	{
		name: "nested", number: 14, attack: "messages of 15 MiB through 100 channels (short: 30), each within the last, to the relay, 15 s (short: 6 s)",
		promised: "the neighbour waits for less than 2 s, since each message takes many turns",
		run:      nested,
	},
	{
		name:     "frame-lengths",
		attack:   "frames that announce every power of two up to 2^32, one more and one less; CBOR and BARE lengths up to 2^64 in every place within",
		promised: "connections that announce too much end; memory stays",
		run:      frameLengths,
	},
	{
		name: "garbage", attack: "10,000 connections with random bytes behind the version",
		promised: "every one ends or waits; no fault, no memory",
		run:      garbage,
	},
	{
		name: "long-routes", attack: "messages with routes of 1 to 10,000 hops, one after the other",
		promised: "too long a route ends its connection; nobody waits",
		run:      longRoutes,
	},
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
	for bits := range 65 { // byte strings, texts, arrays and maps that say they are so long, in every place of a small frame
		n := uint64(1)<<bits - 1 // 2^64-1 at the end
		for _, major := range []byte{0x5b, 0x7b, 0x9b, 0xbb} {
			long := append([]byte{major}, binary.BigEndian.AppendUint64(nil, n)...)
			for _, front := range [][]byte{{}, {0x83}, {0x83, 0x81, 0x82, 0x00}, {0x83, 0x81, 0x82, 0x00, 0x41, 'x'}, {0x83, 0x81, 0x82, 0x00, 0x41, 'x', 0x80}} {
				body := slices.Concat(front, long, make([]byte, 20))
				if err := send(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...), false); err != nil {
					return "", err
				}
			}
		}
		// BARE lengths in payloads of services that strangers reach.
		payload := append(binary.AppendUvarint(nil, n), "abc"...)
		for _, to := range []string{"forwarding_service", "static_forwarding_service", "uppercase"} {
			if err := send(message(routing.LocalRoute(to), routing.LocalRoute("nobody"), payload), false); err != nil {
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

func nested(ctx context.Context, s *stage) (string, error) {
	v, err := newVisitor(ctx)
	if err != nil {
		return "", err
	}
	defer v.close()
	depth, during := 100, 15*time.Second
	if s.suite.short {
		depth, during = 30, 6*time.Second // this side has as much work with it
	}
	c, err := v.nest(ctx, s.relay, depth)
	if err != nil {
		return "", fmt.Errorf("nesting: %w", err)
	}
	began, sent := time.Now(), 0
	payload := make([]byte, 15<<20)
	for sent < 20 && time.Since(began) < during {
		one, cancel := context.WithTimeout(ctx, time.Minute)
		_, err := v.router.Request(one, routing.RouteOf(c.Encryptor).Concat(routing.LocalRoute("echo")), payload)
		cancel()
		if err != nil {
			return fmt.Sprintf("%d messages came back", sent), fmt.Errorf("message %d: %w", sent+1, err)
		}
		sent++
	}
	if _, err := s.answers(ctx, "relay"); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d messages went there and back in %v", sent, time.Since(began).Round(time.Millisecond)), nil
}

func unfinished(ctx context.Context, s *stage, back time.Duration) (string, error) {
	before, cpu := s.rss("relay", "VmRSS"), s.cpu()
	var wg sync.WaitGroup
	for range 40 {
		c, err := hello(s.relay)
		if err != nil {
			return "", err
		}
		defer c.Close()
		wg.Go(func() {
			_ = c.SetWriteDeadline(time.Now().Add(20 * time.Second))
			_, _ = c.Write([]byte{0, 0xff, 0, 0})
			_, _ = c.Write(make([]byte, 0xfe0000))
		})
	}
	wg.Wait()
	most := s.rss("relay", "VmHWM")
	if most > 256<<20 && !s.suite.race {
		return "", fmt.Errorf("the relay took %d MB", most>>20)
	}
	seen := fmt.Sprintf("relay %d MB before, %d MB at most; 640 MB sent%s", before>>20, most>>20, s.cost(cpu, 640, "relay"))
	if back == 0 {
		return seen, nil
	}
	select {
	case <-time.After(back):
	case <-ctx.Done():
		return seen, ctx.Err()
	}
	now := s.rss("relay", "VmRSS")
	seen += fmt.Sprintf(", %d MB after %v", now>>20, back)
	if now > before+(48<<20) && !s.suite.race {
		return seen, fmt.Errorf("the memory did not go back")
	}
	return seen, nil
}

func idle(ctx context.Context, s *stage) (string, error) {
	logged := s.logSize("relay")
	var conns []net.Conn
	for range 300 {
		c, err := dial(s.relay)
		if err != nil {
			continue // refused is fine
		}
		defer c.Close()
		conns = append(conns, c)
	}
	took, err := s.answers(ctx, "relay")
	if err != nil {
		return "", fmt.Errorf("no answer to node show: %w", err)
	}
	if _, err := s.metric("relay", "go_goroutines"); err != nil {
		return "", err
	}
	end := time.Now().Add(14 * time.Second)
	for i, c := range conns {
		if err := ended(c, max(time.Until(end), time.Millisecond)); err != nil {
			return "", fmt.Errorf("connection %d: %w", i, err)
		}
	}
	grown := s.logSize("relay") - logged
	if grown > 100_000 {
		return "", fmt.Errorf("%d bytes were logged", grown)
	}
	return fmt.Sprintf("%d connections ended, node show in %d ms, %d bytes logged", len(conns), took.Milliseconds(), grown), nil
}
