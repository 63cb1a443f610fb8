package node

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"sallyport/dataplane"
	"sallyport/routing"
	"sallyport/routing/udp"
)

// Rendezvous is a rendezvous server: it tells nodes from which address their datagrams come (docs/protocol/01 §3.4).
type Rendezvous struct {
	// Address is where it is asked, Health where its health is, both host:port; no Health when it was not wanted.
	Address, Health string

	loops  *dataplane.Group
	probe  *udp.Bind
	server netip.AddrPort
	cancel context.CancelFunc
}

// StartRendezvous starts a rendezvous server at an address, host:port, and answers HTTP requests for its health at another one
// if that is not empty: 200 while the service answers, 503 otherwise.
func StartRendezvous(ctx context.Context, at, health string, o udp.Options, log *slog.Logger) (_ *Rendezvous, err error) {
	r := &Rendezvous{}
	serving, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	defer func() {
		if err != nil {
			r.Stop()
		}
	}()
	transport, err := r.transport(o, log)
	if err != nil {
		return nil, err
	}
	shard, router := transport.Router().Shards()[0], transport.Router()
	addresses, err := udpAddresses(ctx, at)
	if err != nil {
		return nil, err
	}
	bind, err := transport.Bind(ctx, shard, addresses[0], netip.AddrPort{})
	if err != nil {
		return nil, err
	}
	r.Address = bind.Local.String()
	if err := router.StartNamed(ctx, udp.RendezvousService, func(*routing.Shard) routing.Worker { return udp.Rendezvous() }, bind.Flow); err != nil {
		return nil, err
	}
	if health == "" {
		log.Info("rendezvous server started", "listen", r.Address)
		return r, nil
	}
	if r.server = bind.Local; r.server.Addr().IsUnspecified() {
		r.server = netip.AddrPortFrom(loopback, bind.Local.Port())
	}
	if r.probe, err = transport.Bind(ctx, shard, anyUDP(r.server), r.server); err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", health)
	if err != nil {
		return nil, fmt.Errorf("healthcheck: %w", err)
	}
	r.Health = ln.Addr().String()
	serve(serving, ln, http.HandlerFunc(r.serveHealth))
	log.Info("rendezvous server started", "listen", r.Address, "healthcheck", r.Health)
	return r, nil
}

func (r *Rendezvous) transport(o udp.Options, log *slog.Logger) (*udp.Transport, error) {
	var err error
	if r.loops, err = dataplane.NewGroup(1, log); err != nil {
		return nil, err
	}
	router, err := routing.NewRouter(r.loops, log)
	if err != nil {
		return nil, err
	}
	return udp.New(router, o), nil
}

// serveHealth asks the service itself, over UDP.
func (r *Rendezvous) serveHealth(w http.ResponseWriter, q *http.Request) {
	if err := r.probe.PingRendezvous(q.Context(), r.server); err != nil {
		http.Error(w, "the rendezvous service does not answer", http.StatusServiceUnavailable)
		return
	}
	_, _ = w.Write([]byte("Alive\n"))
}

// Stop ends the server.
func (r *Rendezvous) Stop() {
	r.cancel()
	if r.loops != nil {
		r.loops.Stop()
	}
}

// PublicAddress asks a rendezvous server, host:port, from which address datagrams of this machine come there.
func PublicAddress(ctx context.Context, server string, o udp.Options, log *slog.Logger) (string, error) {
	at, err := udpAddresses(ctx, server)
	if err != nil {
		return "", err
	}
	r := &Rendezvous{cancel: func() {}}
	transport, err := r.transport(o, log)
	if err != nil {
		return "", err
	}
	defer r.Stop()
	asking, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	bind, err := transport.Bind(asking, transport.Router().Shards()[0], anyUDP(at[0]), netip.AddrPort{})
	if err != nil {
		return "", err
	}
	public, err := bind.PublicAddress(asking, at...)
	return public.String(), err
}
