// Package control is the service by which two nodes of ours ask each other about what lies between them: whether an outlet is there, who
// is registered under a relay name, how long a message takes, and when the other one stops (docs/protocol/05). The reference has no
// worker at its address, so a request to a node of it gets no answer and does nothing.
//
// A request is small, is answered by one message or by none, and may wait for an event for a bounded time. What a node answers is decided for each
// identity by Options.Allow, and limited in rate and number for each. Requests are handled on one goroutine, not on event loops.
package control
