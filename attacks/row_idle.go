package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"
)

func init() {
	rows = append(rows, row{
		name: "idle", attack: "300 connections that say nothing, at 200 descriptors", stage: stageOptions{descriptors: 200, relay: []string{"--status-endpoint", "127.0.0.1:0"}},
		promised: "status and commands answer, each connection ends in 10 s, at most 100 kB of log",
		run:      idle,
	})
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
	r, err := s.record("relay")
	if err != nil {
		return "", err
	}
	client := http.Client{Timeout: 3 * time.Second}
	resp, err := client.Get("http://" + r.Status + "/metrics")
	if err != nil {
		return "", fmt.Errorf("no metrics: %w", err)
	}
	resp.Body.Close()
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
