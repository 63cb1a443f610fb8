package node

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/node/resource"
	"sallyport/portal/proxyproto"
	"sallyport/state"
)

// headerTarget takes one connection after the other and tells the header that it began with, and what came behind it until the end.
func headerTarget(t *testing.T) (at string, headers chan proxyproto.Header, rest chan string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	headers, rest = make(chan proxyproto.Header, 1), make(chan string, 1)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			all, _ := io.ReadAll(c)
			h, n, err := proxyproto.Parse(all)
			if err != nil {
				t.Errorf("%q: %v", all, err)
			}
			headers <- h
			rest <- string(all[n:])
			c.Close()
		}
	}()
	return ln.Addr().String(), headers, rest
}

// TestProxyProtocol: a target is told the client's address, who the inlet's node is, and nothing that the client sends is taken for that.
func TestProxyProtocol(t *testing.T) {
	a, b := plainNode(t, "a", "127.0.0.1:0"), plainNode(t, "b", "127.0.0.1:0")
	at, headers, rest := headerTarget(t)
	for _, version := range []string{"v1", "v2"} {
		if _, err := b.CreateOutlet(t.Context(), resource.Outlet{Name: version, To: at, ProxyProtocol: version}); err != nil {
			t.Fatal(err)
		}
	}
	const claimed = "192.0.2.1:1234"
	v2 := string(proxyproto.Append(nil, proxyproto.V2, proxyproto.Header{Source: netip.MustParseAddrPort(claimed)}))
	v1 := string(proxyproto.Append(nil, proxyproto.V1, proxyproto.Header{Source: netip.MustParseAddrPort(claimed)}))
	local := string(proxyproto.Append(nil, proxyproto.V2, proxyproto.Header{Local: true}))
	for _, c := range []struct {
		name, outlet string
		inlet        resource.Inlet
		sent         string
		source       string // "client" is the client's own
		rest         string
	}{
		{"told", "v2", resource.Inlet{TellClient: true}, "hello", "client", "hello"},
		{"told, version 1", "v1", resource.Inlet{TellClient: true}, "hello", "client", "hello"},
		{"not told", "v2", resource.Inlet{}, "hello", "", "hello"},
		{"not told, version 1", "v1", resource.Inlet{}, "hello", "", "hello"},
		{"a load balancer before the inlet", "v2", resource.Inlet{AcceptProxyProtocol: []string{"127.0.0.0/8"}}, v2 + "hello", claimed, "hello"},
		{"one of version 1", "v2", resource.Inlet{AcceptProxyProtocol: []string{"::1", "127.0.0.1"}}, v1 + "hello", claimed, "hello"},
		{"a load balancer that speaks for itself", "v2", resource.Inlet{AcceptProxyProtocol: []string{"127.0.0.0/8"}}, local + "hello", "client", "hello"},
		{"somebody else with a header", "v2", resource.Inlet{AcceptProxyProtocol: []string{"10.0.0.0/8"}}, v2 + "hello", "client", v2 + "hello"},
		{"a header where none is taken", "v2", resource.Inlet{TellClient: true}, v2 + "hello", "client", v2 + "hello"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := c.inlet
			r.From, r.To = "127.0.0.1:0", tcpRoute(t, b)+"/secure/api/service/"+c.outlet
			in, err := a.CreateInlet(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			client, err := net.Dial("tcp", in.Bind)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			for _, b := range []byte(c.sent) { // in as many pieces as there can be
				if _, err := client.Write([]byte{b}); err != nil {
					t.Fatal(err)
				}
			}
			client.(*net.TCPConn).CloseWrite()
			h := <-headers
			source := ""
			if h.Source.IsValid() {
				source = h.Source.String()
			}
			want := strings.Replace(c.source, "client", client.LocalAddr().String(), 1)
			if got := <-rest; source != want || got != c.rest {
				t.Errorf("source %q, want %q; then %q, want %q", source, want, got, c.rest)
			}
			if c.outlet == "v2" {
				if len(h.TLVs) != 1 || h.TLVs[0].Type != proxyproto.TypeIdentifier || string(h.TLVs[0].Value) != a.opts.Self.String() {
					t.Errorf("TLVs %q", h.TLVs)
				}
			}
			if err := a.DeleteInlet(t.Context(), in.Alias); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestProxyProtocolOverUnixSocket: whoever may connect to a Unix socket at which headers are taken is believed, whatever networks are named; where none are taken a
// header is the client's.
func TestProxyProtocolOverUnixSocket(t *testing.T) {
	a, b := plainNode(t, "a", "127.0.0.1:0"), plainNode(t, "b", "127.0.0.1:0")
	at, headers, rest := headerTarget(t)
	if _, err := b.CreateOutlet(t.Context(), resource.Outlet{Name: "outlet", To: at, ProxyProtocol: "v2"}); err != nil {
		t.Fatal(err)
	}
	claimed := netip.MustParseAddrPort("192.0.2.1:1234")
	told, local := string(proxyproto.Append(nil, proxyproto.V1, proxyproto.Header{Source: claimed})), string(proxyproto.Append(nil, proxyproto.V2, proxyproto.Header{Local: true}))
	for _, c := range []struct {
		name    string
		trusted []string
		sent    string
		source  netip.AddrPort
		rest    string
	}{
		{"everybody", []string{"0.0.0.0/0", "::/0"}, told + "hello", claimed, "hello"},
		{"one network", []string{"10.0.0.0/8"}, told + "hello", claimed, "hello"},
		{"who speaks for itself", []string{"::/0"}, local + "hello", netip.AddrPort{}, "hello"},
		{"nobody", nil, told + "hello", netip.AddrPort{}, told + "hello"},
	} {
		for kind, path := range map[string]string{"file": filepath.Join(t.TempDir(), "in"), "abstract": "@" + state.RandomName()} {
			t.Run(c.name+", "+kind, func(t *testing.T) {
				in, err := a.CreateInlet(t.Context(), resource.Inlet{From: unixPrefix + path, To: tcpRoute(t, b) + "/secure/api/service/outlet", AcceptProxyProtocol: c.trusted})
				if err != nil {
					t.Fatal(err)
				}
				client, err := net.Dial("unix", path)
				if err != nil {
					t.Fatal(err)
				}
				defer client.Close()
				io.WriteString(client, c.sent)
				client.(*net.UnixConn).CloseWrite()
				if h, got := <-headers, <-rest; h.Source != c.source || got != c.rest {
					t.Errorf("source %v, want %v; then %q, want %q", h.Source, c.source, got, c.rest)
				}
				if err := a.DeleteInlet(t.Context(), in.Alias); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestHeaderInPieces: a header that comes byte by byte, with the end right behind it, is whole whenever it is looked at, and one of which a byte is missing is not.
func TestHeaderInPieces(t *testing.T) {
	want := proxyproto.Header{Source: netip.MustParseAddrPort("192.0.2.1:1234")}
	whole := proxyproto.Append(nil, proxyproto.V1, want)
	for round := range 400 {
		sent := whole
		if round%8 == 0 {
			sent = whole[:len(whole)-1]
		}
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for i := range sent {
				_, _ = unix.Write(fds[1], sent[i:i+1])
			}
			_ = unix.Shutdown(fds[1], unix.SHUT_WR)
		}()
		h, err := readHeader(within(t), fds[0])
		if isWhole := len(sent) == len(whole); isWhole && (err != nil || h.Source != want.Source) || !isWhole && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("round %d, all was sent: %v: %v, %v", round, isWhole, h.Source, err)
		}
		<-done
		_, _ = unix.Close(fds[0]), unix.Close(fds[1])
	}
}

// TestProxyProtocolRefused: from where a header has to come, nothing else does.
func TestProxyProtocolRefused(t *testing.T) {
	a, b := plainNode(t, "a", "127.0.0.1:0"), plainNode(t, "b", "127.0.0.1:0")
	if _, err := b.CreateOutlet(t.Context(), resource.Outlet{Name: "outlet", To: echoServer(t)}); err != nil {
		t.Fatal(err)
	}
	in, err := a.CreateInlet(t.Context(), resource.Inlet{From: "127.0.0.1:0", To: tcpRoute(t, b) + "/secure/api/service/outlet", AcceptProxyProtocol: []string{"127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, sent := range []string{"GET / HTTP/1.1\r\n\r\n", "PROXY TCP4 nonsense\r\n", "PROXY "} {
		client, err := net.Dial("tcp", in.Bind)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(client, sent)
		client.(*net.TCPConn).CloseWrite()
		client.SetReadDeadline(time.Now().Add(90 * time.Second))
		if got, _ := io.ReadAll(client); len(got) > 0 {
			t.Errorf("%q was answered %q", sent, got)
		}
		client.Close()
	}
	for _, text := range []string{"10.0.0.0/33", "nonsense", "127.0.0.1:80"} {
		if _, err := a.CreateInlet(t.Context(), resource.Inlet{From: "127.0.0.1:0", To: "/service/x", AcceptProxyProtocol: []string{text}}); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
	if _, err := b.CreateOutlet(t.Context(), resource.Outlet{Name: "v3", To: "127.0.0.1:1", ProxyProtocol: "v3"}); err == nil {
		t.Error("v3 was taken")
	}
}
