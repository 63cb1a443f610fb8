package tcp

import (
	"testing"

	"sallyport/routing"
)

// TestFaultEndsConnection: a worker that panics ends the connection that brought the message, also when the worker lives on another
// shard than the connection; another connection goes on.
func TestFaultEndsConnection(t *testing.T) {
	n := newNode(t, 2, Options{})
	other := newNode(t, 1, Options{})
	for i, s := range n.router.Shards() {
		var at routing.WireAddress
		if err := s.Do(limited(t), func() {
			at = s.Start(routing.WorkerFunc(func(*routing.Shard, *routing.Message) { panic("as asked") }), n.ln.Flow)
		}); err != nil {
			t.Fatal(err)
		}
		bad, good := other.connect(t, n), other.connect(t, n)
		box, err := other.router.OpenMailbox(limited(t), routing.NewRoute(bad.Sender.Address()))
		if err != nil {
			t.Fatal(err)
		}
		box.Send(routing.NewRoute(bad.Sender.Address(), at.Address()), []byte("x"))
		select {
		case <-bad.Done():
		case <-limited(t).Done():
			t.Fatalf("shard %d: the connection is still open", i)
		}
		box.Close()
		for range 50 { // deeper than deliveries may nest: what the fault left behind would show
			if _, err := other.router.Request(limited(t), routing.NewRoute(good.Sender.Address(), routing.LocalAddress("echo")), []byte("abc")); err != nil {
				t.Fatalf("shard %d: another connection: %v", i, err)
			}
		}
	}
}
