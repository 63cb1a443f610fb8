package dataplane

import (
	"io"
	"log/slog"
	"net"
	"net/netip"
	"testing"

	gneterrors "github.com/panjf2000/gnet/v2/pkg/errors"
	"github.com/panjf2000/gnet/v2/pkg/netpoll"
	"golang.org/x/sys/unix"
)

// BenchmarkPollers measures a round trip of 64 bytes through an echo server on loopback: a loop of this package against gnet's
// poller driving the same two system calls (read, write) a message. CPU time tells more than elapsed time on a busy machine:
// run it with `perf stat` or look at user+sys of the whole.
func BenchmarkPollers(b *testing.B) {
	b.Run("sallyport", func(b *testing.B) {
		g, err := NewGroup(1, slog.New(slog.DiscardHandler))
		if err != nil {
			b.Fatal(err)
		}
		defer g.Stop()
		l := g.Loop(0)
		fd, addr, err := ListenTCP(netip.MustParseAddrPort("127.0.0.1:0"))
		if err != nil {
			b.Fatal(err)
		}
		if err := l.Do(b.Context(), func() {
			_, err = l.Accept(fd, func(fd int, _ netip.AddrPort) { _, _ = l.Adopt(fd, echoHandler{}) })
		}); err != nil {
			b.Fatal(err)
		}
		pingPong(b, addr)
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
		go func() {
			defer close(ended)
			_ = p.Polling(func(ready int, _ uint32, _ uint16) error {
				if ready == fd {
					if c, _, err := unix.Accept4(fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC); err == nil {
						_ = TCPOptions{NoDelay: true}.Apply(c)
						_ = p.AddReadWrite(&netpoll.PollAttachment{FD: c}, true)
					}
					return nil
				}
				for {
					n, errno := rawRead(ready, buf)
					if errno != 0 {
						return nil
					}
					if n == 0 {
						_ = unix.Close(ready)
						return gneterrors.ErrEngineShutdown
					}
					rawWrite(ready, buf[:n])
					if n < len(buf) {
						return nil
					}
				}
			})
		}()
		pingPong(b, addr)
		<-ended
		_ = unix.Close(fd)
		_ = p.Close()
	})
}

type echoHandler struct{}

func (echoHandler) OnReadable(c *Conn) {
	buf := c.Loop().ReadBuffer()
	n, err := c.Read(buf)
	switch err {
	case nil:
		c.Write(buf[:n])
	case ErrAgain:
	case io.EOF:
		c.Close()
	default:
		c.Abort()
	}
}
func (echoHandler) OnDrain(*Conn)        {}
func (echoHandler) OnClose(*Conn, error) {}

func pingPong(b *testing.B, addr netip.AddrPort) {
	b.Helper()
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	msg := make([]byte, 64)
	var before, after unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &before)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(msg); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, msg); err != nil {
			b.Fatal(err)
		}
	}
	_ = unix.Getrusage(unix.RUSAGE_SELF, &after)
	cpu := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
	b.ReportMetric(float64(cpu)/float64(b.N), "cpu-ns/op")
}
