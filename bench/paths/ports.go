package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// Ports are taken from below Linux's usual range for outgoing connections
// (32768 up), so that none of the thousands of connections of a run can take one
// between its choice and its use.
const (
	portLow  = 20000
	portHigh = 32000
	// statusPort is where the first reference node of a machine puts its status
	// endpoint unasked.
	statusPort = 23345
)

// ports hands out free TCP ports on the loopback address, each once.
type ports struct {
	used map[int]bool
}

func newPorts() *ports { return &ports{used: map[int]bool{statusPort: true}} }

func (p *ports) next() (int, error) {
	for range 1000 {
		n := portLow + rand.IntN(portHigh-portLow)
		if p.used[n] {
			continue
		}
		l, err := net.Listen("tcp4", loopback(n))
		if err != nil {
			continue
		}
		l.Close()
		p.used[n] = true
		return n, nil
	}
	return 0, errors.New("no free port found")
}

// take returns n free ports.
func (p *ports) take(n int) ([]int, error) {
	out := make([]int, n)
	for i := range out {
		var err error
		if out[i], err = p.next(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// serviceMap returns one free port for each service.
func (p *ports) serviceMap() (map[string]int, error) {
	m := map[string]int{}
	for _, s := range services {
		n, err := p.next()
		if err != nil {
			return nil, err
		}
		m[s] = n
	}
	return m, nil
}

func loopback(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }

// listening says whether a socket listens on the port. It asks the kernel
// instead of connecting, which a server for a single client would count.
func listening(port int) bool {
	b, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return false
	}
	return listensIn(string(b), port)
}

func listensIn(table string, port int) bool {
	suffix := fmt.Sprintf(":%04X", port)
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) > 3 && f[3] == "0A" && strings.HasSuffix(f[1], suffix) {
			return true
		}
	}
	return false
}

// waitListening waits until something listens on all the ports. It gives up when
// ctx ends or one of the processes has died.
func waitListening(ctx context.Context, procs []*proc, portNumbers ...int) error {
	for _, port := range portNumbers {
		for !listening(port) {
			for _, p := range procs {
				if p.exited() {
					return fmt.Errorf("%s ended at once", p.cmd.Args[0])
				}
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("nothing listens on port %d: %w", port, ctx.Err())
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return nil
}
