package main

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
)

// Ports come from below the range that the kernel uses for outgoing connections
// (32768 and up): a port may be used a good while after it was chosen, and again
// after a restart, and must not be taken by a client in between.
const (
	firstPort = 20000
	portCount = 12000
)

// portsUsed makes every call of freePort look at another port.
var portsUsed atomic.Int64

// freePort finds a port of 127.0.0.1 that nobody listens on. No port is handed out
// twice within a run, until all of them have been.
func freePort() (int, error) {
	for range portCount {
		n := int64(os.Getpid())*97 + portsUsed.Add(1)
		port := firstPort + int(n%portCount)
		l, err := net.Listen("tcp", local(port))
		if err == nil {
			l.Close()
			return port, nil
		}
	}
	return 0, errors.New("no free port from 20000 to 31999")
}
