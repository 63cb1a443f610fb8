package node

import (
	"github.com/prometheus/client_golang/prometheus"

	"sallyport/logging"
)

var (
	descLimit   = desc("limit", "The node's limits, bytes or numbers or seconds; docs/limits.md.", "limit")
	descUsed    = desc("limit_used", "How much of a limit is used.", "limit")
	descRefused = desc("limit_refused_total", "What was refused, ended or left out because of a limit.", "limit")
	descFaults  = desc("faults_total", "Faults of this program that one peer's input showed; each ended that peer's connection.")
	descLog     = desc("log_records_total", "Records of the log: written, left out because of their rate, or dropped because they could not be written in time.", "outcome")
)

// use is how much of one limit is used, and how often it refused something.
type use struct {
	name    string
	used    int64 // -1: not measured
	refused uint64
}

// limits collects the limits, their use and their refusals.
func (c collector) limits(gauge func(*prometheus.Desc, float64, ...string), count func(*prometheus.Desc, uint64, ...string)) {
	for _, l := range c.n.opts.Limits.List() {
		v := float64(l.Value)
		if l.IsTime {
			v /= 1e9
		}
		gauge(descLimit, v, l.Name)
	}
	for _, u := range c.uses() {
		if u.used >= 0 {
			gauge(descUsed, float64(u.used), u.name)
		}
		count(descRefused, u.refused, u.name)
	}
	count(descFaults, c.n.group.Use().Faults)
	if h, ok := c.n.log.Handler().(interface{ Counts() logging.Counts }); ok {
		k := h.Counts()
		count(descLog, k.Written, "written")
		count(descLog, k.LeftOut, "left_out")
		count(descLog, k.Dropped, "dropped")
	}
}

// uses returns the limits that are counted.
func (c collector) uses() []use {
	n := c.n
	open, refused := n.tcp.Admission()
	loops, ch := n.group.Use(), &n.channels.Stats
	return []use{
		{"connections", int64(open), refused},
		{"preamble-timeout", -1, loops.LatePreamble},
		{"frame-timeout", -1, loops.LateFrame},
		{"unfinished", loops.Unfinished, loops.NoRoom},
		{"descriptors", -1, loops.NoDescriptor},
		{"handshakes", n.channels.UnderWay(), ch.Refused.Load()},
		{"channels", int64(len(n.channels.List())), ch.Evicted.Load()},
		{"portal-connections", n.portals.Stats.Active.Load(), n.portals.Stats.Limited.Load()},
		{"windows", n.portals.Stats.WindowGranted.Load(), 0},
		{"interceptors", n.intercepted.Used(), n.intercepted.Refused()},
	}
}
