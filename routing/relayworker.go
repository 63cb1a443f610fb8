package routing

import (
	"bytes"
	"time"

	"sallyport/dataplane"
)

// relayWorker is a relay on one shard.
type relayWorker struct {
	relays  *Relays
	name    *relayName
	to      *registration // that granted is for
	granted []byte        // first return hop that was last granted the way back
	// Forwarded counts messages; on the shard only.
	Forwarded uint64
}

// HandleMessage forwards m: the relay's own address gives way to the forward route, the return route is left alone.
func (w *relayWorker) HandleMessage(s *Shard, m *Message) {
	if !w.relays.admits(s, m) {
		return
	}
	to := w.name.current.Load()
	if w.name.grouped.Load() {
		to = w.relays.flowTo(s, m, w.name)
	}
	switch {
	case to == nil && w.name.current.Load() == nil:
		w.relays.nobody(s, m, w.name.name)
		return
	case to == nil: // its flow's member has gone
		s.notify(m, w.name.self, Notice{Kind: NoticeAbsent, Name: w.name.name})
		return
	}
	m.PopOnward()
	m.PushOnward(to.forward)
	w.Forwarded++
	if to.elsewhere {
		w.relays.fleet.passedOn.Add(1)
	}
	if to != w.to {
		w.to, w.granted = to, w.granted[:0]
	}
	w.grantReturn(s, m, to)
	s.Deliver(m)
}

// deniedFor is for how long a peer that was not admitted is not looked at again.
const deniedFor = 250 * time.Millisecond

// relayed is what a relay service knows of a peer.
type relayed struct {
	admission Admission
	at        time.Time // when it was decided
}

// admits reports whether m may be passed on: it came through a channel of somebody who is admitted, or began on this node. The decision
// is made once for each channel.
func (rs *Relays) admits(s *Shard, m *Message) bool {
	if rs.opts.Admit == nil {
		return true
	}
	var allowed bool
	if m.Peer != nil {
		known := m.Peer.relayed.Load()
		if known == nil || !known.admission.Allowed() && s.loop.Now().Sub(known.at) > deniedFor {
			known = &relayed{admission: rs.opts.Admit(m.Peer.ID), at: s.loop.Now()}
			m.Peer.relayed.Store(known)
		}
		allowed = known.admission.Allowed()
	} else {
		allowed = !m.From.Shared() && s.wayOut(m.Return) == nil
	}
	if !allowed {
		s.Drops.NotMember.Add(1)
	}
	return allowed
}

// grantReturn lets the answer come back: the first hop of each direction becomes a consumer of what the other one brings
// (docs/protocol/03 §3.3).
func (w *relayWorker) grantReturn(s *Shard, m *Message, to *registration) {
	if m.Return.n == 0 {
		return
	}
	_, prev := m.Return.first()
	if bytes.Equal(prev, w.granted) {
		return
	}
	producer := to.producer()
	t := s.FirstTerminal(m.Return)
	if t == nil {
		// From a worker of this node: a transport or a channel puts itself in front of what it brings in. With more hops behind it that
		// worker only passes the message on, as hop does, and must not become reachable.
		if producer != nil && m.Return.n == 1 {
			w.granted = append(w.granted[:0], prev...)
			s.router.grant(s, string(prev), producer.Own)
		}
		return
	}
	w.granted = append(w.granted[:0], prev...)
	if producer != nil {
		s.AddConsumer(string(prev), producer.Own)
	}
	if p := t.TerminalProducer(); p != nil && to.forward.n > 0 {
		_, next := to.forward.first()
		s.router.grant(s, string(next), p.Own)
	}
}

// grant adds a consumer on the shard that has the address, before any message sent there later.
func (r *Router) grant(s *Shard, address string, f *Flow) {
	to := r.ShardOf(address)
	if to == nil || to == s {
		s.AddConsumer(address, f)
		return
	}
	to.loop.Post(dataplane.TaskFunc(func() { to.AddConsumer(address, f) }))
}
