package dataplane

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// secured returns a connection of TLS on a loop, and the other end for the test with the socket below it.
func secured(t *testing.T, l *Loop, h Handler) (*Conn, *tls.Conn, net.Conn) {
	t.Helper()
	return layered(t, l, h, 1)
}

// layered is secured with layers of TLS, one over the other.
func layered(t *testing.T, l *Loop, h Handler, layers int) (*Conn, *tls.Conn, net.Conn) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	fd, peer := pair(t, "tcp")
	raw := netConn(t, fd)
	var server, client *tls.Conn
	below, over := net.Conn(raw), peer
	for range layers {
		server = tls.Server(NewSocket(below), &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
		client = tls.Client(over, &tls.Config{InsecureSkipVerify: true})
		done := make(chan error, 1)
		go func() { done <- client.Handshake() }()
		if err := errors.Join(server.Handshake(), <-done); err != nil {
			t.Fatal(err)
		}
		below, over = server, client
	}
	_ = raw.SetDeadline(time.Time{})
	var c *Conn
	on(t, l, func() { c, err = l.AdoptNet(server, h) })
	if err != nil {
		t.Fatal(err)
	}
	return c, client, peer
}

// TestTLSOnALoop: what goes through TLS on a loop is whole in both directions, however it is written and however long it is, and ends as it is ended.
func TestTLSOnALoop(t *testing.T) {
	l := newLoop(t)
	for name, write := range map[string]func(c *Conn, p []byte){
		"written": (*Conn).Write, "borrowed": (*Conn).WriteBorrowed,
		"reserved": func(c *Conn, p []byte) {
			for len(p) > 0 {
				n := min(len(p), 50_000)
				copy(c.Reserve(n), p[:n])
				c.Commit(n)
				p = p[n:]
			}
		},
		"in small pieces": func(c *Conn, p []byte) {
			for len(p) > 0 {
				n := min(len(p), 777)
				c.Write(p[:n])
				p = p[n:]
			}
		},
	} {
		for i, size := range []int{1, 1000, sealAt - 1, sealAt, sealAt + 1, 3 << 20, 1, 1000, sealAt, 3 << 20} {
			rec := newRecorder()
			layers := 1
			if i >= 6 {
				layers = 2 // as through a proxy that is reached over TLS
			}
			c, peer, _ := layered(t, l, rec, layers)
			sent := random(size)
			on(t, l, func() {
				write(c, sent)
				if c.Pending() == 0 && size < sealAt {
					t.Errorf("%s, %d bytes: sent before the end of the turn", name, size)
				}
				c.CloseWrite()
			})
			got, err := io.ReadAll(peer)
			if err != nil || !bytes.Equal(got, sent) {
				t.Fatalf("%s, %d bytes: %d, %v", name, size, len(got), err)
			}
			go func() {
				_, _ = peer.Write(sent)
				_ = peer.CloseWrite()
			}()
			eventually(t, "the end is read", func() bool { rec.mu.Lock(); defer rec.mu.Unlock(); return rec.ends > 0 })
			if !bytes.Equal(rec.bytes(), sent) {
				t.Errorf("%s, %d bytes back: %d", name, size, len(rec.bytes()))
			}
			on(t, l, c.Close)
			if err := rec.wait(t); err != nil && err != ErrConnClosed {
				t.Errorf("%s: %v", name, err)
			}
			on(t, l, func() {
				c.Write(sent) // of no use any more
				if c.plain != nil || c.Pending() != 0 {
					t.Error("a closed connection keeps output")
				}
			})
		}
	}
}

// TestLittleThroughTLS: what was written goes out at the end of the turn, however little it is.
func TestLittleThroughTLS(t *testing.T) {
	l := newLoop(t)
	c, peer, _ := secured(t, l, newRecorder())
	for _, text := range []string{"a", "little", strings.Repeat("s", sealAt), strings.Repeat("m", 2*sealAt)} {
		on(t, l, func() { c.Write([]byte(text)) })
		b := make([]byte, len(text))
		if _, err := io.ReadFull(peer, b); err != nil || string(b) != text {
			t.Errorf("%.20q, %v", b, err)
		}
	}
	on(t, l, c.Abort)
}

// TestTLSEndsOnALoop: what the peer ends, cuts off or spoils is told apart; after its end this side can go on.
func TestTLSEndsOnALoop(t *testing.T) {
	l := newLoop(t)
	rec := newRecorder()
	c, peer, _ := secured(t, l, rec)
	if err := peer.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its end is read", func() bool { rec.mu.Lock(); defer rec.mu.Unlock(); return rec.ends == 1 })
	on(t, l, func() {
		c.Write([]byte("still here"))
		c.Close()
	})
	if got, err := io.ReadAll(peer); err != nil || string(got) != "still here" {
		t.Errorf("%q, %v", got, err)
	}
	for name, x := range map[string]struct {
		act  func(raw net.Conn)
		want func(n int, err error) bool
	}{
		"no record": {func(raw net.Conn) { _, _ = raw.Write([]byte("GET / HTTP/1.1\r\n\r\n")) }, func(_ int, err error) bool { return err != nil && strings.HasPrefix(err.Error(), "TLS: ") }},
		"cut off": {func(raw net.Conn) { _ = raw.Close() }, func(_ int, err error) bool {
			return err == io.EOF || err != nil && strings.HasPrefix(err.Error(), "TLS: ")
		}},
		"reset":         {func(raw net.Conn) { _ = raw.(*net.TCPConn).SetLinger(0); _ = raw.Close() }, func(_ int, err error) bool { return errors.Is(err, unix.ECONNRESET) }},
		"half a record": {func(raw net.Conn) { _, _ = raw.Write([]byte{23, 3, 3, 0, 50, 1}); _ = raw.Close() }, func(_ int, err error) bool { return err != nil && err != ErrAgain }},
	} {
		result := make(chan error, 1)
		h := newRecorder()
		h.readable = func(c *Conn) {
			n, err := c.Read(make([]byte, 100))
			if err == ErrAgain {
				return
			}
			if n != 0 || !x.want(n, err) || c.readable {
				t.Errorf("%s: %d, %v", name, n, err)
			}
			c.Abort()
			result <- err
		}
		_, _, raw := secured(t, l, h)
		x.act(raw)
		<-result
	}
	// A little at a time is as much as there is room for, and an error that comes behind it is told by the next read.
	got := make(chan string, 10)
	h := newRecorder()
	h.readable = func(c *Conn) {
		for {
			b := make([]byte, 4)
			n, err := c.Read(b)
			if err == ErrAgain {
				return
			}
			got <- string(b[:n])
			if err != nil {
				c.Abort()
				close(got)
				return
			}
		}
	}
	_, peer, _ = secured(t, l, h)
	_, _ = peer.Write([]byte("abcdefghij"))
	_ = peer.CloseWrite()
	text := ""
	for part := range got {
		text += part
	}
	if text != "abcdefghij" {
		t.Errorf("%q", text)
	}
}

// TestSocketBelowTLS is the socket of package net until a loop has it; then it never blocks, and the connection closes it.
func TestSocketBelowTLS(t *testing.T) {
	l := newLoop(t)
	a, b := net.Pipe()
	s := NewSocket(a)
	go func() { _, _ = b.Write([]byte("x")) }()
	if n, err := s.Read(make([]byte, 5)); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if err := s.SetWriteDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Error(err)
	}
	if _, err := s.Write([]byte("y")); !isTimeout(err) {
		t.Errorf("its deadline is nothing: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := b.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("it is open: %v", err)
	}
	c, _, _ := secured(t, l, newRecorder())
	on(t, l, func() {
		below := c.tls.NetConn().(*Socket)
		if n, err := below.Read(make([]byte, 5)); n != 0 || !isTimeout(err) || !err.(net.Error).Timeout() {
			t.Errorf("nothing to read: %d, %v", n, err)
		}
		if err := errors.Join(below.SetWriteDeadline(time.Now()), below.Close()); err != nil || c.closed {
			t.Errorf("%v, closed %v", err, c.closed)
		}
		if n, err := below.Write([]byte("abc")); n != 3 || err != nil || c.outBytes != 3 {
			t.Errorf("%d, %v, %d wait", n, err, c.outBytes)
		}
		c.Abort()
		if n, err := below.Write([]byte("abc")); n != 0 || err != ErrConnClosed {
			t.Errorf("when it is closed: %d, %v", n, err)
		}
	})
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// TestWhatCannotBeAdopted: what has no socket of its own is refused and closed.
func TestWhatCannotBeAdopted(t *testing.T) {
	l := newLoop(t)
	a, b := net.Pipe()
	over, other := net.Pipe()
	twice, another := net.Pipe()
	fd, far := pair(t, "tcp")
	near := netConn(t, fd)
	on(t, l, func() {
		if _, err := l.AdoptNet(a, newRecorder()); err == nil || !strings.Contains(err.Error(), "has no descriptor") {
			t.Errorf("a pipe: %v", err)
		}
		if _, err := l.AdoptNet(tls.Client(over, &tls.Config{InsecureSkipVerify: true}), newRecorder()); err == nil || !strings.Contains(err.Error(), "TLS over") {
			t.Errorf("TLS over another: %v", err)
		}
		if _, err := l.AdoptNet(tls.Client(NewSocket(tls.Client(twice, &tls.Config{InsecureSkipVerify: true})), &tls.Config{InsecureSkipVerify: true}), newRecorder()); err == nil || !strings.Contains(err.Error(), "TLS over") {
			t.Errorf("TLS over TLS over another: %v", err)
		}
		before := l.shared.maxFD
		l.shared.maxFD = 0
		if _, err := l.AdoptNet(near, newRecorder()); !errors.Is(err, ErrNoDescriptor) {
			t.Errorf("without a descriptor: %v", err)
		}
		l.shared.maxFD = before
	})
	for _, c := range []net.Conn{b, other, another, far} {
		if _, err := c.Read(make([]byte, 1)); err == nil || isTimeout(err) {
			t.Errorf("the other end of what was not adopted is open: %v", err)
		}
	}
	plain, peer := pair(t, "unix")
	socket := netConn(t, plain)
	rec := newRecorder()
	_, _ = peer.Write([]byte("early"))
	on(t, l, func() {
		if _, err := l.AdoptNet(socket, rec); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "what came before is read", func() bool { return string(rec.bytes()) == "early" })
	if _, err := socket.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the socket is open in package net too: %v", err)
	}
}

// TestWriteAfterTheEndOfTLS: what is written after the end was sent cannot be sealed any more, which ends the connection with an error and is not lost in silence.
func TestWriteAfterTheEndOfTLS(t *testing.T) {
	l := newLoop(t)
	rec := newRecorder()
	c, _, _ := secured(t, l, rec)
	on(t, l, func() {
		c.CloseWrite()
		c.Write([]byte("too late"))
	})
	if err := rec.wait(t); err == nil || !strings.Contains(err.Error(), "TLS") {
		t.Errorf("ended with %v", err)
	}
}
