package routing

import (
	"strings"
	"unicode/utf8"

	"sallyport/routing/bare"
)

// Names of the services that every node has (docs/protocol/01 §5.4).
const (
	EchoService        = "echo"
	UppercaseService   = "uppercase"
	HopService         = "hop"
	RelayService       = "forwarding_service"
	StaticRelayService = "static_forwarding_service"
	RelayPrefix        = "forward_to_"
	ChannelService     = "api"
	KeyService         = "key_exchanger"
	DefaultOutlet      = "outlet"
)

// Access decides whether a message may be handled. nil allows everything.
type Access func(m *Message) bool

// Reply turns m into an answer with the payload it has now, along its return route, and delivers it. m is used up.
func (m *Message) Reply(s *Shard, from WireAddress) {
	m.Onward, m.onwardAt = m.Return.Clone(), routeRoom
	m.Return, m.returnAt = Route{b: from.b, n: 1}, routeRoom
	m.Peer = nil
	s.Deliver(m)
}

// Echo returns the payload unchanged to the return route. pinged, if set, is told the return route of what came without a secure channel.
func Echo(access Access, pinged func(s *Shard, ret Route)) Worker {
	self := LocalAddress(EchoService).Wire()
	return WorkerFunc(func(s *Shard, m *Message) {
		if m.Peer != nil {
			m.Peer.Pinged = true
		}
		if access != nil && !access(m) {
			return
		}
		if m.Peer == nil && pinged != nil {
			pinged(s, m.Return)
		}
		m.Reply(s, self)
	})
}

// Uppercase answers a BARE text with the same text in upper case; anything else gets no answer.
func Uppercase() Worker {
	self := LocalAddress(UppercaseService).Wire()
	return WorkerFunc(func(s *Shard, m *Message) {
		text, _, err := bare.Bytes(m.Payload())
		if err != nil || !utf8.Valid(text) {
			s.Drops.Malformed.Add(1)
			return
		}
		answer := bare.AppendString(nil, strings.ReplaceAll(strings.ToUpper(string(text)), "ß", "SS"))
		m.SetPayloadBytes(answer)
		m.Reply(s, self)
	})
}

// Hop forwards: it removes its own address from the onward route and puts it in front of the return route.
func Hop(name string) Worker {
	self := LocalAddress(name).Wire()
	return WorkerFunc(func(s *Shard, m *Message) {
		m.PopOnward()
		m.PushReturn(self)
		s.Deliver(m)
	})
}
