package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"sallyport/routing"
)

// version begins each direction of a connection between nodes (docs/protocol/01 §2.1).
const version = 1

// dial opens a bare connection to a node.
func dial(at string) (net.Conn, error) { return net.DialTimeout("tcp", at, 5*time.Second) }

// hello opens a connection and sends the version.
func hello(at string) (net.Conn, error) {
	c, err := dial(at)
	if err != nil {
		return nil, err
	}
	if _, err := c.Write([]byte{version}); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// message returns the frame of a message.
func message(onward, ret routing.Route, payload []byte) []byte {
	body := append(routing.AppendHeader(nil, onward, ret, len(payload)), payload...)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

// ended reports how the peer ended c, waiting for at most the time given: nil when it did.
func ended(c net.Conn, within time.Duration) error {
	_ = c.SetReadDeadline(time.Now().Add(within))
	_, err := io.Copy(io.Discard, c)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("still open after %v", within)
	}
	return nil
}

// reset waits for the end of c and reports an error unless it is a reset.
func reset(c net.Conn, within time.Duration) error {
	_ = c.SetReadDeadline(time.Now().Add(within))
	n, err := io.Copy(io.Discard, c)
	switch {
	case err == nil:
		return fmt.Errorf("read %d bytes and an end, as if all had come", n)
	case errors.Is(err, syscall.ECONNRESET):
		return nil
	}
	return err
}
