// Package freeport chooses ports of this machine for tests, and for programs that start others for measurements and attacks.
//
// A port that the kernel chose for a listener that was closed again may be gone when it is used: the kernel gives it to the next who asks, for a
// listener or for an outgoing connection, also of another process.
package freeport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Ports come from below those that the kernel chooses (32768 and up). Tests of Kafka have the ones from 30000 on for brokers.
const (
	low  = 10000
	high = 30000
	// row is how many ports a process reserves at once.
	row = 50
	// statusPort is where the first node of a machine has its status endpoint without being asked.
	statusPort = 23345
)

// A process has one list of ports, whatever in it asks for them.
var (
	mu   sync.Mutex
	left []int
)

// Get returns a port at which nobody listens, with TCP or UDP. No process in this network namespace gets it here again before this one has ended, nor does
// this one. Ports asked for one after the other are mostly neighbours.
func Get() (int, error) {
	mu.Lock()
	defer mu.Unlock()
	for {
		if len(left) == 0 {
			if err := reserve(); err != nil {
				return 0, err
			}
		}
		port := left[0]
		left = left[1:]
		if port != statusPort && free(port) {
			return port, nil
		}
	}
}

// For is Get for a test, as text.
func For(t testing.TB) string {
	t.Helper()
	port, err := Get()
	if err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(port)
}

// reserve takes a row of ports that no process has, by the name of an abstract socket, which the kernel takes back when the process ends.
func reserve() error {
	for _, n := range rand.Perm((high - low) / row) {
		first := low + n*row
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("reserving ports: %w", err)
		}
		switch err := unix.Bind(fd, &unix.SockaddrUnix{Name: fmt.Sprint("@sallyport-ports-", first)}); {
		case err == nil:
			for i := range row {
				left = append(left, first+i)
			}
			return nil // the descriptor stays open
		case !errors.Is(err, unix.EADDRINUSE):
			unix.Close(fd)
			return fmt.Errorf("reserving ports: %w", err)
		}
		unix.Close(fd)
	}
	return fmt.Errorf("all ports from %d to %d have been given away", low, high-1)
}

// free reports whether a port can be listened on, at every address.
func free(port int) bool {
	at := fmt.Sprint(":", port)
	l, err := net.Listen("tcp", at)
	if err != nil {
		return false
	}
	defer l.Close()
	c, err := net.ListenPacket("udp", at)
	if err != nil {
		return false
	}
	return c.Close() == nil
}
