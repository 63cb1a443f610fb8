// Command interop drives Sallyport and the reference implementation against
// each other, as separate processes on one machine.
//
// It tells one story, a PostgreSQL server reached through a relay by a client
// at another company (docs/protocol/03 §11), in all sixteen ways of giving the four seats
// (authority, relay node, outlet box, inlet box) to the two programs, and then
// a list of further rows: messages over several hops, tickets, identities,
// credential expiry, policies, restarts and kills.
//
// Both programs understand the same command lines, so the driver never asks
// which of the two it is talking to. Each seat has its own state directory and
// listens on a free port of 127.0.0.1. All that was started is killed and
// removed at the end, also after a failure or an interrupt.
//
// README.md in this directory says how to run it and how long it takes.
package main
