package node

import (
	"context"
	"time"

	"sallyport/internal/exposition"
)

var (
	descPathUp     = desc("path_up", "1 if the path that an inlet or a relay name keeps to another node is there.", "kind", "name")
	descPathTrip   = desc("path_round_trip_seconds", "Its round trip, smoothed; only while it is there and was measured.", "kind", "name")
	descPathLost   = desc("path_reconnects_total", "Times that it was lost, and made again.", "kind", "name")
	descPathFailed = desc("path_attempts_failed_total", "Attempts to make it that failed.", "kind", "name")
	descExpires    = desc("credential_expires_in_seconds", "Time until the node's own credential ends; 0 if it has none that is valid.")
	descRelayed    = desc("relay_messages_total", "Messages over the channel of the node that is registered under a relay name; out: to it.", "relay", "direction")
	descRelayBytes = desc("relay_bytes_total", "Their bytes.", "relay", "direction")
)

// maxPaths is how many paths are told apart; what is beyond is counted together.
const maxPaths = 128

// otherPaths is what it is called.
const otherPaths = "(other)"

// kept is a session with the resource that has it.
type kept struct {
	kind, name string
	session    *session
}

// sessions lists the sessions of what a node keeps paths for.
func (n *Node) sessions() (list []kept) {
	for _, i := range n.inlets.List() {
		if i.IsOpen {
			list = append(list, kept{"inlet", i.Request.Alias, i.Value.session})
			if i.Value.direct != nil {
				list = append(list, kept{"inlet_udp", i.Request.Alias, i.Value.direct})
			}
		}
	}
	for _, i := range n.udpInlets.List() {
		if i.IsOpen {
			list = append(list, kept{"udp_inlet", i.Request.Name, i.Value.path.session})
			if i.Value.path.direct != nil {
				list = append(list, kept{"udp_inlet_udp", i.Request.Name, i.Value.path.direct})
			}
		}
	}
	for _, i := range n.relays.List() {
		if i.IsOpen {
			list = append(list, kept{"relay", i.Request.Name, i.Value.session})
		}
	}
	return list
}

// numbers are what is counted of a session.
type numbers struct {
	up             bool
	trip           time.Duration
	reconnects     uint64
	failedAttempts uint64
}

func (s *session) numbers() numbers {
	s.mu.Lock()
	defer s.mu.Unlock()
	return numbers{up: s.isUp, trip: s.rtt, reconnects: s.retries, failedAttempts: s.failed}
}

// paths collects how the paths to other nodes are.
func (c collector) paths(gauge func(*exposition.Metric, float64, ...string), count func(*exposition.Metric, uint64, ...string)) {
	n := c.n
	type sum struct {
		down           bool
		lost, attempts uint64
	}
	others := map[string]sum{}
	for i, k := range n.sessions() {
		v := k.session.numbers()
		if i >= maxPaths {
			o := others[k.kind]
			others[k.kind] = sum{o.down || !v.up, o.lost + v.reconnects, o.attempts + v.failedAttempts}
			continue
		}
		gauge(descPathUp, truth(v.up), k.kind, k.name)
		if v.up && v.trip > 0 {
			gauge(descPathTrip, v.trip.Seconds(), k.kind, k.name)
		}
		count(descPathLost, v.reconnects, k.kind, k.name)
		count(descPathFailed, v.failedAttempts, k.kind, k.name)
	}
	for kind, o := range others { // up if all are
		gauge(descPathUp, truth(!o.down), kind, otherPaths)
		count(descPathLost, o.lost, kind, otherPaths)
		count(descPathFailed, o.attempts, kind, otherPaths)
	}
	if n.creds != nil {
		gauge(descExpires, max(n.creds.left(), 0).Seconds())
	}
	if n.relaySvc != nil {
		ctx, cancel := context.WithTimeout(n.ctx, sampleTimeout)
		defer cancel()
		for name, t := range n.relaySvc.Traffic(ctx) {
			count(descRelayed, t.MessagesIn, name, "in")
			count(descRelayed, t.MessagesOut, name, "out")
			count(descRelayBytes, t.BytesIn, name, "in")
			count(descRelayBytes, t.BytesOut, name, "out")
		}
	}
}

// left returns how long the node's credential is still valid.
func (c *credentials) left() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.own.raw == nil || !c.own.created.After(c.notBefore) {
		return 0
	}
	return time.Until(c.own.expires)
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
