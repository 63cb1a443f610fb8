package node

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"

	"sallyport/dataplane"
	"sallyport/node/admin"
	"sallyport/node/resource"
)

// listened calls a function when a node says that it listens.
type listened struct {
	slog.Handler
	at func(address string)
}

func (h listened) Enabled(context.Context, slog.Level) bool { return true }

func (h listened) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "listening" {
		r.Attrs(func(a slog.Attr) bool {
			if a.Key == "bound" {
				h.at(a.Value.String())
			}
			return true
		})
	}
	return nil
}

// TestStartLosesNobody: a handshake that comes while a node starts, when its port is open and its services are not there yet, waits for them. It would be lost
// without an answer, and whoever began it would wait for seconds.
func TestStartLosesNobody(t *testing.T) {
	early, m := newMember(t), newMember(t)
	m.Stop()
	ctx := within(t)
	opened := make(chan error, 1)
	at := func(address string) {
		sent := early.tcp.Stats.MessagesOut.Load()
		go func() {
			_, err := early.CreateChannel(ctx, admin.ChannelRequest{To: "/ip4/127.0.0.1/tcp/" + portOf(address) + "/service/api"})
			opened <- err
		}()
		settles(t, "the handshake has begun", func() bool { return early.tcp.Stats.MessagesOut.Load() > sent })
	}
	n, err := Start(ctx, Options{Name: "n", Self: m.self, Identities: m.ids, Store: NewHome(m.dir, "n", true), Listen: "127.0.0.1:0", Shards: 2,
		Listeners: []resource.TCPListener{{Address: "127.0.0.1:0"}}, Log: slog.New(listened{testLog.Handler(), at})})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Stop()
	select {
	case err := <-opened:
		if err != nil {
			t.Error(err)
		}
	case <-ctx.Done():
		t.Error("nobody was asked")
	}
}

// TestUpgradeLosesNoDatagrams: a handshake whose datagrams wait in the socket that one program leaves to the next is answered when that one has its services.
func TestUpgradeLosesNoDatagrams(t *testing.T) {
	early, m := udpNode(t, "early", ""), newMember(t)
	m.Stop()
	ctx := within(t)
	fd, bound, err := dataplane.ListenUDP(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	opened := make(chan error, 1)
	sent := early.udp.Stats.MessagesOut.Load()
	go func() {
		_, err := early.CreateChannel(ctx, admin.ChannelRequest{To: "/ip4/127.0.0.1/udp/" + portOf(bound.String()) + "/service/api"})
		opened <- err
	}()
	settles(t, "the handshake has begun", func() bool { return early.udp.Stats.MessagesOut.Load() > sent })
	n, err := Start(ctx, Options{Name: "n", Self: m.self, Identities: m.ids, Store: NewHome(m.dir, "n", true), Listen: "127.0.0.1:0", Shards: 2, Log: testLog,
		UDP:     UDPOptions{Listen: bound.String()},
		Upgrade: UpgradeOptions{Carried: &Carried{Format: StateFormat, Sockets: []dataplane.Inherited{{Network: "udp", Address: bound.String(), FD: fd}}}}})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Stop()
	if err := <-opened; err != nil {
		t.Error(err)
	}
}
