// Package dataplane is the event-loop network core: loops, stream connections, listeners, timers and pooled buffers.
// It moves bytes and knows no message.
//
// One Loop runs on one goroutine and owns every Conn registered with it: all methods of a Conn, of its handler and of a
// Timer are called on that goroutine only, so none of them locks. Other goroutines reach a loop with Loop.Post.
//
// # Words
//
//	turn      what a loop does between two waits for the kernel: read what is ready, handle it, then flush
//	flush     the end of a turn: each connection that was written to sends all it has with one writev
//	chunk     a pooled block of memory that holds output until the kernel takes it
//	borrowed  a slice that its owner will reuse after the call; who wants to keep the bytes copies them
//	pause     the handler of a connection does not want to be called for input; the kernel's window does the rest
//
// # Poller
//
// Descriptors are watched with epoll, edge-triggered: each is added once for both directions and never modified. Whether there is
// more to read is remembered here, so a pause and a resume cost no system call. The epoll descriptor itself is watched by the Go
// runtime (see poller). Neither gnet's connection type is used (it cannot pause reading, half-close, or keep unsent bytes at
// close) nor its poller, which was the first road taken: it blocks a thread in epoll_wait and has no end of a turn, which costs
// two system calls and the scheduler's attention a turn; BenchmarkPollers compares the two.
package dataplane
