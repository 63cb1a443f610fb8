package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// fleetInlet is the port of the first of many inlets.
const fleetInlet = 10000

// fleet makes outlets and inlets, several of which lead to each, unless it has.
func (w *world) fleet(ctx context.Context, outlets, inlets int) error {
	if w.hasFleet {
		return nil
	}
	w.hasFleet = true
	route := fmt.Sprintf("/ip4/%s/tcp/%d/secure/api/service/forward_to_blue/secure/api/service/", relayAddr, relayPort)
	for i := range outlets {
		if _, err := w.command(ctx, w.outlet, "tcp-outlet", "create", "fleet"+strconv.Itoa(i), "--at", "blue", "--to", fmt.Sprintf("127.0.0.1:%d", dataPort)); err != nil {
			return err
		}
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make(chan error, 4)
	for range cap(errs) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < inlets; i = int(next.Add(1)) - 1 {
				if _, err := w.command(ctx, w.inlet, "tcp-inlet", "create", "fleet"+strconv.Itoa(i), "--at", "green", "--from", fmt.Sprintf("127.0.0.1:%d", fleetInlet+i),
					"--to", route+"fleet"+strconv.Itoa(i%outlets), "--no-connection-wait"); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	return <-errs
}

// echoes sends something over every connection, and returns when all have answered.
func echoes(list []net.Conn, within time.Duration) error {
	errs := make(chan error, len(list))
	until := time.Now().Add(within)
	for _, c := range list {
		go func() {
			want, got := binary.LittleEndian.AppendUint64(nil, seeds.Add(1)), make([]byte, 8)
			_ = c.SetDeadline(until)
			_, err := c.Write(want)
			if err == nil {
				_, err = io.ReadFull(c, got)
			}
			if err == nil && string(got) != string(want) {
				err = errWrong
			}
			errs <- err
		}()
	}
	var failed error
	number := 0
	for range list {
		if err := <-errs; err != nil {
			failed, number = err, number+1
		}
	}
	if failed != nil {
		return fmt.Errorf("%d of %d: %w", number, len(list), failed)
	}
	return nil
}

// cpu returns the processor time that each node has used since its process was started, by process, as far as can be seen.
func (w *world) cpu(ctx context.Context) map[int]time.Duration {
	used := map[int]time.Duration{}
	for _, m := range []*machine{w.inlet, w.relay, w.outlet} {
		pid, err := w.pid(ctx, m)
		if err != nil {
			continue
		}
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		_, rest, _ := bytes.Cut(text, []byte(") ")) // what comes before is the program's name
		if f := strings.Fields(string(rest)); len(f) > 12 {
			const tick = time.Second / 100 // USER_HZ, which is the same on all machines
			user, _ := strconv.ParseInt(f[11], 10, 64)
			system, _ := strconv.ParseInt(f[12], 10, 64)
			used[pid] = time.Duration(user+system) * tick
		}
	}
	return used
}

// fleetBack ends the relay of many outlets and inlets, each of which has an open connection, under load; end brings it back too.
func fleetBack(s scale, outlets, inlets, times int, end func(context.Context, *world) error) func(context.Context, *world) (string, error) {
	return func(ctx context.Context, w *world) (string, error) {
		if err := w.fleet(ctx, outlets, inlets); err != nil {
			return "", err
		}
		var list []net.Conn
		defer func() {
			for _, c := range list {
				_ = c.Close()
			}
		}()
		for i := range inlets {
			var c net.Conn
			err := w.inlet.Do(func() (err error) {
				c, err = net.DialTimeout("tcp4", fmt.Sprintf("127.0.0.1:%d", fleetInlet+i), 20*time.Second)
				return err
			})
			if err != nil {
				return "", err
			}
			list = append(list, c)
			if _, err := c.Write(binary.LittleEndian.AppendUint64([]byte{askEcho}, seeds.Add(1))); err != nil {
				return "", err
			}
		}
		if err := echoes(list, time.Minute); err != nil {
			return "", fmt.Errorf("before: %w", err)
		}
		at, err := w.command(ctx, w.relay, "node", "show", w.relay.role, "--jq", ".status_endpoint_address")
		if err != nil {
			return "", err
		}
		at = strings.Trim(strings.TrimSpace(at), `"`)
		most, rate := 0.0, 0.0
		var away, used time.Duration
		seen, err := w.under(ctx, s, time.Duration(times)*s.bench, func(l *load) (slowest time.Duration, err error) {
			for range times {
				stop, watched := make(chan struct{}), make(chan struct{})
				var ended atomic.Bool
				go func() { // handshakes at the relay that is new
					defer close(watched)
					before, when, isNew := 0.0, time.Now(), false
					for {
						ended := ended.Load()
						if opened, err := w.metricAt(w.relay, at, "sallyport_secure_channels_opened_total"); err == nil {
							now := time.Now()
							if !isNew && (opened < before || ended) {
								isNew, before = true, 0
							}
							if isNew {
								rate, most = max(rate, (opened-before)/now.Sub(when).Seconds()), max(most, opened)
							}
							before, when = opened, now
						}
						select {
						case <-stop:
							return
						case <-time.After(250 * time.Millisecond):
						}
					}
				}()
				before := w.cpu(ctx)
				asked := time.Now()
				err := end(ctx, w)
				begun := time.Now() // the relay is there again
				ended.Store(true)
				if err != nil {
					close(stop)
					return slowest, err
				}
				err = echoes(list, time.Minute)
				slowest, away = max(slowest, time.Since(begun)), max(away, time.Since(asked))
				close(stop)
				<-watched
				if err != nil {
					return slowest, err
				}
				took := time.Duration(0)
				for pid, all := range w.cpu(ctx) {
					took += all - before[pid] // a relay that was killed is another process
				}
				used = max(used, took)
				if err := l.moving(time.Minute); err != nil {
					return slowest, err
				}
			}
			return slowest, nil
		})
		bound := float64(2*(inlets+len(portals)) + 100)
		seen += fmt.Sprintf(" (all %d inlets; %.1f s after it was asked to end), at most %.0f handshakes at the relay each time, %.0f in a second, %.1f s of processor time of the nodes, with their load",
			inlets, away.Seconds(), most, rate, used.Seconds())
		if err == nil && most > bound {
			err = errors.New("more than two for each inlet")
		}
		return seen, err
	}
}
