package main

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestTransfer(t *testing.T) {
	defer goleak.VerifyNone(t)
	s, err := startTransferServer()
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	port := s.listener.Addr().(*net.TCPAddr).Port
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	for _, mode := range []byte{modeUpload, modeDownload} {
		for _, length := range []int64{0, 1, transferChunk + 3} {
			if _, err := transfer(ctx, port, mode, length); err != nil {
				t.Errorf("%c %d: %v", mode, length, err)
			}
		}
	}
	if err := portalWorks(ctx, port, 90*time.Second); err != nil {
		t.Error(err)
	}
}

// A portal that changes one byte, or stops, must not pass for a good one.
func TestTransferNoticesDamage(t *testing.T) {
	defer goleak.VerifyNone(t)
	s, err := startTransferServer()
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	for _, c := range []struct {
		name string
		mode byte
		bend func(to, from net.Conn)
		want error
	}{
		{"flipped upload", modeUpload, func(to, from net.Conn) { flip(to, from, 100) }, errDigest},
		{"flipped download", modeDownload, func(to, from net.Conn) { flip(from, to, 100) }, errDigest},
		{"cut download", modeDownload, func(to, from net.Conn) { io.CopyN(from, to, 1000); from.Close(); to.Close() }, io.EOF},
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			from, err := l.Accept()
			if err != nil {
				return
			}
			defer from.Close()
			to, err := net.Dial("tcp", s.address())
			if err != nil {
				return
			}
			defer to.Close()
			back := make(chan struct{})
			go func() {
				defer close(back)
				if c.mode == modeDownload {
					io.Copy(to, from)
				} else {
					io.Copy(from, to)
				}
				to.Close()
			}()
			c.bend(to, from)
			from.Close()
			to.Close()
			<-back
		}()
		ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
		_, err = transfer(ctx, l.Addr().(*net.TCPAddr).Port, c.mode, 50000)
		cancel()
		if !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
		l.Close()
		<-done
	}
}

// flip copies and inverts one byte at a position.
func flip(to, from net.Conn, position int64) {
	if _, err := io.CopyN(to, from, position); err != nil {
		return
	}
	var one [1]byte
	if _, err := io.ReadFull(from, one[:]); err != nil {
		return
	}
	one[0] ^= 0xff
	to.Write(one[:])
	io.Copy(to, from)
}

func TestStopsWithin(t *testing.T) {
	silent, far := net.Pipe()
	defer silent.Close()
	far.Close()
	if note, err := stopsWithin(context.Background(), silent, time.Second); err != nil || note != "closed after 0s" {
		t.Errorf("closed: %q, %v", note, err)
	}
	a, b := net.Pipe()
	go io.Copy(b, b)
	defer a.Close()
	defer b.Close()
	if note, err := stopsWithin(context.Background(), a, 600*time.Millisecond); err == nil {
		t.Errorf("a working connection counts as stopped: %q", note)
	}
	if err := keepsGoing(context.Background(), a, 100*time.Millisecond); err != nil {
		t.Error(err)
	}
	if err := keepsGoing(context.Background(), silent, 100*time.Millisecond); err == nil {
		t.Error("a closed connection counts as going")
	}
}

func TestEventually(t *testing.T) {
	calls := 0
	if _, err := eventually(context.Background(), 5*time.Second, func() error {
		if calls++; calls < 2 {
			return io.EOF
		}
		return nil
	}); err != nil || calls != 2 {
		t.Errorf("%d calls, %v", calls, err)
	}
	if _, err := eventually(context.Background(), 0, func() error { return io.EOF }); !errors.Is(err, io.EOF) {
		t.Errorf("got %v", err)
	}
}
