// Package portal carries TCP streams over routing: an Inlet listens and makes a message stream of every client's
// connection, an Outlet connects each to its target (docs/protocol/03 §1). Client and server notice nothing.
//
// # Extension
//
// Between two of ours a connection has a window in each direction, carries half-close, and says why it was refused or
// closed. It is offered in bytes after the Ping, which the reference ignores, and used only when the Pong accepts it. So a
// peer that does not know the extension never sees a message of it:
//
//	Ping    00 | 'S' 'P' 1 | window uvarint          offer: extension version 1, bytes the peer may send at first
//	Pong    01 | 'S' 'P' 1 | window uvarint          accepted
//	Payload 03 | data | 01 | counter u16 LE          every payload is numbered, so a gap is seen
//	Credit  10 | bytes uvarint                       that many more bytes may be sent
//	Finish  11 | counter u16 LE                      no more payloads in this direction (half-close); the counter is the one
//	                                                 that the next payload would have had, so a gap before the end is seen
//	Disconnect 02 | reason byte                      both directions end at once
//
// This is version 1. With version 2 (docs/protocol/04-portal-extension.md) a connection outlives its path: a lifeline keeps what the other
// end has not confirmed, and an inlet resumes the connection over its next path. The other end must be authenticated by a secure
// channel, and both ends must hold connections.
//
// A portal without the handshake (docs/protocol/03 §1.8) does without the extension too.
//
// Without the extension, payloads are not numbered, a full socket pauses the connection that carries it, and one that takes
// nothing for StallTimeout while it is full is closed, so that it does not stop its neighbours for good.
package portal
