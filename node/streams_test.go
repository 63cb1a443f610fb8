package node

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/routing/multiaddr"
	"sallyport/routing/tcp"
)

// written writes a certificate to two files.
func written(t *testing.T, dir string, serial int64) (r resource.TCPListener, p certificatePair) {
	t.Helper()
	p = newPair(t, serial)
	r.Certificate, r.Key = filepath.Join(dir, "chain.pem"), filepath.Join(dir, "key.pem")
	if err := errors.Join(os.WriteFile(r.Certificate, p.Chain, 0o600), os.WriteFile(r.Key, p.Key, 0o600)); err != nil {
		t.Fatal(err)
	}
	return r, p
}

// TestListenersOfLayers: a node that listens with each layer is reached with a multiaddr, its services too; lists say what is spoken.
func TestListenersOfLayers(t *testing.T) {
	files, pair := written(t, t.TempDir(), 1)
	there, here := newMember(t), newMember(t)
	block, _ := pem.Decode(pair.Chain)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	trust := tcp.Trust{Roots: x509.NewCertPool()}
	trust.Roots.AddCert(leaf)
	here.tcp = tcp.New(here.router, tcp.Options{Trust: trust})
	for _, layer := range []string{"ws", "wss", "tls"} {
		r := resource.TCPListener{Address: layer + "://localhost:0"}
		if layer != "tls" {
			r.Address += "/portal"
		}
		if layer != "ws" {
			r.Certificate, r.Key = files.Certificate, files.Key
		}
		l, err := there.serve(within(t), r, there.main.Flow) // as an option of the node does it
		if err != nil {
			t.Fatal(err)
		}
		s, _ := multiaddr.ParseStream(r.Address)
		_, port, _ := net.SplitHostPort(l.Bound.String())
		s.HostPort = "localhost:" + port
		to, err := s.Addr()
		if err != nil {
			t.Fatal(err)
		}
		reply, err := here.SendMessage(within(t), admin.MessageRequest{To: to.String() + "/service/uppercase", Payload: text("b"), TimeoutMS: 10000})
		if err != nil || string(reply.Payload) != string(text("B")) {
			t.Errorf("%s: %q, %v", to, reply.Payload, err)
		}
		conn, err := here.CreateTCPConnection(within(t), admin.TransportRequest{Address: s.String()})
		if err != nil || !strings.EqualFold(conn.Type, layer) {
			t.Errorf("%s: %+v, %v", s, conn, err)
		}
		if err := l.Close(within(t)); err != nil {
			t.Error(err)
		}
		made, err := there.CreateTCPListener(within(t), r)
		if err != nil || !strings.EqualFold(made.Type, layer) || strings.HasSuffix(made.Socket, ":0") {
			t.Errorf("%s by request: %+v, %v", r.Address, made, err)
		}
		if err := there.DeleteTCPListener(within(t), made.Socket); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []resource.TCPListener{
		{Address: "wss://localhost:0"}, {Address: "ws://localhost:0", Certificate: files.Certificate, Key: files.Key}, {Address: "http://localhost:0"}, {Address: "wss://localhost:0", Certificate: "/no/file", Key: "/no/file"},
		{Address: "tls://localhost:0", Certificate: files.Key, Key: files.Certificate},
	} {
		if _, err := there.CreateTCPListener(within(t), bad); !errors.Is(err, admin.ErrInvalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	for _, bad := range []string{"https://localhost:1", "wss://"} {
		if _, err := here.CreateTCPConnection(within(t), admin.TransportRequest{Address: bad}); !errors.Is(err, admin.ErrInvalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// TestCertificateFiles: files that change are read again; what cannot be used changes nothing.
func TestCertificateFiles(t *testing.T) {
	dir := t.TempDir()
	r, _ := written(t, dir, 1)
	c := &certificateFiles{chain: r.Certificate, key: r.Key, log: slog.New(slog.DiscardHandler)}
	if err := c.load(); err != nil {
		t.Fatal(err)
	}
	serial := func() int64 {
		c.looked = time.Time{}
		cert, err := c.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		return cert.Leaf.SerialNumber.Int64()
	}
	if n := serial(); n != 1 {
		t.Errorf("serial %d", n)
	}
	written(t, dir, 2)
	if n := serial(); n != 2 {
		t.Errorf("replaced: serial %d", n)
	}
	if err := os.WriteFile(r.Certificate, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if n := serial(); n != 2 || c.failed == "" {
		t.Errorf("damaged: serial %d, %q", n, c.failed)
	}
	if err := os.Remove(r.Key); err != nil {
		t.Fatal(err)
	}
	if n := serial(); n != 2 {
		t.Errorf("gone: serial %d", n)
	}
	written(t, dir, 3)
	if n := serial(); n != 3 || c.failed != "" {
		t.Errorf("whole again: serial %d, %q", n, c.failed)
	}
	written(t, dir, 4)
	c.looked = time.Now()
	if cert, _ := c.get(nil); cert.Leaf.SerialNumber.Int64() != 3 {
		t.Error("looked at again at once")
	}
}
