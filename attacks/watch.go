package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// buildRace builds the program with the race detector and returns its path.
func buildRace(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "sallyport-race")
	cmd := exec.CommandContext(ctx, "go", "build", "-race", "-o", path, "./cmd/sallyport")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build with the race detector: %w: %.500s", err, out)
	}
	return path, nil
}

// races returns an error with the first report of the race detector, if there is one.
func (s *stage) races() error {
	files, _ := filepath.Glob(filepath.Join(s.dir, "race.*"))
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && len(b) > 0 {
			return fmt.Errorf("race detector: %.4000s", b)
		}
	}
	return nil
}

// metric returns the sum of a node's metric over all series whose line has each of the labels in it.
func (s *stage) metric(node, name string, labels ...string) (sum float64, err error) {
	r, err := s.record(node)
	if err != nil {
		return 0, err
	}
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + r.Status + "/metrics")
	if err != nil {
		return 0, fmt.Errorf("metrics of %s: %w", node, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	found := false
lines:
	for _, line := range strings.Split(string(b), "\n") {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		for _, l := range labels {
			if !strings.Contains(rest, l) {
				continue lines
			}
		}
		v, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
		if err != nil {
			return 0, err
		}
		sum, found = sum+v, true
	}
	if !found {
		return 0, fmt.Errorf("%s has no metric %s %v", node, name, labels)
	}
	return sum, nil
}

// goroutines returns how many each node has that is there; the process is part of the key, so that one that was restarted is not compared.
func (s *stage) goroutines() map[string]float64 {
	m := map[string]float64{}
	for _, n := range s.nodes {
		if v, err := s.metric(n, "go_goroutines"); err == nil {
			m[fmt.Sprintf("%s %d", n, s.pid(n))] = v
		}
	}
	return m
}

// cpu returns the processor time that each node has taken so far. Attacker and nodes share processors here, so what a neighbour loses says less
// than what an attack makes the nodes do.
func (s *stage) cpu() map[string]time.Duration {
	m := map[string]time.Duration{}
	for _, n := range s.nodes {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.pid(n)))
		if err != nil {
			continue
		}
		// The second field, the name, is in brackets and may have spaces; user and system time are the 14th and 15th, in hundredths of a second.
		fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		for _, f := range fields[11:13] {
			ticks, _ := strconv.Atoi(f)
			m[n] += time.Duration(ticks) * 10 * time.Millisecond
		}
	}
	return m
}

// cost says what each of n messages made nodes do, from what cpu returned before.
func (s *stage) cost(before map[string]time.Duration, n int, nodes ...string) string {
	now, text := s.cpu(), ""
	for _, node := range nodes {
		text += fmt.Sprintf("; %.1f us of the %s's processor for each", float64((now[node]-before[node]).Microseconds())/float64(max(n, 1)), node)
	}
	return text
}

// goroutineSlack is how many more than before there may be: workers of the system's resolver, and requests of the one who asks.
const goroutineSlack = 8

// settled waits until the nodes have as many goroutines as before. What a peer left behind ends within a minute.
func (s *stage) settled(ctx context.Context, before map[string]float64) error {
	more := ""
	for end := time.Now().Add(90 * time.Second); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(time.Second) {
		more = ""
		for node, now := range s.goroutines() {
			if was, ok := before[node]; ok && now > was+goroutineSlack {
				more = fmt.Sprintf("%s has %.0f goroutines, and had %.0f before", node, now, was)
			}
		}
		if more == "" {
			return nil
		}
	}
	return fmt.Errorf("%s", more)
}

// sane looks for faults of the program that the attack brought to light, and for races.
func (s *stage) sane() error {
	for _, n := range s.nodes {
		if v, err := s.metric(n, "sallyport_faults_total"); err == nil && v > 0 {
			return fmt.Errorf("%s had %.0f faults: see its log", n, v)
		}
	}
	return s.races()
}
