package node

import (
	"os"
	"runtime/metrics"

	"sallyport/internal/exposition"
	"sallyport/logging"
	"sallyport/routing"
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
func (c collector) limits(gauge func(*exposition.Metric, float64, ...string), count func(*exposition.Metric, uint64, ...string)) {
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
	k := c.log()
	count(descLog, k.Written, "written")
	count(descLog, k.LeftOut, "left_out")
	count(descLog, k.Dropped, "dropped")
}

// log returns what became of the log's records; nothing where the log is a library user's own.
func (c collector) log() logging.Counts {
	if h, ok := c.n.log.Handler().(interface{ Counts() logging.Counts }); ok {
		return h.Counts()
	}
	return logging.Counts{}
}

// uses returns what is used of every limit, and refused because of it. A time span has no use, and nothing is refused for want of memory: what
// follows the memory is a limit of its own.
func (c collector) uses() []use {
	n := c.n
	conns, loops, ch, p, log := n.tcp.Admission(), n.group.Use(), &n.channels.Stats, n.portals.Stats, c.log()
	handshakes, channels := n.channels.Held()
	route, message, longRoutes := int64(0), int64(0), uint64(0)
	for _, s := range n.router.Shards() {
		route, message = max(route, s.LongestRoute.Load()), max(message, s.LargestMessage.Load())
		longRoutes += s.Drops.LongRoute.Load()
	}
	fullest, outletRefused := n.outletPlaces()
	list := []use{
		{"connections", int64(conns.Open), conns.Refused},
		{"connections-per-address", int64(conns.OpenEach), conns.RefusedEach},
		{"preamble-timeout", -1, loops.LatePreamble},
		{"frame-timeout", -1, loops.LateFrame},
		{"handshakes", int64(handshakes), ch.Refused.Load()},
		{"handshakes-per-second", int64(n.channels.HandshakeRate()), ch.TooFast.Load()},
		{"channels", int64(channels), ch.Evicted.Load()},
		{"channels-per-peer", int64(n.channels.MostOfPeer()), ch.TooMany.Load()},
		{"portal-connections", p.Active.Load(), p.Crowded.Load()},
		{"outlet-connections", int64(fullest), outletRefused},
		{"lanes", n.mostLanes(), 0},
		{"message", message, n.tcp.Stats.Oversize.Load()},
		{"route", route, longRoutes},
		{"memory", memoryInUse(), 0},
		{"unfinished", loops.Unfinished, loops.NoRoom},
		{"windows", p.WindowGranted.Load(), p.WindowsRefused.Load()},
		{"kept", p.KeptMemory.Load(), p.KeepShort.Load()},
		{"backlog", n.router.Backlogs.Used(), uint64(n.router.Backlogs.Cut() + n.router.Backlogs.Refused())},
		{"interceptors", n.intercepted.Used(), n.intercepted.Refused()},
		{"descriptors", descriptorsInUse(), loops.NoDescriptor},
		{"log-rate", int64(log.Busiest), log.LeftOut},
	}
	var names routing.NamesUse
	if n.relaySvc != nil {
		names = n.relaySvc.Use()
	}
	return append(list, use{"names", int64(names.Names), names.RefusedNames}, use{"names-per-owner", int64(names.OfOwner), names.RefusedOwners})
}

// outletPlaces returns how many connections the outlet with the most has, and how many all outlets refused.
func (n *Node) outletPlaces() (fullest int, refused uint64) {
	for _, i := range n.outlets.List() {
		if i.IsOpen {
			now, _ := i.Value.portal.Connections()
			fullest, refused = max(fullest, now), refused+i.Value.portal.Refused()
		}
	}
	return fullest, refused
}

// memoryInUse returns what the process has from the system, in bytes, as the runtime's limit counts it.
func memoryInUse() int64 {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(samples)
	return int64(samples[0].Value.Uint64() - samples[1].Value.Uint64())
}

// descriptorsInUse returns how many descriptors the process has open, -1 where the kernel does not say without listing them all.
func descriptorsInUse() int64 {
	if fi, err := os.Stat("/proc/self/fd"); err == nil && fi.Size() > 0 {
		return fi.Size()
	}
	return -1
}
