package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"sallyport/routing"
)

func init() {
	rows = append(rows, row{
		name: "log", attack: "refused registrations and failing handshakes with names and routes of up to 60 kB, bare TCP, as fast as they go",
		promised: "the log grows by at most 100 kB a second, no record has more than 20 kB",
		run:      logFlood,
	})
}

func logFlood(ctx context.Context, s *stage) (string, error) {
	c, err := hello(s.relay)
	if err != nil {
		return "", err
	}
	defer c.Close()
	long := strings.Repeat("\x00\n\xff", 170) // an allowed length, four times as long when it is quoted
	deep := make([]string, 200)
	for i := range deep {
		deep[i] = strings.Repeat("\x01", 250)
	}
	back := routing.LocalRoute("nobody")
	name := append([]byte{0xfd, byte(len(long)), byte(len(long) >> 8)}, long...)
	var flood []byte
	flood = append(flood, message(routing.LocalRoute("forwarding_service"), back, append([]byte{byte(len(long))}, long...))...)
	flood = append(flood, message(routing.LocalRoute("forwarding_service"), back, name)...)
	flood = append(flood, message(routing.LocalRoute("api"), routing.LocalRoute(deep...), make([]byte, 60))...)
	before, began := s.logSize("relay"), time.Now()
	sent := 0
	for time.Since(began) < 5*time.Second && ctx.Err() == nil {
		_ = c.SetWriteDeadline(time.Now().Add(5 * time.Second))
		n, err := c.Write(flood)
		sent += n
		if err != nil {
			if c, err = hello(s.relay); err != nil {
				return "", err
			}
			defer c.Close()
		}
	}
	grown := s.logSize("relay") - before
	rate := float64(grown) / time.Since(began).Seconds()
	seen := fmt.Sprintf("%d MB sent, %.0f kB logged a second", sent>>20, rate/1000)
	if rate > 100_000+200*2000/5 { // the first 200 of a kind are written at once
		return seen, fmt.Errorf("too much")
	}
	return seen, nil
}
