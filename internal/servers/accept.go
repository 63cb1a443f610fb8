package servers

import (
	"io"
	"net"
	"testing"
)

// Serve hands each connection that a listener accepts to a goroutine, which closes it when handle returns. It ends with the listener, and does not block.
func Serve(l net.Listener, handle func(net.Conn)) {
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				handle(c)
			}()
		}
	}()
}

// Listen is Serve for a new TCP listener of this machine, which is closed at the end of the test. It returns its address.
func Listen(t testing.TB, handle func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	Serve(l, handle)
	return l.Addr().String()
}

// Echo sends back what comes until it ends.
func Echo(c net.Conn) { _, _ = io.Copy(c, c) }
