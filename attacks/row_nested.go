package main

import (
	"context"
	"fmt"
	"time"

	"sallyport/routing"
)

func init() {
	rows = append(rows, row{
		name: "nested", attack: "messages of 15 MiB through 100 channels, each within the last, to the relay, 15 s", pause: 2 * time.Second,
		promised: "the neighbour waits for less than 2 s, since each message takes many turns",
		run:      nested,
	})
}

func nested(ctx context.Context, s *stage) (string, error) {
	v, err := newVisitor(ctx)
	if err != nil {
		return "", err
	}
	defer v.close()
	const depth = 100
	c, err := v.nest(ctx, s.relay, depth)
	if err != nil {
		return "", fmt.Errorf("nesting: %w", err)
	}
	began, sent := time.Now(), 0
	payload := make([]byte, 15<<20)
	for sent < 20 && time.Since(began) < 15*time.Second {
		one, cancel := context.WithTimeout(ctx, 10*time.Second)
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
