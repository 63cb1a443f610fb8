package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/internal/servers"
)

// TestReachACME: a certificate is got at the listener's own port, renewed while the listener goes on, taken from the cache by the next process, and all of it is
// for the owner alone.
func TestReachACME(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	const name = "relay.example.test"
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	directory, ca, roots := servers.Pebble(t, port, 30)
	trusted := x509.NewCertPool()
	b, err := os.ReadFile(ca)
	if err != nil || !trusted.AppendCertsFromPEM(b) {
		t.Fatal(err)
	}
	cache := filepath.Join(t.TempDir(), "state", "acme")
	options := Options{Domains: []string{name}, Directory: directory, Email: "ops@example.test", Roots: trusted, Cache: cache, Log: slog.New(slog.DiscardHandler)}
	is, err := New(options)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := is.Certificate(&tls.ClientHelloInfo{ServerName: name}); !errors.Is(err, ErrNone) {
		t.Errorf("before there is one: %v", err)
	}
	secure := tls.NewListener(ln, &tls.Config{GetCertificate: is.Certificate, NextProtos: []string{"http/1.1", Protocol}})
	servers.Serve(secure, servers.Echo)
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan struct{})
	go func() { defer close(ran); is.Run(ctx) }()
	dial := func() (*tls.Conn, error) {
		return tls.Dial("tcp", ln.Addr().String(), &tls.Config{RootCAs: roots, ServerName: name, NextProtos: []string{"http/1.1"}})
	}
	var first *tls.Conn
	began := time.Now()
	for ; ; time.Sleep(50 * time.Millisecond) {
		if first, err = dial(); err == nil {
			break
		}
		if time.Since(began) > 90*time.Second {
			t.Fatal(err)
		}
	}
	defer first.Close()
	serial := first.ConnectionState().PeerCertificates[0].SerialNumber
	t.Logf("a certificate after %.1f s", time.Since(began).Seconds())
	if _, err := tls.Dial("tcp", ln.Addr().String(), &tls.Config{InsecureSkipVerify: true, ServerName: "other.example.test"}); err == nil {
		t.Error("a certificate for another name")
	}
	for began = time.Now(); ; time.Sleep(100 * time.Millisecond) {
		if c, err := dial(); err == nil {
			another := c.ConnectionState().PeerCertificates[0].SerialNumber
			c.Close()
			if another.Cmp(serial) != 0 {
				break
			}
		}
		if time.Since(began) > 2*time.Minute {
			t.Fatal("not renewed")
		}
	}
	t.Logf("renewed after %.1f s, of a life of 30 s", time.Since(began).Seconds())
	_ = first.SetDeadline(time.Now().Add(60 * time.Second))
	echo := make([]byte, 5)
	if _, err := first.Write([]byte("still")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(first, echo); err != nil || string(echo) != "still" {
		t.Errorf("the connection of before: %q, %v", echo, err)
	}
	files := 0
	if err := filepath.WalkDir(filepath.Dir(cache), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		if !d.IsDir() {
			files++
		}
		return err
	}); err != nil || files < 2 {
		t.Errorf("%d files: %v", files, err)
	}
	cancel()
	<-ran
	// The next process has the certificate at once, also where the authority cannot be asked.
	options.Roots = x509.NewCertPool()
	again, err := New(options)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	ran = make(chan struct{})
	go func() { defer close(ran); again.Run(ctx) }()
	for began = time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if cert, err := again.Certificate(&tls.ClientHelloInfo{ServerName: strings.ToUpper(name) + "."}); err == nil && cert.Leaf.DNSNames[0] == name {
			break
		}
		if time.Since(began) > 60*time.Second {
			t.Fatal("not in the cache")
		}
	}
	cancel()
	<-ran
}

// TestOptions: what cannot be right is refused before anybody is asked.
func TestOptions(t *testing.T) {
	cache := filepath.Join(t.TempDir(), "acme")
	for _, o := range []Options{
		{}, {Domains: []string{"localhost"}}, {Domains: []string{"192.0.2.1"}}, {Domains: []string{"*.example.com"}}, {Domains: []string{"relay.example.com:443"}},
		{Domains: []string{"relay.example.com"}, Directory: "http://ca.example.com/dir"}, {Domains: []string{"relay.example.com"}, Directory: "nonsense"},
	} {
		o.Cache = cache
		if _, err := New(o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
	if _, err := os.Stat(cache); err == nil {
		t.Error("the directory was made")
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Options{Domains: []string{"Relay.Example.com."}, Cache: cache}); err != nil {
		t.Fatal(err)
	}
	if s, err := os.Stat(cache); err != nil || s.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", s.Mode(), err)
	}
}
