package routing

import "time"

// Terminal is a Worker whose next hop is on another node: the sender of a transport, or an encryptor.
type Terminal interface {
	Worker
	// TerminalPeer returns who is at the other end, or nil if that is not authenticated.
	TerminalPeer() *Peer
	// TerminalProducer returns whose messages come back from there.
	TerminalProducer() *Producer
	// Watch tells w once when there is no way to the other end any more.
	Watch(w Watcher)
	// Unwatch undoes Watch.
	Unwatch(w Watcher)
}

// Watcher is told that a Terminal has ended, on the Terminal's shard.
type Watcher interface{ TerminalClosed() }

// LossWatcher is a Watcher that has to know when a message from the other end of the Terminal was lost or came out of order.
type LossWatcher interface{ MessageLost() }

// SilenceWatcher is a Watcher that wants to know, as well, since when a peer that watches the Terminal has not been heard of, after
// some seconds.
type SilenceWatcher interface{ PeerSilent(since time.Time) }

// GoneWatcher is a Watcher that wants to know, as well, when the process at the other end of the Terminal has ended for good, as far as that can be known.
type GoneWatcher interface{ PeerGone() }

// Severed is a Terminal that can tell, when it has ended, whether the other end's machine has closed it.
type Severed interface{ Severed() bool }

// AwayWatcher is a Watcher that wants to know, as well, when there is no way to the other end for now: what the Terminal ran over has
// ended, and its peer may come by another way.
type AwayWatcher interface{ TerminalAway(away bool) }

// Away is a Terminal for which that can be.
type Away interface{ Away(s *Shard) bool }

// IsAway reports whether there is no way to the other end of t now.
func IsAway(s *Shard, t Terminal) bool {
	a, ok := t.(Away)
	return ok && a.Away(s)
}

// Prover is a Terminal that wants to know which of the addresses behind it are those of authenticated peers: rest is a route to one,
// without the Terminal itself.
type Prover interface{ Prove(rest Route) }

// Watchers is a set of Watchers for a Terminal to embed.
type Watchers struct{ set map[Watcher]struct{} }

// Watch adds w.
func (ws *Watchers) Watch(w Watcher) {
	if ws.set == nil {
		ws.set = map[Watcher]struct{}{}
	}
	ws.set[w] = struct{}{}
}

// Unwatch removes w.
func (ws *Watchers) Unwatch(w Watcher) { delete(ws.set, w) }

// Any reports whether there is one.
func (ws *Watchers) Any() bool { return len(ws.set) > 0 }

// Tell tells all watchers that the Terminal has ended and forgets them.
func (ws *Watchers) Tell() {
	set := ws.set
	ws.set = nil
	for w := range set {
		w.TerminalClosed()
	}
}

// watching returns those watchers that are a W. They are told from a list since they may unwatch.
func watching[W any](ws *Watchers) (list []W) {
	for w := range ws.set {
		if w, ok := any(w).(W); ok {
			list = append(list, w)
		}
	}
	return list
}

// TellAway tells those watchers that are AwayWatchers.
func (ws *Watchers) TellAway(away bool) {
	for _, w := range watching[AwayWatcher](ws) {
		w.TerminalAway(away)
	}
}

// TellSilent tells those watchers that are SilenceWatchers.
func (ws *Watchers) TellSilent(since time.Time) {
	for _, w := range watching[SilenceWatcher](ws) {
		w.PeerSilent(since)
	}
}

// TellGone tells those watchers that are GoneWatchers.
func (ws *Watchers) TellGone() {
	for _, w := range watching[GoneWatcher](ws) {
		w.PeerGone()
	}
}

// TellLost tells those watchers that are LossWatchers that a message was lost.
func (ws *Watchers) TellLost() {
	for _, w := range watching[LossWatcher](ws) {
		w.MessageLost()
	}
}

// Lossy is a Terminal that may lose or reorder messages.
type Lossy interface{ Lossy(s *Shard) bool }

// IsLossy reports whether messages that t sends may be lost on their way to the next node.
func IsLossy(s *Shard, t Terminal) bool {
	l, ok := t.(Lossy)
	return ok && l.Lossy(s)
}

// Vouched is a Terminal that others may begin, and that has to make room for others as long as nobody has vouched for it. Vouch is for its
// shard.
type Vouched interface{ Vouch() }

// Sourced is a Terminal that knows which machine or identity is at the other end, to share what is scarce among those who ask for it.
type Sourced interface{ SourceName() string }
