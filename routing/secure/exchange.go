package secure

import (
	"context"

	"sallyport/crypto/channel"
	"sallyport/crypto/identity"
	"sallyport/routing"
)

// Exchanged is the outcome of a channel that is used for its keys only (docs/protocol/01 §7.11). Both sides know it by the address that
// the responder had in the handshake: Own there, Theirs at the initiator. No worker is left at either address.
type Exchanged struct {
	Self, Peer  identity.Identifier
	Own, Theirs string
	// Keys are for channel.Sealer and channel.Opener, in their form without rekeying. Whoever gets them wipes them.
	Keys channel.Keys
}

// Exchange agrees on keys with the listener at route and waits for them; the listener must be one with Options.Exchanged. That the peer
// accepted this side is not known when it returns: the protocol has no message for it. Not on a shard.
func (cs *Channels) Exchange(ctx context.Context, route routing.Route, o Options) (e Exchanged, err error) {
	o.Exchanged = func(got Exchanged) { e = got }
	_, err = cs.Dial(ctx, route, o)
	return e, err
}

// exchanged ends a handshake that was for keys only.
func (h *handshake) exchanged(keys channel.Keys) {
	h.shard.Stop(h.address)
	h.kept = nil // nothing may come through
	e := Exchanged{Self: h.opts.Self, Peer: h.peer.Identity.Identifier(), Own: h.address.Text(), Theirs: h.remote.Last().Value, Keys: keys}
	h.cs.log.Debug("keys exchanged", "initiator", h.initiator, describe(e.Peer))
	if !h.initiator {
		go h.shard.Loop().Guard("an exchange of keys", func() { h.opts.Exchanged(e) })
		return
	}
	h.opts.Exchanged(e) // Dial waits for done
	h.done(nil, nil)
}
