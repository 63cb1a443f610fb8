package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// pathRows are about what nodes believe of a path that is slow, dead, or coming back.
var pathRows = []row{
	{
		name: "dead-path", number: 22, alone: true, pause: -1,
		attack:   "the outlet's node stops (SIGSTOP) 0 to 300 ms after an inlet was created to it, 4 rounds (short: 2), then goes on",
		promised: "the inlet does not say that it is up 20 s later, and carries data within 20 s of the return",
		run:      deadPath,
	},
	{
		name: "slow-line", number: 23, attack: "4 streams over a line of 1 Mbit/s, 30 s (short: 14 s)",
		promised: "none is reset, the line stays full, and a request beside them is answered in its time",
		run:      func(ctx context.Context, s *stage) (string, error) { return slowLine(ctx, s, 4, 1_000_000) },
	},
	{
		name: "slow-line-16", number: 23, long: true, attack: "16 streams over a line of 4 Mbit/s, 30 s",
		promised: "none is reset, the line stays full, and a request beside them is answered",
		run:      func(ctx context.Context, s *stage) (string, error) { return slowLine(ctx, s, 16, 4_000_000) },
	},
	{
		name: "come-back", number: 24, alone: true, pause: -1, attack: "kill -9 of the relay, then of the bank's node, each away for 3 s",
		promised: "a new client is served within 5 s of the return",
		run:      comeBack,
	},
	{
		name: "dead-clients", number: 28, alone: true, pause: -1, attack: "1,500 clients come while the bank is away and leave again, 1,200 with a reset, then 50 that stay",
		promised: "the 50 are served when it is back, and no connection to the server is made for who was reset",
		run:      deadClients,
	},
}

// inletState returns what a node says of its inlet at an address.
func (s *stage) inletState(ctx context.Context, node, at string) (string, error) {
	text, err := s.cli(ctx, node, "tcp-inlet", "list", "--at", node, "--output", "json")
	if err != nil {
		return "", err
	}
	var list []map[string]any
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return "", err
	}
	for _, in := range list {
		if fmt.Sprint(in["bind_addr"]) == at {
			return strings.ToLower(fmt.Sprint(in["status"])), nil
		}
	}
	return "", fmt.Errorf("no inlet at %s: %s", at, text)
}

func deadPath(ctx context.Context, s *stage) (string, error) {
	rounds := 4
	if s.suite.short {
		rounds = 2
	}
	var longest, back time.Duration
	for round := range rounds {
		at, err := s.newInlet(ctx, "shop", "db", "--no-connection-wait")
		if err != nil {
			return "", err
		}
		time.Sleep(time.Duration(rand.IntN(300)) * time.Millisecond)
		pid := s.pid("bank")
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			return "", err
		}
		began := time.Now()
		err = s.await(ctx, "the inlet says that it is not up", func() error {
			state, err := s.inletState(ctx, "shop", at)
			if err == nil && state == "up" {
				err = fmt.Errorf("round %d: %s", round, state)
			}
			return err
		})
		longest = max(longest, time.Since(began))
		_ = syscall.Kill(pid, syscall.SIGCONT)
		if err != nil {
			return "", err
		}
		began = time.Now()
		if err := s.await(ctx, "the inlet carries data again", func() error { return once(at) }); err != nil {
			return "", err
		}
		back = max(back, time.Since(began))
	}
	return fmt.Sprintf("not up after %v at most, again after %v", longest.Round(time.Millisecond), back.Round(time.Millisecond)), nil
}

func slowLine(ctx context.Context, s *stage, streams int, bits int64) (string, error) {
	l, err := newLine(s.relay)
	if err != nil {
		return "", err
	}
	defer l.close()
	l.rate.Store(bits / 8)
	l.start()
	at, remove, err := s.beyond(ctx, l)
	if err != nil {
		return "", err
	}
	defer remove()
	during := 30 * time.Second
	if s.suite.short {
		during = 14 * time.Second
	}
	var got atomic.Int64
	var mu sync.Mutex
	var failed error
	fail := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if failed == nil {
			failed = err
		}
	}
	var wg sync.WaitGroup
	began := time.Now()
	for range streams {
		c, err := dial(at)
		if err != nil {
			return "", err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(during))
		go func() {
			block := make([]byte, 16<<10)
			for time.Since(began) < during {
				if _, err := c.Write(block); err != nil {
					return
				}
			}
		}()
		wg.Go(func() {
			buf := make([]byte, 64<<10)
			for {
				n, err := c.Read(buf)
				got.Add(int64(n))
				if err != nil {
					if time.Since(began) < during-time.Second {
						fail(fmt.Errorf("a stream ended after %v: %w", time.Since(began).Round(time.Millisecond), err))
					}
					return
				}
			}
		})
	}
	var longest time.Duration
	requests := 0
	for time.Since(began) < during-2*time.Second && ctx.Err() == nil {
		asked := time.Now()
		c, err := dial(at)
		if err != nil {
			return "", err
		}
		_ = c.SetDeadline(time.Now().Add(during))
		_, err = c.Write([]byte("request"))
		if err == nil {
			_, err = io.ReadFull(c, make([]byte, 7))
		}
		c.Close()
		if errors.Is(err, os.ErrDeadlineExceeded) { // 4 first windows are 16 s of this line
			break
		}
		if err != nil {
			fail(fmt.Errorf("a request beside them: %w", err))
			break
		}
		longest = max(longest, time.Since(asked))
		requests++
		time.Sleep(200 * time.Millisecond)
	}
	wg.Wait()
	full := float64(got.Load()) / (float64(bits) / 8 * during.Seconds())
	seen := fmt.Sprintf("%.0f %% of the line came back, %d requests, the longest took %d ms", 100*full, requests, longest.Milliseconds())
	switch {
	case failed != nil:
	case full < 0.25:
		failed = fmt.Errorf("the line is not full")
	case requests == 0 && !s.suite.short:
		failed = fmt.Errorf("no request was answered")
	}
	return seen, failed
}

func comeBack(ctx context.Context, s *stage) (string, error) {
	var seen []string
	for _, node := range []string{"relay", "bank"} {
		if err := syscall.Kill(s.pid(node), syscall.SIGKILL); err != nil {
			return "", err
		}
		time.Sleep(3 * time.Second)
		if _, err := s.cli(ctx, node, "node", "start", node); err != nil {
			return "", err
		}
		began := time.Now()
		if err := s.await(ctx, "a new client is served", func() error { return once(s.inlet) }); err != nil {
			return "", err
		}
		took := time.Since(began)
		seen = append(seen, fmt.Sprintf("%s: %v", node, took.Round(time.Millisecond)))
		if took > 5*time.Second {
			return strings.Join(seen, ", "), errSlow
		}
	}
	return "served after the return of the " + strings.Join(seen, ", of the "), nil
}

func deadClients(ctx context.Context, s *stage) (string, error) {
	if err := syscall.Kill(s.pid("bank"), syscall.SIGKILL); err != nil {
		return "", err
	}
	if err := s.await(ctx, "the inlet knows", func() error {
		state, err := s.inletState(ctx, "shop", s.inlet)
		if err == nil && state == "up" {
			err = fmt.Errorf("it is up")
		}
		return err
	}); err != nil {
		return "", err
	}
	accepted := s.target.accepted.Load()
	for i := range 1500 {
		c, err := dial(s.inlet)
		if err != nil {
			return "", err
		}
		if i%2 == 0 {
			_, _ = c.Write([]byte("GET / HTTP/1.0\r\n\r\n"))
		}
		if i%5 != 0 { // the others might be half-closed, and wait for an answer
			_ = c.(*net.TCPConn).SetLinger(0)
		}
		c.Close()
	}
	type answer struct {
		n   int
		err error
	}
	answers := make(chan answer, 50)
	for i := range 50 {
		c, err := dial(s.inlet)
		if err != nil {
			return "", err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(28 * time.Second)) // an inlet lets clients wait for 30 s
		go func() {
			text := fmt.Sprintf("client %02d", i)
			_, err := io.WriteString(c, text)
			b := make([]byte, len(text))
			if err == nil {
				_, err = io.ReadFull(c, b)
			}
			if err == nil && string(b) != text {
				err = fmt.Errorf("read %q for %q", b, text)
			}
			answers <- answer{i, err}
		}()
	}
	if _, err := s.cli(ctx, "bank", "node", "start", "bank"); err != nil {
		return "", err
	}
	for range 50 {
		if a := <-answers; a.err != nil {
			return "", fmt.Errorf("client %d: %w", a.n, a.err)
		}
	}
	opened := s.target.accepted.Load() - accepted
	seen := fmt.Sprintf("50 served, the server saw %d connections", opened)
	if opened > 300+50+20 { // the neighbours' paths look, too
		return seen, fmt.Errorf("it was to see at most 370")
	}
	return seen, nil
}
