package interceptor

import (
	"errors"
	"fmt"

	"sallyport/dataplane"
	"sallyport/portal"
	"sallyport/routing"
)

var (
	errGap      = errors.New("a payload is missing")
	errEarly    = errors.New("data before the outlet has answered")
	errKind     = errors.New("unexpected kind of message")
	errBudget   = errors.New("too much waits on this node")
	errStalled  = errors.New("reader took nothing for too long")
	errProgress = errors.New("filter made no progress")
)

// direction takes the messages of one direction. It is the worker that they are sent to, and the source of what it passes on.
type direction struct {
	p        *pair
	self     routing.WireAddress
	to, back routing.Route // where to pass on, and the return route given along
	filter   Filter
	remote   bool // messages come from the other node, over a connection shared with others
	throttle *routing.Throttle
	gate     *routing.Gate    // of a source of its own
	backlog  *routing.Backlog // of messages from the other node
	drain    int              // how many bytes may wait when backlog is told; 0: not

	in      []byte // came and not passed on
	passing int    // bytes to pass on without asking
	working int    // size of the unit in work
	out     []byte // waits for the reader
	held    bool   // the reader takes no more
	last    []byte // the Disconnect that ends the direction
	expect  uint16 // counter of the next payload
	counted int    // bytes in the node's budget
	moved   uint64 // bytes passed on
}

func newDirection(p *pair, f Filter) *direction {
	d := &direction{p: p, filter: f, gate: routing.NewGate(p.shard)}
	d.throttle = routing.NewThrottle(p.shard, d)
	d.backlog = routing.NewBacklog(p.shard, (*draining)(d), HighWater, p.l.opts.Patience)
	return d
}

// PassesOn implements routing.Through.
func (d *direction) PassesOn() {}

// PauseSource implements routing.Source.
func (d *direction) PauseSource() { d.held = true }

// ResumeSource implements routing.Source. It goes on in a later turn: the reader is in the middle of letting its sources go.
func (d *direction) ResumeSource() {
	d.held = false
	d.p.shard.Loop().Post(dataplane.TaskFunc(func() {
		if !d.p.ended {
			d.pump(nil)
		}
	}))
}

// HandleMessage takes a message of the portal.
func (d *direction) HandleMessage(_ *routing.Shard, m *routing.Message) {
	p := d.p
	if p.ended || d.last != nil {
		return
	}
	if d.remote && ((m.Peer == nil) != (p.peer == nil) || m.Peer != nil && m.Peer.ID != p.peer.ID) {
		p.l.env.Stats.Denied.Add(1) // not who the connection began with (docs/protocol/03 §1.6)
		return
	}
	kind, data, counter, err := portal.Read(m.Payload())
	if err != nil {
		p.l.env.Stats.Malformed.Add(1)
		p.fail(portal.ReasonGap, err)
		return
	}
	switch kind {
	case portal.KindPing:
	case portal.KindPong:
		if d == p.down {
			p.pong(m)
		}
	case portal.KindDisconnect:
		d.last = append([]byte(nil), m.Payload()...)
		if d.p.local() != d { // reasons are for ends on this node
			d.last = d.last[:1]
		}
		d.pump(nil)
	case portal.KindPayload:
		switch {
		case !p.opened:
			p.fail(portal.ReasonGap, errEarly)
			return
		case counter >= 0 && uint16(counter) != d.expect:
			p.fail(portal.ReasonGap, errGap)
			return
		case counter >= 0:
			d.expect++
		}
		d.take(data)
		d.pump(m.From)
	default:
		p.fail(portal.ReasonGap, fmt.Errorf("%w: %#02x", errKind, kind))
	}
}

// take passes on what can go at once and keeps the rest.
func (d *direction) take(data []byte) {
	if len(d.in) == 0 && d.working == 0 && d.passing > 0 {
		n := min(d.passing, len(data))
		d.passing -= n
		d.emit(data[:n])
		data = data[n:]
	}
	d.in = append(d.in, data...)
}

// pump goes on as far as possible. from is whose message brought the latest bytes.
func (d *direction) pump(from *routing.Throttle) {
	p := d.p
	d.flush()
	first, at := 0, 0 // what is between goes on together
	for wait := false; !wait && !p.ended && d.working == 0 && at < len(d.in); {
		if d.passing > 0 {
			n := min(d.passing, len(d.in)-at)
			d.passing -= n
			at += n
			continue
		}
		step, n, err := d.filter.Next(d.in[at:])
		switch {
		case err != nil:
			p.fail(portal.ReasonGap, err)
			return
		case step == Wait:
			wait = true
		case n < 1 || step == Work && n > len(d.in)-at:
			p.fail(portal.ReasonGap, errProgress)
			return
		case step == Pass:
			d.passing = n
		case step == Work:
			unit := d.in[at : at+n]
			d.emit(d.in[first:at])
			if first, at = at+n, at+n; at == len(d.in) {
				d.in, first, at = nil, 0, 0 // all that has come is the unit's
			} else {
				unit = append([]byte(nil), unit...)
			}
			d.begin(unit)
		}
	}
	if !p.ended && first < at {
		d.emit(d.in[first:at])
	}
	if p.ended {
		return
	}
	d.drop(at)
	if d.last != nil && d.working == 0 && len(d.out) == 0 { // an unfinished unit at the end goes nowhere
		d.send(d.back, d.last)
		p.stop()
		return
	}
	d.pressure(from)
}

// drop forgets the first n bytes that came.
func (d *direction) drop(n int) {
	if n == 0 {
		return
	}
	rest := copy(d.in, d.in[n:])
	d.in = d.in[:rest]
	if rest == 0 && cap(d.in) > lowWater {
		d.in = nil
	}
}

// begin works on a unit on a goroutine.
func (d *direction) begin(unit []byte) {
	d.working = len(unit)
	loop, ctx, filter := d.p.shard.Loop(), d.p.ctx, d.filter
	go func() {
		var out []byte
		err := errors.New("fault")
		loop.Guard("interceptor", func() { out, err = filter.Work(ctx, unit) })
		loop.Post(dataplane.TaskFunc(func() { d.worked(out, err) }))
	}()
}

// worked goes on with the result.
func (d *direction) worked(out []byte, err error) {
	d.working = 0
	if d.p.ended {
		return
	}
	if err != nil {
		d.p.fail(portal.ReasonGap, err)
		return
	}
	d.emit(out)
	d.pump(nil)
}

// emit passes bytes on, in order behind those that wait. b is borrowed.
func (d *direction) emit(b []byte) {
	if len(d.out) == 0 {
		b = b[d.deliver(b):]
	}
	if len(b) > 0 && !d.p.ended {
		d.out = append(d.out, b...)
	}
}

// flush passes on what waited for the reader.
func (d *direction) flush() {
	if len(d.out) == 0 {
		return
	}
	n := d.deliver(d.out)
	if d.p.ended { // meanwhile
		return
	}
	rest := copy(d.out, d.out[n:])
	if d.out = d.out[:rest]; rest == 0 {
		d.out = nil
	}
}

// deliver sends b in payloads until the reader takes no more, and returns how many bytes it sent.
func (d *direction) deliver(b []byte) (sent int) {
	s := d.p.shard
	for sent < len(b) && !d.held && !d.p.ended {
		chunk := b[sent:min(len(b), sent+portal.MaxPayload)]
		m := s.NewMessage()
		m.SetRoutes(d.to, d.back)
		m.SetPayloadBytes(chunk)
		head := portal.PayloadHeaderSize(len(chunk))
		portal.PutPayloadHeader(m.Grow(s, head, 0), head, len(chunk))
		if d.remote {
			m.Peer = d.p.peer
		}
		m.From = d.throttle
		sent += len(chunk)
		d.moved += uint64(len(chunk))
		s.Deliver(m)
		s.Free(m)
	}
	return sent
}

// send sends a message without data.
func (d *direction) send(ret routing.Route, b []byte) {
	s := d.p.shard
	m := s.NewMessage()
	m.SetRoutes(d.to, ret)
	m.SetPayloadBytes(b)
	if d.remote {
		m.Peer = d.p.peer
	}
	s.Deliver(m)
	s.Free(m)
}

// pressure pauses the source while more waits than may, and lets it go on.
func (d *direction) pressure(from *routing.Throttle) {
	size := len(d.in) + len(d.out) + d.working
	budget := d.p.l.opts.Budget
	used := budget.used.Add(int64(size - d.counted))
	d.counted = size
	bound := HighWater
	if used > budget.size() {
		bound = lowWater
	}
	done := d.working == 0 && !d.held // what is missing has still to come
	if d.drain > 0 && (done || size <= d.drain) {
		d.drain = 0
		d.backlog.Drained()
	}
	switch {
	case used > 2*budget.size() && size > lowWater:
		budget.refused.Add(1)
		d.p.fail(portal.ReasonStalled, errBudget)
	case done || size <= bound/4:
		d.gate.Open()
	case size > bound && from != nil && d.remote:
		d.backlog.Over(max(size, HighWater+1), from)
	case size > bound && from != nil:
		d.gate.Pause(from)
	}
}

// draining is a direction as the destination of its backlog.
type draining direction

// Waiting implements routing.Draining.
func (d *draining) Waiting() (int, uint64) { return len(d.in) + len(d.out) + d.working, d.moved }

// WantDrain implements routing.Draining.
func (d *draining) WantDrain(low int) { d.drain = low }

// Stalled implements routing.Draining: the reader takes too little while others wait behind it.
func (d *draining) Stalled() {
	if !d.p.ended {
		d.p.fail(portal.ReasonStalled, errStalled)
	}
}

// stop forgets the worker.
func (d *direction) stop() {
	d.p.shard.Stop(d.self)
	d.throttle.Close()
	d.gate.Open()
	d.backlog.Close()
	d.p.l.opts.Budget.used.Add(int64(-d.counted))
	d.counted = 0
	d.in, d.out = nil, nil
}
