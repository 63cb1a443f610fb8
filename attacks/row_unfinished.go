package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

func init() {
	rows = append(rows,
		row{
			name: "unfinished", attack: "40 unfinished frames of 16 MiB", stage: stageOptions{relay: []string{"--memory-limit", "256MiB"}},
			promised: "the relay stays under its memory limit, and gives the memory back within a minute",
			long:     true, run: func(ctx context.Context, s *stage) (string, error) { return unfinished(ctx, s, 75*time.Second) },
		},
		row{
			name: "unfinished-short", attack: "40 unfinished frames of 16 MiB", stage: stageOptions{relay: []string{"--memory-limit", "256MiB"}},
			promised: "the relay stays under its memory limit",
			run:      func(ctx context.Context, s *stage) (string, error) { return unfinished(ctx, s, 0) },
		})
}

func unfinished(ctx context.Context, s *stage, back time.Duration) (string, error) {
	before := s.rss("relay", "VmRSS")
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
	if most > 256<<20 {
		return "", fmt.Errorf("the relay took %d MB", most>>20)
	}
	seen := fmt.Sprintf("relay %d MB before, %d MB at most", before>>20, most>>20)
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
	if now > before+(48<<20) {
		return seen, fmt.Errorf("the memory did not go back")
	}
	return seen, nil
}
