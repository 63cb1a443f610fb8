package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"sallyport/names"
	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/node/table"
	"sallyport/routing"
	"sallyport/routing/multiaddr"
	"sallyport/routing/tcp"
	"sallyport/routing/ws"
)

func addTCPListeners(n *Node) {
	n.tcpListeners = table.Add(n.set, table.Kind[resource.TCPListener, *tcp.Listener]{
		Name: resource.KindTCPListener, Noun: "TCP listener",
		Key: func(r *resource.TCPListener) *string { return &r.Address },
		Check: func(_ context.Context, r *resource.TCPListener, _ func(string) bool) error {
			_, err := n.streamOf(*r)
			return err
		},
		Open: func(ctx context.Context, o *table.Opening[resource.TCPListener]) (*tcp.Listener, error) {
			return n.serve(ctx, o.Request, nil)
		},
		Close: func(ctx context.Context, l *tcp.Listener) error { return l.Close(ctx) },
	})
}

// Issuer gets certificates from somewhere and renews them.
type Issuer interface {
	// Certificate answers a client, without a wait; see tls.Config.GetCertificate.
	Certificate(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// Run does the work until ctx ends. It is called once, when the listeners are open.
	Run(ctx context.Context)
}

// streamOf reads where a listener listens, and what it speaks there.
func (n *Node) streamOf(r resource.TCPListener) (s multiaddr.Stream, err error) {
	if !strings.Contains(r.Address, "://") {
		s = multiaddr.Stream{Layer: string(tcp.Plain), HostPort: r.Address}
		if _, _, err := net.SplitHostPort(r.Address); err != nil {
			return s, fmt.Errorf("%w: the address %q must be host:port", admin.ErrInvalid, r.Address)
		}
	} else if s, err = multiaddr.ParseStream(r.Address); err != nil {
		return s, fmt.Errorf("%w: the address %w", admin.ErrInvalid, err)
	}
	secure := s.Layer == string(tcp.TLS) || s.Layer == string(tcp.SecureWS)
	if given := r.Certificate != "" && r.Key != ""; secure && !given && (n.opts.Issuer == nil || r.Certificate != "" || r.Key != "") {
		return s, fmt.Errorf("%w: %s needs a certificate and its key (--tls-certificate, --tls-key; or the node has --acme)", admin.ErrInvalid, r.Address)
	}
	if !secure && (r.Certificate != "" || r.Key != "") {
		return s, fmt.Errorf("%w: a certificate is for wss:// and tls://, not for %s", admin.ErrInvalid, r.Address)
	}
	if _, err := trustedNetworks("--accept-proxy-protocol", r.AcceptProxyProtocol); err != nil {
		return s, err
	}
	if _, err := trustedNetworks("--trusted-proxy", r.TrustedProxies); err != nil {
		return s, err
	}
	return s, nil
}

// serve opens a listener. With a flow what can be reached from that can be reached through the listener; else nothing before it is named.
func (n *Node) serve(ctx context.Context, r resource.TCPListener, flow *routing.Flow) (*tcp.Listener, error) {
	at, serving, err := n.serving(ctx, r)
	if err != nil {
		return nil, err
	}
	serving.Flow = flow
	return n.tcp.Serve(ctx, at, serving)
}

// serving reads what serve opens.
func (n *Node) serving(ctx context.Context, r resource.TCPListener) (at netip.AddrPort, serving tcp.Serving, err error) {
	s, err := n.streamOf(r)
	if err != nil {
		return at, serving, err
	}
	if at, err = names.Listen(ctx, s.HostPort); err != nil {
		return at, serving, fmt.Errorf("%w: %w", admin.ErrInvalid, err)
	}
	if s.Layer == string(tcp.TLS) || s.Layer == string(tcp.SecureWS) {
		serving.TLS = &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{tcp.ALPN}, DynamicRecordSizingDisabled: true}
		if s.Layer == string(tcp.SecureWS) {
			serving.TLS.NextProtos[0] = http1
		}
		if r.Certificate != "" {
			cert := &certificateFiles{chain: r.Certificate, key: r.Key, log: n.log}
			if err := cert.load(); err != nil {
				return at, serving, fmt.Errorf("%w: %w", admin.ErrInvalid, err)
			}
			serving.TLS.GetCertificate = cert.get
		} else {
			serving.TLS.GetCertificate, serving.TLS.NextProtos = n.opts.Issuer.Certificate, append(serving.TLS.NextProtos, tcp.Validation)
		}
	}
	if s.Layer == string(tcp.WebSocket) || s.Layer == string(tcp.SecureWS) {
		serving.WebSocket = &ws.Accepts{Path: s.Path, Host: s.Name}
	}
	if serving.PrefacedFrom, err = trustedNetworks("--accept-proxy-protocol", r.AcceptProxyProtocol); err != nil {
		return at, serving, err
	}
	serving.Preface = headerReader(serving.PrefacedFrom, false)
	serving.TrustedProxies, err = trustedNetworks("--trusted-proxy", r.TrustedProxies)
	return at, serving, err
}

// listenToo opens a listener of the node itself.
func (n *Node) listenToo(ctx context.Context, r resource.TCPListener) error {
	l, err := n.serve(ctx, r, n.main.Flow)
	if err != nil {
		return err
	}
	n.log.Info("listening", "at", r.Address, "bound", l.Bound.String())
	return nil
}

// listenTCP opens the node's own listener.
func (n *Node) listenTCP(ctx context.Context, address string) (*tcp.Listener, error) {
	return n.serve(ctx, n.mainListener(address), nil)
}

// mainListener describes the node's own listener. What is said about proxies in front is about that one where it is the only one.
func (n *Node) mainListener(address string) resource.TCPListener {
	r := resource.TCPListener{Address: address}
	if len(n.opts.Listeners) == 0 {
		r.AcceptProxyProtocol, r.TrustedProxies = n.opts.AcceptProxyProtocol, n.opts.TrustedProxies
	}
	return r
}

// CreateTCPListener opens another listener. Nothing is reachable through it before AddConsumer names something. Where the port is
// left to the node, the one that it chose is the listener's from then on.
func (n *Node) CreateTCPListener(ctx context.Context, r resource.TCPListener) (admin.Transport, error) {
	s, err := n.streamOf(r)
	if err != nil {
		return admin.Transport{}, err
	}
	if portOf(s.HostPort) == "0" {
		l, err := n.serve(ctx, r, nil)
		if err != nil {
			return admin.Transport{}, err
		}
		bound := r
		if bound.Address = l.Bound.String(); s.Layer != string(tcp.Plain) {
			s.HostPort = bound.Address
			bound.Address = s.String()
		}
		taken := func(context.Context, *table.Opening[resource.TCPListener]) (*tcp.Listener, error) { return l, nil }
		if _, err := n.tcpListeners.CreateAs(ctx, bound, taken); err != nil {
			return admin.Transport{}, errors.Join(err, l.Close(ctx))
		}
		return describeTCPListener(l), nil
	}
	i, err := n.tcpListeners.Create(ctx, r)
	if err != nil {
		return admin.Transport{}, err
	}
	return describeTCPListener(i.Value), nil
}

// transportType is a layer as lists name it.
func transportType(l tcp.Layer) string {
	return strings.ToUpper(string(l[:1])) + string(l[1:])
}

func describeTCPListener(l *tcp.Listener) admin.Transport {
	return admin.Transport{
		Type: transportType(l.Layer()), Mode: "Listen", Socket: l.Bound.String(), Worker: "<none>", Processor: "0#" + l.Address, Flow: l.Flow.ID(),
	}
}

// TCPListeners lists the TCP listeners: the node's own, and those that were asked for, also where they could not be opened.
func (n *Node) TCPListeners() []admin.Transport {
	byAddress := map[string]admin.Transport{}
	for _, l := range n.tcp.Listeners() {
		byAddress[l.Bound.String()] = describeTCPListener(l)
	}
	for _, i := range n.tcpListeners.List() {
		d := admin.Transport{Type: "Tcp", Mode: "Listen", Socket: i.Request.Address, Worker: "<none>", Processor: "<none>"}
		if i.IsOpen {
			d = describeTCPListener(i.Value)
		}
		d.State = &i.Status
		byAddress[d.Socket] = d
	}
	list := make([]admin.Transport, 0, len(byAddress))
	for _, k := range sortedKeys(byAddress) {
		list = append(list, byAddress[k])
	}
	return list
}

// DeleteTCPListener closes a TCP listener, named by its socket or worker address. The node's own stays.
func (n *Node) DeleteTCPListener(ctx context.Context, address string) error {
	if n.main != nil && (n.main.Bound.String() == address || n.main.Address == address) {
		return fmt.Errorf("%w: %s is the node's own listener; it ends with the node", admin.ErrInvalid, address)
	}
	for _, i := range n.tcpListeners.List() {
		if i.IsOpen && (i.Value.Bound.String() == address || i.Value.Address == address) {
			address = i.Request.Address
		}
	}
	return n.tcpListeners.Delete(ctx, address)
}
