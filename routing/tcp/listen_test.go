package tcp

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"sallyport/dataplane"
	"sallyport/routing"
)

// TestListenGivenUp: a listener whose opening was given up is closed, and whoever gets its descriptor's number next is not disturbed: no
// connection of another listener goes to this transport.
func TestListenGivenUp(t *testing.T) {
	n := newNode(t, 1, Options{})
	n.serve(t, "echo2", routing.Echo(nil, nil))
	for range 20 {
		free, began := make(chan struct{}), make(chan struct{})
		n.router.Shards()[0].Loop().Post(dataplane.TaskFunc(func() { close(began); <-free }))
		<-began
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := n.tcp.Listen(ctx, loopback); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		other, err := net.Listen("tcp", "127.0.0.1:0") // probably with the number that has just become free
		if err != nil {
			t.Fatal(err)
		}
		_ = other.(*net.TCPListener).SetDeadline(time.Now().Add(90 * time.Second))
		close(free)
		client, err := net.Dial("tcp", other.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		got, err := other.Accept()
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 5)
		if _, err := got.Read(b); err != nil || string(b) != "hello" {
			t.Fatalf("%q, %v", b, err)
		}
		got.Close()
		client.Close()
		other.Close()
	}
	if n := n.tcp.Stats.Accepted.Load(); n != 0 {
		t.Errorf("%d connections of another listener accepted", n)
	}
}
