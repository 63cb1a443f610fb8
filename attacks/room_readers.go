package main

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

var smallMemory = []string{"--memory-limit", "64MiB"}

// readerRows are those who ask for much and take nothing of it.
var readerRows = []row{
	{
		name: "small-memory", number: 29, attack: "400 clients that ask for much and read nothing, nodes with 64 MiB",
		stage: stageOptions{relay: smallMemory, bank: smallMemory}, pause: 10 * time.Second,
		promised: "relay and bank stay under 96 MiB, slow but alive",
		run:      stalledReaders,
	},
}

func stalledReaders(ctx context.Context, s *stage) (string, error) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	for range 400 {
		c, err := dial(s.inlet)
		if err != nil {
			return "", err
		}
		defer c.Close()
		conns = append(conns, c)
	}
	var sent int64
	for _, c := range conns {
		wg.Go(func() { // the server answers with the same, and nobody reads it
			_ = c.SetWriteDeadline(time.Now().Add(8 * time.Second))
			block := make([]byte, 64<<10)
			for range 256 {
				n, err := c.Write(block)
				mu.Lock()
				sent += int64(n)
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	var seen string
	for _, node := range []string{"relay", "bank"} {
		most := s.rss(node, "VmHWM")
		seen += fmt.Sprintf("%s %d MB, ", node, most>>20)
		if most == 0 || most > 96<<20 {
			return seen, fmt.Errorf("%s took %d MB, or is gone", node, most>>20)
		}
		if _, err := s.answers(ctx, node); err != nil {
			return seen, err
		}
	}
	return seen + fmt.Sprintf("%d MB were taken", sent>>20), nil
}
