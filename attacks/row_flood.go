package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"sallyport/routing"
)

func init() {
	rows = append(rows,
		row{
			name: "handshakes", attack: "first messages of handshakes as fast as they go, for 5 s, from one address that reads nothing", pause: 5 * time.Second,
			promised: "a new client of the neighbour's inlet and a new channel of the bank succeed within 5 s on this machine",
			run:      handshakeFlood,
		},
		row{
			name: "loop", attack: "messages whose route goes round between the relay and the bank until it is used up, 5 s", pause: 5 * time.Second,
			promised: "each ends; the neighbour goes on",
			run:      loopFlood,
		})
}

func handshakeFlood(ctx context.Context, s *stage) (string, error) {
	c, err := hello(s.relay)
	if err != nil {
		return "", err
	}
	defer c.Close()
	sent := make(chan int, 1)
	stop, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	go func() {
		n := 0
		defer func() { sent <- n }()
		for stop.Err() == nil {
			var batch []byte
			for i := range 50 {
				key := make([]byte, 32)
				_, _ = rand.Read(key)
				batch = append(batch, message(routing.LocalRoute("api"), routing.LocalRoute(fmt.Sprint("gone", n+i)), key)...)
			}
			_ = c.SetWriteDeadline(time.Now().Add(time.Second))
			if _, err := c.Write(batch); err != nil {
				return
			}
			n += 50
		}
	}()
	time.Sleep(time.Second)
	began := time.Now()
	if _, err := s.cli(ctx, "node", "create", "extra", "--no-status-endpoint"); err != nil {
		return "", err
	}
	s.nodes = append(s.nodes, "extra")
	created := time.Since(began)
	began = time.Now()
	if _, err := s.newInlet(ctx, "extra", "second"); err != nil {
		return "", err
	}
	took := time.Since(began)
	seen := fmt.Sprintf("a new node after %v, its path carried data after %v", created.Round(time.Millisecond), took.Round(time.Millisecond))
	cancel()
	seen += fmt.Sprintf("; %d first messages sent", <-sent)
	if took > 5*time.Second {
		return seen, fmt.Errorf("too long")
	}
	return seen, nil
}

func loopFlood(ctx context.Context, s *stage) (string, error) {
	c, err := hello(s.relay)
	if err != nil {
		return "", err
	}
	defer c.Close()
	var hops []string
	for range 200 {
		hops = append(hops, "forward_to_db", "uppercase", "echo")
	}
	frame := message(routing.LocalRoute(hops...), routing.LocalRoute(hops...), make([]byte, 1000))
	sent := 0
	for began := time.Now(); time.Since(began) < 5*time.Second && ctx.Err() == nil; {
		_ = c.SetWriteDeadline(time.Now().Add(2 * time.Second))
		if _, err := c.Write(frame); err != nil {
			if c, err = hello(s.relay); err != nil {
				return "", err
			}
			defer c.Close()
		}
		sent++
	}
	for _, node := range []string{"relay", "bank"} {
		if _, err := s.answers(ctx, node); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%d messages sent, both nodes answer", sent), nil
}
