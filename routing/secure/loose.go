package secure

import (
	"sallyport/crypto/channel"
	"sallyport/routing"
)

// loose is what a channel has for messages that may be lost (docs/protocol/07): keys of their own, so that the channel's counters have no gaps over
// them. Most channels never need it, so the keys are expanded when the first one goes or comes.
type loose struct {
	keys    channel.Keys // until then
	ends    *looseEnds
	in, out uint64 // messages
}

type looseEnds struct {
	sealer channel.Sealer
	opener channel.LooseOpener
}

func (l *loose) begin() *looseEnds {
	if l.ends == nil {
		l.ends = &looseEnds{}
		l.ends.sealer.InitLoose(&l.keys.Send)
		l.ends.opener.Init(&l.keys.Receive)
		l.keys.Wipe()
	}
	return l.ends
}

func (l *loose) wipe() {
	l.keys.Wipe()
	if l.ends != nil {
		l.ends.sealer.Wipe()
		l.ends.opener.Wipe()
	}
}

// looseWriter returns what the channel runs on if that carries messages that may be lost to the peer's decryptor itself, and both ends know of that.
func (e *encryptor) looseWriter(s *routing.Shard) routing.LooseWriter {
	if e.remote.Len() != 2 || e.closed {
		return nil
	}
	if w, ok := e.frameWriter(s).(routing.LooseWriter); ok && w.TakesLoose() {
		return w
	}
	return nil
}

// sendLoose seals a message that may be lost into the transport's output.
func (e *encryptor) sendLoose(sink routing.LooseWriter, m *routing.Message, plain []byte) {
	dst := sink.ReserveLoose(e.remote.WithoutFirst(), routing.Route{}, len(plain)+channel.Overhead)
	if dst == nil {
		return
	}
	if err := e.loose.begin().sealer.Seal(dst, plain); err != nil {
		e.exhausted(err)
		return
	}
	e.loose.out++
	sink.CommitLoose(m.From)
}

// handleLoose opens a message that came beside the others. It has nothing to say about them, nor about the channel.
func (d *decryptor) handleLoose(s *routing.Shard, m *routing.Message) {
	c := (*Channel)(d)
	if c.closed {
		return
	}
	payload := m.Payload()
	plain, err := d.loose.begin().opener.Open(payload)
	if err != nil {
		c.cs.Stats.OpenFailed.Add(1)
		c.cs.log.Debug("secure channel message refused", "reason", err.Error(), describe(c.Peer.ID))
		return
	}
	(*Channel)(d).hear(s.Loop().Now())
	d.loose.in++
	d.bytesIn += uint64(len(plain))
	kind, body, err := channel.ParsePlaintext(plain)
	if err != nil || kind != channel.KindPayload {
		return
	}
	p, err := s.Parse(body)
	if err != nil {
		return
	}
	m.Loose = false
	d.deliver(s, m, p, channel.CounterSize+offset(plain, body))
}
