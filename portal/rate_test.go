package portal

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"sallyport/routing"
)

// TestRate: a limit at either end holds for what goes there and for what comes back, with the extension and without, and what is carried is whole. A machine that is
// busy makes it slower, never faster.
func TestRate(t *testing.T) {
	const rate, size = 1 << 20, 400 << 10
	const least = (size - 4*rate/50) * time.Second / rate // without what is saved up before, wherever a stream goes through
	for _, c := range []struct {
		name    string
		in, out int64
		plain   bool
	}{{"inlet", rate, 0, false}, {"outlet", 0, rate, false}, {"inlet, plain", rate, 0, true}, {"outlet, plain", 0, rate, true}} {
		t.Run(c.name, func(t *testing.T) {
			ctx := context.Background()
			target := serve(t, func(s net.Conn) {
				defer s.Close()
				sent := make([]byte, size)
				if _, err := io.ReadFull(s, sent); err == nil {
					_, _ = s.Write(sent)
					_, _ = io.Copy(io.Discard, s)
				}
			})
			a, b := newNode(t, 2, Limits{}), newNode(t, 2, Limits{})
			if _, err := NewOutlet(ctx, b.env, b.router, OutletOptions{Name: "outlet", Target: target, Flows: []*routing.Flow{b.ln.Flow}, Rate: c.out}); err != nil {
				t.Fatal(err)
			}
			conn, err := a.tcp.Connect(ctx, b.ln.Bound.String())
			if err != nil {
				t.Fatal(err)
			}
			in, err := NewInlet(ctx, a.env, a.router, InletOptions{Name: "in", Listen: netip.MustParseAddrPort("127.0.0.1:0"), Plain: c.plain, Rate: c.in})
			if err != nil {
				t.Fatal(err)
			}
			in.SetPath(routing.NewRoute(conn.Sender.Address(), routing.LocalAddress("outlet")))
			client, err := net.Dial("tcp", in.Bound().String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			client.SetDeadline(time.Now().Add(60 * time.Second))
			sent := bytes.Repeat([]byte("0123456789abcdef"), size/16)
			began := time.Now()
			go client.Write(sent)
			got := make([]byte, size)
			n, err := io.ReadFull(client, got)
			took := time.Since(began)
			if err != nil || !bytes.Equal(got, sent) {
				t.Fatalf("%d of %d bytes came back: %v", n, size, err)
			}
			if took < 2*least {
				t.Errorf("there and back in %v; the limit allows no less than %v each way", took, least)
			}
		})
	}
}

// TestRateLater: a limit that is set later is one of connections that begin then.
func TestRateLater(t *testing.T) {
	target := serve(t, func(s net.Conn) {
		defer s.Close()
		_, _ = io.Copy(s, s)
	})
	in, a, _ := portalBetween(t, target, 1, false, Limits{})
	limited := func() (n int) {
		if err := a.router.Shards()[0].Do(context.Background(), func() {
			in.mu.Lock()
			defer in.mu.Unlock()
			for c := range in.conns {
				if c.sock.HasLimit() {
					n++
				}
			}
		}); err != nil {
			t.Fatal(err)
		}
		return n
	}
	open := func() {
		c, err := net.Dial("tcp", in.Bound().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(60 * time.Second))
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	open()
	if n := limited(); n != 0 {
		t.Errorf("%d connections are limited without a limit", n)
	}
	in.SetRate(1 << 20)
	open()
	if n := limited(); n != 1 {
		t.Errorf("%d of 2 connections are limited", n)
	}
}
