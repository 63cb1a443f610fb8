// Package datagram carries datagrams between an inlet and an outlet, with their boundaries (docs/protocol/07). A flow is a client of an
// inlet; the outlet has a socket to the target for each. Datagrams are lost rather than kept for long: who sends is told by marks how far the
// other end is, and drops what is beyond a bound. Flows have no state but addresses, so they go on over whatever path there is.
//
// An inlet lives on one shard. An outlet has workers on all of them; a session, which is an inlet as the outlet sees it, lives on that where it was
// heard first. A datagram costs no allocation and no lock.
package datagram
