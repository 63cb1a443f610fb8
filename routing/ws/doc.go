// Package ws is the framing of the WebSocket transport (RFC 6455; docs/protocol/06): handshakes of both sides, and frames. Bytes go
// in and come out; sockets are dataplane's and connections routing/tcp's.
//
// A routing message is one binary WebSocket message: what is a frame of the TCP transport, without its length. There is no version byte; the
// version is the subprotocol (Protocol), which both sides have to name.
package ws
