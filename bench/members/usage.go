package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// usage is what processes have used.
type usage struct {
	cpu time.Duration
	rss int64 // bytes
}

// look reads the usage of processes from /proc (proc(5), stat: fields 14, 15 and 24).
func look(pids ...int) (u usage) {
	for _, pid := range pids {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(raw), ") ")
		f := strings.Fields(rest)
		if len(f) < 22 {
			continue
		}
		number := func(s string) int64 { v, _ := strconv.ParseInt(s, 10, 64); return v }
		const ticks = 100 // a second, on every Linux that Go runs on
		u.cpu += time.Duration(number(f[11])+number(f[12])) * time.Second / ticks
		u.rss += number(f[21]) * int64(os.Getpagesize())
	}
	return u
}

// size is how much the files of a directory take, in bytes.
func size(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				n += info.Size()
			}
		}
		return nil
	})
	return n
}

// errNoMetrics reports a status endpoint that does not answer with metrics.
var errNoMetrics = errors.New("no metrics")

// scrape reads metrics from a status endpoint: those without labels, by name.
func scrape(ctx context.Context, at string) (map[string]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%w: %s", errNoMetrics, resp.Status)
	}
	values := map[string]float64{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), " ")
		if v, err := strconv.ParseFloat(value, 64); ok && err == nil {
			values[name] = v
		}
	}
	return values, lines.Err()
}
