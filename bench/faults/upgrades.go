package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// authorityPort is where the authority on the relay's machine listens.
const authorityPort = 9304

// upgrade puts the program in its own place in a machine's node, and returns how long the node stood still.
func (w *world) upgrade(ctx context.Context, m *machine, node string) (pause time.Duration, err error) {
	if _, err := w.command(ctx, m, "node", "upgrade", node); err != nil {
		return 0, err
	}
	text, err := w.command(ctx, m, "node", "upgrade", node, "--last", "--jq", ".pause_ms")
	if err != nil {
		return 0, err
	}
	ms, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	return time.Duration(ms * float64(time.Millisecond)), err
}

// connects connects to ports of the inlet's and the relay's machine all the time, and counts who is refused.
type connects struct {
	tried int
	errs  []error
	stop  chan struct{}
	wg    sync.WaitGroup
}

func (w *world) connects() *connects {
	c := &connects{stop: make(chan struct{})}
	c.wg.Go(func() {
		for {
			for _, at := range []struct {
				m    *machine
				port int
			}{{w.inlet, firstInlet}, {w.relay, relayPort}, {w.relay, authorityPort}} {
				err := at.m.Do(func() error {
					raw, err := net.DialTimeout("tcp4", "127.0.0.1:"+strconv.Itoa(at.port), 10*time.Second)
					if err == nil {
						err = raw.Close()
					}
					return err
				})
				if c.tried++; err != nil {
					c.errs = append(c.errs, err)
				}
			}
			select {
			case <-c.stop:
				return
			case <-time.After(25 * time.Millisecond):
			}
		}
	})
	return c
}

var errRefused = errors.New("connects were refused")

// end returns how many connects there were, and an error if one of them was refused.
func (c *connects) end() (int, error) {
	close(c.stop)
	c.wg.Wait()
	if len(c.errs) > 0 {
		return c.tried, fmt.Errorf("%w: %d of %d: %w", errRefused, len(c.errs), c.tried, c.errs[0])
	}
	return c.tried, nil
}

// upgrades is the cases that upgrade one node after the other under load.
func upgrades(s scale, whole string) (list []fault) {
	for _, which := range []string{"inlet's node", "relay", "outlet's node", "authority"} {
		name := fmt.Sprintf("upgrade of the %s, %d times", which, s.upgrades)
		list = append(list, fault{name, whole + "; no connect refused", func(ctx context.Context, w *world) (string, error) {
			m, node := w.relay, "relay"
			switch which {
			case "inlet's node":
				m, node = w.inlet, w.inlet.role
			case "outlet's node":
				m, node = w.outlet, w.outlet.role
			case "authority":
				node = "authority-faults"
			}
			pid, err := w.pidOf(ctx, m, node)
			if err != nil {
				return "", err
			}
			var longest time.Duration
			clients := w.connects()
			seen, err := w.under(ctx, s, time.Duration(s.upgrades)*s.bench, func(l *load) (slowest time.Duration, err error) {
				for range s.upgrades {
					pause, err := w.upgrade(ctx, m, node)
					if err != nil {
						return slowest, err
					}
					longest = max(longest, pause)
					begun := time.Now()
					if err := l.moving(60 * time.Second); err != nil {
						return slowest, err
					}
					slowest = max(slowest, time.Since(begun))
				}
				return slowest, nil
			})
			tried, refused := clients.end()
			now, pidErr := w.pidOf(ctx, m, node)
			if pidErr == nil && now != pid {
				pidErr = fmt.Errorf("process %d is now %d", pid, now)
			}
			seen += fmt.Sprintf(", stopped for %d ms at most, %d connects", longest.Milliseconds(), tried)
			return seen, errors.Join(err, refused, pidErr)
		}})
	}
	return list
}
