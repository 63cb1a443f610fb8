package datagram

import (
	"encoding/binary"
	"time"

	"sallyport/records"
)

// carried counts what went one way through a flow.
type carried struct{ datagrams, bytes uint64 }

func (c *carried) add(n int) {
	c.datagrams++
	c.bytes += uint64(n)
}

// flowID is the number of a flow in records, the same at both ends: the session's name and the flow's number in it.
func flowID(s session, flow uint64) (id [16]byte) {
	copy(id[:], s[:])
	binary.BigEndian.PutUint64(id[sessionSize:], flow)
	return id
}

// endedBy says who ended a flow, in the words of records; end is which end this is.
func (f *flow) endedBy(why Reason, end string) string {
	switch {
	case why == ReasonIdle:
		return "client" // it has sent nothing more
	case !f.byPeer:
		return end
	case end == "inlet":
		return "outlet"
	}
	return "inlet"
}

// record hands over the record of a flow that ends, if records are kept.
func (e *Env) record(r *records.Record, f *flow, s session, why Reason, now time.Time) {
	r.ID, r.Began, r.Ended, r.Setup, r.FirstByte = flowID(s, f.number), f.began, now, -1, -1
	r.Outcome, r.By, r.Datagrams = why.String(), f.endedBy(why, r.End), true
	e.Records.Record(r)
}

// record hands over the record of a flow of the inlet.
func (in *Inlet) record(f *flow, why Reason) {
	if in.env.Records == nil {
		return
	}
	r := &records.Record{End: "inlet", Portal: in.opts.Name, Client: f.client.String(), ToTarget: f.sent.bytes, ToClient: f.received.bytes,
		DatagramsToTarget: f.sent.datagrams, DatagramsToClient: f.received.datagrams}
	if in.peer != nil {
		r.Peer, r.HasPeer, r.Attributes = *in.peer, true, in.env.Records.Attributes(in.peer)
	}
	in.env.record(r, f, in.sender.session, why, in.shard.Loop().Now())
}

// record is the same at an outlet.
func (v *served) record(f *flow, why Reason) {
	o := v.half.out
	if o.env.Records == nil {
		return
	}
	r := &records.Record{End: "outlet", Portal: o.opts.Name, Target: o.opts.Target, Address: f.client.String(), ToTarget: f.received.bytes, ToClient: f.sent.bytes,
		DatagramsToTarget: f.received.datagrams, DatagramsToClient: f.sent.datagrams}
	if v.key.peer != ([32]byte{}) {
		r.Peer, r.HasPeer, r.Attributes = v.key.peer, true, o.env.Records.Attributes(&v.key.peer)
	}
	o.env.record(r, f, v.key.name, why, v.half.shard.Loop().Now())
}
