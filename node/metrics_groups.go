package node

import (
	"sallyport/internal/exposition"
)

var (
	descGroupMembers = desc("relay_members", "Members of a relay name that is shared.", "relay", "state")
	descGroupChanges = desc("relay_member_changes_total", "Times that new connections by a shared relay name went to another member than before, with failover.", "relay")
	descRegistryUp   = desc("relay_registry_up", "1 if the registry of relay names that the relays of a fleet share is there.", "store")
	descFleetRelays  = desc("relay_fleet_relays", "Other relays of the fleet that are alive, by whether there is a way to them.", "state")
	descFleetNames   = desc("relay_fleet_names", "Relay names of the fleet: here, if somebody is registered under it at this relay, else elsewhere.", "where")
	descFleetPassed  = desc("relay_fleet_messages_total", "Messages that went by a relay name between this relay and others of the fleet: the first ones of channels.", "direction")
	descTargetUp     = desc("outlet_target_up", "0 if the target of an outlet with --check did not answer when it was looked at last, or has refused a client since; else 1.", "portal")
)

// groups collects who shares relay names here, and how targets are that outlets look at.
func (c collector) groups(gauge func(*exposition.Metric, float64, ...string), count func(*exposition.Metric, uint64, ...string)) {
	if c.n.relaySvc != nil {
		for name, u := range c.n.relaySvc.Groups() {
			gauge(descGroupMembers, float64(u.Up), name, "up")
			gauge(descGroupMembers, float64(u.Down), name, "target_down")
			gauge(descGroupMembers, float64(u.Away), name, "away")
			count(descGroupChanges, u.Changes, name)
		}
	}
	if r := c.n.registry(); r != nil {
		gauge(descRegistryUp, truth(r.Store.State == "up"), r.Store.Name)
		gauge(descFleetRelays, float64(r.Linked), "linked")
		gauge(descFleetRelays, float64(r.Relays-r.Linked), "unlinked")
		gauge(descFleetNames, float64(r.Here), "here")
		gauge(descFleetNames, float64(r.Elsewhere), "elsewhere")
		count(descFleetPassed, r.PassedOn, "out")
		count(descFleetPassed, r.Taken, "in")
	}
	looks, down := 0, false
	for _, i := range c.n.outlets.List() {
		if !i.IsOpen || i.Value.target == nil || !i.Value.target.looks() {
			continue
		}
		if looks++; looks <= maxPaths {
			gauge(descTargetUp, truth(!i.Value.target.down()), i.Request.Name)
		} else {
			down = down || i.Value.target.down()
		}
	}
	if looks > maxPaths { // up if all are
		gauge(descTargetUp, truth(!down), otherPaths)
	}
}
