package dataplane

import (
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"testing"

	gneterrors "github.com/panjf2000/gnet/v2/pkg/errors"
	"github.com/panjf2000/gnet/v2/pkg/netpoll"
	"golang.org/x/sys/unix"
)

// BenchmarkRelay pushes frames of 16 KiB through a relay on one loop, from one connection to another: this package's framed
// connections against gnet's poller driving plain reads and writes of the same bytes without looking at them.
func BenchmarkRelay(b *testing.B) {
	b.Run("sallyport", func(b *testing.B) {
		g, err := NewGroup(1, slog.New(slog.DiscardHandler))
		if err != nil {
			b.Fatal(err)
		}
		defer g.Stop()
		l := g.Loop(0)
		var ends []*relayEnd
		_, addr := listenOn(b, l, func(fd int, _ netip.AddrPort) {
			c, err := l.Adopt(fd, nil)
			if err != nil {
				return
			}
			e := &relayEnd{}
			e.f = NewFramed(c, NewLengths(testPreamble, testMaxFrame), e, nil)
			if ends = append(ends, e); len(ends)%2 == 0 {
				a := ends[len(ends)-2]
				a.to, e.to = e, a
			}
		})
		pushFrames(b, addr)
	})
	b.Run("gnet", func(b *testing.B) {
		p, err := netpoll.OpenPoller()
		if err != nil {
			b.Fatal(err)
		}
		fd, addr, err := ListenTCP(netip.MustParseAddrPort("127.0.0.1:0"))
		if err != nil {
			b.Fatal(err)
		}
		if err := p.AddRead(&netpoll.PollAttachment{FD: fd}, false); err != nil {
			b.Fatal(err)
		}
		ended := make(chan struct{})
		buf := make([]byte, readBufferSize)
		var fds []int
		rest := map[int][]byte{}
		go func() {
			defer close(ended)
			_ = p.Polling(func(ready int, events uint32, _ uint16) error {
				if ready == fd {
					if c, _, err := unix.Accept4(fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC); err == nil {
						_ = TCPOptions{NoDelay: true}.Apply(c)
						_ = p.AddReadWrite(&netpoll.PollAttachment{FD: c}, true)
						rawWrite(c, []byte{testPreamble})
						fds = append(fds, c)
					}
					return nil
				}
				if len(fds) < 2 {
					return nil
				}
				from, to := fds[0], fds[1]
				for {
					for len(rest[to]) > 0 {
						n, errno := rawWrite(to, rest[to])
						if errno != 0 {
							return nil // the edge of writing comes
						}
						rest[to] = rest[to][n:]
					}
					n, errno := rawRead(from, buf)
					if errno != 0 {
						return nil
					}
					if n == 0 {
						_ = unix.Close(from)
						_ = unix.Close(to)
						return gneterrors.ErrEngineShutdown
					}
					k, _ := rawWrite(to, buf[:n])
					rest[to] = append(rest[to][:0], buf[max(k, 0):n]...)
				}
			})
		}()
		pushFrames(b, addr)
		<-ended
		_ = unix.Close(fd)
		_ = p.Close()
	})
}

// relayEnd forwards frames to another connection and pauses while that one is full.
type relayEnd struct {
	f  *Framed
	to *relayEnd
}

func (e *relayEnd) OnFrame(buf []byte, low, start, end int) error {
	to := e.to
	if to == nil {
		return nil
	}
	out := to.f.Reserve(end - start + 4)
	copy(out, buf[start-4:end])
	to.f.Commit(end - start + 4)
	if to.f.Pending() > 1<<20 && !e.f.Paused() {
		e.f.Pause()
		to.f.WantDrain(256 << 10)
	}
	return nil
}

func (e *relayEnd) OnDrain() {
	if e.to != nil {
		e.to.f.Resume()
	}
}

func (e *relayEnd) OnClose(error) {
	if e.to != nil && !e.to.f.Closed() {
		e.to.f.Close()
	}
}

// pushFrames sends b.N frames in at one connection and counts them at the other.
func pushFrames(b *testing.B, addr netip.AddrPort) {
	b.Helper()
	var conns [2]net.Conn
	for i := range conns {
		c, err := net.Dial("tcp", addr.String())
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			b.Fatal(err)
		}
		conns[i] = c
	}
	if _, err := conns[0].Write([]byte{testPreamble}); err != nil {
		b.Fatal(err)
	}
	if _, err := conns[1].Write([]byte{testPreamble}); err != nil {
		b.Fatal(err)
	}
	const size = 16 << 10
	const batch = 8
	one := make([]byte, batch*(4+size))
	for i := range batch {
		binary.BigEndian.PutUint32(one[i*(4+size):], size)
	}
	var before, after unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &before)
	b.SetBytes(size)
	b.ReportAllocs()
	b.ResetTimer()
	go func() {
		for n := b.N; n > 0; n -= batch {
			if _, err := conns[0].Write(one[:min(n, batch)*(4+size)]); err != nil {
				return
			}
		}
	}()
	buf := make([]byte, 256<<10)
	for left := b.N * (4 + size); left > 0; {
		n, err := conns[1].Read(buf)
		if err != nil {
			b.Fatal(err)
		}
		left -= n
	}
	b.StopTimer()
	_ = unix.Getrusage(unix.RUSAGE_SELF, &after)
	cpu := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
	b.ReportMetric(float64(cpu)/float64(b.N), "cpu-ns/op")
}
