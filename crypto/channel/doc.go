// Package channel holds the state machines of secure channels (docs/protocol/01 §7): the Noise XX handshake, and the sealing and
// opening of data messages with their counters, window and rekeying. It takes bytes and returns bytes; sockets, routes and
// goroutines are its callers'.
//
// A [Handshake] turns three messages into [Keys]. A [Sealer] and an [Opener], one of each per side, work with these keys on the
// data messages, in place and without allocating. [ParsePlaintext] tells what a data message carries.
//
// No type here is safe for concurrent use. All of them hold secrets and have a Wipe method, to be called when they are done.
package channel
