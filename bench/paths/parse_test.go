package main

import (
	"math"
	"strings"
	"testing"
)

func TestParseIperf(t *testing.T) {
	tests := []struct {
		name, in string
		want     iperfResult
		wantErr  string
	}{
		{name: "good", in: `{"start":{},"end":{"sum_sent":{"bytes":9,"bits_per_second":7},
			"sum_received":{"start":0,"bytes":2686451712,"bits_per_second":21491613696.5}}}`,
			want: iperfResult{bitsPerSecond: 21491613696.5, bytes: 2686451712}},
		{name: "error", in: `{"start":{},"end":{},"error":"unable to connect to server"}`, wantErr: "unable to connect"},
		{name: "nothing received", in: `{"end":{"sum_received":{"bytes":0,"bits_per_second":0}}}`, wantErr: "nothing received"},
		{name: "no end", in: `{"start":{}}`, wantErr: "nothing received"},
		{name: "cut off", in: `{"end":{"sum_rec`, wantErr: "iperf3 output"},
		{name: "empty", in: ``, wantErr: "iperf3 output"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseIperf(tt.in)
			checkErr(t, err, tt.wantErr)
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

const redisTable = `"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"
"PING_INLINE","29411.76","0.031","0.016","0.031","0.047","0.071","0.135"
"PING_MBULK","18518.52","0.050","0.032","0.055","0.055","0.087","0.175"
`

func TestParseRedis(t *testing.T) {
	got, err := parseRedis("WARNING: Could not fetch server CONFIG\n" + redisTable)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]redisResult{
		"PING_INLINE": {rps: 29411.76, p50: 0.031, p99: 0.071},
		"PING_MBULK":  {rps: 18518.52, p50: 0.055, p99: 0.087},
	}
	if len(got) != len(want) {
		t.Fatalf("got %v", got)
	}
	for k, w := range want {
		if got[k] != w {
			t.Errorf("%s: got %+v, want %+v", k, got[k], w)
		}
	}
	header, _, _ := strings.Cut(redisTable, "\n")
	for name, in := range map[string]string{
		"no table":   "Could not connect to Redis at 127.0.0.1:1: Connection refused\n",
		"old":        "\"test\",\"rps\"\n\"PING_INLINE\",\"1.0\"\n",
		"no rows":    header + "\n",
		"ragged row": header + "\n\"PING_INLINE\",\"1\"\n",
		"no number":  strings.Replace(redisTable, "29411.76", "fast", 1),
	} {
		if _, err := parseRedis(in); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

const abText = `
Concurrency Level:      16
Time taken for tests:   0.101 seconds
Complete requests:      2000
Failed requests:        %FAILED%
Total transferred:      2532000 bytes
Requests per second:    19866.09 [#/sec] (mean)
Time per request:       0.805 [ms] (mean)
Transfer rate:          24560.92 [Kbytes/sec] received

Connection Times (ms)
              min  mean[+/-sd] median   max
Connect:        0    0   0.1      0       1
`

func TestParseAb(t *testing.T) {
	tests := []struct {
		name, in string
		want     abResult
		wantErr  string
	}{
		{name: "good", in: strings.Replace(abText, "%FAILED%", "0", 1), want: abResult{19866.09, 2000, 0}},
		{name: "one in a hundred", in: strings.Replace(abText, "%FAILED%", "20", 1), want: abResult{19866.09, 2000, 20}},
		{name: "too many failed", in: strings.Replace(abText, "%FAILED%", "21", 1), want: abResult{19866.09, 2000, 21},
			wantErr: "21 of 2000"},
		{name: "refused", in: "apr_socket_recv: Connection refused (111)\n", wantErr: "no result"},
		{name: "no number", in: strings.Replace(abText, "%FAILED%", "none", 1), want: abResult{complete: 2000}, wantErr: "ab output"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseAb(tt.in)
			checkErr(t, err, tt.wantErr)
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestParseStat(t *testing.T) {
	got, err := parseStat("4711 (a) (b c) S 17 4711 4711 0 -1 4194560 1 2 3 4 250 31 5 6 20 0 4 0 100 0 0\n")
	if err != nil || got != (procStat{state: 'S', ppid: 17, ticks: 281}) {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, in := range []string{"", "1 (x", "1 (x) S 2", "1 (x) S z 1 1 0 -1 0 1 2 3 4 5 6 7 8"} {
		if _, err := parseStat(in); err == nil {
			t.Errorf("%q: accepted", in)
		}
	}
}

func TestParseSmaps(t *testing.T) {
	const in = "55d0-7ffe ---p 00000000 00:00 0    [rollup]\nRss:               49868 kB\nPss:               25785 kB\nPss_Dirty:         100 kB\nAnonymous:       7012 kB\n"
	m, err := parseSmaps(in)
	if want := (resident{rss: 49868, pss: 25785, own: 7012}); err != nil || m != want {
		t.Errorf("got %v, %v", m, err)
	}
	if _, err := parseSmaps("Rss: 12 kB\nPss: 12 kB\n"); err == nil {
		t.Error("accepted without anonymous pages")
	}
}

func TestListensIn(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue
   0: 0100007F:5DC0 00000000:0000 0A 00000000:00000000
   1: 0100007F:5DC1 0100007F:8000 01 00000000:00000000
`
	for port, want := range map[int]bool{0x5DC0: true, 0x5DC1: false, 0x5DC2: false} {
		if got := listensIn(table, port); got != want {
			t.Errorf("port %d: got %v", port, got)
		}
	}
}

func TestMedianPercentileRatio(t *testing.T) {
	nan := math.NaN()
	for _, tt := range []struct {
		name      string
		got, want float64
	}{
		{"odd", median([]float64{3, 1, 2}), 2},
		{"even", median([]float64{4, 1, 2, 3}), 2.5},
		{"one", median([]float64{7}), 7},
		{"none", median(nil), nan},
		{"p99 of 1", percentile([]float64{5}, 99), 5},
		{"p50", percentile([]float64{4, 3, 2, 1}, 50), 2},
		{"p99 of 200", percentile(upTo(200), 99), 198},
		{"p100", percentile(upTo(10), 100), 10},
		{"p of none", percentile(nil, 99), nan},
		{"ratio", ratio(3, 2), 1.5},
		{"ratio to nothing", ratio(3, 0), nan},
		{"ratio to unknown", ratio(3, nan), nan},
	} {
		if tt.got != tt.want && !(math.IsNaN(tt.got) && math.IsNaN(tt.want)) {
			t.Errorf("%s: got %v, want %v", tt.name, tt.got, tt.want)
		}
	}
	v := []float64{3, 1, 2}
	if median(v); v[0] != 3 {
		t.Error("median changed its argument")
	}
}

func upTo(n int) []float64 {
	v := make([]float64, n)
	for i := range v {
		v[i] = float64(n - i)
	}
	return v
}

func checkErr(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("error %v", err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("error %v, want one with %q", err, want)
	}
}
