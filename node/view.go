package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sallyport/buildinfo"
	"sallyport/crypto/identity"
	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/portal"
	"sallyport/routing/multiaddr"
	"sallyport/routing/secure"
)

// What the page shows at most.
const (
	viewStories     = 64
	viewConnections = 100
	viewEvents      = 60
	viewText        = 300 // bytes of one text
)

// view is what the page shows: see node/page.
type view struct {
	Node        string             `json:"node"`
	Identifier  string             `json:"identifier"`
	Version     string             `json:"version"`
	Revision    string             `json:"revision"`
	Stats       admin.Stats        `json:"stats"`
	Authority   *admin.Authority   `json:"authority,omitempty"`
	KeysUntil   int64              `json:"keys_until,omitempty"` // Unix time
	Wrong       []string           `json:"wrong"`
	Stories     []story            `json:"stories"`
	StoriesLeft int                `json:"stories_left,omitempty"` // how many more there are
	Connections []viewedConnection `json:"connections"`
	Open        int64              `json:"open"` // how many connections there are
	Events      []admin.Event      `json:"events"`
}

// story is a way that this node is part of, from clients to a target.
type story struct {
	End    string  `json:"end"` // inlet, outlet or relay
	Name   string  `json:"name"`
	Places []place `json:"places"`
	Legs   []leg   `json:"legs"` // one fewer than places
}

// place is one box of the picture.
type place struct {
	Kind   string `json:"kind"` // clients, inlet, relay, outlet or target
	Name   string `json:"name,omitempty"`
	Detail string `json:"detail,omitempty"`
	Here   bool   `json:"here,omitempty"` // in this process
}

// States of legs.
const (
	legUp      = "up"
	legDown    = "down"
	legUnknown = "unknown"
)

// leg is a line between two boxes.
type leg struct {
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`
	// RoundTrip is that of the leg, or where Whole is set of the whole way between the two nodes; 0: unknown.
	RoundTrip float64 `json:"round_trip_seconds,omitempty"`
	Whole     bool    `json:"whole,omitempty"`
	// ToTarget and ToClient are bytes carried so far, where they are known; their rate is the page's to find.
	ToTarget *uint64 `json:"to_target,omitempty"`
	ToClient *uint64 `json:"to_client,omitempty"`
}

// viewedConnection is one open connection.
type viewedConnection struct {
	ID         string    `json:"id,omitempty"`
	End        string    `json:"end"`
	Portal     string    `json:"portal"`
	Began      time.Time `json:"began"`
	Client     string    `json:"client,omitempty"`
	Peer       string    `json:"peer,omitempty"`
	Attributes string    `json:"attributes,omitempty"`
	ToTarget   uint64    `json:"to_target"`
	ToClient   uint64    `json:"to_client"`
	Resumed    int       `json:"resumed,omitempty"`
	Away       bool      `json:"away,omitempty"`
}

// view describes the node for the page.
func (n *Node) view(ctx context.Context) view {
	ctx, cancel := context.WithTimeout(ctx, 2*sampleTimeout)
	defer cancel()
	build := buildinfo.Get()
	v := view{Node: n.opts.Name, Identifier: n.opts.Self.String(), Version: build.Version, Revision: build.Revision, Stats: n.Stats(ctx), Wrong: []string{},
		Authority: n.Describe().Authority, Stories: []story{}, Connections: []viewedConnection{}, Events: n.Events()}
	if k := n.keys(); k != nil {
		v.KeysUntil = k.ValidUntil
	}
	v.Events = v.Events[max(len(v.Events)-viewEvents, 0):]
	for _, r := range n.set.Resources() {
		if (r.State == resource.Down || r.State == resource.Degraded) && len(v.Wrong) < viewStories {
			v.Wrong = append(v.Wrong, shortText(fmt.Sprintf("%s %s is %s: %s", r.Kind, r.Name, r.State, r.Reason)))
		}
	}
	if s := n.AuthorityState(); n.revoked != nil && s.Late {
		v.Wrong = append(v.Wrong, fmt.Sprintf("the authority has been out of reach for %v", s.Silence.Round(time.Second)))
	}
	meters := map[[2]string]*portal.Meter{}
	for _, m := range n.portals.Meters() {
		meters[[2]string{m.End(), m.Name()}] = m
		v.Open += m.Open.Load()
	}
	all := slices.Concat(n.inletStories(ctx, meters), n.outletStories(meters), n.relayStories(ctx))
	v.Stories = append(v.Stories, all[:min(len(all), viewStories)]...)
	v.StoriesLeft = len(all) - len(v.Stories)
	for _, c := range portal.List(ctx, n.router.Shards(), viewConnections) {
		s := viewedConnection{End: c.End, Portal: c.Portal, Began: c.Began.UTC(), Client: c.Client, ToTarget: c.ToTarget, ToClient: c.ToClient, Resumed: c.Resumed, Away: c.Away}
		if c.ID != ([16]byte{}) {
			s.ID = fmt.Sprintf("%x", c.ID)
		}
		if c.HasPeer {
			s.Peer = identity.Identifier(c.Peer).String()
		}
		if c.End == portal.EndOutlet && c.Attributes == nil && c.HasPeer {
			c.Attributes = n.access.attested(&c.Peer)
		}
		s.Attributes = attributesText(c.Attributes)
		v.Connections = append(v.Connections, s)
	}
	return v
}

// attributesText is what a peer has shown of itself, without the trust context, which is the same for all.
func attributesText(attributes map[string]string) (s string) {
	for _, key := range sortedKeys(attributes) {
		if key == "trust_context_id" {
			continue
		}
		if s += key + "=" + attributes[key] + " "; len(s) > viewText {
			break
		}
	}
	return shortText(strings.TrimSpace(s))
}

func shortText(s string) string {
	if len(s) > viewText {
		return strings.ToValidUTF8(s[:viewText], "") + "…"
	}
	return s
}

// carried sets what a portal carried on legs.
func carried(legs []leg, m *portal.Meter) {
	if m == nil {
		return
	}
	to, back := m.BytesIn.Load(), m.BytesOut.Load()
	if m.End() == portal.EndOutlet {
		to, back = back, to
	}
	for i := range legs {
		legs[i].ToTarget, legs[i].ToClient = &to, &back
	}
}

// clientsOf is the box of a portal's clients.
func clientsOf(m *portal.Meter) place {
	p := place{Kind: "clients"}
	if m != nil {
		p.Detail = fmt.Sprintf("%d connected", m.Open.Load())
	}
	return p
}

// relayName is the name that a route has at a relay, if it leads through one, and the host that it begins with or the project's name.
func relayName(to multiaddr.Addr) (name, host string) {
	for i, p := range to {
		switch p.Protocol {
		case multiaddr.Service:
			if forwarded, ok := strings.CutPrefix(p.Text, "forward_to_"); ok {
				name = forwarded
			}
		case multiaddr.TCP:
			if i > 0 && host == "" {
				host = to[i-1].Text + ":" + p.Text
			}
		case multiaddr.Project:
			host = "project " + p.Text
		}
	}
	return name, host
}

// inletStories draws the ways of inlets.
func (n *Node) inletStories(ctx context.Context, meters map[[2]string]*portal.Meter) (list []story) {
	for _, i := range n.inlets.List() {
		m := meters[[2]string{portal.EndInlet, i.Request.Alias}]
		at := inletOf(i)
		name, host := relayName(nil)
		outlet := ""
		if i.IsOpen {
			name, host = relayName(i.Value.to)
			outlet = i.Value.outletName()
		}
		s := story{End: portal.EndInlet, Name: i.Request.Alias, Places: []place{clientsOf(m), {Kind: "inlet", Name: i.Request.Alias, Detail: at.Bind, Here: true}}}
		if name != "" {
			s.Places = append(s.Places, place{Kind: "relay", Name: name, Detail: host})
			host = ""
		}
		s.Places = append(s.Places, place{Kind: "outlet", Name: outlet, Detail: host}, place{Kind: "target"})
		s.Legs = make([]leg, len(s.Places)-1)
		for k := range s.Legs {
			s.Legs[k].State = legUnknown
		}
		if i.IsOpen {
			n.inletLegs(ctx, i.Value, s.Legs)
			if target := &s.Legs[len(s.Legs)-1]; target.State != legDown && m != nil && lately(m) {
				*target = leg{State: legDown, Reason: "the target was not reached for the last client"}
			}
		} else {
			s.Legs[0] = leg{State: legDown, Reason: shortText(i.Status.Reason)}
		}
		carried(s.Legs, m)
		list = append(list, s)
	}
	return list
}

// lately reports whether a portal's target was not reached for its last client, since less than the time in which the outlet's node is asked again.
func lately(m *portal.Meter) bool {
	last := m.Unreached.Load()
	return last > m.Reached.Load() && time.Since(time.Unix(0, last)) < askAgain*3/2
}

// inletLegs says how the way of an inlet is: to the inlet, to the relay if there is one, to the outlet, to the target.
func (n *Node) inletLegs(ctx context.Context, in *inlet, legs []leg) {
	legs[0].State = legUp
	first, last, target := 1, len(legs)-2, len(legs)-1
	session := in.path()
	up, c, failure := session.state()
	if !up {
		broken := first // the first node of the way
		if errors.Is(failure, secure.ErrAbsent) {
			legs[first].State = legUp
			broken = last
		}
		if failure != nil {
			legs[broken].State, legs[broken].Reason = legDown, shortText(failure.Error())
		}
		return
	}
	for k := first; k <= last; k++ {
		legs[k].State = legUp
	}
	if c != nil && c.tcp != nil && first != last {
		legs[first].RoundTrip = c.tcp.RoundTrip(ctx).Seconds()
	}
	legs[last].RoundTrip, legs[last].Whole = session.numbers().trip.Seconds(), first != last
	switch said, asked := in.answer.get(); {
	case session != in.session || !asked:
	case said.State == resource.Up && said.Reason == "":
		legs[target].State = legUp
	case said.Refused:
		legs[last].State, legs[last].Reason = legDown, shortText(said.Reason)
	case said.State == resource.Degraded || said.State == resource.Down:
		legs[target].State, legs[target].Reason = legDown, shortText(said.Reason)
	}
}

// outletStories draws the ways of outlets: what lies before them is known as far as this node's relays.
func (n *Node) outletStories(meters map[[2]string]*portal.Meter) (list []story) {
	relays, toRelays := []string{}, leg{State: legDown}
	hosts := ""
	for _, r := range n.relays.List() {
		if relays = append(relays, r.Request.Name); !r.IsOpen {
			continue
		}
		if at, err := multiaddr.Parse(r.Request.At); err == nil && hosts == "" {
			_, hosts = relayName(at)
		}
		switch v := r.Value.session.numbers(); {
		case v.up && toRelays.State != legUp:
			toRelays = leg{State: legUp, RoundTrip: v.trip.Seconds()}
		case !v.up && toRelays.State != legUp:
			toRelays.Reason = shortText(r.Status.Reason)
		}
	}
	for _, i := range n.outlets.List() {
		m := meters[[2]string{portal.EndOutlet, i.Request.Name}]
		s := story{End: portal.EndOutlet, Name: i.Request.Name, Places: []place{clientsOf(m)}}
		if len(relays) > 0 {
			names := relays[0]
			if len(relays) > 1 {
				names += fmt.Sprintf(" and %d more", len(relays)-1)
			}
			s.Places = append(s.Places, place{Kind: "relay", Name: names, Detail: hosts})
			before := leg{State: legUnknown}
			if m != nil && m.Open.Load() > 0 && toRelays.State == legUp {
				before.State = legUp
			}
			s.Legs = append(s.Legs, before, toRelays)
		} else {
			s.Legs = append(s.Legs, leg{State: legUp})
		}
		s.Places = append(s.Places, place{Kind: "outlet", Name: i.Request.Name, Here: true}, place{Kind: "target", Name: i.Request.To})
		target := leg{State: legUp}
		switch {
		case i.Status.State == resource.Degraded || i.Status.State == resource.Down:
			target = leg{State: legDown, Reason: shortText(i.Status.Reason)}
		case i.Status.Since.IsZero(): // nobody has asked it yet
			target.State = legUnknown
		}
		s.Legs = append(s.Legs, target)
		carried(s.Legs, m)
		list = append(list, s)
	}
	return list
}

// relayStories draws what goes through this node's relay service, a picture for each name.
func (n *Node) relayStories(ctx context.Context) (list []story) {
	if n.relaySvc == nil {
		return nil
	}
	traffic := n.relaySvc.Traffic(ctx)
	for _, name := range sortedKeys(traffic) {
		t := traffic[name]
		to, back := t.BytesOut, t.BytesIn
		legs := []leg{{State: legUp, ToTarget: &to, ToClient: &back}, {State: legUp, ToTarget: &to, ToClient: &back}}
		list = append(list, story{End: "relay", Name: name, Legs: legs, Places: []place{
			{Kind: "inlets"}, {Kind: "relay", Name: name, Detail: n.Listening(), Here: true}, {Kind: "outlet", Detail: "the node of " + name},
		}})
	}
	return list
}
