package routing

// FrameWriter is a Worker that writes messages to a transport and lets the last layer of encryption write its
// ciphertext where it will be sent from: sealing is then the only copy.
type FrameWriter interface {
	Worker
	// ReserveFrame begins a message whose payload has size bytes and returns those bytes, to be filled before anything
	// else is done on the shard and then sent with CommitFrame. It returns nil if the connection has ended, the message is too large,
	// or its source from brings more than the peer takes; the message is then lost and counted.
	ReserveFrame(onward, ret Route, size int, from *Throttle) []byte
	// CommitFrame sends the message begun. from is paused if the connection cannot take more.
	CommitFrame(from *Throttle)
}

// LooseWriter is a FrameWriter that can also carry messages beside its stream: each whole or not at all, in any order, and none waits for another.
type LooseWriter interface {
	FrameWriter
	// TakesLoose reports whether the other end knows that too.
	TakesLoose() bool
	// ReserveLoose is ReserveFrame for such a message. It returns nil if too much waits or the message is too large; the message is then lost and
	// counted.
	ReserveLoose(onward, ret Route, size int) []byte
	// CommitLoose sends the message begun. from is paused if the connection cannot take more.
	CommitLoose(from *Throttle)
}
