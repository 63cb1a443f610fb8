package main

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// iperfResult is what iperf3 measured at the receiving end.
type iperfResult struct {
	bitsPerSecond float64
	bytes         float64
}

// parseIperf reads the output of `iperf3 -J`.
func parseIperf(out string) (iperfResult, error) {
	var doc struct {
		Error string `json:"error"`
		End   struct {
			SumReceived *struct {
				Bytes         float64 `json:"bytes"`
				BitsPerSecond float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	if err := json.Unmarshal([]byte(out), &doc); err != nil {
		return iperfResult{}, fmt.Errorf("iperf3 output: %w", err)
	}
	if doc.Error != "" {
		return iperfResult{}, fmt.Errorf("iperf3: %s", doc.Error)
	}
	r := doc.End.SumReceived
	if r == nil || r.Bytes <= 0 {
		return iperfResult{}, errors.New("iperf3: nothing received")
	}
	return iperfResult{bitsPerSecond: r.BitsPerSecond, bytes: r.Bytes}, nil
}

// redisResult is one test of redis-benchmark: requests per second and latencies
// in milliseconds.
type redisResult struct {
	rps, p50, p99 float64
}

// parseRedis reads the output of `redis-benchmark --csv`: a header and one line
// for each test, keyed here by the test's name.
func parseRedis(out string) (map[string]redisResult, error) {
	// The program may print warnings before the table.
	i := strings.Index(out, `"test",`)
	if i < 0 {
		return nil, fmt.Errorf("redis-benchmark: no table in its output: %s", lastLine(out))
	}
	rows, err := csv.NewReader(strings.NewReader(out[i:])).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("redis-benchmark output: %w", err)
	}
	col := map[string]int{}
	for i, name := range rows[0] {
		col[name] = i
	}
	for _, want := range []string{"rps", "p50_latency_ms", "p99_latency_ms"} {
		if _, ok := col[want]; !ok {
			return nil, fmt.Errorf("redis-benchmark: no column %s (version 7 or later is needed)", want)
		}
	}
	res := map[string]redisResult{}
	for _, row := range rows[1:] {
		var r redisResult
		var errs [3]error
		r.rps, errs[0] = strconv.ParseFloat(row[col["rps"]], 64)
		r.p50, errs[1] = strconv.ParseFloat(row[col["p50_latency_ms"]], 64)
		r.p99, errs[2] = strconv.ParseFloat(row[col["p99_latency_ms"]], 64)
		if err := errors.Join(errs[:]...); err != nil {
			return nil, fmt.Errorf("redis-benchmark output: %w", err)
		}
		res[row[0]] = r
	}
	if len(res) == 0 {
		return nil, errors.New("redis-benchmark: empty table")
	}
	return res, nil
}

// abResult is what ab measured.
type abResult struct {
	perSecond        float64
	complete, failed int
}

// parseAb reads the text that ab prints. Requests that failed beyond one in a
// hundred make the figure meaningless and are an error.
func parseAb(out string) (abResult, error) {
	var r abResult
	var err error
	seen := 0
	for line := range strings.Lines(out) {
		key, value, ok := strings.Cut(line, ":")
		f := strings.Fields(value)
		if !ok || len(f) == 0 {
			continue
		}
		switch key {
		case "Complete requests":
			r.complete, err = strconv.Atoi(f[0])
		case "Failed requests":
			r.failed, err = strconv.Atoi(f[0])
		case "Requests per second":
			r.perSecond, err = strconv.ParseFloat(f[0], 64)
		default:
			continue
		}
		if err != nil {
			return r, fmt.Errorf("ab output: %w", err)
		}
		seen++
	}
	if seen != 3 {
		return r, fmt.Errorf("ab: no result in its output: %s", lastLine(out))
	}
	if r.complete == 0 || r.failed*100 > r.complete {
		return r, fmt.Errorf("ab: %d of %d requests failed", r.failed, r.complete)
	}
	return r, nil
}
