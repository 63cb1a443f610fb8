package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"sallyport/routing"
)

var smallMemory = []string{"--memory-limit", "64MiB"}

// readerRows are those who ask for much and take nothing of it.
var readerRows = []row{
	{
		name: "uppercase", number: 1, attack: "three readers that stop reading ask the bank's uppercase through the relay, 3 MB/s, 12 s (short: 7 s)", loss: 40,
		promised: "the neighbour waits for less than 2 s, and loses less than 5 % on a quiet machine (40 % here)",
		run:      stoppedReaders,
	},
	{
		name: "small-memory", number: 29, attack: "400 clients that ask for much and read nothing, nodes with 64 MiB",
		stage: stageOptions{relay: smallMemory, bank: smallMemory}, pause: 10 * time.Second,
		promised: "relay and bank stay under 96 MiB, slow but alive",
		run:      stalledReaders,
	},
}

// stoppedReaders asks for answers over bare TCP and never reads one.
func stoppedReaders(ctx context.Context, s *stage) (string, error) {
	frame := message(routing.LocalRoute("forward_to_db", "uppercase"), routing.LocalRoute("x"), append([]byte{0x80, 0x80, 4}, bytes.Repeat([]byte{'a'}, 64<<10)...))
	var conns []net.Conn
	for range 3 {
		c, err := net.DialTimeout("tcp", s.relay, 5*time.Second)
		if err != nil {
			return "", err
		}
		defer c.Close()
		_ = c.(*net.TCPConn).SetReadBuffer(4096)
		if _, err := c.Write([]byte{version}); err != nil {
			return "", err
		}
		conns = append(conns, c)
	}
	sent, cut := 0, 0
	began := time.Now()
	during := 12 * time.Second
	if s.suite.short {
		during = 7 * time.Second
	}
	for i := 0; time.Since(began) < during && ctx.Err() == nil; i++ {
		c := conns[i%len(conns)]
		_ = c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		n, err := c.Write(frame)
		sent += n
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) || n != len(frame) { // it was cut off: another one comes
			cut++
			c.Close()
			if c, err = hello(s.relay); err != nil {
				return "", err
			}
			defer c.Close()
			conns[i%len(conns)] = c
		}
		time.Sleep(time.Until(began.Add(time.Duration(sent) * time.Second / 3_000_000)))
	}
	if sent < 10<<20 {
		return "", fmt.Errorf("only %d MB were asked: the attack did not work", sent>>20)
	}
	return fmt.Sprintf("%d MB asked for, %d readers cut off", sent>>20, cut), nil
}

func stalledReaders(ctx context.Context, s *stage) (string, error) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	defer s.target.small()()
	for range 400 {
		c, err := dial(s.inlet)
		if err != nil {
			return "", err
		}
		defer c.Close()
		smallBuffers(c)
		conns = append(conns, c)
	}
	var sent int64
	cpu := s.cpu()
	held := time.Now().Add(8 * time.Second)
	for _, c := range conns {
		wg.Go(func() { // the server answers with the same, and nobody reads it
			_ = c.SetWriteDeadline(held)
			block := make([]byte, 64<<10)
			// The kernel holds all that the nodes do not, and has to have room for it: the nodes are attacked, not the machine.
			for range 24 {
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
	select {
	case <-time.After(time.Until(held)):
	case <-ctx.Done():
	}
	var seen string
	for _, node := range []string{"relay", "bank"} {
		most := s.rss(node, "VmHWM")
		seen += fmt.Sprintf("%s %d MB, ", node, most>>20)
		if most == 0 || most > 96<<20 && !s.suite.race {
			return seen, fmt.Errorf("%s took %d MB, or is gone", node, most>>20)
		}
		if _, err := s.answers(ctx, node); err != nil {
			return seen, err
		}
	}
	return seen + fmt.Sprintf("%d MB were taken%s", sent>>20, s.cost(cpu, int(sent>>20), "shop", "relay", "bank")), nil
}
