package portal

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"sallyport/internal/freeport"
	"sallyport/routing"
	"sallyport/routing/routertest"
	"sallyport/routing/tcp"
)

// node is a minimal node: loops, a router, a transport and an environment for portals.
type node struct {
	router *routing.Router
	tcp    *tcp.Transport
	ln     *tcp.Listener
	env    *Env
}

func newNode(t testing.TB, shards int, limits Limits) *node {
	t.Helper()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	r := routertest.New(t, shards, log)
	var err error
	n := &node{router: r, tcp: tcp.New(r, tcp.Options{}), env: &Env{Limits: limits.WithDefaults(), Stats: &Stats{}, Log: log}}
	n.ln, err = n.tcp.Listen(context.Background(), netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// portalBetween makes an outlet on one node, an inlet on another and returns the inlet's address.
func portalBetween(t testing.TB, target string, shards int, plain bool, limits Limits) (in *Inlet, a, b *node) {
	t.Helper()
	ctx := context.Background()
	a, b = newNode(t, shards, limits), newNode(t, shards, limits)
	if _, err := NewOutlet(ctx, b.env, b.router, OutletOptions{Name: "outlet", Target: target, Flows: []*routing.Flow{b.ln.Flow}}); err != nil {
		t.Fatal(err)
	}
	c, err := a.tcp.Connect(ctx, b.ln.Bound.String())
	if err != nil {
		t.Fatal(err)
	}
	in, err = NewInlet(ctx, a.env, a.router, InletOptions{Name: "in", Listen: netip.MustParseAddrPort("127.0.0.1:0"), Plain: plain})
	if err != nil {
		t.Fatal(err)
	}
	in.SetPath(routing.NewRoute(c.Sender.Address(), routing.LocalAddress("outlet")))
	return in, a, b
}

// serve runs handle for every connection to a listener on loopback.
func serve(t testing.TB, handle func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go handle(c)
		}
	}()
	return ln.Addr().String()
}

func dial(t testing.TB, in *Inlet) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", in.Bound().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(90 * time.Second))
	return c.(*net.TCPConn)
}

// TestHalfClose sends all, closes the sending side, and reads an answer that the server makes only at the end.
func TestHalfClose(t *testing.T) {
	for _, plain := range []bool{false, true} {
		for _, shards := range []int{1, 3} {
			target := serve(t, func(c net.Conn) {
				defer c.Close()
				h := sha256.New()
				n, _ := io.Copy(h, c)
				if n > 0 {
					c.Write(h.Sum(nil))
				}
			})
			in, _, _ := portalBetween(t, target, shards, plain, Limits{})
			c := dial(t, in)
			data := make([]byte, 6<<20)
			rand.Read(data)
			if _, err := c.Write(data); err != nil {
				t.Fatal(err)
			}
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if plain {
				continue // without the extension the server never sees an end while the client waits
			}
			got, err := io.ReadAll(c)
			want := sha256.Sum256(data)
			if err != nil || !bytes.Equal(got, want[:]) {
				t.Fatalf("shards %d: got %x, %v; want %x", shards, got, err, want)
			}
		}
	}
}

// TestBulkBothWays echoes a large stream in both directions at once.
func TestBulkBothWays(t *testing.T) {
	for _, plain := range []bool{false, true} {
		for _, shards := range []int{1, 2} {
			target := serve(t, func(c net.Conn) { defer c.Close(); io.Copy(c, c) })
			in, _, _ := portalBetween(t, target, shards, plain, Limits{})
			c := dial(t, in)
			data := make([]byte, 10<<20)
			rand.Read(data)
			go func() { c.Write(data) }()
			got := make([]byte, len(data))
			if _, err := io.ReadFull(c, got); err != nil {
				t.Fatalf("plain %v shards %d: %v", plain, shards, err)
			}
			if !bytes.Equal(got, data) {
				t.Fatal("data changed on the way")
			}
		}
	}
}

// TestRefused expects a client of a portal whose target refuses to be closed at once.
func TestRefused(t *testing.T) {
	in, a, b := portalBetween(t, "127.0.0.1:"+freeport.For(t), 1, false, Limits{})
	if c, err := net.Dial("tcp", in.Bound().String()); err == nil { // else it was closed even sooner
		defer c.Close()
		c.SetDeadline(time.Now().Add(90 * time.Second))
		if n, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("read %d bytes from a refused target, %v", n, err)
		}
	} else if !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal(err)
	}
	eventually(t, "both ends know why", func() bool {
		return a.env.Stats.Ended[ReasonRefused].Load() == 1 && b.env.Stats.Ended[ReasonRefused].Load() == 1
	})
}

// TestTargetName: an outlet whose target is a name asks the system when it was given nothing to ask.
func TestTargetName(t *testing.T) {
	addr := serve(t, func(c net.Conn) { _, _ = io.Copy(c, c); c.Close() })
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	in, _, _ := portalBetween(t, net.JoinHostPort("localhost", port), 1, false, Limits{})
	c := dial(t, in)
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
}
