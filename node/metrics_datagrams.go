package node

import (
	"sallyport/internal/exposition"
	"sallyport/portal/datagram"
)

var (
	descFlows     = desc("udp_portal_flows", "Flows of datagrams, which are clients, of an inlet or an outlet for UDP.", "kind", "portal")
	descFlowsOpen = desc("udp_portal_flows_opened_total", "Flows begun.", "kind", "portal")
	descFlowsEnd  = desc("udp_portal_flows_ended_total", "Flows ended.", "kind", "portal", "reason")
	descDatagrams = desc("udp_portal_datagrams_total", "Datagrams carried between sockets and portals; in: read from a socket.", "kind", "portal", "direction")
	descDataBytes = desc("udp_portal_bytes_total", "Their bytes.", "kind", "portal", "direction")
	descDataDrops = desc("udp_portal_dropped_total", "Datagrams that were not carried.", "kind", "portal", "reason")
	descDataBad   = desc("udp_portal_malformed_total", "Malformed messages for an inlet or an outlet for UDP.", "kind", "portal")
)

// datagrams collects what portals for UDP do.
func (c collector) datagrams(gauge func(*exposition.Metric, float64, ...string), count func(*exposition.Metric, uint64, ...string)) {
	for _, m := range c.n.datagram.Meters() {
		end, name := m.End(), m.Name()
		gauge(descFlows, float64(m.Flows.Load()), end, name)
		count(descFlowsOpen, m.Opened.Load(), end, name)
		for r := range m.Ended {
			if k := m.Ended[r].Load(); k > 0 {
				count(descFlowsEnd, k, end, name, datagram.Reason(r).String())
			}
		}
		count(descDatagrams, m.In.Load(), end, name, "in")
		count(descDatagrams, m.Out.Load(), end, name, "out")
		count(descDataBytes, m.BytesIn.Load(), end, name, "in")
		count(descDataBytes, m.BytesOut.Load(), end, name, "out")
		for why, name := range datagram.DropNames {
			if k := m.Dropped[why].Load(); k > 0 {
				count(descDataDrops, k, end, m.Name(), name)
			}
		}
		for _, d := range []struct {
			reason string
			n      uint64
		}{
			{"unread", m.Lost.Load()}, {"unsent", m.Sock.Overflow.Load()}, {"not_sendable", m.Sock.Failed.Load()}, {"nobody_listens", m.Sock.Refused.Load()},
		} {
			if d.n > 0 {
				count(descDataDrops, d.n, end, name, d.reason)
			}
		}
		count(descDataBad, m.Malformed.Load(), end, name)
	}
}
