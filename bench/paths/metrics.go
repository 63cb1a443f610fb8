package main

import (
	"fmt"
	"math"
	"strings"
)

// Names of the paths.
const (
	pathDirect    = "direct"
	pathPlain     = "plain"
	pathTLS       = "tls"
	pathSSH       = "ssh"
	pathSpiped    = "spiped"
	pathRathole   = "rathole"
	pathRef       = "reference"
	pathRefOpen   = "reference-nopolicy"
	pathOurs      = "ours"
	pathOursOpen  = "ours-nopolicy"
	pathOurs1ch   = "ours-1ch"
	pathNoHold    = "ours-nohold"
	pathNoRecords = "ours-norecords"
	pathOursWS    = "ours-ws"
	pathOursOTLS  = "ours-tls"
	pathOursWSS   = "ours-wss"
	pathBefore    = "ours-before"
)

var allPaths = []string{pathDirect, pathPlain, pathTLS, pathSSH, pathSpiped, pathRathole, pathRef, pathRefOpen, pathOurs, pathOursOpen, pathOurs1ch, pathNoHold, pathNoRecords, pathOursWS, pathOursOTLS, pathOursWSS, pathBefore}

// bound is one limit of a goal: factor times the figure of the base path, or the
// factor itself when base is empty.
type bound struct {
	factor float64
	base   string
}

// metric is one row of the result.
type metric struct {
	key, title, unit string
	higher           bool    // higher is better
	goal             []bound // all must hold; empty = no goal
	below            bool    // the goal must be undercut, not only reached
	check            bool    // its ratio to plain is recorded and checked by CI
}

var metrics = []metric{
	{key: "up", title: "bulk up, 1 stream", unit: "Gbit/s", higher: true, goal: []bound{{2, pathRef}, {1, pathPlain}}, check: true},
	{key: "down8", title: "bulk down, 8 streams", unit: "Gbit/s", higher: true, goal: []bound{{2, pathRef}, {1, pathPlain}}, check: true},
	{key: "cpu_up", title: "CPU of the nodes, up", unit: "s/GB", goal: []bound{{0.5, pathRef}, {1.05, pathNoHold}}, check: true},
	{key: "cpu_down8", title: "CPU of the nodes, down", unit: "s/GB", goal: []bound{{0.5, pathRef}, {1.05, pathNoHold}}, check: true},
	{key: "ping_inline", title: "PING_INLINE p50, 1 client", unit: "ms", goal: []bound{{0.55, pathRef}, {1.1, pathPlain}}},
	{key: "ping", title: "PING p50, 1 client", unit: "ms", goal: []bound{{0.55, pathRef}, {1.1, pathPlain}}},
	{key: "req50", title: "requests, 50 clients", unit: "1/s", higher: true, goal: []bound{{4, pathRef}, {1, pathPlain}}, check: true},
	{key: "req50p16", title: "requests, pipeline 16", unit: "1/s", higher: true, goal: []bound{{4, pathRef}}, check: true},
	{key: "conns", title: "new connections", unit: "1/s", higher: true, goal: []bound{{6, pathRef}}, check: true},
	{key: "cap_echo", title: "echo of 64 B, capacity", unit: "1/s", higher: true},
	{key: "cap_http", title: "HTTP GET of 1 KiB, capacity", unit: "1/s", higher: true},
	{key: "cap_redis", title: "Redis PING, capacity", unit: "1/s", higher: true},
	{key: "cap_query", title: "PostgreSQL SELECT 1, capacity", unit: "1/s", higher: true},
	{key: "cap_tpcb", title: "PostgreSQL like TPC-B, capacity", unit: "1/s", higher: true},
	{key: "members", title: "new members with a first connection", unit: "1/s", higher: true},
	{key: "cpu_member_authority", title: "CPU of the authority for each", unit: "ms"},
	{key: "cpu_member_nodes", title: "CPU of relay and outlet's node for each", unit: "ms"},
	{key: "rss_idle", title: "memory of the nodes, idle", unit: "MiB", goal: []bound{{45, ""}}},
	{key: "pss_idle", title: "the same, shared pages divided", unit: "MiB"},
	{key: "kib_conn", title: "memory per idle connection", unit: "KiB", goal: []bound{{12, ""}}},
	{key: "stall_loss", title: "loss beside a stalled reader", unit: "%", goal: []bound{{5, ""}}, below: true},
	{key: "stall_rss", title: "memory after the stall", unit: "MiB"},
	{key: "p99_alone", title: "PING p99 alone", unit: "ms"},
	{key: "p99_bulk", title: "PING p99 beside bulk", unit: "ms"},
	{key: "p99_ratio", title: "PING p99 beside bulk / alone", unit: "x", goal: []bound{{3, ""}}},
	{key: "cmd_list", title: "tcp-inlet list", unit: "ms", goal: []bound{{25, ""}}},
	{key: "cmd_show", title: "node show", unit: "ms", goal: []bound{{25, ""}}},
}

// figures are medians: metric key -> path -> value. A missing entry was not
// measured.
type figures map[string]map[string]float64

func (f figures) get(key, path string) float64 {
	if v, ok := f[key][path]; ok {
		return v
	}
	return math.NaN()
}

// base is the figure that a goal compares with. For the reference it is the better of
// its two paths, with and without policies.
func (f figures) base(m metric, path string) float64 {
	v := f.get(m.key, path)
	if path != pathRef {
		return v
	}
	open := f.get(m.key, pathRefOpen)
	switch {
	case math.IsNaN(v):
		return open
	case math.IsNaN(open):
		return v
	case m.higher:
		return max(v, open)
	}
	return min(v, open)
}

// verdict is whether a goal is met.
type verdict int

const (
	noGoal  verdict = iota
	unknown         // a figure that the goal needs was not measured
	met
	missed
)

func (v verdict) String() string {
	return [...]string{"", "?", "met", "MISSED"}[v]
}

// judge compares the figure of path with the goal of the metric and returns the
// limit in the metric's unit. One limit that is missed decides, even if another
// one is not known.
func (f figures) judge(m metric, path string) (limit float64, v verdict) {
	if len(m.goal) == 0 {
		return math.NaN(), noGoal
	}
	value := f.get(m.key, path)
	limit, v = math.NaN(), met
	for _, b := range m.goal {
		l := b.factor
		if b.base != "" {
			l *= f.base(m, b.base)
		}
		if math.IsNaN(l) {
			if v == met {
				v = unknown
			}
			continue
		}
		if math.IsNaN(limit) || (m.higher && l > limit) || (!m.higher && l < limit) {
			limit = l
		}
		if !m.reaches(value, l) {
			v = missed
		}
	}
	if math.IsNaN(value) {
		v = unknown
	}
	return limit, v
}

func (m metric) reaches(value, limit float64) bool {
	switch {
	case m.higher:
		return value >= limit
	case m.below:
		return value < limit
	}
	return value <= limit
}

// goalText is the goal in words, such as ">= max(2 x reference, 1 x plain)".
func (m metric) goalText() string {
	if len(m.goal) == 0 {
		return ""
	}
	parts := make([]string, len(m.goal))
	for i, b := range m.goal {
		parts[i] = fmt.Sprintf("%g", b.factor)
		if b.base != "" {
			parts[i] += " x " + b.base
		}
	}
	text := parts[0]
	sign, fold := "<=", "min"
	if m.below {
		sign = "<"
	}
	if m.higher {
		sign, fold = ">=", "max"
	}
	if len(parts) > 1 {
		text = fold + "(" + strings.Join(parts, ", ") + ")"
	}
	return sign + " " + text
}
