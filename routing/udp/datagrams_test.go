package udp

import (
	"bytes"
	"context"
	"encoding/binary"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"sallyport/crypto/identity"
	"sallyport/crypto/vault"
	"sallyport/portal/datagram"
	"sallyport/routing"
	"sallyport/routing/secure"
)

// party is a node with an identity and channels.
type party struct {
	*node
	channels *secure.Channels
	options  secure.Options
}

func newParty(t *testing.T, n *node) *party {
	t.Helper()
	ids := identity.New(identity.Options{Vault: vault.NewMemory(), Store: identity.NewMemoryStore()})
	self, err := ids.Create(limited(t), identity.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p := &party{node: n, channels: secure.New(n.router, 2, secure.Limits{}, slog.New(slog.DiscardHandler)), options: secure.Options{Identities: ids, Self: self.Identifier()}}
	t.Cleanup(p.channels.Stop)
	return p
}

// TestDatagramsOverLossyLink carries a portal's datagrams through a channel over a link that loses one packet in ten: many come back and none twice, the
// channel sees no gap, and what else goes through it loses nothing. With a link of the first version nothing is lost.
func TestDatagramsOverLossyLink(t *testing.T) {
	for name, old := range map[string]bool{"both know": false, "one is older": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			chance := rand.New(rand.NewPCG(9, 9))
			var flow *routing.Flow
			a, b, p, err := meet(t, patient, func(d []byte) bool {
				mu.Lock()
				defer mu.Unlock()
				return isLinkPacket(d) && chance.IntN(10) == 0
			}, func(l *Listener, _ *Negotiation) {
				flow = l.Flow
				if old {
					l.newest = 1
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			inlets, outlets := newParty(t, a), newParty(t, b)
			api, err := outlets.channels.Listen(limited(t), "api", outlets.options, false, flow)
			if err != nil {
				t.Fatal(err)
			}
			b.serve(t, "inner echo", routing.Echo(nil, nil), api.Flow)
			c, err := inlets.channels.Dial(limited(t), routing.RouteOf(p.Sender).Concat(routing.LocalRoute("api")), inlets.options)
			if err != nil {
				t.Fatal(err)
			}
			server := echoing(t)
			log := slog.New(slog.DiscardHandler)
			out, err := datagram.NewOutlet(limited(t), &datagram.Env{Log: log}, b.router, datagram.OutletOptions{Name: "out", Target: server.String(), Flows: []*routing.Flow{api.Flow}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { out.Close(context.Background()) })
			in, err := datagram.NewInlet(limited(t), &datagram.Env{Log: log}, a.router, datagram.InletOptions{Name: "in", Listen: loopback})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { in.Close(context.Background()) })
			in.SetPath(routing.RouteOf(c.Encryptor).Concat(routing.LocalRoute("out")))

			client, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(in.Bound()))
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			const enough = 300
			sent, came := uint64(0), map[uint64]bool{}
			buf := make([]byte, 4<<10)
			for end := time.Now().Add(3 * time.Minute); len(came) < enough; {
				if time.Now().After(end) {
					t.Fatalf("%d of %d datagrams came back", len(came), sent)
				}
				msg := binary.BigEndian.AppendUint64(nil, sent)
				msg = append(msg, bytes.Repeat([]byte{byte(sent)}, int(sent*37%3000))...)
				if _, err := client.Write(msg); err != nil {
					t.Fatal(err)
				}
				if sent++; sent%50 == 0 { // the channel's other messages have their order and miss none
					payload := bytes.Repeat([]byte{byte(sent)}, 5000)
					reply, err := a.router.Request(limited(t), routing.RouteOf(c.Encryptor).Concat(routing.LocalRoute("inner echo")), payload)
					if err != nil || !bytes.Equal(reply.Payload, payload) {
						t.Fatal(err)
					}
				}
				for client.SetReadDeadline(time.Now().Add(2 * time.Millisecond)); ; {
					k, err := client.Read(buf)
					if err != nil {
						break
					}
					number := binary.BigEndian.Uint64(buf)
					if came[number] || number >= sent || k != 8+int(number*37%3000) || k > 8 && buf[k-1] != byte(number) {
						t.Fatalf("datagram %d of %d bytes, came before: %v", number, k, came[number])
					}
					came[number] = true
				}
			}
			lost := a.udp.Stats.LooseLost.Load() + b.udp.Stats.LooseLost.Load()
			t.Logf("%d of %d came back, %d packets of datagrams were lost", len(came), sent, lost)
			if !old && lost == 0 || old && lost > 0 {
				t.Errorf("%d packets of datagrams were lost", lost)
			}
			if n := inlets.channels.Stats.Gaps.Load() + outlets.channels.Stats.Gaps.Load(); n > 0 {
				t.Errorf("the channel saw %d gaps", n)
			}
		})
	}
}

// echoing is a server that sends back what it is sent.
func echoing(t *testing.T) netip.AddrPort {
	t.Helper()
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(loopback))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { c.Close(); <-done })
	go func() {
		defer close(done)
		buf := make([]byte, 64<<10)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteToUDPAddrPort(buf[:n], from)
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}
