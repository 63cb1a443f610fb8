package routing

import "sync/atomic"

// Room that a message's payload should have around it so that every layer it passes can prepend and append in place:
// a portal header (5 bytes), and for each secure channel two routes of a few 36-byte addresses, counter, wrapper and tag.
const (
	HeadRoom = 1024
	TailRoom = 128
)

// routeRoom is the scratch space in a message for each of its routes.
const routeRoom = 320

// Peer is who sent a message, as authenticated by the innermost secure channel it came through. There is one Peer per
// channel; compare ID to compare identities.
type Peer struct {
	// ID is the identifier of the peer's identity.
	ID [32]byte
	// Pinged is set when the peer has used the echo service through the channel: it watches the channel, so silence
	// means that it is gone. For the channel's shard only.
	Pinged bool
	// relayed is what this node's relay service has decided.
	relayed atomic.Pointer[relayed]
}

// Source is where messages are read from: a connection of a transport, or a client's connection of a portal.
// It lives on one shard. Its methods are called on that shard.
type Source interface {
	// PauseSource stops reading. It is called once until ResumeSource.
	PauseSource()
	// ResumeSource starts reading again.
	ResumeSource()
}

// Message is one message on its way through a node. A shard reuses its Messages: see the package comment.
type Message struct {
	Onward Route
	Return Route
	// Peer is nil for a message that did not come through a secure channel.
	Peer *Peer
	// From is where the message was read, or nil when it began on this node and needs no backpressure.
	From *Throttle
	// Loose says that the message may be lost and overtake others; from a transport, that it came like that. It holds for one hop: who passes a message on
	// clears it unless the rest of the way may lose it too.
	Loose bool

	// buf[start:end] is the payload; buf[low:start] and buf[end:high] may be overwritten.
	buf                   []byte
	low, start, end, high int
	kept                  bool // the payload itself must not be overwritten

	producer *Producer // whose flow the next hop must consume; nil: anybody may be reached
	hops     uint8     // deliveries on this node
	work     int       // bytes that workers were handed in this turn, each time anew

	onwardRoom, returnRoom [routeRoom]byte
	onwardAt, returnAt     int // where the route begins in its room; routeRoom when it is not there
}

// Reset makes m an empty message.
func (m *Message) Reset() {
	m.Onward, m.Return, m.Peer, m.From, m.Loose = Route{}, Route{}, nil, nil, false
	m.buf, m.low, m.start, m.end, m.high, m.kept = nil, 0, 0, 0, 0, false
	m.producer, m.hops, m.work = nil, 0, 0
	m.onwardAt, m.returnAt = routeRoom, routeRoom
}

// Payload returns the payload, borrowed.
func (m *Message) Payload() []byte { return m.buf[m.start:m.end] }

// SetPayload makes buf[start:end] the payload; buf[low:start] and buf[end:high] may be overwritten in handling m.
func (m *Message) SetPayload(buf []byte, low, start, end, high int) {
	m.buf, m.low, m.start, m.end, m.high = buf, low, start, end, high
}

// SetPayloadBytes makes p the payload, with nothing around it that may be overwritten.
func (m *Message) SetPayloadBytes(p []byte) { m.SetPayload(p, 0, 0, len(p), len(p)) }

// Keep says that whoever began the message keeps its payload: what is around it may be overwritten, the payload itself may not.
func (m *Message) Keep() { m.kept = true }

// Kept reports whether that was said and the payload is still the one that was given.
func (m *Message) Kept() bool { return m.kept }

// Replace returns n bytes of the shard's memory as the new payload, to be filled from the old one before m is delivered; there is room around
// them. The old payload is left as it is.
func (m *Message) Replace(s *Shard, n int) []byte {
	buf := s.scratch(HeadRoom + n + TailRoom)
	m.SetPayload(buf, 0, HeadRoom, HeadRoom+n, len(buf))
	m.kept = false
	return m.Payload()
}

// Room returns how many bytes before and after the payload may be overwritten.
func (m *Message) Room() (head, tail int) { return m.start - m.low, m.high - m.end }

// Grow makes the payload head bytes longer at the front and tail at the back, and returns it; the new bytes are to be
// filled. When there is no room for them the payload moves to scratch memory of the shard.
func (m *Message) Grow(s *Shard, head, tail int) []byte {
	if m.start-m.low < head || m.high-m.end < tail {
		m.move(s, head, tail)
	}
	m.start -= head
	m.end += tail
	return m.buf[m.start:m.end]
}

func (m *Message) move(s *Shard, head, tail int) {
	size := m.end - m.start
	buf := s.scratch(head + HeadRoom + size + tail + TailRoom)
	start := head + HeadRoom
	copy(buf[start:], m.buf[m.start:m.end])
	m.SetPayload(buf, 0, start, start+size, len(buf))
	m.kept = false
}

// PushReturn adds address, in front of the return route.
func (m *Message) PushReturn(address WireAddress) {
	m.Return, m.returnAt = push(m.Return, m.returnRoom[:], m.returnAt, address.b)
}

// PushOnward adds all addresses of r in front of the onward route.
func (m *Message) PushOnward(r Route) {
	n := m.Onward.n
	m.Onward, m.onwardAt = push(m.Onward, m.onwardRoom[:], m.onwardAt, r.b)
	m.Onward.n = n + r.n
}

// push puts the encoded addresses b in front of r, using room from its end backwards.
func push(r Route, room []byte, at int, b []byte) (Route, int) {
	inRoom := at < routeRoom && len(r.b) == routeRoom-at && len(r.b) > 0 && &r.b[0] == &room[at]
	if !inRoom {
		at = routeRoom - len(r.b)
		if at < len(b) { // a long route: memory of its own
			out := make([]byte, 0, len(b)+len(r.b))
			return Route{b: append(append(out, b...), r.b...), n: r.n + 1}, routeRoom
		}
		copy(room[at:], r.b)
	}
	if at < len(b) {
		out := make([]byte, 0, len(b)+len(r.b))
		return Route{b: append(append(out, b...), r.b...), n: r.n + 1}, routeRoom
	}
	at -= len(b)
	copy(room[at:], b)
	return Route{b: room[at:], n: r.n + 1}, at
}

// PopOnward removes the first address of the onward route.
func (m *Message) PopOnward() { m.Onward = m.Onward.rest() }

// WireAddress is an address in wire form, made once and used for every message.
type WireAddress struct{ b []byte }

// Wire returns a's wire form.
func (a Address) Wire() WireAddress { return WireAddress{b: a.append(nil)} }

// Address returns the address.
func (w WireAddress) Address() Address { return Route{b: w.b, n: 1}.First() }

// Text returns the address's value.
func (w WireAddress) Text() string { return w.Address().Value }

// RouteOf makes a route of one address, without copying.
func RouteOf(w WireAddress) Route { return Route{b: w.b, n: 1} }

// SetRoutes replaces both routes.
func (m *Message) SetRoutes(onward, ret Route) {
	m.Onward, m.Return = onward, ret
	m.onwardAt, m.returnAt = routeRoom, routeRoom
}

// Narrow makes the payload its own part from byte `from` to byte `to` and frees the rest for overwriting.
func (m *Message) Narrow(from, to int) {
	m.start, m.end = m.start+from, m.start+to
}
