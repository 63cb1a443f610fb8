package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"strings"
	"time"

	"sallyport/routing"
)

// floodRows are things that are allowed once, done as often as it goes.
var floodRows = []row{
	{
		name: "handshakes", number: 3, attack: "first messages of handshakes as fast as they go, for 5 s, from one address that reads nothing", pause: 5 * time.Second,
		promised: "a new client of the neighbour's inlet and a new channel of the bank succeed within 5 s on this machine",
		run:      handshakeFlood,
	},
	{
		name: "log", number: 7, attack: "refused registrations and failing handshakes with names and routes of up to 60 kB, bare TCP, as fast as they go",
		promised: "the log grows by at most 100 kB a second, no record has more than 20 kB",
		run:      logFlood,
	},
	{
		name: "loop", attack: "messages whose route goes round between the relay and the bank until it is used up, 5 s", pause: 5 * time.Second,
		promised: "each ends; the neighbour goes on",
		run:      loopFlood,
	},
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
	before := s.cpu()
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
	if err := s.newNode(ctx, "extra"); err != nil {
		return "", err
	}
	defer s.removeNode(ctx, "extra")
	created := time.Since(began)
	began = time.Now()
	at, err := s.newInlet(ctx, "extra", "db")
	if err != nil {
		return "", err
	}
	if err := s.await(ctx, "the inlet carries data", func() error { return once(at) }); err != nil {
		return "", err
	}
	took := time.Since(began)
	seen := fmt.Sprintf("a new node after %v, its path carried data after %v", created.Round(time.Millisecond), took.Round(time.Millisecond))
	cancel()
	n := <-sent
	seen += fmt.Sprintf("; %d first messages sent%s", n, s.cost(before, n, "relay"))
	if took > 5*time.Second {
		return seen, errSlow
	}
	return seen, nil
}

func loopFlood(ctx context.Context, s *stage) (string, error) {
	c, err := hello(s.relay)
	if err != nil {
		return "", err
	}
	defer func() { c.Close() }()
	var hops []string
	for range 200 {
		hops = append(hops, "forward_to_db", "uppercase", "echo")
	}
	frame := message(routing.LocalRoute(hops...), routing.LocalRoute(hops...), make([]byte, 1000))
	sent, before := 0, s.cpu()
	for began := time.Now(); time.Since(began) < 5*time.Second && ctx.Err() == nil; {
		_ = c.SetWriteDeadline(time.Now().Add(2 * time.Second))
		if _, err := c.Write(frame); err != nil {
			next, err := again(c, s.relay)
			if err != nil {
				return "", err
			}
			c = next
		}
		sent++
	}
	for _, node := range []string{"relay", "bank"} {
		if _, err := s.answers(ctx, node); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%d messages sent%s; both nodes answer", sent, s.cost(before, sent, "relay", "bank")), nil
}

func logFlood(ctx context.Context, s *stage) (string, error) {
	c, err := hello(s.relay)
	if err != nil {
		return "", err
	}
	defer func() { c.Close() }()
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
			next, err := again(c, s.relay)
			if err != nil {
				return "", err
			}
			c = next
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

// again connects anew in place of c, which the node has ended. It is not done faster than this process has descriptors for.
func again(c net.Conn, at string) (net.Conn, error) {
	c.Close()
	time.Sleep(time.Millisecond)
	return hello(at)
}
