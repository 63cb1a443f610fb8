package dataplane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// crashing is the process that TestCrashResets kills: with one connection that its listener accepted, one that it opened, and one of
// each that has ended well.
func crashing(target string) {
	l, err := NewLoop(0, slog.New(slog.DiscardHandler))
	if err != nil {
		panic(err)
	}
	go l.Run()
	fd, at, err := ListenTCP(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		panic(err)
	}
	o := TCPOptions{ResetOnCrash: true}
	if err := o.Apply(fd); err != nil {
		panic(err)
	}
	begin := func(c *Conn) { c.Write([]byte("half of it")) }
	_ = l.Do(context.Background(), func() {
		if _, err := l.Accept(fd, func(fd int, _ netip.AddrPort) {
			if c, err := l.Adopt(fd, sayer{}); err == nil {
				begin(c)
			}
		}); err != nil {
			panic(err)
		}
		l.Dial(netip.MustParseAddrPort(target), o, time.Minute, func(c *Conn, err error) {
			if err != nil {
				panic(err)
			}
			c.SetHandler(sayer{})
			begin(c)
		})
	})
	fmt.Println(at)
	select {}
}

// sayer closes its connection when the peer says so.
type sayer struct{}

func (sayer) OnReadable(c *Conn) {
	b := make([]byte, 16)
	if n, err := c.Read(b); err == nil && strings.HasPrefix(string(b[:n]), "end") {
		c.Close()
	}
}
func (sayer) OnDrain(*Conn)        {}
func (sayer) OnClose(*Conn, error) {}

// TestCrashResets: when the process is killed, the peers of its connections read a reset and not an end, whoever opened them; a connection
// that has ended well reads an end.
func TestCrashResets(t *testing.T) {
	if target := os.Getenv("SALLYPORT_TEST_CRASH"); target != "" {
		crashing(target)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	cmd := exec.Command(os.Args[0], "-test.run=TestCrashResets$")
	cmd.Env = append(os.Environ(), "SALLYPORT_TEST_CRASH="+ln.Addr().String())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	_ = ln.(*net.TCPListener).SetDeadline(time.Now().Add(90 * time.Second))
	dialed, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer dialed.Close()
	var line [64]byte
	n, err := out.Read(line[:])
	if err != nil {
		t.Fatal(err)
	}
	at := strings.TrimSpace(string(line[:n]))
	accept := func() net.Conn {
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	accepted, well := accept(), accept()
	if _, err := well.Write([]byte("end")); err != nil {
		t.Fatal(err)
	}
	_ = well.SetDeadline(time.Now().Add(90 * time.Second))
	if got, err := io.ReadAll(well); err != nil || string(got) != "half of it" {
		t.Errorf("what ended well: %q, %v", got, err)
	}
	for what, c := range map[string]net.Conn{"accepted": accepted, "dialed": dialed} {
		_ = c.SetDeadline(time.Now().Add(90 * time.Second))
		b := make([]byte, 10)
		if _, err := io.ReadFull(c, b); err != nil || string(b) != "half of it" {
			t.Fatalf("%s: %q, %v", what, b, err)
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]net.Conn{"accepted": accepted, "dialed": dialed} {
		if n, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: read %d, %v after the crash; want a reset", what, n, err)
		}
	}
}

// TestEndWellDelivers: a connection whose sockets reset on a crash and that ends well delivers all to a slow reader, also when its
// loop ends while the kernel still has some of it.
func TestEndWellDelivers(t *testing.T) {
	for _, stop := range []bool{false, true} {
		g, err := NewGroup(1, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		l := g.Loop(0)
		r := newRecorder()
		fd, peer := pair(t, "tcp")
		if err := (TCPOptions{ResetOnCrash: true}).Apply(fd); err != nil {
			t.Fatal(err)
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 4<<20); err != nil {
			t.Fatal(err)
		}
		data := random(1 << 20)
		var c *Conn
		on(t, l, func() {
			if c, err = l.Adopt(fd, r); err != nil {
				t.Fatal(err)
			}
			c.Write(data)
			c.Close()
		})
		if stop {
			eventually(t, "the kernel has all", func() (all bool) { on(t, l, func() { all = c.Pending() == 0 }); return all })
			g.Stop()
		}
		got, err := io.ReadAll(peer)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("stop %v: %d of %d bytes, %v", stop, len(got), len(data), err)
		}
		peer.Close()
		g.Stop()
	}
}

// TestStopCutsWithReset: what a loop that ends had not sent is seen to be missing.
func TestStopCutsWithReset(t *testing.T) {
	g, err := NewGroup(1, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	fd, peer := pair(t, "tcp")
	if err := (TCPOptions{ResetOnCrash: true}).Apply(fd); err != nil {
		t.Fatal(err)
	}
	on(t, g.Loop(0), func() {
		c, err := g.Loop(0).Adopt(fd, newRecorder())
		if err != nil {
			t.Error(err)
			return
		}
		c.Write(make([]byte, 64<<20))
		c.Close()
	})
	g.Stop()
	if n, err := io.Copy(io.Discard, peer); err == nil {
		t.Errorf("read %d bytes and an end", n)
	}
}
