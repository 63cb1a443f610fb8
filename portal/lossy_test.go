package portal

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/crypto/identity"
	"sallyport/crypto/vault"
	"sallyport/names"
	"sallyport/routing"
	"sallyport/routing/secure"
	"sallyport/routing/udp"
)

// lossyProxy passes datagrams on between whoever sends first and a server, and loses and reorders some once it is told to.
func lossyProxy(t *testing.T, to netip.AddrPort, bad *atomic.Bool) netip.AddrPort {
	t.Helper()
	front, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	back, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { front.Close(); back.Close() })
	front.SetReadBuffer(4 << 20)
	back.SetReadBuffer(4 << 20)
	var client atomic.Pointer[netip.AddrPort]
	pass := func(seed uint64, read func([]byte) (int, error), write func([]byte)) {
		rnd := rand.New(rand.NewPCG(seed, seed))
		buf := make([]byte, 2048)
		var held []byte
		for {
			n, err := read(buf)
			if err != nil {
				return
			}
			switch k := rnd.IntN(1000); {
			case bad.Load() && k < 2: // lost
				continue
			case bad.Load() && k < 3 && held == nil:
				held = append([]byte{}, buf[:n]...)
				continue
			}
			write(buf[:n])
			if held != nil {
				write(held)
				held = nil
			}
		}
	}
	go pass(1, func(b []byte) (int, error) {
		n, from, err := front.ReadFromUDPAddrPort(b)
		client.Store(&from)
		return n, err
	}, func(b []byte) { back.Write(b) })
	go pass(2, back.Read, func(b []byte) {
		if c := client.Load(); c != nil {
			front.WriteToUDPAddrPort(b, *c)
		}
	})
	return front.LocalAddr().(*net.UDPAddr).AddrPort()
}

// TestLossNeverCorrupts carries portals over a channel over UDP that loses and reorders: what arrives is always the beginning of what was
// sent, and all of it if the end looks like an end. This holds with the extension and, as with the reference, without.
func TestLossNeverCorrupts(t *testing.T) {
	for name, plain := range map[string]bool{"extended": false, "plain": true} {
		t.Run(name, func(t *testing.T) {
			stream := make([]byte, 60_000)
			for i := range stream {
				stream[i] = byte(rand.Uint32())
			}
			l := newLossyPortal(t, plain, func(c net.Conn) { defer c.Close(); c.Write(stream) })
			var whole, cut, late int
			for try := 0; try < 25 || (whole == 0 || cut == 0) && try < 100; try++ {
				// A channel that lost too much is deaf (docs/protocol/01 §7.7), so each connection has its own.
				l.bad.Store(false)
				c := l.connect(t)
				l.bad.Store(true)
				var got []byte
				client, err := net.Dial("tcp", l.in.Bound().String())
				if err == nil { // else it was reset before it was there
					client.SetDeadline(time.Now().Add(5 * time.Second))
					got, err = io.ReadAll(client)
					client.Close()
				}
				c.Close()
				if len(got) > len(stream) || !bytes.Equal(got, stream[:len(got)]) {
					t.Fatalf("%d bytes came that were not sent", len(got))
				}
				switch {
				case errors.Is(err, os.ErrDeadlineExceeded):
					late++ // nothing came after what was lost, so nothing can have told
				case err != nil:
					cut++
				case len(got) < len(stream):
					t.Fatalf("%d of %d bytes came, and then an end as if that was all", len(got), len(stream))
				default:
					whole++
				}
			}
			if whole == 0 || cut == 0 {
				t.Errorf("%d whole, %d cut, %d late: nothing was shown", whole, cut, late)
			}
			t.Logf("%d whole, %d cut, %d late", whole, cut, late)
		})
	}
}

// lossyPortal is a portal over a secure channel over UDP that can be made to lose.
type lossyPortal struct {
	in   *Inlet
	a    *node // of the inlet
	bad  *atomic.Bool
	dial func() (*secure.Channel, error)
}

func newLossyPortal(t *testing.T, plain bool, handle func(net.Conn)) *lossyPortal {
	t.Helper()
	ctx := t.Context()
	limits := Limits{OpenTimeout: 2 * time.Second, PayloadSize: 8 << 10, HighWater: 64 << 10}
	a, b := newNode(t, 1, limits), newNode(t, 1, limits)
	log := slog.New(slog.DiscardHandler)
	options := func() secure.Options {
		ids := identity.New(identity.Options{Vault: vault.NewMemory(), Store: identity.NewMemoryStore()})
		self, err := ids.Create(ctx, identity.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return secure.Options{Identities: ids, Self: self.Identifier()}
	}
	loopback := netip.MustParseAddrPort("127.0.0.1:0")
	bindB, err := udp.New(b.router, udp.Options{}).Bind(ctx, b.router.Shards()[0], loopback, netip.AddrPort{})
	if err != nil {
		t.Fatal(err)
	}
	l := &lossyPortal{a: a, bad: &atomic.Bool{}}
	bindA, err := udp.New(a.router, udp.Options{}).Bind(ctx, a.router.Shards()[0], loopback, lossyProxy(t, bindB.Local, l.bad))
	if err != nil {
		t.Fatal(err)
	}
	channelsA, channelsB := secure.New(a.router, 1, secure.Limits{}, log), secure.New(b.router, 1, secure.Limits{}, log)
	t.Cleanup(channelsA.Stop)
	t.Cleanup(channelsB.Stop)
	api, err := channelsB.Listen(ctx, "api", options(), false, bindB.Flow)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewOutlet(ctx, b.env, b.router, OutletOptions{Name: "outlet", Target: serve(t, handle), Resolve: names.Lookup, Flows: []*routing.Flow{api.Flow}}); err != nil {
		t.Fatal(err)
	}
	if l.in, err = NewInlet(ctx, a.env, a.router, InletOptions{Name: "in", Listen: loopback, Plain: plain}); err != nil {
		t.Fatal(err)
	}
	l.dial = func() (*secure.Channel, error) {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		return channelsA.Dial(ctx, routing.RouteOf(bindA.Sender).Concat(routing.LocalRoute("api")), options())
	}
	return l
}

// connect opens a new channel for the inlet's clients.
func (l *lossyPortal) connect(t *testing.T) *secure.Channel {
	t.Helper()
	c, err := l.dial()
	if err != nil {
		t.Fatal(err)
	}
	l.in.SetPath(routing.RouteOf(c.Encryptor).Concat(routing.LocalRoute("outlet")))
	return c
}

// TestUnpacedBacklog: where no windows are known and nothing can be paused, a client that does not read is closed before it has
// cost much memory.
func TestUnpacedBacklog(t *testing.T) {
	l := newLossyPortal(t, true, func(c net.Conn) {
		defer c.Close()
		io.Copy(c, zeros{})
	})
	ended := &l.a.env.Stats.Ended
	for i := range uint64(20) { // a busy machine may lose a datagram, which ends the connection sooner
		c := l.connect(t)
		if client, err := net.Dial("tcp", l.in.Bound().String()); err == nil { // else it was reset before it was there
			defer client.Close()
			client.(*net.TCPConn).SetReadBuffer(4 << 10)
		}
		for end := time.Now().Add(90 * time.Second); l.a.env.Stats.Opened.Load() <= i || l.in.Active() > 0; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("a client that does not read is not closed")
			}
		}
		c.Close()
		if ended[ReasonStalled].Load() == 1 {
			return
		}
	}
	t.Errorf("%d ended by gaps, none for what waited", ended[ReasonGap].Load())
}
