package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"sallyport/internal/freeport"
)

// freePorts returns n free ports.
func freePorts(n int) ([]int, error) {
	out := make([]int, n)
	for i := range out {
		var err error
		if out[i], err = freeport.Get(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// serviceMap returns a free port for each service.
func serviceMap() (map[string]int, error) {
	m := map[string]int{}
	for _, s := range services {
		n, err := freeport.Get()
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
