package dataplane

// Handover is a connection on its way to another loop: its descriptor, and what of its output the kernel has not taken. Whoever has it owns
// the descriptor.
type Handover struct {
	// FD is the socket, connected and non-blocking.
	FD int
	// Output is still to be sent.
	Output []byte
	// ShutWrite tells that the end of the stream follows the output.
	ShutWrite bool
}

// Reset closes the socket with a reset.
func (h Handover) Reset() {
	rawResetOnClose(h.FD)
	rawClose(h.FD)
}

// Copy is what HandOver would return, of a connection that stays as it is and keeps the descriptor. A connection that is being closed, too, has
// its output to send, and the end of its stream. Without data the output is left out.
func (c *Conn) Copy(data bool) (h Handover, ok bool) {
	if c.closed || c.connect != nil {
		return h, false
	}
	h = Handover{FD: c.fd, ShutWrite: c.shutting != stayOpen}
	if !data {
		return h, true
	}
	h.Output = make([]byte, 0, c.Pending())
	for _, ch := range c.out {
		h.Output = append(h.Output, ch.buf[ch.r:ch.w]...)
	}
	for _, p := range c.lent {
		h.Output = append(h.Output, p...)
	}
	return h, true
}

// IsClosing reports whether Close was called: nobody is told any more what comes.
func (c *Conn) IsClosing() bool { return c.shutting == lingering }

// HandOver takes c off its loop without closing the socket: c is done with, and OnClose is not called. It returns false for a connection that is
// closed, is being closed, or is not connected yet.
func (c *Conn) HandOver() (h Handover, ok bool) {
	if c.closed || c.connect != nil || c.shutting == lingering {
		return h, false
	}
	h, _ = c.Copy(true)
	_, ok = c.Detach()
	return h, ok
}

// TakeOver goes on with a connection from HandOver: its output is sent, and what the peer sends is offered to handler, an end that was read
// already once more. On error the socket is closed.
func (l *Loop) TakeOver(h Handover, handler Handler) (*Conn, error) {
	c, err := l.Adopt(h.FD, handler)
	if err != nil {
		return nil, err
	}
	c.Write(h.Output)
	if h.ShutWrite {
		c.CloseWrite()
	}
	return c, nil
}
