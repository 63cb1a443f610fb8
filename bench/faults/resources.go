package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/bench/wire"
)

// use is what a node takes of its machine.
type use struct{ files, goroutines, resident int } // resident in KiB

// what may be left: connections between nodes that are made anew, and what the collector has not given back.
const (
	moreFiles      = 24
	moreGoroutines = 24
	moreResident   = 64 << 10
)

func (u use) back(before use) bool {
	return u.files <= before.files+moreFiles && u.goroutines <= before.goroutines+moreGoroutines && u.resident <= before.resident+moreResident
}

func (u use) String() string {
	return fmt.Sprintf("%d files, %d goroutines, %d MiB", u.files, u.goroutines, u.resident>>10)
}

// metric returns a value of a node's metrics.
func (w *world) metric(ctx context.Context, m *machine, name string) (float64, error) {
	at, err := w.command(ctx, m, "node", "show", m.role, "--jq", ".status_endpoint_address")
	if err != nil {
		return 0, err
	}
	return w.metricAt(m, strings.Trim(strings.TrimSpace(at), `"`), name)
}

func (w *world) metricAt(m *machine, at, name string) (v float64, err error) {
	var text []byte
	if err = m.Do(func() error {
		c, err := net.DialTimeout("tcp4", strings.TrimPrefix(at, "http://"), 5*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := fmt.Fprintf(c, "GET /metrics HTTP/1.0\r\nHost: %s\r\n\r\n", at); err != nil {
			return err
		}
		text, err = io.ReadAll(c)
		return err
	}); err != nil {
		return 0, err
	}
	found := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindSubmatch(text)
	if found == nil {
		return 0, fmt.Errorf("no metric %s at %s", name, at)
	}
	return strconv.ParseFloat(string(found[1]), 64)
}

// uses returns what the three nodes take.
func (w *world) uses(ctx context.Context) (list [3]use, err error) {
	for i, m := range []*machine{w.inlet, w.relay, w.outlet} {
		pid, err := w.pid(ctx, m)
		if err != nil {
			return list, err
		}
		files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			return list, err
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return list, err
		}
		number, err := w.metric(ctx, m, "go_goroutines")
		if err != nil {
			return list, err
		}
		list[i] = use{files: len(files), goroutines: int(number)}
		if found := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(status); found != nil {
			list[i].resident, _ = strconv.Atoi(string(found[1]))
		}
	}
	return list, nil
}

var errNotBack = errors.New("more is taken than before")

// usesBack waits until the nodes take what they took before.
func (w *world) usesBack(ctx context.Context, before [3]use) (string, error) {
	for until := time.Now().Add(2 * time.Minute); ; time.Sleep(2 * time.Second) {
		now, err := w.uses(ctx)
		if err != nil {
			return "", err
		}
		back := true
		for i := range now {
			back = back && now[i].back(before[i])
		}
		seen := fmt.Sprintf("inlet's node %v, relay %v, outlet's node %v; before %v, %v, %v", now[0], now[1], now[2], before[0], before[1], before[2])
		if back {
			return seen, nil
		}
		if time.Now().After(until) {
			return seen, errNotBack
		}
	}
}

// churn opens and drops connections in every way, a few at a time.
func (w *world) churn(n int) error {
	var wg sync.WaitGroup
	var next atomic.Int64
	errs := make(chan error, 32)
	for range cap(errs) {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				if err := w.openAndDrop(int(i)); err != nil {
					errs <- fmt.Errorf("connection %d: %w", i, err)
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	return <-errs
}

func (w *world) openAndDrop(i int) error {
	c, err := w.dial("data")
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	switch i % 5 {
	case 0: // before anything was said
		return nil
	case 1:
		_ = c.SetLinger(0)
		_, err = c.Write([]byte{askEcho})
		return err
	}
	if err := w.answered(c); err != nil {
		return err
	}
	switch i % 5 {
	case 2:
		_ = c.SetLinger(0)
	case 3:
		_ = c.CloseWrite()
		if _, err = c.Read(make([]byte, 1)); err != io.EOF {
			return fmt.Errorf("ended with %w", err)
		}
	}
	return nil
}

// dropped opens and drops many connections.
func dropped(n int) func(context.Context, *world) (string, error) {
	return func(ctx context.Context, w *world) (string, error) {
		if err := w.churn(200); err != nil { // what is made once
			return "", err
		}
		before, err := w.uses(ctx)
		if err != nil {
			return "", err
		}
		if err := w.churn(n); err != nil {
			return "", err
		}
		return w.usesBack(ctx, before)
	}
}

// soak is load with something broken now and then, and connections that come and go, for a long time.
func soak(s scale, during time.Duration) func(context.Context, *world) (string, error) {
	return func(ctx context.Context, w *world) (string, error) {
		if _, err := w.under(ctx, s, s.bench, func(l *load) (time.Duration, error) { return 0, l.moving(time.Minute) }); err != nil {
			return "", err
		}
		before, err := w.uses(ctx)
		if err != nil {
			return "", err
		}
		rounds := 0
		seen, err := w.under(ctx, s, during, func(l *load) (slowest time.Duration, err error) {
			for until := time.Now().Add(during); time.Now().Before(until); rounds++ {
				if err := w.churn(500); err != nil {
					return slowest, err
				}
				switch rounds % 4 {
				case 0:
					err = w.restart(ctx, w.relay, 200*time.Millisecond)
				case 1:
					err = drop(w.near, 4*time.Second)
				case 2:
					_, err = w.upgrade(ctx, w.outlet, w.outlet.role)
				case 3:
					o := wire.Options{Delay: 20 * time.Millisecond, Loss: 0.02, Reorder: 0.02}
					if err = w.far.Set(o, o); err == nil {
						time.Sleep(4 * time.Second)
						err = w.far.Set(usual, usual)
					}
				}
				if err != nil {
					return slowest, err
				}
				begun := time.Now()
				if err := l.moving(time.Minute); err != nil {
					return slowest, err
				}
				slowest = max(slowest, time.Since(begun))
			}
			return slowest, nil
		})
		after, left := w.usesBack(ctx, before) // also where one round was slow
		return fmt.Sprintf("%d rounds, %s; %s", rounds, seen, after), errors.Join(err, left)
	}
}
