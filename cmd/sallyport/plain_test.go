package main

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestPortalThroughRelayWithoutChannels: without an authority a portal needs no secure channel, a relay between its ends or not; what nobody
// answers is closed.
func TestPortalThroughRelayWithoutChannels(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	p := ours(t)
	relayPort := freePort(t)
	p.must(t, "node", "create", "n1")
	p.must(t, "node", "create", "n3")
	p.must(t, "node", "create", "n4", "--tcp-listener-address", "127.0.0.1:"+relayPort)
	p.must(t, "relay", "create", "n3", "--at", "/node/n4", "--to", "n3")
	p.must(t, "tcp-outlet", "create", "--at", "n3", "--to", echoServer(t, "0")) // after the relay: no order is needed
	p.must(t, "service", "start", "hop", "--at", "n3")
	p.must(t, "relay", "create", "secured", "--at", "/node/n4/secure/api", "--to", "n3")
	connection := p.must(t, "tcp-connection", "create", "--from", "n1", "--to", "127.0.0.1:"+relayPort, "--jq", ".sender_worker // .worker_address // .address")
	connection = strings.Trim(connection, `"`)
	routes := map[string]string{
		"through the relay":                    "/node/n4/service/forward_to_n3/service/outlet",
		"through the relay and a hop":          "/node/n4/service/forward_to_n3/service/hop/service/outlet",
		"the relay's other way has a channel":  "/node/n4/service/forward_to_secured/service/outlet",
		"and a hop":                            "/node/n4/service/forward_to_secured/service/hop/service/outlet",
		"a channel to the relay's node":        "/node/n4/secure/api/service/forward_to_n3/service/outlet",
		"a channel to the end, as is usual":    "/node/n4/service/forward_to_n3/secure/api/service/outlet",
		"through a connection that was opened": connection + "/service/forward_to_n3/service/outlet",
	}
	for name, route := range routes {
		port := freePort(t)
		p.must(t, "tcp-inlet", "create", "--at", "n1", "--from", port, "--to", route)
		eventuallyExchange(t, name+" "+route, port)
	}
	var waiting sync.WaitGroup
	// Nothing is there: the client is closed, not left waiting.
	for name, route := range map[string]string{
		"no such outlet": "/node/n4/service/forward_to_n3/service/nosuch", "no such relay": "/node/n4/service/forward_to_nobody/service/outlet",
		"not an outlet": "/node/n4/service/forward_to_n3/service/echo",
	} {
		port := freePort(t)
		p.must(t, "tcp-inlet", "create", "--at", "n1", "--from", port, "--to", route)
		waiting.Add(1)
		go func() {
			defer waiting.Done()
			c, err := net.Dial("tcp", "127.0.0.1:"+port)
			if errors.Is(err, syscall.ECONNRESET) { // the reset may be faster than the connecting
				return
			}
			if err != nil {
				t.Errorf("%s: %v", name, err)
				return
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(90 * time.Second))
			_, _ = c.Write([]byte("hello"))
			if _, err := io.ReadAll(c); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: the client is left waiting", name)
			}
		}()
	}
	waiting.Wait()
}
