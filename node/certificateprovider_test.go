package node

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sallyport/authority"
	"sallyport/crypto/identity"
	"sallyport/internal/servers"
	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/portal"
	"sallyport/routing"
)

// roots is the certificate authority that the tests of this package have in place of the system's.
var roots struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func TestMain(m *testing.M) { os.Exit(withRoots(m)) }

func withRoots(m *testing.M) int {
	dir, err := os.MkdirTemp("", "roots")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	if roots.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		panic(err)
	}
	template := x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &roots.key.PublicKey, roots.key)
	if err == nil {
		roots.certificate, err = x509.ParseCertificate(der)
	}
	path := filepath.Join(dir, "roots.pem")
	if err == nil {
		err = os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600)
	}
	if err == nil {
		err = errors.Join(os.Setenv("SSL_CERT_FILE", path), os.Setenv("SSL_CERT_DIR", dir))
	}
	if err != nil {
		panic(err)
	}
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return code
}

// known is a certificate of localhost that the system's roots vouch for.
func known(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, &template, roots.certificate, &key.PublicKey, roots.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// echoTLS is a target with TLS that says which protocol was agreed on, and sends back what it gets. It returns its port.
func echoTLS(t *testing.T, config *tls.Config) string {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	servers.Serve(l, func(c net.Conn) {
		if c.(*tls.Conn).Handshake() != nil {
			return
		}
		_, _ = io.WriteString(c, c.(*tls.Conn).ConnectionState().NegotiatedProtocol+"\n")
		_, _ = io.Copy(c, c)
	})
	return portOf(l.Addr().String())
}

// saysTo reads a line from one end of a pair of sockets after it has written something. It ends its stream and waits for the other's end, as a
// client does that breaks nothing off.
func saysTo(t *testing.T, p portal.Piped, text string) (string, error) {
	t.Helper()
	f := os.NewFile(uintptr(p.FD), "piped")
	c, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(60 * time.Second))
	if _, err := io.WriteString(c, text); err != nil {
		return "", err
	}
	r := bufio.NewReader(c)
	line, err := r.ReadString('\n')
	if err != nil {
		return line, err
	}
	back := make([]byte, len(text))
	if _, err := io.ReadFull(r, back); err != nil || string(back) != text {
		t.Errorf("back: %q, %v", back, err)
	}
	if err := c.(*net.UnixConn).CloseWrite(); err != nil {
		return line, err
	}
	if n, err := r.Read(back); n > 0 || err != io.EOF {
		t.Errorf("after its end: %d bytes, %v", n, err)
	}
	return line, nil
}

// TestTLSToTargets: an outlet's target is known by its name and the system's roots, agrees on what was asked for, and nothing is passed on to one that
// does not.
func TestTLSToTargets(t *testing.T) {
	one := known(t)
	config := func(protocols ...string) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{one}, NextProtos: protocols}
	}
	stranger := newPair(t, 3)
	pair, err := tls.X509KeyPair(stranger.Chain, stranger.Key)
	if err != nil {
		t.Fatal(err)
	}
	both, plain := echoTLS(t, config("h2", "http/1.1")), echoTLS(t, config())
	for name, c := range map[string]struct {
		target    string
		protocols []string
		want      string // "": refused
	}{
		"nothing asked for":        {"localhost:" + both, nil, "\n"},
		"the name with a dot":      {"localhost.:" + both, nil, "\n"},
		"HTTP/2":                   {"localhost:" + both, []string{"h2"}, "h2\n"},
		"both":                     {"localhost:" + both, []string{"h2", "http/1.1"}, "h2\n"},
		"HTTP/2 or whatever":       {"localhost:" + plain, []string{"h2", "http/1.1"}, "\n"},
		"HTTP/2 only":              {"localhost:" + plain, []string{"h2"}, ""},
		"by its address":           {"127.0.0.1:" + both, nil, ""},
		"whom no root vouches for": {"localhost:" + echoTLS(t, &tls.Config{Certificates: []tls.Certificate{pair}}), nil, ""},
		"too old a version":        {"localhost:" + echoTLS(t, &tls.Config{Certificates: []tls.Certificate{one}, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}), nil, ""},
		"nobody":                   {"localhost:1", nil, ""},
		"no port":                  {"localhost", nil, ""},
	} {
		p, err := tlsDialer(c.target, nil, c.protocols...)(within(t), portal.Origin{})
		if (err == nil) != (c.want != "") {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil {
			continue
		}
		if got, err := saysTo(t, p, "hello"); err != nil || got != c.want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	// What the client turns out to speak is passed on; what goes wrong then is told, and the client's connection is broken off.
	type failure struct{ err error }
	for name, c := range map[string]struct{ target, text, want string }{
		"HTTP/2":                     {"localhost:" + both, preface, "h2\n"},
		"HTTP/1":                     {"localhost:" + both, "GET / HTTP/1.1\r\n\r\n", "http/1.1\n"},
		"something":                  {"localhost:" + both, "hello", "\n"},
		"HTTP/2 to a target without": {"localhost:" + plain, preface, ""},
	} {
		var told atomic.Pointer[failure]
		p, err := tlsPasser(c.target, nil, func(err error) { told.Store(&failure{err}) })(within(t), portal.Origin{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := saysTo(t, p, c.text)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		// Both are known before the socket ends.
		if failed := told.Load(); (failed != nil) != (c.want == "") || p.Broken() != (c.want == "") {
			t.Errorf("%s: told %v, broken %v", name, failed, p.Broken())
		}
	}
	if _, err := tlsPasser("localhost:1", nil, func(error) {})(within(t), portal.Origin{}); err == nil {
		t.Error("connected to nobody")
	}
	if _, err := tlsPasser("localhost", nil, func(error) {})(within(t), portal.Origin{}); err == nil {
		t.Error("connected to no port")
	}
	// A target whose kind speaks first is not waited for: its handshake is made before anything is said.
	if _, err := tlsPasser("localhost:993", nil, func(error) { t.Error("told later") })(within(t), portal.Origin{}); err == nil {
		t.Error("somebody serves IMAPS on this machine")
	}
}

// TestTLSThroughPortals: an outlet makes TLS to its target, and an inlet takes clients with the certificate of a provider: on its own node, and on
// another where its credential has the attribute.
func TestTLSThroughPortals(t *testing.T) {
	p := newProject(t, time.Hour)
	bank := p.join(authority.Attributes{"side": "bank"}, "p")
	client := p.join(authority.Attributes{authority.TLSAttribute: "true"}, "p")
	without := p.join(authority.Attributes{authority.TLSAttribute: "no"}, "p")
	ctx := within(t)
	for _, m := range []*member{bank, client, without} {
		if _, err := m.creds.get(ctx); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	own := known(t)
	secret, err := x509.MarshalPKCS8PrivateKey(own.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	chain, key := filepath.Join(dir, "chain.pem"), filepath.Join(dir, "key.pem")
	write := func(path string, b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: own.Certificate[0]}))
	write(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
	write(filepath.Join(dir, "other.pem"), newPair(t, 4).Key)
	write(filepath.Join(dir, "large.pem"), bytes.Repeat([]byte{'\n'}, maxPEM+1))
	for name, r := range map[string]resource.Certificate{
		"a relative chain":   {Certificate: "chain.pem", Key: key},
		"a relative key":     {Certificate: chain, Key: "key.pem"},
		"no such chain":      {Certificate: filepath.Join(dir, "none"), Key: key},
		"no such key":        {Certificate: chain, Key: filepath.Join(dir, "none")},
		"the key of another": {Certificate: chain, Key: filepath.Join(dir, "other.pem")},
		"too large":          {Certificate: filepath.Join(dir, "large.pem"), Key: key},
	} {
		if _, err := bank.certificates.Create(ctx, r); !errors.Is(err, admin.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	i, err := bank.certificates.Create(ctx, resource.Certificate{Certificate: chain, Key: key})
	if err != nil || i.Request.Address != CertificateService {
		t.Fatalf("%+v, %v", i.Request, err)
	}
	if _, err := bank.certificates.Create(ctx, resource.Certificate{Address: "echo", Certificate: chain, Key: key}); !errors.Is(err, admin.ErrExists) {
		t.Errorf("at the address of a service: %v", err)
	}
	listed := false
	for _, s := range bank.Services() {
		listed = listed || s.Address == CertificateService && s.Type == CertificateService && s.State != nil
	}
	if !listed {
		t.Errorf("%+v", bank.Services())
	}

	remote := mustRoute(t, bank.route()+"/secure/api/service/"+CertificateService)
	c, err := client.fetchCertificate(ctx, remote)
	if err != nil || !bytes.Equal(c.Certificate[0], own.Certificate[0]) {
		t.Errorf("for whom it is: %v", err)
	}
	for name, m := range map[string]*member{"with another value": without, "without an attribute": bank} {
		to := remote
		asking, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		if _, err := m.fetchCertificate(asking, to); err == nil {
			t.Errorf("a member %s has the private key", name)
		}
		cancel()
	}
	asking, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	if _, err := client.fetchCertificate(asking, mustRoute(t, bank.route()+"/service/"+CertificateService)); err == nil {
		t.Error("who comes without a channel has the private key")
	}
	cancel()
	if _, err := client.fetchCertificate(ctx, mustRoute(t, "/service/"+CertificateService)); err == nil {
		t.Error("a provider that this node has not")
	}
	if c, err := bank.fetchCertificate(ctx, mustRoute(t, "/service/"+CertificateService)); err != nil || !bytes.Equal(c.Certificate[0], own.Certificate[0]) {
		t.Errorf("of its own node: %v", err)
	}
	// Files that are away for a moment: who asks is told, and a provider comes back all the same.
	write(key+".away", nil)
	if err := os.Rename(key, key+".away"); err != nil {
		t.Fatal(err)
	}
	if _, err := client.fetchCertificate(ctx, remote); err == nil {
		t.Error("a certificate without its key")
	}
	if _, err := bank.fetchCertificate(ctx, mustRoute(t, "/service/"+CertificateService)); err == nil {
		t.Error("a certificate without its key, of its own node")
	}
	bank.restart()
	bank.until(resource.KindCertificate, CertificateService, resource.Up)
	if err := os.Rename(key+".away", key); err != nil {
		t.Fatal(err)
	}

	if _, err := bank.CreateOutlet(ctx, resource.Outlet{Name: "db", To: "localhost:" + echoTLS(t, &tls.Config{Certificates: []tls.Certificate{own}, NextProtos: []string{"h2"}}), TLS: true, ALPN: []string{"h2"}, Allow: only(client)}); err != nil {
		t.Fatal(err)
	}
	in, err := client.CreateInlet(ctx, resource.Inlet{Alias: "in", From: "127.0.0.1:0", To: bank.route() + "/secure/api/service/db", TLSProvider: remote.String(), Allow: only(bank)})
	if err != nil || in.Status != "Up" {
		t.Fatalf("%+v, %v", in, err)
	}
	conn, err := tls.Dial("tcp", in.Bind, &tls.Config{ServerName: "localhost"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(90 * time.Second))
	if _, err := io.WriteString(conn, "hello"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len("h2\nhello"))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "h2\nhello" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestProviderAnswersSoMany: of more requests at once than a provider works on the rest is dropped and counted; what cannot be answered is malformed.
func TestProviderAnswersSoMany(t *testing.T) {
	p := newProject(t, time.Hour)
	m := p.join(authority.Attributes{}, "p")
	m.access.learn(credential(numbered(5), p.self, time.Hour, identity.Attributes{authority.TLSAttribute: "true"}))
	m.access.learn(credential(numbered(6), p.self, time.Hour, identity.Attributes{authority.TLSAttribute: "false"}))
	s, slots := m.router.Shards()[0], make(chan struct{}, 1)
	r := resource.Certificate{Address: "c", Certificate: filepath.Join(t.TempDir(), "none"), Key: "none"}
	ask := func(from *routing.Peer, back routing.Route) {
		t.Helper()
		if err := s.Do(within(t), func() { m.provideCertificate(s, &routing.Message{Return: back, Peer: from}, r, slots) }); err != nil {
			t.Fatal(err)
		}
	}
	back := routing.LocalRoute("nobody")
	member, other := &routing.Peer{ID: [32]byte(numbered(5))}, &routing.Peer{ID: [32]byte(numbered(6))}
	slots <- struct{}{} // the one place is taken
	for _, c := range []struct {
		from                *routing.Peer
		back                routing.Route
		malformed, overflow uint64
	}{{member, routing.Route{}, 1, 0}, {nil, back, 1, 0}, {other, back, 1, 0}, {member, back, 1, 1}} {
		ask(c.from, c.back)
		if got := s.Drops.Malformed.Load(); got != c.malformed {
			t.Errorf("%d malformed, not %d", got, c.malformed)
		}
		if got := s.Drops.Overflow.Load(); got != c.overflow {
			t.Errorf("%d too many, not %d", got, c.overflow)
		}
	}
	<-slots
	for range 2 {
		ask(member, back)
		settles(t, "the place is given back", func() bool { return len(slots) == 0 })
	}
	if got := s.Drops.Overflow.Load(); got != 1 {
		t.Errorf("%d too many", got)
	}
}
