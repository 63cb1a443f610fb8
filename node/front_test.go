package node

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/internal/servers"
	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/portal/proxyproto"
	"sallyport/routing/multiaddr"
	"sallyport/routing/tcp"
)

// frontServer is a load balancer: it passes connections on, behind some bytes of its own, or with a field in the HTTP request that they begin with.
func frontServer(t *testing.T, to, first, field string) string {
	t.Helper()
	return servers.Listen(t, func(c net.Conn) {
		up, err := net.Dial("tcp", to)
		if err != nil {
			return
		}
		defer up.Close()
		for _, b := range []byte(first) { // in as many pieces as there can be
			_, _ = up.Write([]byte{b})
		}
		go func() {
			defer up.Close()
			if field != "" {
				var request []byte
				buf := make([]byte, 4096)
				for !bytes.Contains(request, []byte("\r\n\r\n")) {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					request = append(request, buf[:n]...)
				}
				_, _ = up.Write(bytes.Replace(request, []byte("\r\n\r\n"), []byte("\r\n"+field+"\r\n\r\n"), 1))
			}
			_, _ = io.Copy(up, c)
		}()
		_, _ = io.Copy(c, up)
	})
}

// TestBehindProxies: over each layer the other node is where the proxy in front says it is, if that is trusted; from others a header is refused, and a field of
// HTTP counts for nothing.
func TestBehindProxies(t *testing.T) {
	files, pair := written(t, t.TempDir(), 1)
	block, _ := pem.Decode(pair.Chain)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	trust := tcp.Trust{Roots: x509.NewCertPool()}
	trust.Roots.AddCert(leaf)
	const claimed = "192.0.2.1:1234"
	header := func(v proxyproto.Version, h proxyproto.Header) string { return string(proxyproto.Append(nil, v, h)) }
	v1, v2 := header(proxyproto.V1, proxyproto.Header{Source: netip.MustParseAddrPort(claimed)}), header(proxyproto.V2, proxyproto.Header{Source: netip.MustParseAddrPort(claimed)})
	here, elsewhere := []string{"127.0.0.0/8"}, []string{"10.0.0.0/8", "::1"}
	for _, c := range []struct {
		name, layers string
		listener     resource.TCPListener
		first, field string
		want         string // "proxy" is the proxy's address, "" no connection
	}{
		{"header", "tcp ws tls wss", resource.TCPListener{AcceptProxyProtocol: here}, v2, "", claimed},
		{"header of version 1", "tcp ws tls wss", resource.TCPListener{AcceptProxyProtocol: here}, v1, "", claimed},
		{"for itself", "tcp tls", resource.TCPListener{AcceptProxyProtocol: here}, header(proxyproto.V2, proxyproto.Header{Local: true}), "", "proxy"},
		{"no header", "tcp ws tls wss", resource.TCPListener{AcceptProxyProtocol: here}, "", "", ""},
		{"header of somebody", "tcp ws tls wss", resource.TCPListener{AcceptProxyProtocol: elsewhere, TrustedProxies: here}, v2, "", ""},
		{"header where none is taken", "tcp ws tls wss", resource.TCPListener{}, v1, "", ""},
		{"field", "ws", resource.TCPListener{TrustedProxies: here}, "", "X-Forwarded-For: 198.51.100.1, 192.0.2.1", "192.0.2.1"},
		{"standard field", "ws", resource.TCPListener{TrustedProxies: here}, "", `Forwarded: for="192.0.2.1:1234"`, claimed},
		{"field of somebody", "ws", resource.TCPListener{TrustedProxies: elsewhere, AcceptProxyProtocol: elsewhere}, "", "X-Forwarded-For: 192.0.2.1", "proxy"},
		{"field where none is taken", "ws", resource.TCPListener{}, "", "X-Forwarded-For: 192.0.2.1", "proxy"},
		{"field behind a header of a client", "ws", resource.TCPListener{AcceptProxyProtocol: here, TrustedProxies: here}, v2, "X-Forwarded-For: 198.51.100.9", claimed},
		{"field behind a header of a proxy", "ws", resource.TCPListener{AcceptProxyProtocol: here, TrustedProxies: []string{"192.0.2.1"}}, v2, "X-Forwarded-For: 198.51.100.9", "198.51.100.9"},
	} {
		for layer := range strings.FieldsSeq(c.layers) {
			t.Run(c.name+", "+layer, func(t *testing.T) {
				there, client := plainNode(t, "there", "127.0.0.1:0"), plainNode(t, "client", "127.0.0.1:0")
				client.tcp = tcp.New(client.router, tcp.Options{Trust: trust})
				r := c.listener
				r.Address = layer + "://localhost:0"
				if layer == "tls" || layer == "wss" {
					r.Certificate, r.Key = files.Certificate, files.Key
				}
				l, err := there.serve(within(t), r, there.main.Flow)
				if err != nil {
					t.Fatal(err)
				}
				_, port, _ := net.SplitHostPort(frontServer(t, l.Bound.String(), c.first, c.field))
				s, _ := multiaddr.ParseStream(r.Address)
				s.HostPort = "localhost:" + port
				to, err := s.Addr()
				if err != nil {
					t.Fatal(err)
				}
				if c.want == "" {
					_, err := client.CreateTCPConnection(within(t), admin.TransportRequest{Address: s.String()})
					until(t, "the connection is ended", func() bool { return err != nil || len(client.tcp.Connections()) == 0 })
					until(t, "its place is given back", func() bool { return there.tcp.Admission().Open == 0 })
					if n := there.tcp.Stats.MessagesIn.Load(); n != 0 {
						t.Errorf("%d messages came", n)
					}
					return
				}
				reply, err := client.SendMessage(within(t), admin.MessageRequest{To: to.String() + "/service/uppercase", Payload: text("b"), TimeoutMS: 60000})
				if err != nil || string(reply.Payload) != string(text("B")) {
					t.Fatalf("%q, %v", reply.Payload, err)
				}
				if _, err := client.CreateTCPConnection(within(t), admin.TransportRequest{Address: s.String()}); err != nil {
					t.Fatal(err)
				}
				peer := "nobody"
				until(t, "the other node is where it should be", func() bool {
					list := there.TCPConnections()
					if len(list) == 1 && list[0].Socket != peer {
						peer = list[0].Socket
						t.Logf("the other node is at %s", peer)
					}
					return len(list) == 1 && (peer == c.want || c.want == "proxy" && strings.HasPrefix(peer, "127.0.0.1:"))
				})
			})
		}
	}
}

// TestBehindProxiesLimits: a source's limit is each client's behind a proxy that is trusted, and that of all together behind another.
func TestBehindProxiesLimits(t *testing.T) {
	const clients, each = 4, 2
	for _, c := range []struct {
		name, layer string
		trusted     bool
	}{{"header", "tcp", true}, {"field", "ws", true}, {"field of somebody", "ws", false}} {
		t.Run(c.name, func(t *testing.T) {
			there, client := plainNode(t, "there", "127.0.0.1:0"), plainNode(t, "client", "127.0.0.1:0")
			there.tcp = tcp.New(there.router, tcp.Options{ConnectionsPerAddress: each})
			r := resource.TCPListener{Address: c.layer + "://localhost:0"}
			if c.trusted && c.layer == "tcp" {
				r.AcceptProxyProtocol = []string{"127.0.0.1"}
			} else if c.trusted {
				r.TrustedProxies = []string{"127.0.0.1"}
			}
			l, err := there.serve(within(t), r, there.main.Flow)
			if err != nil {
				t.Fatal(err)
			}
			// Each client has as many connections as it may, with a channel over each: none makes room for another.
			connect := func(address string) error {
				first, field := "", ""
				if c.layer == "tcp" {
					first = string(proxyproto.Append(nil, proxyproto.V2, proxyproto.Header{Source: netip.MustParseAddrPort(address + ":1")}))
				} else {
					field = "X-Forwarded-For: " + address
				}
				_, port, _ := net.SplitHostPort(frontServer(t, l.Bound.String(), first, field))
				before := there.tcp.Connections()
				to := c.layer + "://localhost:" + port
				made, err := client.CreateTCPConnection(within(t), admin.TransportRequest{Address: to})
				if err != nil {
					return err
				}
				var conn *tcp.Connection
				for end := time.Now().Add(90 * time.Second); conn == nil; time.Sleep(time.Millisecond) {
					if !slices.ContainsFunc(client.tcp.Connections(), func(c *tcp.Connection) bool { return "0#"+c.Sender.Text() == made.Worker }) {
						return errors.New("the connection was ended")
					}
					for _, k := range there.tcp.Connections() {
						if !slices.Contains(before, k) && (!c.trusted || strings.HasPrefix(k.PeerText(), address)) {
							conn = k
						}
					}
					if time.Now().After(end) {
						t.Fatal("no connection")
					}
				}
				return conn.Shard().Do(within(t), conn.Vouch)
			}
			made, refused := 0, 0
			for i := range clients {
				for range each {
					if err := connect(netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + i)}).String()); err != nil {
						refused++
					} else {
						made++
					}
				}
			}
			want := clients * each
			if !c.trusted {
				want = each
			}
			if made != want || refused != clients*each-want {
				t.Errorf("%d connections, want %d; %d refused", made, want, refused)
			}
			if c.trusted {
				if err := connect("192.0.2.1"); err == nil {
					t.Error("one more of a client that has all it may")
				}
				until(t, "its place is free", func() bool { return there.tcp.Admission().Open == want })
			}
			if u := there.tcp.Admission(); u.OpenEach != each || u.RefusedEach == 0 {
				t.Errorf("%+v", u)
			}
		})
	}
}

// TestProxyNetworks: networks that are none are refused.
func TestProxyNetworks(t *testing.T) {
	n := plainNode(t, "n", "127.0.0.1:0")
	for _, bad := range []string{"10.0.0.0/33", "nonsense", "127.0.0.1:80", ""} {
		for _, r := range []resource.TCPListener{{AcceptProxyProtocol: []string{bad}}, {TrustedProxies: []string{bad}}} {
			r.Address = "ws://127.0.0.1:0"
			if _, err := n.CreateTCPListener(t.Context(), r); !errors.Is(err, admin.ErrInvalid) {
				t.Errorf("%q: %v", bad, err)
			}
		}
	}
}
