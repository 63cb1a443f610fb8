package tcp

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	xws "golang.org/x/net/websocket"

	"sallyport/dataplane"
	"sallyport/internal/servers"
	"sallyport/proxy"
	"sallyport/routing"
	"sallyport/routing/ws"
)

// certificate makes a certificate for names, signed by itself.
func certificate(t testing.TB, names ...string) (tls.Certificate, *x509.CertPool, [sha256.Size]byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots, sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
}

// layered are two nodes, of which the second has a listener of a layer.
type layered struct {
	a, b *node
	ln   *Listener
	to   Address
}

func newLayered(t testing.TB, layer Layer, shards int, at netip.AddrPort) *layered {
	t.Helper()
	return newLayeredServer(t, layer, shards, at, Options{})
}

// newLayeredServer is newLayered with a server of its own options.
func newLayeredServer(t testing.TB, layer Layer, shards int, at netip.AddrPort, server Options) *layered {
	t.Helper()
	var s Serving
	cert, roots, _ := certificate(t, "localhost", "127.0.0.1", "::1")
	if layer.tls() {
		s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	}
	if layer.webSocket() {
		s.WebSocket = &ws.Accepts{Path: "/portal"}
	}
	l := &layered{a: newNode(t, shards, Options{Trust: Trust{Roots: roots}}), b: newNode(t, shards, server)}
	var err error
	if l.ln, err = l.b.tcp.Serve(limited(t), at, s); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"echo", "uppercase"} {
		if err := l.b.router.AddConsumer(limited(t), name, l.ln.Flow); err != nil {
			t.Fatal(err)
		}
	}
	l.to = Address{Layer: layer, HostPort: l.ln.Bound.String(), Path: "/portal"}
	return l
}

// TestLayers: messages of all sizes, and many at once, over each layer, IPv4 and IPv6.
func TestLayers(t *testing.T) {
	for _, layer := range []Layer{Plain, WebSocket, TLS, SecureWS} {
		for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
			t.Run(string(layer)+" "+at, func(t *testing.T) {
				l := newLayered(t, layer, 2, netip.MustParseAddrPort(at))
				c, err := l.a.tcp.Dial(limited(t), l.to)
				if err != nil {
					t.Fatal(err)
				}
				if c.Layer != layer || l.ln.Layer() != layer || c.Remote != l.ln.Bound {
					t.Errorf("%s to %s", c.Layer, c.Remote)
				}
				route := routing.RouteOf(c.Sender).Concat(routing.LocalRoute("echo"))
				for _, size := range []int{0, 1, 50, 60, 100, 1000, 16 << 10, 65_500, 70_000, 300_000, 4 << 20, routing.MaxFrame - 200} {
					payload := make([]byte, size)
					_, _ = rand.Read(payload)
					reply, err := l.a.router.Request(limited(t), route, payload)
					if err != nil || !bytes.Equal(reply.Payload, payload) {
						t.Fatalf("%d bytes: %d came back, %v", size, len(reply.Payload), err)
					}
				}
				done := make(chan error)
				for i := range 50 {
					go func() {
						payload := bytes.Repeat([]byte{byte(i)}, 1+i*7000)
						reply, err := l.a.router.Request(limited(t), route, payload)
						if err == nil && !bytes.Equal(reply.Payload, payload) {
							err = errors.New("another answer")
						}
						done <- err
					}()
				}
				for range 50 {
					if err := <-done; err != nil {
						t.Fatal(err)
					}
				}
				other := l.b.tcp.Connections()[0]
				if other.Layer != layer {
					t.Errorf("accepted: %s", other.Layer)
				}
				c.Close()
				select {
				case <-other.Done():
				case <-time.After(90 * time.Second):
					t.Error("the other end was not told")
				}
				<-c.Done()
			})
		}
	}
}

// TestLayersThroughTLS: each layer goes through a proxy that is reached over TLS, TLS within TLS too.
func TestLayersThroughTLS(t *testing.T) {
	at := servers.Listen(t, func(c net.Conn) {
		s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{believed}})
		asked, err := http.ReadRequest(bufio.NewReader(s))
		if err != nil {
			return
		}
		to, err := net.Dial("tcp", asked.Host)
		if err != nil {
			return
		}
		defer to.Close()
		if _, err := io.WriteString(s, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
			return
		}
		go func() {
			_, _ = io.Copy(s, to)
			_ = s.Close()
		}()
		_, _ = io.Copy(to, s)
	})
	_, port, _ := net.SplitHostPort(at)
	rules, err := proxy.Parse([]string{"127.0.0.1=https://localhost:" + port}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, layer := range []Layer{Plain, WebSocket, TLS, SecureWS} {
		l := newLayered(t, layer, 1, loopback)
		a := newNode(t, 1, Options{Trust: l.a.tcp.opts.Trust, Proxies: rules})
		c, err := a.tcp.Dial(limited(t), l.to)
		if err != nil {
			t.Errorf("%s: %v", layer, err)
			continue
		}
		if c.Remote.String() == l.to.HostPort {
			t.Errorf("%s: not through the proxy", layer)
		}
		route := routing.RouteOf(c.Sender).Concat(routing.LocalRoute("echo"))
		for _, size := range []int{0, 1000, 70_000, 4 << 20} {
			payload := make([]byte, size)
			_, _ = rand.Read(payload)
			if reply, err := a.router.Request(limited(t), route, payload); err != nil || !bytes.Equal(reply.Payload, payload) {
				t.Fatalf("%s: %d bytes: %v", layer, size, err)
			}
		}
		c.Close()
		<-c.Done()
		eventually(t, "the other end was told", func() bool { return len(l.b.tcp.Connections()) == 0 })
	}
}

// TestTLSNames: the name is checked against the certificate, or the key alone.
func TestTLSNames(t *testing.T) {
	cert, roots, pin := certificate(t, "relay.example.com")
	b := newNode(t, 1, Options{})
	for _, layer := range []Layer{TLS, SecureWS} {
		s := Serving{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}}
		if layer.webSocket() {
			s.WebSocket = &ws.Accepts{Host: "relay.example.com"}
		}
		ln, err := b.tcp.Serve(limited(t), loopback, s)
		if err != nil {
			t.Fatal(err)
		}
		at := ln.Bound.String()
		for name, c := range map[string]struct {
			trust Trust
			to    Address
			says  string // "" for success
		}{
			"the name":     {Trust{Roots: roots}, Address{HostPort: at, Name: "relay.example.com"}, ""},
			"another name": {Trust{Roots: roots}, Address{HostPort: at, Name: "other.example.com"}, "valid for relay.example.com"},
			"an address":   {Trust{Roots: roots}, Address{HostPort: at}, "127.0.0.1"},
			"other roots":  {Trust{}, Address{HostPort: at, Name: "relay.example.com"}, "unknown authority"},
			"pinned":       {Trust{Pins: [][32]byte{{}, pin}}, Address{HostPort: at, Name: "relay.example.com"}, ""},
			"another key":  {Trust{Roots: roots, Pins: [][32]byte{{1}}}, Address{HostPort: at, Name: "relay.example.com"}, ErrPin.Error()},
		} {
			c.to.Layer = layer
			a := newNode(t, 1, Options{Trust: c.trust})
			_, err := a.tcp.Dial(limited(t), c.to)
			if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("%s, %s: %v", layer, name, err)
			}
		}
	}
	eventually(t, "failures are counted", func() bool { return b.tcp.Stats.TLSFailed.Load() == 8 })
	eventually(t, "places are given back", func() bool { return b.tcp.Admission().Open == 0 || len(b.tcp.Connections()) == b.tcp.Admission().Open })
}

// TestNoTLS: who does not speak TLS with a listener for TLS has its connection closed and its place given back.
func TestNoTLS(t *testing.T) {
	for _, layer := range []Layer{TLS, SecureWS} {
		l := newLayered(t, layer, 1, loopback)
		for i, words := range []string{"GET / HTTP/1.0\r\n\r\n", "\x01\x00\x00\x01\x00\x07\x07\x07\x07\x07\x07", "\x16\x03\x01\x00\x04????"} {
			c, err := net.Dial("tcp", l.to.HostPort)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Write([]byte(words)); err != nil {
				t.Fatal(err)
			}
			if !ended(t, c) {
				t.Errorf("%s: %.10q: the connection stays", layer, words)
			}
			c.Close()
			eventually(t, "it is counted, and its place is free", func() bool {
				return l.b.tcp.Stats.TLSFailed.Load() == uint64(i+1) && l.b.tcp.Admission().Open == 0
			})
		}
	}
}

// TestOtherWebSocket: a client of another make speaks with the listener, in pieces and with pings; and this client with a server of another make.
func TestOtherWebSocket(t *testing.T) {
	l := newLayered(t, WebSocket, 1, loopback)
	config, err := xws.NewConfig("ws://"+l.to.HostPort+"/portal", "http://localhost")
	if err != nil {
		t.Fatal(err)
	}
	config.Protocol = []string{ws.Protocol}
	c, err := xws.DialConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	request := routing.AppendMessage(nil, routing.LocalRoute("echo"), routing.LocalRoute("me"), bytes.Repeat([]byte("x"), 70_000))
	for range 3 {
		if err := xws.Message.Send(c, request); err != nil {
			t.Fatal(err)
		}
		var answer []byte
		if err := xws.Message.Receive(c, &answer); err != nil || len(answer) < 70_000 {
			t.Fatal(len(answer), err)
		}
	}

	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: xws.Server{
		Handshake: func(c *xws.Config, _ *http.Request) error {
			if len(c.Protocol) != 1 || c.Protocol[0] != ws.Protocol {
				return errors.New("another protocol")
			}
			return nil
		},
		Handler: func(c *xws.Conn) {
			c.PayloadType = xws.BinaryFrame
			var b []byte
			for xws.Message.Receive(c, &b) == nil { // back as it is, with what the sender is to have said in front
				_ = xws.Message.Send(c, b)
			}
		},
	}}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(ln)
	defer server.Close()
	conn, err := l.a.tcp.Dial(limited(t), Address{Layer: WebSocket, HostPort: ln.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan int, 1)
	if err := l.a.router.StartNamed(limited(t), "here", func(*routing.Shard) routing.Worker {
		return routing.WorkerFunc(func(_ *routing.Shard, m *routing.Message) { got <- len(m.Payload()) })
	}, conn.Flow); err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = l.a.router.Request(limited(t), routing.RouteOf(conn.Sender).Concat(routing.LocalRoute("here")), make([]byte, 100_000))
	}()
	select {
	case n := <-got:
		if n != 100_000 {
			t.Errorf("%d bytes", n)
		}
	case <-time.After(90 * time.Second):
		t.Error("nothing came back")
	}
	conn.Close()
	<-conn.Done()
}

// TestWebPages: other requests are answered as a web server does, and end the connection; one that says nothing is ended.
func TestWebPages(t *testing.T) {
	for _, layer := range []Layer{WebSocket, SecureWS} {
		l := newLayered(t, layer, 1, loopback)
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: l.a.tcp.opts.Trust.Roots}}}
		scheme := map[Layer]string{WebSocket: "http://", SecureWS: "https://"}[layer]
		for path, want := range map[string]int{"/": 404, "/portal": 426, "/favicon.ico": 404} {
			r, err := client.Get(scheme + l.to.HostPort + path)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(r.Body)
			if r.Body.Close(); err != nil || r.StatusCode != want || !strings.HasPrefix(string(body), fmt.Sprint(want)) {
				t.Errorf("%s %s: %s, %q, %v", layer, path, r.Status, body, err)
			}
		}
		client.CloseIdleConnections()
		wrong := l.to
		wrong.Path = "/other"
		if _, err := l.a.tcp.Dial(limited(t), wrong); !errors.Is(err, ws.ErrHandshake) || !strings.Contains(err.Error(), "404 Not Found") {
			t.Errorf("%s: %v", layer, err)
		}
		eventually(t, "no connection is left", func() bool { return l.b.tcp.Admission().Open == 0 })
	}
}

// asks is a request of a client.
func asks(t testing.TB) *ws.Request {
	t.Helper()
	r, err := ws.NewRequest("localhost", "/portal")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestMalformedMessage: what is no message of the transport ends a WebSocket connection with a Close frame that says so.
func TestMalformedMessage(t *testing.T) {
	l := newLayered(t, WebSocket, 1, loopback)
	c, err := net.Dial("tcp", l.to.HostPort)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(90 * time.Second))
	if _, err := c.Write(append(asks(t).Bytes(), 0x82, 0x81, 0, 0, 0, 0, 0xff)); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if _, frames, _ := bytes.Cut(got, []byte("\r\n\r\n")); err != nil || !bytes.Equal(frames, []byte{0x88, 2, 0x03, 0xea}) {
		t.Errorf("%q, %v", got, err)
	}
	eventually(t, "it is counted, and its place is free", func() bool { return l.b.tcp.Stats.Malformed.Load() == 1 && l.b.tcp.Admission().Open == 0 })
}

// TestPings: both ends ask a silent peer, and give up one that does not answer.
func TestPings(t *testing.T) {
	l := newLayered(t, WebSocket, 1, loopback)
	c, err := l.a.tcp.Dial(limited(t), l.to)
	if err != nil {
		t.Fatal(err)
	}
	do := func(c *Connection, f func()) {
		t.Helper()
		if err := c.shard.Do(limited(t), f); err != nil {
			t.Fatal(err)
		}
	}
	var before uint64
	do(c, func() { before = c.framed.Received(); c.ping() })
	eventually(t, "a pong", func() (heard bool) { do(c, func() { heard = c.framed.Received() > before }); return heard })
	for range 2 * pingsLost {
		do(c, func() { before = c.framed.Received(); c.ping() })
		eventually(t, "a pong", func() (heard bool) { do(c, func() { heard = c.framed.Received() > before }); return heard })
	}

	// A peer that answers nothing after its handshake.
	mute, err := net.Dial("tcp", l.to.HostPort)
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	if _, err := mute.Write(asks(t).Bytes()); err != nil {
		t.Fatal(err)
	}
	var of *Connection
	eventually(t, "accepted", func() bool {
		for _, other := range l.b.tcp.Connections() {
			if other.Remote.String() == mute.LocalAddr().String() {
				of = other
			}
		}
		if of == nil {
			return false
		}
		begun := false
		do(of, func() { begun = of.pings.framing.Begun() })
		return begun
	})
	for i := range pingsLost + 2 {
		do(of, func() {
			of.pings.timer.Stop()
			of.ping()
		})
		if ended := len(l.b.tcp.Connections()) < 2; ended != (i >= pingsLost) {
			t.Errorf("after %d pings: ended %v", i+1, ended)
		}
	}
	if len(l.a.tcp.Connections()) != 1 {
		t.Error("the other connection has ended")
	}
}

// TestSilentHandshakes: strangers who do not finish a handshake are ended, and hold no place.
func TestSilentHandshakes(t *testing.T) {
	for _, layer := range []Layer{WebSocket, TLS, SecureWS} {
		l := newLayeredServer(t, layer, 1, loopback, Options{Deadlines: dataplane.Deadlines{Preamble: 300 * time.Millisecond}})
		first := map[bool]string{true: "\x16\x03\x01\x02\x00\x01", false: "GET /portal HTTP/1.1\r\nHost:"}[layer.tls()]
		c, err := net.Dial("tcp", l.to.HostPort)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = io.WriteString(c, first) // the end may come before it
		_ = c.SetReadDeadline(time.Now().Add(90 * time.Second))
		if _, err := io.Copy(io.Discard, c); errors.Is(err, context.DeadlineExceeded) || err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("%s: %v", layer, err)
		}
		eventually(t, "the place is given back", func() bool { return l.b.tcp.Admission().Open == 0 })
	}
}
