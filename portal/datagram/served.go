package datagram

import (
	"bytes"
	"errors"
	"net/netip"
	"time"

	"sallyport/dataplane"
	"sallyport/portal"
	"sallyport/routing"
)

// served is a session at an outlet. It is the worker to which the outlet's halves on other shards pass on what they hear of it.
type served struct {
	half   *half
	key    sessionKey
	at     routing.WireAddress
	grant  *portal.Grant
	table  *table // of the peer, on this shard
	flows  map[uint64]*flow
	sender sender // of what the target sends
	heard  time.Time
	ended  bool
}

// HandleMessage takes what another half has heard.
func (v *served) HandleMessage(_ *routing.Shard, m *routing.Message) {
	if msg, err := parse(m.Payload()); err == nil {
		v.handle(m, msg)
	}
}

func (v *served) handle(m *routing.Message, msg message) {
	now := v.half.shard.Loop().Now()
	v.heard = now
	if !bytes.Equal(v.sender.route.Key(), m.Return.Key()) {
		v.sender.follow(m.Return.Clone())
	}
	switch msg.kind {
	case kindDatagram:
		if !v.half.out.up.takes(&v.key.peer, len(msg.data), now) {
			v.half.out.meter.drop(DropRate)
			return
		}
		f := v.flows[msg.number]
		if f == nil {
			if f = v.begin(m, msg, now); f == nil {
				return
			}
		}
		v.table.fromClient(f, now)
		f.received.add(len(msg.data))
		meter := v.half.out.meter
		meter.Out.Add(1)
		meter.BytesOut.Add(uint64(len(msg.data)))
		f.sock.Send(msg.data, f.client)
	case kindMark:
		post(v.half.shard, v.sender.route, v.half.out.self, appendHead(v.sender.small[:0], kindMarked, v.key.name, msg.number))
	case kindMarked:
		v.sender.answered(msg.number)
	case kindEnd:
		if msg.number == allFlows {
			for _, f := range v.flows {
				f.byPeer = true
			}
			v.finish(min(msg.reason, ReasonClosed), false)
		} else if f := v.flows[msg.number]; f != nil {
			f.byPeer = true
			v.end(f, min(msg.reason, ReasonClosed), false)
		}
	}
}

// begin opens a socket to the target for a new flow.
func (v *served) begin(m *routing.Message, msg message, now time.Time) *flow {
	o := v.half.out
	to, ok := o.address(now)
	if !ok {
		v.half.refuse(m.Return, msg, ReasonTarget, DropTarget)
		return nil
	}
	if !o.places.take(&v.key.peer) && (!v.half.room(v.table) || !o.places.take(&v.key.peer)) {
		v.half.refuse(m.Return, msg, ReasonLimit, DropLimit)
		return nil
	}
	f := &flow{number: msg.number, served: v, began: now}
	if err := v.connect(f, to, now); err != nil {
		o.places.leave(&v.key.peer)
		why := DropTarget
		if errors.Is(err, dataplane.ErrNoDescriptor) {
			why = DropLimit
		}
		v.half.refuse(m.Return, msg, ReasonTarget, why)
		return nil
	}
	v.flows[f.number] = f
	o.meter.Opened.Add(1)
	o.meter.Flows.Add(1)
	return f
}

// connect gives a flow a socket to an address of the target, or to the next one to which there is a way. After an error the flow has what it had.
func (v *served) connect(f *flow, to netip.AddrPort, now time.Time) (err error) {
	o := v.half.out
	for left := o.target.size(); ; left-- {
		var sock *dataplane.UDPSocket
		if sock, err = v.open(f, to); err == nil {
			f.sock, f.client = sock, to
			return nil
		}
		o.env.Log.Warn("portal target not reached", "portal", o.opts.Name, "target", o.opts.Target, "err", err)
		if errors.Is(err, dataplane.ErrNoDescriptor) {
			return err
		}
		o.target.refused(to, now)
		next, ok := o.target.after(to, now)
		if !ok || left <= 1 {
			return err
		}
		to = next
	}
}

func (v *served) open(f *flow, to netip.AddrPort) (*dataplane.UDPSocket, error) {
	o := v.half.out
	fd, _, err := o.router.Group().OpenUDP(netip.AddrPort{}, to, flowBuffer)
	if err != nil {
		return nil, err
	}
	sock, err := v.half.shard.Loop().AdoptUDP(fd, (*targetSocket)(f), &o.meter.Sock)
	if err == nil {
		sock.ForService(flowBuffer)
	}
	return sock, err
}

// refused has a flow go on at the target's next address if it has never heard anything from its own, where nobody listens. What was sent is lost.
func (v *served) refused(f *flow) {
	o, now := v.half.out, v.half.shard.Loop().Now()
	f.refused = true
	o.target.refused(f.client, now)
	if f.heard {
		return // its server may come back and know it
	}
	from, old := f.client, f.sock
	to, ok := o.target.after(from, now)
	if !ok || v.connect(f, to, now) != nil {
		return
	}
	o.env.Log.Info("nobody listens at an address of a portal's target", "portal", o.opts.Name, "target", o.opts.Target, "address", from, "next", f.client)
	o.meter.countLost(old)
	old.Close()
}

// end ends a flow; tell says whether the inlet is to be told.
func (v *served) end(f *flow, why Reason, tell bool) {
	o := v.half.out
	o.meter.countLost(f.sock)
	f.sock.Close()
	v.sender.forget(f)
	v.table.remove(f)
	delete(v.flows, f.number)
	o.places.leave(&v.key.peer)
	o.meter.Flows.Add(-1)
	o.meter.Ended[why].Add(1)
	v.record(f, why)
	if tell {
		v.tell(f.number, why)
	}
}

func (v *served) tell(flow uint64, why Reason) {
	post(v.half.shard, v.sender.route, v.half.out.self, appendEnd(v.sender.small[:0], v.key.name, flow, why))
}

// finish ends a session with all its flows, in one message if the inlet is to be told.
func (v *served) finish(why Reason, tell bool) {
	if v.ended {
		return
	}
	v.ended = true
	h := v.half
	for _, f := range v.flows {
		v.end(f, why, false)
	}
	if tell {
		v.tell(allFlows, why)
	}
	v.sender.close()
	v.grant.Unwatch(v)
	delete(h.sessions, v.key)
	if !h.serves(v.key.peer) {
		delete(h.peers, v.key.peer)
	}
	h.shard.Stop(v.at)
	h.out.mu.Lock()
	delete(h.out.sessions, v.key)
	h.out.mu.Unlock()
	for _, other := range h.out.halves { // whoever speaks of the session again begins it anew
		if other != h {
			other.shard.Loop().Post(dataplane.TaskFunc(func() { delete(other.elsewhere, v.key) }))
		}
	}
}

// serves reports whether a peer has a session on this shard.
func (h *half) serves(peer [32]byte) bool {
	for k := range h.sessions {
		if k.peer == peer {
			return true
		}
	}
	return false
}

// Revoked implements portal.Revoker.
func (v *served) Revoked() {
	v.half.shard.Loop().Post(dataplane.TaskFunc(func() { v.finish(ReasonPolicy, true) }))
}

// targetSocket is a flow as the handler of its socket at an outlet.
type targetSocket flow

// OnDatagram implements dataplane.UDPHandler.
func (t *targetSocket) OnDatagram(buf []byte, n int, _ netip.AddrPort) {
	f := (*flow)(t)
	v := f.served
	if !f.heard || f.refused {
		f.heard, f.refused = true, false
		v.half.out.target.answers(f.client)
	}
	meter := v.half.out.meter
	if n > MaxSize {
		meter.drop(DropSize)
		return
	}
	now := v.half.shard.Loop().Now()
	if !v.half.out.down.takes(&v.key.peer, n, now) {
		meter.drop(DropRate)
		return
	}
	meter.In.Add(1)
	meter.BytesIn.Add(uint64(n))
	v.table.toClient(f, now)
	v.sender.send(f, buf[:n])
}

// OnBatchEnd implements dataplane.UDPHandler.
func (t *targetSocket) OnBatchEnd() {}

// OnFlush implements dataplane.UDPHandler.
func (t *targetSocket) OnFlush() {}

// OnDrain implements dataplane.UDPHandler.
func (t *targetSocket) OnDrain() {}

// OnRefused implements dataplane.UDPHandler.
func (t *targetSocket) OnRefused() { t.served.refused((*flow)(t)) }
