package node

import (
	"context"
	"strconv"
	"sync"
	"time"

	"sallyport/dataplane"
	"sallyport/internal/exposition"
	"sallyport/limits"
)

var (
	descLoopBusy  = desc("loop_busy_seconds_total", "Time in which an event loop handled events.", "shard")
	descLoopLag   = desc("loop_lag_seconds", "How long something new waited for an event loop, at this scrape.", "shard")
	descLoopTurn  = desc("loop_longest_turn_seconds", "The longest time without a look at new events in the last half minute to minute.", "shard")
	descLoopInbox = desc("loop_inbox_tasks", "Tasks of other goroutines that waited for an event loop, at this scrape.", "shard")
	descHeadroom  = desc("headroom_ratio", "Part of a resource that is left, at the limit that is nearest: 1 is all, 0 is nothing.", "resource")
)

// sampleTimeout is how long a scrape waits for an event loop.
const sampleTimeout = 250 * time.Millisecond

// busyShare measures how busy the busiest loop is, over spans of a few seconds whoever asks how often.
type busyShare struct {
	mu     sync.Mutex
	at     time.Time
	before []dataplane.Sample
	share  float64
}

// busySpan is the least span over which it is measured.
const busySpan = 5 * time.Second

// add takes a sample and returns the share of the busiest loop.
func (b *busyShare) add(list []dataplane.Sample, now time.Time) float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	passed := now.Sub(b.at)
	if passed < busySpan && !b.at.IsZero() {
		return b.share
	}
	if !b.at.IsZero() {
		b.share = 0
		for i := range list {
			b.share = max(b.share, min(float64(list[i].Busy-b.before[i].Busy)/float64(passed), 1))
		}
	}
	b.at, b.before = now, list
	return b.share
}

// box collects how the loops are, and how far each ceiling is.
func (c collector) box(to exposition.Sink, gauge func(*exposition.Metric, float64, ...string)) {
	ctx, cancel := context.WithTimeout(c.n.ctx, sampleTimeout)
	defer cancel()
	samples := c.n.group.Sample(ctx)
	for i, s := range samples {
		shard := strconv.Itoa(i)
		to.Value(descLoopBusy, exposition.Counter, s.Busy.Seconds(), shard)
		gauge(descLoopLag, s.Lag.Seconds(), shard)
		if s.LongestTurn >= 0 {
			gauge(descLoopTurn, s.LongestTurn.Seconds(), shard)
		}
		gauge(descLoopInbox, float64(s.Inbox), shard)
	}
	for resource, left := range c.headroom(samples) {
		gauge(descHeadroom, left, resource)
	}
}

// Alive reports whether every event loop answers before ctx ends.
func (n *Node) Alive(ctx context.Context) bool {
	for _, s := range n.group.Sample(ctx) {
		if s.LongestTurn < 0 {
			return false
		}
	}
	return true
}

// resources are what a planner asks for, each with the limits that may be reached first.
var resources = map[string][]string{
	"connections":        {"connections", "connections-per-address"},
	"handshakes":         {"handshakes", "handshakes-per-second"},
	"channels":           {"channels", "channels-per-peer"},
	"portal_connections": {"portal-connections", "outlet-connections"},
	"memory":             {"memory", "unfinished", "windows", "kept", "backlog", "interceptors"},
	"names":              {"names", "names-per-owner"},
}

// headroom returns how much of each resource is left, from 0 to 1, at the limit that is nearest.
func (c collector) headroom(samples []dataplane.Sample) map[string]float64 {
	most, used := map[string]int64{}, map[string]int64{}
	for _, l := range c.n.opts.Limits.List() {
		if !l.IsTime {
			most[l.Name] = l.Value
		}
	}
	for _, u := range c.uses() {
		used[u.name] = u.used
	}
	left := map[string]float64{"loops": 1 - c.n.busy.add(samples, time.Now())}
	for resource, names := range resources {
		nearest := 1.0
		for _, name := range names {
			if most[name] > 0 && used[name] > 0 {
				nearest = min(nearest, 1-float64(used[name])/float64(most[name]))
			}
		}
		left[resource] = max(nearest, 0)
	}
	// An outlet has a limit of its own, and an inlet may have one.
	own := func(now, limit int) {
		if limit > 0 {
			left["portal_connections"] = max(min(left["portal_connections"], 1-float64(now)/float64(limit)), 0)
		}
	}
	for _, i := range c.n.outlets.List() {
		if i.IsOpen {
			own(i.Value.portal.Connections())
		}
	}
	for _, i := range c.n.inlets.List() {
		if i.IsOpen {
			own(i.Value.portal.Connections())
		}
	}
	if n := descriptorsInUse(); n >= 0 {
		left["descriptors"] = max(1-float64(n)/float64(limits.Descriptors()), 0)
	}
	return left
}
