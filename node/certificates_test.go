package node

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"golang.org/x/sys/unix"
)

// newPair makes a certificate that is valid for localhost.
func newPair(t testing.TB, serial int64) certificatePair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return certificatePair{
		Chain: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:   pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}),
	}
}

// TestCertificateEncoding: answers have the form of docs/protocol/03 §1.9.
func TestCertificateEncoding(t *testing.T) {
	for want, a := range map[string]certificateAnswer{
		"a10101": {Kind: certificateNotReady},
		"a2010002a2014a66756c6c5f636861696e024b707269766174655f6b6579": {Certificate: &certificatePair{Chain: []byte("full_chain"), Key: []byte("private_key")}},
	} {
		b, err := cbor.Marshal(a)
		if err != nil || hex.EncodeToString(b) != want {
			t.Errorf("%x, %v; want %s", b, err, want)
		}
		if c, err := decodeCertificate(b); err == nil {
			t.Errorf("%x is the certificate %v", b, c)
		}
	}
	pair := newPair(t, 7)
	b, err := cbor.Marshal(certificateAnswer{Certificate: &pair})
	if err != nil {
		t.Fatal(err)
	}
	if c, err := decodeCertificate(b); err != nil || c.Leaf.SerialNumber.Int64() != 7 {
		t.Errorf("%v, %v", c, err)
	}
	other := newPair(t, 8)
	longest := make([]byte, maxPEM) // two files that a provider just reads are an answer that is just read
	if b, _ := cbor.Marshal(certificateAnswer{Certificate: &certificatePair{Chain: longest, Key: longest}}); len(b) > maxCertificate {
		t.Errorf("an answer of %d bytes, of at most %d", len(b), maxCertificate)
	}
	b, _ = cbor.Marshal(certificateAnswer{Certificate: &certificatePair{Chain: pair.Chain, Key: other.Key}})
	if _, err := decodeCertificate(b); err == nil {
		t.Error("a key of another certificate was accepted")
	}
}

func FuzzDecodeCertificate(f *testing.F) {
	f.Add([]byte{0xa1, 1, 1})
	f.Add([]byte{0xa2, 1, 0, 2, 0xa2, 1, 0x41, 'a', 2, 0x41, 'b'})
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := decodeCertificate(b); (c == nil) == (err == nil) {
			t.Fatalf("%v, %v", c, err)
		}
	})
}

// TestCertificatesKept: clients wait for the first certificate; it is renewed, and stays when that fails.
func TestCertificatesKept(t *testing.T) {
	answers := make(chan *tls.Certificate)
	waits, next := make(chan time.Duration), make(chan time.Time)
	c := newCertificates(slog.New(slog.NewTextHandler(io.Discard, nil)), func(context.Context) (*tls.Certificate, error) {
		if a := <-answers; a != nil {
			return a, nil
		}
		return nil, errors.New("not there")
	})
	c.after = func(d time.Duration) <-chan time.Time {
		waits <- d
		return next
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { c.run(ctx); close(done) }()
	short, stop := context.WithTimeout(ctx, 10*time.Millisecond)
	defer stop()
	if _, err := c.get(short); err == nil {
		t.Error("a certificate before the first")
	}
	make := func(serial int64) *tls.Certificate {
		pair := newPair(t, serial)
		cert, err := tls.X509KeyPair(pair.Chain, pair.Key)
		if err != nil {
			t.Fatal(err)
		}
		return &cert
	}
	for i, step := range []struct {
		answer *tls.Certificate
		wait   time.Duration
		serial int64
	}{
		{nil, firstRetry, 0}, {nil, 2 * firstRetry, 0}, {make(1), certificateRefresh, 1}, {nil, staleRetry, 1}, {make(2), certificateRefresh, 2},
	} {
		if i > 0 {
			next <- time.Time{}
		}
		answers <- step.answer
		if got := <-waits; got != step.wait {
			t.Errorf("step %d waits %v, not %v", i, got, step.wait)
		}
		if step.serial == 0 {
			continue
		}
		if cert, err := c.get(ctx); err != nil || cert.Leaf.SerialNumber.Int64() != step.serial {
			t.Errorf("step %d: %v, %v", i, cert, err)
		}
	}
	cancel()
	<-done
}

// accepted makes a TLS connection through tlsAcceptor; fd is the portal's end.
func accepted(t *testing.T) (client *tls.Conn, fd int) {
	t.Helper()
	pair := newPair(t, 1)
	cert, err := tls.X509KeyPair(pair.Chain, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	accept := tlsAcceptor(func(context.Context) (*tls.Certificate, error) { return &cert, nil }, nil, false)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	raw, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	_ = raw.SetDeadline(time.Now().Add(90 * time.Second))
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	f, err := server.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	_ = server.Close()
	dup, err := unix.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	result := make(chan int, 1)
	go func() {
		p, err := accept(context.Background(), dup)
		if err != nil {
			t.Error(err)
		}
		result <- p.FD
	}()
	client = tls.Client(raw, &tls.Config{InsecureSkipVerify: true})
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	return client, <-result
}

// TestTLSEnds: a stream that the portal ends is ended for the client; one that it breaks off is not made to look whole.
func TestTLSEnds(t *testing.T) {
	buf := make([]byte, 10)
	client, fd := accepted(t)
	if _, err := unix.Write(fd, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Shutdown(fd, unix.SHUT_WR); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(client); string(got) != "hello" || err != nil {
		t.Errorf("ended: %q, %v", got, err)
	}
	if _, err := client.Write([]byte("back")); err != nil { // the other direction is open
		t.Error(err)
	}
	if err := client.CloseWrite(); err != nil {
		t.Error(err)
	}
	_ = unix.SetNonblock(fd, false)
	if n, err := unix.Read(fd, buf); string(buf[:n]) != "back" || err != nil {
		t.Errorf("back: %q, %v", buf[:n], err)
	}
	_ = unix.Close(fd)

	client, fd = accepted(t)
	if _, err := unix.Write(fd, []byte("hel")); err != nil {
		t.Fatal(err)
	}
	if n, err := io.ReadFull(client, buf[:3]); err != nil {
		t.Fatal(n, err)
	}
	_ = unix.Close(fd)
	if _, err := client.Read(buf); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("broken off: %v", err)
	}
}

// TestTLSRefused: a client that speaks no TLS, or that says nothing, is let go.
func TestTLSRefused(t *testing.T) {
	accept := tlsAcceptor(func(context.Context) (*tls.Certificate, error) { return nil, errors.New("none") }, nil, false)
	for _, text := range []string{"GET / HTTP/1.1\r\n\r\n", ""} {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Write(fds[1], []byte(text)); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if p, err := accept(ctx, fds[0]); err == nil {
			t.Errorf("%q: accepted as %d", text, p.FD)
		}
		cancel()
		_ = unix.Close(fds[1])
	}
}

// TestTLSBrokenOff: what a target with TLS broke off is not taken for the end of a whole stream; what it ended is.
func TestTLSBrokenOff(t *testing.T) {
	pair := newPair(t, 1)
	cert, err := tls.X509KeyPair(pair.Chain, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		end    func(*tls.Conn, *net.TCPConn) error
		broken bool
	}{
		{"ended", func(c *tls.Conn, _ *net.TCPConn) error { return c.Close() }, false},
		{"half ended", func(c *tls.Conn, _ *net.TCPConn) error { return c.CloseWrite() }, false},
		{"FIN between records", func(_ *tls.Conn, raw *net.TCPConn) error { return raw.Close() }, false},
		{"FIN within a record", func(_ *tls.Conn, raw *net.TCPConn) error {
			_, err := raw.Write([]byte{23, 3, 3, 1, 0, 'x'})
			return errors.Join(err, raw.Close())
		}, true},
		{"reset", func(_ *tls.Conn, raw *net.TCPConn) error { _ = raw.SetLinger(0); return raw.Close() }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			read := make(chan struct{})
			wasRead := read
			go func() {
				raw, err := ln.Accept()
				if err != nil {
					t.Error(err)
					return
				}
				server := tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{cert}})
				if _, err := server.Write([]byte("half of")); err != nil {
					t.Error(err)
				}
				<-wasRead // a reset takes along what was not read
				if err := c.end(server, raw.(*net.TCPConn)); err != nil {
					t.Error(err)
				}
			}()
			raw, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			client := tls.Client(raw, &tls.Config{InsecureSkipVerify: true})
			if err := client.Handshake(); err != nil {
				t.Fatal(err)
			}
			p, err := joined(client)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(p.FD)
			_ = unix.SetNonblock(p.FD, false)
			buf, got := make([]byte, 100), ""
			for {
				n, err := unix.Read(p.FD, buf)
				if err == unix.EINTR {
					continue
				}
				if got += string(buf[:max(n, 0)]); got == "half of" && read != nil {
					close(read)
					read = nil
				}
				if n <= 0 {
					break
				}
			}
			if got != "half of" || p.Broken() != c.broken {
				t.Errorf("%q, broken %v, want %v", got, p.Broken(), c.broken)
			}
		})
	}
}
