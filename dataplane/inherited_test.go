package dataplane

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// copyOf is another descriptor of the same socket.
func copyOf(t *testing.T, fd int) int {
	t.Helper()
	other, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	return other
}

// isOpen reports whether a descriptor is open.
func isOpen(fd int) bool {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil
}

// TestInheritance: a socket that was left goes once to whoever wants to listen at its address and with its network, and what nobody wants is closed.
func TestInheritance(t *testing.T) {
	group, err := NewGroup(2, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(group.Stop)
	at := netip.MustParseAddrPort("127.0.0.1:0")
	fd, bound, err := ListenTCP(at)
	if err != nil {
		t.Fatal(err)
	}
	datagrams, boundUDP, err := ListenUDP(at)
	if err != nil {
		t.Fatal(err)
	}
	other, boundOther, err := ListenTCP(at)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil { // as it comes over an exec
		t.Fatal(err)
	}
	in := NewInheritance([]Inherited{{"tcp", bound.String(), fd}, {"udp", boundUDP.String(), datagrams}, {"tcp", boundOther.String(), other}})
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("other programs get it: %x, %v", flags, err)
	}
	for _, c := range [][2]string{{"udp", bound.String()}, {"tcp", boundUDP.String()}, {"tcp", "127.0.0.1:1"}, {"unix", bound.String()}} {
		if _, ok := in.Take(c[0], c[1]); ok {
			t.Errorf("%v is taken", c)
		}
	}
	if _, _, err := group.ListenTCP(bound); err == nil {
		t.Error("listens where the program before does, without its socket")
	}
	group.Inherited = in
	if got, at, err := group.ListenTCP(bound); got != fd || at != bound || err != nil {
		t.Errorf("%d at %s, %v; want %d", got, at, err, fd)
	}
	if got, at, err := group.ListenUDP(boundUDP); got != datagrams || at != boundUDP || err != nil {
		t.Errorf("%d at %s, %v; want %d", got, at, err, datagrams)
	}
	if _, _, err := group.ListenTCP(bound); err == nil {
		t.Error("taken twice")
	}
	if got, at, err := group.ListenUDP(netip.MustParseAddrPort("127.0.0.1:0")); err != nil || at.Port() == 0 || got == datagrams {
		t.Errorf("another address: %d at %s, %v", got, at, err)
	} else {
		_ = unix.Close(got)
	}
	if left := in.Close(); len(left) != 1 || left[0] != "tcp "+boundOther.String() || isOpen(other) || !isOpen(fd) {
		t.Errorf("left %v", left)
	}
	if left := in.Close(); len(left) != 0 {
		t.Errorf("left twice: %v", left)
	}
	if left := (*Inheritance)(nil).Close(); left != nil {
		t.Errorf("nobody has left %v", left)
	}
	if _, ok := (*Inheritance)(nil).Take("tcp", bound.String()); ok {
		t.Error("taken from nobody")
	}

	// A listener of package net goes on too, and a client notices nothing.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	one, err := InheritedListener(ln)
	if err != nil || one.Network != "tcp" || one.Address != ln.Addr().String() || one.FD < 3 {
		t.Fatalf("%+v, %v", one, err)
	}
	one.FD = copyOf(t, one.FD)
	waiting, err := net.Dial("tcp", one.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	_ = ln.Close()
	next := NewInheritance([]Inherited{one})
	ln, err = next.Listen("tcp", one.Address)
	if err != nil || isOpen(one.FD) && len(next.socks) != 0 {
		t.Fatal(err)
	}
	defer ln.Close()
	served, err := ln.Accept()
	if err != nil || served.RemoteAddr().String() != waiting.LocalAddr().String() {
		t.Errorf("%v, %v", served, err)
	}
	_ = served.Close()
	if _, err := next.Listen("tcp", one.Address); err == nil {
		t.Error("listens twice at one address")
	}
	path := filepath.Join(t.TempDir(), "s")
	local, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	if one, err := InheritedListener(local); err != nil || one.Network != "unix" || one.Address != path {
		t.Errorf("%+v, %v", one, err)
	}
	if one, err := InheritedListener(struct{ net.Listener }{local}); err == nil || one.FD != -1 {
		t.Errorf("one without a descriptor: %+v, %v", one, err)
	}
	if ln, err := FileListener(copyOf(t, fd), "x"); err != nil {
		t.Error(err)
	} else {
		_ = ln.Close()
	}
	_ = unix.Close(datagrams)
	_ = unix.Close(fd)
}

// TestHaltedLoops: while loops are halted nothing changes on them and what they hold can be listed; they go on when they are released, and when they could
// not all be halted.
func TestHaltedLoops(t *testing.T) {
	g, err := NewGroup(2, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Stop)
	l := g.Loop(0)
	ln, at := listenOn(t, l, func(fd int, _ netip.AddrPort) { _ = unix.Close(fd) })
	datagrams, boundUDP, err := ListenUDP(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	on(t, l, func() {
		if _, err := l.AdoptUDP(datagrams, &echoDatagrams{}, &UDPStats{}); err != nil {
			t.Fatal(err)
		}
	})
	mine, peer := adopt(t, l, "tcp", newRecorder())
	other, _ := adopt(t, g.Loop(1), "unix", newRecorder())
	release, err := g.Halt(limited(t))
	if err != nil {
		t.Fatal(err)
	}
	ran, released := make(chan struct{}), atomic.Bool{}
	if !l.Post(TaskFunc(func() {
		if !released.Load() {
			t.Error("a halted loop works")
		}
		close(ran)
	})) {
		t.Error("a halted loop takes nothing")
	}
	sockets := g.Sockets()
	slices.SortFunc(sockets, func(a, b Inherited) int { return strings.Compare(a.Network, b.Network) })
	if len(sockets) != 2 || sockets[0] != (Inherited{"tcp", at.String(), ln.fd}) || sockets[1] != (Inherited{"udp", boundUDP.String(), datagrams}) {
		t.Errorf("%+v", sockets)
	}
	all := g.Conns(func(Handler) bool { return true })
	if len(all) != 2 || !slices.Contains(all, mine) || !slices.Contains(all, other) {
		t.Errorf("%d connections", len(all))
	}
	if one := g.Conns(func(h Handler) bool { return h == mine.handler }); len(one) != 1 || one[0] != mine {
		t.Errorf("%d connections of one handler", len(one))
	}
	mine.closed = true
	if one := g.Conns(func(Handler) bool { return true }); len(one) != 1 || one[0] != other {
		t.Errorf("%d connections, of which one is closed", len(one))
	}
	mine.closed = false
	time.Sleep(10 * time.Millisecond) // for a loop that is not halted to show it
	released.Store(true)
	release()
	release()
	<-ran

	// One that is busy: all go on when the time is over.
	let := busy(t, g.Loop(1))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := g.Halt(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("halted although one is busy: %v", err)
	}
	on(t, l, func() {})
	let()
	on(t, g.Loop(1), func() {})
	on(t, l, func() { mine.Abort() })
	if _, err := peer.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("the peer read %v, not a reset", err)
	}
	ended, err := NewGroup(1, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ended.Stop()
	if _, err := ended.Halt(limited(t)); !errors.Is(err, ErrLoopClosed) {
		t.Errorf("loops that have ended are halted: %v", err)
	}
}

// TestSocketOptions: each option is set when it is asked for, and left as the system has it when it is not.
func TestSocketOptions(t *testing.T) {
	type read struct{ level, opt int }
	options := map[string]read{
		"NoDelay": {unix.IPPROTO_TCP, unix.TCP_NODELAY}, "KeepAlive": {unix.SOL_SOCKET, unix.SO_KEEPALIVE}, "Idle": {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE},
		"Interval": {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL}, "Count": {unix.IPPROTO_TCP, unix.TCP_KEEPCNT}, "UserTimeout": {unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT},
		"NotSentLowat": {unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT},
		"RepeatAfter":  {unix.IPPROTO_TCP, unix.TCP_RTO_MIN_US}, "AcknowledgeWithin": {unix.IPPROTO_TCP, unix.TCP_DELACK_MAX_US},
	}
	for name, c := range map[string]struct {
		o    TCPOptions
		want map[string]int
	}{
		"none":           {TCPOptions{}, nil},
		"no delay":       {TCPOptions{NoDelay: true}, map[string]int{"NoDelay": 1}},
		"keep-alive":     {TCPOptions{KeepAliveIdle: 61 * time.Second, KeepAliveInterval: 17 * time.Second, KeepAliveCount: 5}, map[string]int{"KeepAlive": 1, "Idle": 61, "Interval": 17, "Count": 5}},
		"a time":         {TCPOptions{UserTimeout: 7 * time.Second}, map[string]int{"UserTimeout": 7000}},
		"a mark":         {TCPOptions{NotSentLowat: 12345}, map[string]int{"NotSentLowat": 12345}},
		"short waits":    {TCPOptions{RepeatAfter: 40 * time.Millisecond, AcknowledgeWithin: 20 * time.Millisecond}, map[string]int{"RepeatAfter": 40_000, "AcknowledgeWithin": 20_000}},
		"probes without": {TCPOptions{KeepAliveInterval: 17 * time.Second, KeepAliveCount: 5}, nil},
	} {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		before := map[string]int{}
		for option, r := range options {
			before[option], _ = unix.GetsockoptInt(fd, r.level, r.opt)
		}
		if err := c.o.Apply(fd); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for option, r := range options {
			got, err := unix.GetsockoptInt(fd, r.level, r.opt)
			if err == unix.ENOPROTOOPT {
				continue // an older kernel
			}
			want, set := c.want[option]
			if !set {
				want = before[option]
			}
			if err != nil || got != want {
				t.Errorf("%s: %s is %d, want %d, %v", name, option, got, want, err)
			}
		}
		if linger, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_LINGER); err != nil || linger != 0 {
			t.Errorf("%s: it lingers, %v", name, err)
		}
		_ = unix.Close(fd)
	}
	// A socket of another kind, or none, has no such options: it is told which.
	pipe := make([]int, 2)
	if err := unix.Pipe2(pipe, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	for option, o := range map[string]TCPOptions{
		"TCP_NODELAY": {NoDelay: true}, "SO_KEEPALIVE": {KeepAliveIdle: time.Second}, "TCP_USER_TIMEOUT": {UserTimeout: time.Second}, "SO_SNDBUF": {SendBuffer: 1}, "TCP_NOTSENT_LOWAT": {NotSentLowat: 1},
	} {
		if err := o.Apply(pipe[0]); !errors.Is(err, unix.ENOTSOCK) || !strings.Contains(err.Error(), option) {
			t.Errorf("%s: %v", option, err)
		}
	}

	l := newLoop(t)
	c, _ := adopt(t, l, "tcp", newRecorder())
	on(t, l, func() {
		if err := c.SetOptions(TCPOptions{UserTimeout: 3 * time.Second}); err != nil {
			t.Error(err)
		}
		if got, _ := unix.GetsockoptInt(c.fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT); got != 3000 {
			t.Errorf("%d ms", got)
		}
		c.SetNotSentLowat(4321)
		if got, _ := unix.GetsockoptInt(c.fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT); got != 4321 {
			t.Errorf("%d bytes", got)
		}
		if !c.LocalAddr().IsValid() || !c.RemoteAddr().IsValid() || c.LocalAddr() == c.RemoteAddr() {
			t.Errorf("%v to %v", c.LocalAddr(), c.RemoteAddr())
		}
		c.Abort()
		// The descriptor may be somebody else's now.
		if err := c.SetOptions(TCPOptions{NoDelay: true}); !errors.Is(err, ErrConnClosed) {
			t.Error(err)
		}
		if c.LocalAddr().IsValid() || c.RemoteAddr().IsValid() || c.Unacknowledged() != 0 {
			t.Error("a connection that is closed has addresses")
		}
		c.SetNotSentLowat(1)
		for name, read := range map[string]func() (int, error){
			"Read":       func() (int, error) { return c.Read(make([]byte, 10)) },
			"ReadBlocks": func() (int, error) { return c.ReadBlocks(make([]byte, 10), 0, 10, 10) },
			"ReadVector": func() (int, error) { return c.ReadVector([][]byte{make([]byte, 10)}) },
		} {
			if n, err := read(); n != 0 || err != ErrConnClosed {
				t.Errorf("%s of what is closed: %d, %v", name, n, err)
			}
		}
		if _, ok := c.Copy(true); ok {
			t.Error("a closed connection is copied")
		}
		if _, ok := c.HandOver(); ok {
			t.Error("a closed connection is handed over")
		}
	})
}

// TestNothingToRead: a connection with nothing to read says so, for each way to read.
func TestNothingToRead(t *testing.T) {
	l := newLoop(t)
	c, peer := adopt(t, l, "unix", newRecorder())
	on(t, l, func() {
		for want, readable := range map[string]bool{"known": false, "asked": true} {
			c.readable = readable
			for name, read := range map[string]func() (int, error){
				"Read":       func() (int, error) { return c.Read(make([]byte, 10)) },
				"ReadBlocks": func() (int, error) { return c.ReadBlocks(make([]byte, 20), 0, 10, 10) },
				"ReadVector": func() (int, error) { return c.ReadVector([][]byte{make([]byte, 10), make([]byte, 10)}) },
			} {
				c.readable = readable
				if n, err := read(); n != 0 || err != ErrAgain || c.readable {
					t.Errorf("%s, %s: %d, %v, readable %v", name, want, n, err, c.readable)
				}
			}
		}
		// What fills all the room may not be all there is, unless the peer has ended.
		for _, hup := range []bool{false, true} {
			for n, more := range map[int]bool{9: hup, 10: true} {
				c.readable, c.hup = true, hup
				if got, err := c.taken(n, 0, 10); got != n || err != nil || c.readable != more {
					t.Errorf("%d of 10, hup %v: %d, %v, readable %v", n, hup, got, err, c.readable)
				}
			}
		}
		c.hup = false
		if _, err := c.taken(0, unix.ECONNRESET, 10); !errors.Is(err, unix.ECONNRESET) || c.readable {
			t.Errorf("reset: %v", err)
		}
	})
	_ = peer.Close()
}

// TestChunks: a chunk is of the smallest size that has room, is used again, and is kept up to a number of each size; one that is larger than all is not
// kept.
func TestChunks(t *testing.T) {
	var p chunkPool
	for class, size := range chunkSizes {
		for n, want := range map[int]int{size: class, size - 1: class, size + 1: class + 1} {
			if want == len(chunkSizes) {
				want = -1
			}
			c := p.get(n)
			if c.class != want || len(c.buf) < n || want < 0 && len(c.buf) != n {
				t.Errorf("%d bytes: class %d with %d", n, c.class, len(c.buf))
			}
		}
		var list []*chunk
		for range chunkKeep[class] + 1 {
			list = append(list, p.get(size))
		}
		for _, c := range list {
			c.r, c.w = 3, 5
			if c.pending() != 2 {
				t.Errorf("%d pending", c.pending())
			}
			p.put(c)
		}
		if k := len(p.free[class]); k != chunkKeep[class] {
			t.Errorf("%d of %d bytes are kept, not %d", k, size, chunkKeep[class])
		}
		if c := p.get(size); c.pending() != 0 || c.w != 0 || c != list[chunkKeep[class]-1] {
			t.Error("the last one that was given back is not used again, or not as an empty one")
		}
	}
	p.put(p.get(chunkSizes[len(chunkSizes)-1] + 1))
	twice := p.get(1)
	p.put(twice)
	defer func() {
		if recover() == nil {
			t.Error("a chunk is given back twice")
		}
	}()
	p.put(twice)
}

// TestInheritedListenerEnds: when a listener that was made of an inherited socket is closed nothing listens there any more.
func TestInheritedListenerEnds(t *testing.T) {
	at := filepath.Join(t.TempDir(), "sock") // nobody else can listen there meanwhile
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: at}), unix.Listen(fd, 1)); err != nil {
		t.Fatal(err)
	}
	ln, err := FileListener(fd, "test")
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", at)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	if c, err := net.Dial("unix", at); err == nil {
		c.Close()
		t.Error("somebody listens there")
	}
}
