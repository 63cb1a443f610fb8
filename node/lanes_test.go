package node

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/crypto/identity"
	"sallyport/crypto/vault"
	"sallyport/limits"
	"sallyport/node/resource"
	"sallyport/routing"
	"sallyport/routing/multiaddr"
)

// later is a TCP proxy that passes on what comes after a while: a distance.
type later struct {
	ln   net.Listener
	to   string
	wait time.Duration
	mu   sync.Mutex
	open []net.Conn
	held []chan struct{} // by connection; closed while what comes is passed on
}

func newLater(t *testing.T, to string, wait time.Duration) *later {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &later{ln: ln, to: to, wait: wait}
	var copies sync.WaitGroup
	copies.Go(func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to)
			if err != nil {
				near.Close()
				continue
			}
			l.mu.Lock()
			k := len(l.held)
			goes := make(chan struct{})
			close(goes)
			l.open, l.held = append(l.open, near, far), append(l.held, goes)
			l.mu.Unlock()
			copies.Go(func() { l.pass(far, near, k) })
			copies.Go(func() { l.pass(near, far, k) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		l.cut(0)
		copies.Wait()
	})
	return l
}

// cut closes all connections but the first few.
func (l *later) cut(but int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, c := range l.open {
		if k >= 2*but {
			c.Close()
		}
	}
}

// hold lets all connections but the first few stand still, as where a segment was lost, until release is called.
func (l *later) hold(but int) (release func()) {
	goes := make(chan struct{})
	l.mu.Lock()
	defer l.mu.Unlock()
	for k := but; k < len(l.held); k++ {
		l.held[k] = goes
	}
	return sync.OnceFunc(func() { close(goes) })
}

func (l *later) pass(to, from net.Conn, number int) {
	type piece struct {
		b  []byte
		at time.Time
	}
	pieces := make(chan piece, 1024)
	go func() {
		defer close(pieces)
		for {
			b := make([]byte, 64<<10)
			n, err := from.Read(b)
			if err != nil {
				return
			}
			pieces <- piece{b[:n], time.Now().Add(l.wait)}
		}
	}()
	defer to.Close()
	defer func() {
		from.Close()
		for range pieces { // until the reader has ended
		}
	}()
	for p := range pieces {
		time.Sleep(time.Until(p.at))
		l.mu.Lock()
		goes := l.held[number]
		l.mu.Unlock()
		<-goes
		if _, err := to.Write(p.b); err != nil {
			return
		}
	}
}

func (l *later) route() string {
	return fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", l.ln.Addr().(*net.TCPAddr).Port)
}

// lanedNode starts a node without an authority whose inlets and relays have so many lanes.
func lanedNode(t *testing.T, name string, lanes int) *Node {
	t.Helper()
	ids := identity.New(identity.Options{Vault: vault.NewMemory(), Store: identity.NewMemoryStore()})
	self, err := ids.Create(t.Context(), identity.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	n, err := Start(t.Context(), Options{
		Name: name, Self: self.Identifier(), Identities: ids, Store: forgetful{}, Listen: "127.0.0.1:0", Shards: 2, Log: slog.New(slog.DiscardHandler),
		Limits: limits.Limits{Lanes: lanes},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Stop)
	return n
}

// echoed sends a stream to an echo server for as long as more is true, and expects it back unchanged.
func echoed(ctx context.Context, at string, seed byte, more func() bool) error {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", at)
	if err != nil {
		return err
	}
	defer c.Close()
	end, _ := ctx.Deadline()
	_ = c.SetDeadline(end)
	block := func(k int) []byte {
		b := make([]byte, 32<<10)
		for i := range b {
			b[i] = seed + byte(i) + byte(i>>8) + byte(k*7)
		}
		return b
	}
	sent := make(chan error, 1)
	var blocks atomic.Int64
	go func() {
		for more() {
			if _, err := c.Write(block(int(blocks.Load()))); err != nil {
				sent <- fmt.Errorf("after %d blocks: %w", blocks.Load(), err)
				return
			}
			blocks.Add(1)
		}
		sent <- c.(*net.TCPConn).CloseWrite()
	}()
	got := make([]byte, 32<<10)
	for k := 0; ; k++ {
		n, err := io.ReadFull(c, got)
		if err == io.EOF {
			if err := <-sent; err != nil {
				return err
			}
			if int64(k) != blocks.Load() {
				return fmt.Errorf("%d blocks of %d came back", k, blocks.Load())
			}
			return nil
		}
		if err != nil || !bytes.Equal(got, block(k)) {
			return fmt.Errorf("block %d: %d bytes, %w", k, n, err)
		}
	}
}

// TestLanes: transfers beside another connection go over connections of their own on each leg, by way of a relay and without one; what they carry stays
// whole when they get there, and when those connections break.
func TestLanes(t *testing.T) {
	for _, relayed := range []bool{true, false} {
		t.Run(fmt.Sprintf("relay %v", relayed), func(t *testing.T) {
			ctx := within(t)
			relay, bank, client := lanedNode(t, "relay", 0), lanedNode(t, "bank", 3), lanedNode(t, "client", 3)
			if _, err := bank.CreateOutlet(ctx, resource.Outlet{Name: "db", To: echoServer(t)}); err != nil {
				t.Fatal(err)
			}
			first, to := bank, "/secure/api/service/db"
			if relayed {
				first, to = relay, "/secure/api/service/forward_to_bank"+to
				far := newLater(t, relay.Listening(), 2*time.Millisecond)
				if _, err := bank.CreateRelay(ctx, resource.Relay{Name: "bank", At: far.route() + "/secure/api"}); err != nil {
					t.Fatal(err)
				}
			}
			near := newLater(t, first.Listening(), 3*time.Millisecond)
			d, err := client.CreateInlet(ctx, resource.Inlet{Alias: "in", From: "127.0.0.1:0", To: near.route() + to})
			if err != nil {
				t.Fatal(err)
			}
			in, _ := client.inlets.Get("in")
			small, err := new(net.Dialer).DialContext(ctx, "tcp", d.Bind)
			if err != nil {
				t.Fatal(err)
			}
			defer small.Close()
			if err := ping(ctx, small); err != nil {
				t.Fatal(err)
			}
			if used := client.mostLanes(); used != 1 {
				t.Errorf("%d connections without a transfer", used)
			}
			var enough atomic.Bool
			ended := make(chan error, 2)
			for k := range 2 {
				go func() {
					err := echoed(ctx, d.Bind, byte(k), func() bool { return !enough.Load() })
					ended <- err
				}()
			}
			stop := func() {
				enough.Store(true)
				for range 2 {
					if err := <-ended; err != nil {
						t.Error(err)
					}
				}
			}
			defer stop()
			onLanes := func(what string) {
				t.Helper()
				settles(t, what, func() bool {
					if err := ping(ctx, small); err != nil { // lanes are for transfers beside requests
						t.Fatal(err)
					}
					return client.mostLanes() == 3 && in.Value.portal.TidyLanes() == 2
				})
			}
			onLanes("both transfers on lanes")
			if names := relay.relaySvc.Names(); relayed && len(names) != 3 {
				t.Errorf("names %q", names)
			}
			release := near.hold(1)
			defer release()
			for range 20 { // while the transfers' connections stand still
				if err := ping(ctx, small); err != nil {
					t.Fatal(err)
				}
			}
			release()
			near.cut(1)
			if err := ping(ctx, small); err != nil {
				t.Errorf("the connection that is on no lane: %v", err)
			}
			settles(t, "other lanes", func() bool { return client.mostLanes() == 3 })
			enough.Store(true)
		})
	}
}

// TestNoLanes: there are none where either end does not want them, or the outlet's node is not the one that was asked.
func TestNoLanes(t *testing.T) {
	ctx := within(t)
	relay := lanedNode(t, "relay", 0)
	bank, other := lanedNode(t, "bank", 2), lanedNode(t, "other", 1)
	for _, n := range []*Node{bank, other} {
		if _, err := n.CreateRelay(ctx, resource.Relay{Name: n.opts.Name, At: tcpRoute(t, relay) + "/secure/api"}); err != nil {
			t.Fatal(err)
		}
		if _, err := n.CreateOutlet(ctx, resource.Outlet{Name: "db", To: echoServer(t)}); err != nil {
			t.Fatal(err)
		}
	}
	client := lanedNode(t, "client", 3)
	for _, c := range []struct {
		name   string
		number uint64
		ok     bool
	}{{"bank", 1, true}, {"bank", 8, true}, {"bank", 9, false}, {"bank", 0, true}, {"other", 1, false}, {"other", 0, false}} {
		to, err := multiaddr.Parse(tcpRoute(t, relay) + "/secure/api/service/" + routing.RelayPrefix + c.name + "/secure/api/service/db")
		if err != nil {
			t.Fatal(err)
		}
		conn, err := client.connect(ctx, to, connectOptions{self: client.opts.Self})
		if err != nil {
			t.Fatal(err)
		}
		l := &inletLanes{node: client, in: &inlet{to: to}}
		w, err := l.route(ctx, conn, c.number)
		if ok := err == nil; ok != c.ok || ok && (w.name == "") != (c.number == 0) {
			t.Errorf("lane %d of %s: %+v, %v", c.number, c.name, w, err)
		}
		conn.name = "another"
		if _, err := l.route(ctx, conn, c.number); err == nil {
			t.Error("a lane of a relay that the way does not lead through")
		}
		conn.close()
	}
	if n := client.lanesFor(nil, connectOptions{}); n == nil {
		t.Error("no lanes")
	}
	if n := other.lanesFor(nil, connectOptions{}); n != nil || n.want() != nil {
		t.Error("lanes where none are wanted")
	}
	if err := bank.DeleteRelay(ctx, "bank"); err != nil {
		t.Fatal(err)
	}
	settles(t, "the lane ends with the relay", func() bool { return len(relay.relaySvc.Names()) == 1 })
}
