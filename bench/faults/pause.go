package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// pulse is a client that asks again as soon as it is answered, and knows how long it has waited at most.
type pulse struct {
	conn net.Conn
	mu   sync.Mutex
	gap  time.Duration // the longest between two answers
	err  error
	stop chan struct{}
	done chan struct{}
}

func (w *world) pulse() (*pulse, error) {
	c, _, _, err := w.open("many", askEcho)
	if err != nil {
		return nil, err
	}
	p := &pulse{conn: c, stop: make(chan struct{}), done: make(chan struct{})}
	go p.run()
	return p, nil
}

func (p *pulse) run() {
	defer close(p.done)
	defer p.conn.Close()
	last := time.Now()
	for got, n := make([]byte, 8), uint64(1); ; n++ {
		_ = p.conn.SetDeadline(time.Now().Add(time.Minute))
		_, err := p.conn.Write(binary.LittleEndian.AppendUint64(nil, n))
		if err == nil {
			_, err = io.ReadFull(p.conn, got)
		}
		if err == nil && binary.LittleEndian.Uint64(got) != n {
			err = errWrong
		}
		now := time.Now()
		p.mu.Lock()
		p.gap, p.err = max(p.gap, now.Sub(last)), err
		p.mu.Unlock()
		if last = now; err != nil {
			return
		}
		select {
		case <-p.stop:
			return
		case <-time.After(time.Millisecond):
		}
	}
}

// longest returns the longest gap since it was asked before.
func (p *pulse) longest() (time.Duration, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	gap := p.gap
	p.gap = 0
	return gap, p.err
}

var errPause = errors.New("longer than it may be")

// pauses upgrades each node while many connections are open that do nothing and some that ask all the time. The node may stop for longest, and who asks may wait for patience.
func pauses(idle, times int, longest, patience time.Duration) func(context.Context, *world) (string, error) {
	return func(ctx context.Context, w *world) (seen string, err error) {
		const active = 4
		var list []net.Conn
		var pulses []*pulse
		defer func() {
			for _, c := range list {
				_ = c.Close()
			}
			for _, p := range pulses {
				close(p.stop)
				<-p.done
			}
		}()
		for range idle {
			c, _, _, err := w.open("many", askEcho)
			if err != nil {
				return "", err
			}
			list = append(list, c)
		}
		for range active {
			p, err := w.pulse()
			if err != nil {
				return "", err
			}
			pulses = append(pulses, p)
		}
		clients := w.connects()
		defer func() {
			tried, refused := clients.end()
			seen = fmt.Sprintf("%s; %d connects", seen, tried)
			err = errors.Join(err, refused)
		}()
		for _, which := range []struct {
			name string
			m    *machine
		}{{"inlet's node", w.inlet}, {"relay", w.relay}, {"outlet's node", w.outlet}} {
			var stopped, gap time.Duration
			for range times {
				time.Sleep(time.Second) // the load is even
				for _, p := range pulses {
					if _, err := p.longest(); err != nil {
						return seen, err
					}
				}
				pause, err := w.upgrade(ctx, which.m, which.m.role)
				if err != nil {
					return seen, err
				}
				stopped = max(stopped, pause)
				if err := echoes(list, time.Minute); err != nil {
					return seen, fmt.Errorf("the %s: %w", which.name, err)
				}
				for _, p := range pulses {
					g, err := p.longest()
					if err != nil {
						return seen, fmt.Errorf("the %s: %w", which.name, err)
					}
					gap = max(gap, g)
				}
			}
			if seen != "" {
				seen += "; "
			}
			seen += fmt.Sprintf("%s stopped for %d ms at most, an active client waited %d ms at most", which.name, stopped.Milliseconds(), gap.Milliseconds())
			if stopped > longest || gap > patience {
				err = errors.Join(err, fmt.Errorf("%s: %w", which.name, errPause))
			}
		}
		return seen, err
	}
}
