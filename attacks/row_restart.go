package main

import (
	"context"
	"fmt"
	"net"
	"time"
)

func init() {
	rows = append(rows, row{
		name: "restart", attack: "node stop --force, then node start, with 2,000 connections, twice", pause: -1,
		promised: "starts at once on the same port",
		run:      restart,
	})
}

func restart(ctx context.Context, s *stage) (string, error) {
	var longest time.Duration
	for range 2 {
		var conns []net.Conn
		for range 2000 {
			c, err := net.DialTimeout("tcp", s.inlet, 5*time.Second)
			if err != nil {
				return "", err
			}
			defer c.Close()
			conns = append(conns, c)
		}
		began := time.Now()
		if _, err := s.cli(ctx, "node", "stop", "shop", "--force"); err != nil {
			return "", err
		}
		if _, err := s.cli(ctx, "node", "start", "shop"); err != nil {
			return "", err
		}
		longest = max(longest, time.Since(began))
		for _, c := range conns {
			c.Close()
		}
		if err := s.await(ctx, "the inlet carries data again", func() error { return once(s.inlet) }); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("stopped and started in %v at most", longest.Round(time.Millisecond)), nil
}
