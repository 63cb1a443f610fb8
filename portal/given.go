package portal

import "net/netip"

// Watch is told what becomes of a portal connection whose socket somebody in this process holds the other end of. It is called on event
// loops and must not block.
type Watch struct {
	// Opened is called when both ends are connected. peer is the identity of the node at the other end, nil over a path without channel.
	Opened func(peer *[32]byte)
	// Ended is called once with the reason, before the socket closes; ReasonNone where both directions have finished.
	Ended func(Reason)
	// Left is called once, after Ended, when nothing is left of the connection: both ends know that it is over, or nobody waits any more until they do.
	Left func()
}

func (w *Watch) opened(c *conn) {
	if w == nil || w.Opened == nil {
		return
	}
	if c.hasPeer {
		peer := c.peer
		w.Opened(&peer)
		return
	}
	w.Opened(nil)
}

func (w *Watch) ended(r Reason) {
	if w != nil && w.Ended != nil {
		w.Ended(r)
	}
}

func (w *Watch) left() {
	if w != nil && w.Left != nil {
		w.Left()
	}
}

// never is for a client that did not become a connection.
func (w *Watch) never(r Reason) {
	w.ended(r)
	w.left()
}

// Origin is whom a portal connection was begun for, as the outlet knows it.
type Origin struct {
	// Peer is the identity of the inlet's node, nil without a secure channel.
	Peer *[32]byte
	// Address is the client's address as the inlet saw it, invalid if the inlet does not say.
	Address netip.AddrPort
}

// origin returns whom c was begun for.
func (c *conn) origin() Origin {
	from := Origin{Address: c.client}
	if c.hasPeer {
		peer := c.peer
		from.Peer = &peer
	}
	return from
}

// Give gives the inlet a client that nobody had to accept: a connected, non-blocking stream socket, which the inlet owns from now on. w, which may be
// nil, is told what becomes of it. Any goroutine.
func (in *Inlet) Give(fd int, w *Watch) {
	if r := in.refusal.Load(); r != nil {
		in.refuse(waiting{fd: fd, offer: offer{watch: w}}, *r)
		return
	}
	o := offer{watch: w}
	if in.room(fd, &o) {
		in.place(fd, o)
	}
}

// drop closes a client that never became a connection.
func (w waiting) drop(r Reason) {
	w.offer.leave()
	w.offer.watch.never(r)
	closeFD(w.fd)
}
