package dataplane

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

// TestCloseWaitsForSlowReader: after Close the output goes on for as long as the peer takes some of it, longer than an idle peer is
// waited for; what was sent is then whole.
func TestCloseWaitsForSlowReader(t *testing.T) {
	networks(t, func(t *testing.T, network string) {
		l := newLoop(t)
		on(t, l, func() { l.lingerFor = 20 * time.Millisecond })
		r := newRecorder()
		c, peer := adopt(t, l, network, r)
		if tcp, ok := peer.(*net.TCPConn); ok {
			tcp.SetReadBuffer(16 << 10)
		}
		data := random(6 << 20)
		closeWrite(t, peer) // nothing more to come: what is left to do is to send
		on(t, l, func() {
			c.Write(data)
			c.Close()
		})
		time.Sleep(100 * time.Millisecond) // a pause of the reader, five times as long as the wait for an idle peer
		on(t, l, func() {
			if c.Closed() {
				t.Error("closed before the output was taken")
			}
		})
		if tcp, ok := peer.(*net.TCPConn); ok {
			tcp.SetReadBuffer(1 << 20)
		}
		got, err := io.ReadAll(peer)
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%d of %d bytes, %v", len(got), len(data), err)
		}
		if err := r.wait(t); err != ErrConnClosed {
			t.Error(err)
		}
	})
}

// TestCloseThenPeerEnds: a peer that ends its side while the output of a closed connection still waits gets all of it nevertheless.
func TestCloseThenPeerEnds(t *testing.T) {
	networks(t, func(t *testing.T, network string) {
		l := newLoop(t)
		r := newRecorder()
		c, peer := adopt(t, l, network, r)
		data := random(6 << 20)
		on(t, l, func() {
			c.Write(data)
			c.Close()
		})
		if _, err := peer.Write([]byte("what nobody reads any more")); err != nil {
			t.Fatal(err)
		}
		closeWrite(t, peer)
		eventually(t, "the peer's end is read", func() bool {
			var eof bool
			on(t, l, func() { eof = c.eof || c.Closed() })
			return eof
		})
		on(t, l, func() {
			if c.Closed() || c.Pending() == 0 {
				t.Errorf("closed %v with %d bytes to send: the test is of no use", c.Closed(), c.Pending())
			}
		})
		got, err := io.ReadAll(peer)
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%d of %d bytes, %v", len(got), len(data), err)
		}
		if err := r.wait(t); err != ErrConnClosed {
			t.Error(err)
		}
	})
}

// TestCloseEndsStuckPeer: a peer that takes nothing for drainTimeout is reset, so that a stream cut short does not look whole; one
// that has all but does not close its side is let go after lingerTimeout.
func TestCloseEndsStuckPeer(t *testing.T) {
	l := newLoop(t)
	on(t, l, func() { l.lingerFor, l.drainFor = 20*time.Millisecond, 60*time.Millisecond })
	r := newRecorder()
	c, peer := adopt(t, l, "tcp", r)
	peer.(*net.TCPConn).SetReadBuffer(16 << 10)
	data := make([]byte, 16<<20)
	on(t, l, func() {
		c.Write(data)
		c.Close()
	})
	r.wait(t)
	if n, err := io.Copy(io.Discard, peer); err == nil {
		t.Errorf("read %d bytes and an end of a stream that was cut short", n)
	}
	r = newRecorder()
	c, peer = adopt(t, l, "tcp", r)
	on(t, l, func() {
		c.Write([]byte("all"))
		c.Close()
	})
	r.wait(t)
	if got, err := io.ReadAll(peer); err != nil || string(got) != "all" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestSlowPeerIsNotStuck: each time that is looked, a peer that has taken some of what waits gets more time, and one that has taken nothing is reset.
func TestSlowPeerIsNotStuck(t *testing.T) {
	networks(t, func(t *testing.T, network string) {
		l := newLoop(t)
		r := newRecorder()
		c, peer := adopt(t, l, network, r)
		if tcp, ok := peer.(*net.TCPConn); ok {
			tcp.SetReadBuffer(16 << 10)
		}
		data := random(48 << 20) // more than the system holds, several times
		on(t, l, func() {
			c.Write(data)
			c.Close()
		})
		taken := 0
		for range 3 {
			before := 0
			on(t, l, func() { before = c.outBytes })
			if before == 0 {
				t.Fatal("all is sent: the test is of no use")
			}
			eventually(t, "some is taken", func() bool {
				n, err := peer.Read(make([]byte, 64<<10))
				if err != nil {
					t.Fatal(err)
				}
				taken += n
				now := 0
				on(t, l, func() { now = c.outBytes })
				return now < before
			})
			on(t, l, func() {
				if c.lingered(); c.closed {
					t.Error("reset while it takes what waits for it")
				} else if c.left != c.outBytes {
					t.Errorf("%d bytes waited when it was looked, %d are remembered", c.outBytes, c.left)
				}
			})
		}
		on(t, l, func() {
			if c.outBytes == 0 {
				t.Error("all is sent: the test is of no use")
			}
			if c.left = c.outBytes; !c.closed {
				c.lingered()
			}
		})
		r.wait(t)
		n, err := io.Copy(io.Discard, peer)
		if network == "tcp" && err == nil || taken+int(n) >= len(data) {
			t.Errorf("a stream cut short after %d bytes looks whole (%v)", taken+int(n), err)
		}
	})
}
