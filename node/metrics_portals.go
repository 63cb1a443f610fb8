package node

import (
	"time"

	"sallyport/internal/exposition"
	"sallyport/portal"
)

var (
	descResources   = desc("resources", "What the node was asked to have.", "kind", "state")
	descPortals     = desc("portals", "Inlets and outlets, and relays registered.", "kind", "state")
	descPortalDeny  = desc("portal_denied_total", "Connections and messages refused by a policy or because the peer had changed.")
	descPortalLimit = desc("portal_limited_total", "Connections refused by outlets because there were too many.")
	descPortalBad   = desc("portal_malformed_total", "Malformed portal messages.")
	descPortalHeld  = desc("portal_clients_waiting", "Clients that wait for a path to their outlet.")
	descPortalCred  = desc("portal_credits_total", "Messages that let a peer send more.", "direction")
	descPortalAway  = desc("portal_connections_away", "Portal connections whose path is gone and which wait for another.")
	descPortalRes   = desc("portal_resumes_total", "Portal connections that went on over another path, and attempts that were refused.", "event")
	descPortalKept  = desc("portal_kept_bytes", "Bytes that were sent and that the other end has not confirmed.")
	descPortalAgain = desc("portal_resent_bytes_total", "Bytes sent again after a path was lost.")
	descPortalWin   = desc("portal_window_bytes", "Bytes of windows granted beyond their first size.")
	descPortalConns = desc("portal_connections", "Open portal connections.", "kind", "portal")
	descPortalOpen  = desc("portal_connections_opened_total", "Portal connections begun.", "kind", "portal")
	descPortalEnd   = desc("portal_connections_ended_total", "Portal connections ended.", "kind", "portal", "reason")
	descPortalNo    = desc("portal_connections_refused_total", "Clients of an inlet, and inlets at an outlet, that got no connection.", "kind", "portal", "reason")
	descPortalBytes = desc("portal_bytes_total", "Bytes carried between sockets and portals; in: read from a socket.", "kind", "portal", "direction")
	descPortalSetup = desc("portal_setup_seconds", "Until a connection was open: at an inlet since the client came, at an outlet since the inlet asked.", "kind", "portal")
	descPortalDial  = desc("portal_target_dial_seconds", "Until an outlet had found and reached its target.", "portal")
	descPortalLife  = desc("portal_connection_seconds", "How long connections lived that have ended.", "kind", "portal")
	descRecords     = desc("records_total", "Records of portal connections: written, dropped since they could not be written in time, left out because too many were refused.", "outcome")
	descPortalWait  = desc("portal_window_wait_seconds_total", "How long sockets with data waited until the other end could take it, of all connections together.", "kind", "portal")
)

// portals collects what portals do, each and all together.
func (c collector) portals(
	to exposition.Sink, gauge func(*exposition.Metric, float64, ...string), count func(*exposition.Metric, uint64, ...string),
) {
	n := c.n
	states := map[[2]string]int{}
	for _, r := range n.set.Resources() {
		states[[2]string{r.Kind, string(r.State)}]++
	}
	for k, v := range states {
		gauge(descResources, float64(v), k[0], k[1])
	}
	up := map[[2]string]int{{"inlet", "up"}: 0, {"inlet", "down"}: 0, {"relay", "up"}: 0, {"relay", "down"}: 0}
	for _, in := range n.Inlets() {
		up[[2]string{"inlet", stateLabel(in.Status)}]++
	}
	for _, r := range n.Relays() {
		up[[2]string{"relay", stateLabel(r.ConnectionStatus)}]++
	}
	up[[2]string{"outlet", "up"}] = len(n.Outlets())
	for k, v := range up {
		gauge(descPortals, float64(v), k[0], k[1])
	}
	for _, m := range n.portals.Meters() {
		end, name := m.End(), m.Name()
		gauge(descPortalConns, float64(m.Open.Load()), end, name)
		count(descPortalOpen, m.Opened.Load(), end, name)
		for _, r := range portal.Reasons() {
			if k := m.Ended[r].Load(); k > 0 {
				count(descPortalEnd, k, end, name, r.Label())
			}
			if k := m.Refused[r].Load(); k > 0 {
				count(descPortalNo, k, end, name, r.Label())
			}
		}
		count(descPortalBytes, m.BytesIn.Load(), end, name, "in")
		count(descPortalBytes, m.BytesOut.Load(), end, name, "out")
		to.Histogram(descPortalSetup, m.Setup, end, name)
		to.Histogram(descPortalLife, m.Life, end, name)
		if end == portal.EndOutlet {
			to.Histogram(descPortalDial, m.Dial, name)
		}
		waited := time.Duration(m.Waited.Load()).Seconds()
		to.Value(descPortalWait, exposition.Counter, waited, end, name)
	}
	if n.records != nil {
		k := n.records.Counts()
		count(descRecords, k.Written, "written")
		count(descRecords, k.Dropped, "dropped")
		count(descRecords, k.LeftOut, "left_out")
	}
	p := n.portals.Stats
	count(descPortalDeny, p.Denied.Load())
	count(descPortalLimit, p.Limited.Load())
	count(descPortalBad, p.Malformed.Load())
	gauge(descPortalHeld, float64(p.Held.Load()))
	count(descPortalCred, p.CreditsOut.Load(), "out")
	count(descPortalCred, p.CreditsIn.Load(), "in")
	gauge(descPortalAway, float64(p.Away.Load()))
	count(descPortalRes, p.Resumed.Load(), "resumed")
	count(descPortalRes, p.ResumeRefused.Load(), "refused")
	gauge(descPortalKept, float64(p.Kept.Load()))
	count(descPortalAgain, p.Resent.Load())
	gauge(descPortalWin, float64(p.WindowGranted.Load()))
}

func stateLabel(status string) string {
	if status == "Up" {
		return "up"
	}
	return "down"
}
