package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sallyport/bench/wire"
)

// said returns when a machine's node first wrote a message with an attribute to its log, after a time, and waits for that.
func (m *machine) said(after time.Time, message, attribute string, within time.Duration) (time.Time, error) {
	for until := time.Now().Add(within); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		files, err := filepath.Glob(filepath.Join(m.home, "nodes", m.role, "*.log*"))
		if err != nil {
			return time.Time{}, err
		}
		first := time.Time{}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				return time.Time{}, err
			}
			for line := range strings.Lines(string(text)) {
				stamp, rest, _ := strings.Cut(strings.TrimPrefix(line, "time="), " ")
				if !strings.Contains(rest, "msg="+message+" ") && !strings.Contains(rest, `msg="`+message+`" `) || !strings.Contains(rest, " "+attribute+" ") {
					continue
				}
				// The log's times are cut to milliseconds.
				at, err := time.Parse(time.RFC3339Nano, stamp)
				if err == nil && !at.Before(after.Truncate(time.Millisecond)) && (first.IsZero() || at.Before(first)) {
					first = at
				}
			}
		}
		if !first.IsZero() {
			return first, nil
		}
	}
	return time.Time{}, fmt.Errorf("the %s's node has not said %q of %s within %v", m.role, message, attribute, within)
}

// pathTimes looks how soon an inlet's node notices that a path is dead, without a word from anybody, and how soon it has a new one when the relay is back.
func pathTimes(s scale) func(context.Context, *world) (string, error) {
	const patience = time.Minute
	return func(ctx context.Context, w *world) (seen string, err error) {
		const inlet = "inlet=data"
		c, _, _, err := w.open("data", askEcho)
		if err != nil {
			return "", err
		}
		defer c.Close()
		var noticed, up time.Duration
		for n := range s.paths {
			if _, err := c.Write(binary.LittleEndian.AppendUint64(nil, uint64(n))); err != nil {
				return "", err
			}
			begun := time.Now()
			lost := wire.Options{Loss: 1}
			if err := w.near.Set(lost, lost); err != nil {
				return "", err
			}
			at, err := w.inlet.said(begun, "connection lost", inlet, patience)
			time.Sleep(4 * time.Second) // a peer that is there again sooner had only been silent, and is given more time from then on
			back := time.Now()
			if err := w.near.Set(usual, usual); err != nil {
				return "", err
			}
			if err != nil {
				return "", err
			}
			noticed = max(noticed, at.Sub(begun))
			if _, err := w.inlet.said(back, "connected", inlet, patience); err != nil {
				return "", err
			}
			killed := time.Now()
			if err := w.restart(ctx, w.relay, 200*time.Millisecond); err != nil {
				return "", err
			}
			begun = time.Now()
			if at, err = w.inlet.said(killed, "connected", inlet, patience); err != nil {
				return "", err
			}
			up = max(up, at.Sub(begun))
		}
		seen = fmt.Sprintf("noticed within %.1f s, up %.1f s after the relay was back, %d times", noticed.Seconds(), max(up, 0).Seconds(), s.paths)
		switch {
		case noticed > s.noticed:
			return seen, fmt.Errorf("noticed later than %v", s.noticed)
		case up > s.up:
			return seen, fmt.Errorf("up later than %v", s.up)
		}
		return seen, nil
	}
}
