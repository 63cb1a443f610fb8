// Package routing moves messages between workers: on one node, and over any number of hops between nodes.
//
// A message carries an onward route (where it goes) and a return route (where a reply goes). Every hop removes its own
// address from the one and adds its address to the other (docs/protocol/01 §2.4, §5.1).
//
// # Words
//
//	worker    state and a function called with one message at a time; not a goroutine. A node holds millions.
//	shard     one event loop with the workers that live on it; a worker is touched only by its shard
//	router    the shards of one node
//	flow      what may reach what: a producer (a connection, a channel) may deliver to a worker only if the
//	          worker is a consumer of the producer's flow or of the flow that spawned it (docs/protocol/01 §5.5)
//	source    where a message was read from, so that it can be paused when its destination cannot take more
//
// # Who owns bytes
//
// A Message and all that it points to is borrowed: it is valid until the worker's HandleMessage returns, and may be
// overwritten in the handling. A worker that keeps anything copies it.
package routing
