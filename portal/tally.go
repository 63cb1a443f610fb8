package portal

import (
	"cmp"
	"time"

	"sallyport/records"
	"sallyport/routing"
)

// Recorder takes records of connections. Its methods are called on event loops and must not block.
type Recorder interface {
	// Record takes a record; it is the Recorder's.
	Record(r *records.Record)
	// Attributes returns what an authority attested of a peer; the map is not changed afterwards.
	Attributes(peer *[32]byte) map[string]string
}

// Who ended a connection.
const (
	byClient  = "client"
	byTarget  = "target"
	byInlet   = "inlet"
	byOutlet  = "outlet"
	byNetwork = "network"
)

// tally is what the record of a connection will say and nothing else needs.
type tally struct {
	id         token  // zero if the other end was not told
	client     string // address, if it is known here
	target     string // as the outlet was told
	address    string // of the target
	attributes map[string]string
	began      time.Time
	starvedAt  time.Time
	setup      time.Duration // valid if isOpen
	first      time.Duration // valid if hasFirst
	isOpen     bool
	hasFirst   bool
	sent       uint64 // bytes carried to the other end
	by         string // who ended it
	resumed    int
}

// near is who is at this end's socket, far who is at the other's, and here what this end is.
func (c *conn) near() string {
	if c.outlet {
		return byTarget
	}
	return byClient
}

func (c *conn) far() string {
	if c.outlet {
		return byClient
	}
	return byTarget
}

func (c *conn) here() string {
	if c.outlet {
		return byOutlet
	}
	return byInlet
}

// half notes who ended a direction; who was first is said to have ended the connection.
func (t *tally) half(who string) { t.by = cmp.Or(t.by, who) }

// toldBy says who ended a connection of which the other end says so.
func (c *conn) toldBy(r Reason) string {
	switch r {
	case ReasonNone:
		return cmp.Or(c.tally.by, c.far())
	case ReasonReset, ReasonRefused, ReasonUnreachable, ReasonTimeout:
		return c.far()
	case ReasonPath, ReasonHold, ReasonGap:
		return byNetwork
	}
	if c.outlet {
		return byInlet
	}
	return byOutlet
}

// endedBy says who ended the connection, once it has.
func (c *conn) endedBy(r Reason) string {
	switch {
	case c.tally.by != "":
		return c.tally.by
	case r == ReasonPath || r == ReasonHold || r == ReasonGap || r == ReasonUnknown:
		return byNetwork
	}
	return c.here()
}

// sent counts bytes that are carried to the other end.
func (c *conn) sent(n int) {
	c.tally.sent += uint64(n)
	c.flows(n)
	if c.outlet && !c.tally.hasFirst {
		c.tally.first, c.tally.hasFirst = c.shard.Loop().Now().Sub(c.tally.began), true
	}
}

// gotFirst notes that bytes have come from the target.
func (c *conn) gotFirst() {
	if !c.outlet && !c.tally.hasFirst {
		c.tally.first, c.tally.hasFirst = c.shard.Loop().Now().Sub(c.tally.began), true
	}
}

// fed ends the wait for a window.
func (c *conn) fed() {
	if c.starved {
		c.starved = false
		c.meter.Waited.Add(int64(max(c.shard.Loop().Now().Sub(c.tally.starvedAt), 0)))
	}
}

// reached notes that the target has been found and reached.
func (c *conn) reached() {
	now := time.Now()
	c.meter.Dial.Observe(now.Sub(c.tally.began), c.tally.id, now)
	if c.env.Records != nil {
		if a := c.sock.RemoteAddr(); a.IsValid() {
			c.tally.address = a.String()
		}
	}
}

// established notes that the connection is open.
func (c *conn) established() {
	now := time.Now()
	c.tally.setup, c.tally.isOpen = now.Sub(c.tally.began), true
	c.meter.Setup.Observe(c.tally.setup, c.tally.id, now)
	c.meter.Reached.Store(now.UnixNano())
}

// attributes returns what is attested of a peer, for records.
func (e *Env) attributes(peer *[32]byte) map[string]string {
	if e.Records == nil {
		return nil
	}
	return e.Records.Attributes(peer)
}

// record counts the end of a connection and hands over its record.
func (c *conn) record(r Reason) {
	r = min(r, reasonCount-1)
	t := &c.tally
	c.fed()
	m := c.meter
	m.Open.Add(-1)
	m.Ended[r].Add(1)
	// A client that goes on over the next path, which has taken its socket along, is not refused and has its record there.
	offeredAgain := r == ReasonPath && !t.isOpen && !c.outlet && c.sock == nil
	if !t.isOpen && !offeredAgain {
		m.Refused[r].Add(1)
	}
	now := time.Now()
	if !t.isOpen && (r == ReasonRefused || r == ReasonUnreachable) {
		m.Unreached.Store(now.UnixNano())
	}
	m.Life.Observe(now.Sub(t.began), t.id, now)
	if c.env.Records == nil || offeredAgain {
		return
	}
	rec := &records.Record{
		ID: t.id, Began: t.began, Ended: now, End: EndInlet, Portal: c.name, Client: t.client, Peer: c.peer, HasPeer: c.hasPeer, Attributes: t.attributes,
		Target: t.target, Address: t.address, ToTarget: t.sent, ToClient: c.window.received, Setup: -1, FirstByte: -1,
		Outcome: r.Label(), By: c.endedBy(r), Resumed: t.resumed,
	}
	if c.outlet {
		rec.End, rec.ToTarget, rec.ToClient = EndOutlet, c.window.received, t.sent
	}
	if t.isOpen {
		rec.Setup = t.setup
	}
	if t.hasFirst {
		rec.FirstByte = t.first
	}
	c.env.Records.Record(rec)
}

// refused counts a client that got no connection because the inlet had no path, no room or no outlet, and hands over a record of it.
func (in *Inlet) refused(r Reason, o offer) {
	in.env.Stats.Ended[r].Add(1)
	in.meter.Refused[r].Add(1)
	if in.env.Records == nil {
		return
	}
	now := time.Now()
	if o.came.IsZero() {
		o.came = now
	}
	by := byInlet
	if r == ReasonPath {
		by = byNetwork
	}
	in.env.Records.Record(&records.Record{ID: o.id, Began: o.came, Ended: now, End: EndInlet, Portal: in.opts.Name, Client: o.client, Setup: -1, FirstByte: -1,
		Outcome: r.Label(), By: by, Refused: true})
}

// refused counts an inlet that was turned away, and hands over a record of it.
func (o *Outlet) refused(m *routing.Message, msg message, why Reason) {
	o.meter.Refused[why].Add(1)
	if o.env.Records == nil {
		return
	}
	now := time.Now()
	rec := &records.Record{Began: now, Ended: now, End: EndOutlet, Portal: o.opts.Name, Target: o.opts.Target, Setup: -1, FirstByte: -1,
		Outcome: why.Label(), By: byOutlet}
	if m.Peer != nil {
		rec.Peer, rec.HasPeer = m.Peer.ID, true
		rec.Attributes = o.env.attributes(&m.Peer.ID)
	}
	if msg.fields > 0 && rec.HasPeer {
		if f, err := parseFields(m.Payload()[msg.fields:]); err == nil {
			rec.ID, rec.Client = f.id, f.client
		}
	}
	rec.Refused = true
	o.env.Records.Record(rec)
}

// CarriedTally is what the record of a connection will say, for the program that comes next.
type CarriedTally struct {
	Client   string        `cbor:"1,keyasint,omitempty"`
	Address  string        `cbor:"2,keyasint,omitempty"`
	Began    int64         `cbor:"3,keyasint,omitempty"` // Unix time, nanoseconds
	Setup    time.Duration `cbor:"4,keyasint,omitempty"`
	First    time.Duration `cbor:"5,keyasint,omitempty"`
	HasFirst bool          `cbor:"6,keyasint,omitempty"`
	By       string        `cbor:"7,keyasint,omitempty"`
	Resumed  int           `cbor:"8,keyasint,omitempty"`
	Sent     uint64        `cbor:"9,keyasint,omitempty"`
}

// carry writes down what is known of an open connection.
func (t *tally) carry() CarriedTally {
	return CarriedTally{Client: t.client, Address: t.address, Began: t.began.UnixNano(), Setup: t.setup, First: t.first, HasFirst: t.hasFirst,
		By: t.by, Resumed: t.resumed, Sent: t.sent}
}

// takeUp goes on with what was written down of the connection id.
func (t *tally) takeUp(k *CarriedTally, id token) {
	t.id, t.client, t.address, t.setup, t.isOpen = id, k.Client, k.Address, k.Setup, true
	t.first, t.hasFirst, t.by, t.resumed, t.sent = k.First, k.HasFirst, k.By, k.Resumed, k.Sent
	if k.Began > 0 {
		t.began = time.Unix(0, k.Began)
	}
}

// recordCarried hands over a record of a connection that was written down and not taken up. What its target was is not written down.
func (e *Env) recordCarried(end, name string, k *CarriedConn) {
	if e.Records == nil || len(k.ID) != len(token{}) {
		return
	}
	var t tally
	t.takeUp(&k.Tally, token(k.ID))
	rec := &records.Record{ID: t.id, Began: t.began, Ended: time.Now(), End: end, Portal: name, Client: t.client, Peer: k.peer(), HasPeer: true,
		Address: t.address, ToTarget: t.sent, ToClient: k.Received, Setup: t.setup, FirstByte: -1, Outcome: ReasonShutdown.Label(), By: byInlet, Resumed: t.resumed}
	rec.Attributes = e.attributes(&rec.Peer)
	if end == EndOutlet {
		rec.ToTarget, rec.ToClient, rec.By = rec.ToClient, rec.ToTarget, byOutlet
	}
	if t.hasFirst {
		rec.FirstByte = t.first
	}
	e.Records.Record(rec)
}
