package freeport

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// TestDistinct: what two processes get at the same time are ports that the kernel gives to nobody, and each only once.
func TestDistinct(t *testing.T) {
	const count, mark = 2000, "SALLYPORT_TEST_FREEPORT"
	if os.Getenv(mark) != "" {
		for range count {
			fmt.Println(For(t))
		}
		_, _ = os.Stdin.Read(make([]byte, 1)) // the ports are this process's until it ends
		return
	}
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		t.Fatal(err)
	}
	outgoing, err := strconv.Atoi(strings.Fields(string(b))[0])
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	add := func(port int) {
		if port >= outgoing || port == statusPort || seen[port] {
			t.Errorf("port %d, given before: %v; the kernel chooses from %d on", port, seen[port], outgoing)
		}
		seen[port] = true
	}
	other := exec.Command(os.Args[0], "-test.run=^TestDistinct$")
	other.Env = append(os.Environ(), mark+"=1")
	in, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for range count {
		if lines.Scan() {
			port, err := strconv.Atoi(lines.Text())
			if err != nil {
				t.Error(lines.Text())
			}
			add(port)
		}
	}
	for range count {
		port, err := Get()
		if err != nil {
			t.Fatal(err)
		}
		add(port)
	}
	if len(seen) != 2*count {
		t.Errorf("%d ports, want %d", len(seen), 2*count)
	}
	in.Close()
	if err := other.Wait(); err != nil {
		t.Error(err)
	}
}

// TestTaken: a port at which somebody listens is left out, whatever the address and the protocol.
func TestTaken(t *testing.T) {
	for _, network := range []string{"tcp4", "tcp6", "udp4", "udp6"} {
		host := "127.0.0.1"
		if strings.HasSuffix(network, "6") {
			host = "::1"
		}
		Get()
		for len(left) == 0 {
			Get()
		}
		next := left[0]
		at := net.JoinHostPort(host, strconv.Itoa(next))
		var err error
		if strings.HasPrefix(network, "tcp") {
			var l net.Listener
			if l, err = net.Listen(network, at); err == nil {
				defer l.Close()
			}
		} else {
			var c net.PacketConn
			if c, err = net.ListenPacket(network, at); err == nil {
				defer c.Close()
			}
		}
		if err != nil {
			t.Logf("%s: %v", at, err) // no IPv6 here
			continue
		}
		if port, err := Get(); err != nil || port == next {
			t.Errorf("%s: got %d although somebody listens there, %v", network, port, err)
		}
	}
	left = append([]int{statusPort}, left...)
	if port, err := Get(); err != nil || port == statusPort {
		t.Errorf("got %d, where a node's status endpoint comes, %v", port, err)
	}
}
