package dataplane

import (
	"bytes"
	"net/netip"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// collected keeps a copy of every datagram.
type collected struct {
	mu   sync.Mutex
	list [][]byte
	from []netip.AddrPort
}

func (c *collected) OnDatagram(buf []byte, n int, from netip.AddrPort) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list, c.from = append(c.list, bytes.Clone(buf[:n])), append(c.from, from)
	clear(buf) // it is the handler's until it returns
}
func (c *collected) OnBatchEnd() {}
func (c *collected) OnFlush()    {}
func (c *collected) OnDrain()    {}
func (c *collected) OnRefused()  {}

func (c *collected) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.list)
}

// TestUDPRuns sends datagrams of all sizes, alike and not, to two sockets in turn: each gets its own, whole and in order, with runs and without, and
// where the kernel refuses runs that it seemed to take.
func TestUDPRuns(t *testing.T) {
	for _, kind := range []string{"runs", "off", "refused", "IPv6"} {
		t.Run(kind, func(t *testing.T) {
			at := netip.MustParseAddrPort("127.0.0.1:0")
			if kind == "IPv6" {
				needIPv6(t)
				kind, at = "runs", netip.MustParseAddrPort("[::1]:0")
			}
			if kind == "off" {
				t.Setenv(noRunsVar, "off")
			}
			var got [2]collected
			var socks [3]*UDPSocket
			var fds [3]int
			stats, l := &UDPStats{}, newLoop(t)
			for i := range socks {
				fd, _, err := ListenUDP(at)
				if err != nil {
					t.Fatal(err)
				}
				h := &collected{}
				if i < 2 {
					h = &got[i]
				}
				fds[i] = fd
				on(t, l, func() { socks[i], err = l.AdoptUDP(fd, h, stats) })
				if err != nil {
					t.Fatal(err)
				}
			}
			sender := socks[2]
			if kind == "refused" { // the kernel makes no runs without checksums
				if err := unix.SetsockoptInt(fds[2], unix.SOL_SOCKET, unix.SO_NO_CHECK, 1); err != nil {
					t.Fatal(err)
				}
			}
			able := sender.runs
			if kind == "off" && able {
				t.Fatal("runs in spite of " + noRunsVar)
			}
			var want [2][][]byte
			var total int
			for round := range 6 {
				var batch [][]byte
				var to []int
				for i := range 150 {
					size := [...]int{1200, 1200, 1200, 1200, 1200, 700, 1200, 0, 2048, 2048, 1, 508}[i/3%12]
					batch = append(batch, bytes.Repeat([]byte{byte(i), byte(round), byte(i >> 3)}, size/3+1)[:size])
					to = append(to, (i/9+round)%2)
				}
				on(t, l, func() {
					for i, d := range batch {
						sender.Send(d, socks[to[i]].Local())
					}
				})
				for i, d := range batch {
					want[to[i]] = append(want[to[i]], d)
				}
				total += len(batch)
				eventually(t, "all have come", func() bool { return got[0].count()+got[1].count() == total })
			}
			for k := range got {
				for i, d := range want[k] {
					if !bytes.Equal(got[k].list[i], d) || got[k].from[i] != sender.Local() {
						t.Fatalf("socket %d, datagram %d: %d bytes, want %d", k, i, len(got[k].list[i]), len(d))
					}
				}
			}
			on(t, l, func() {
				if kind == "refused" && sender.runs {
					t.Error("runs are tried again and again though the kernel refuses them")
				}
				if kind == "runs" && able && !sender.runs {
					t.Error("runs were given up")
				}
				if b := l.datagrams(); kind == "runs" && able && b.outRun[0] < 2 && b.outRun[1] < 2 {
					t.Errorf("no runs were sent: %v", b.outRun)
				}
			})
			if stats.In.Load() != uint64(total) || stats.Out.Load() != uint64(total) || stats.Failed.Load() != 0 {
				t.Errorf("%d in, %d out, %d failed of %d", stats.In.Load(), stats.Out.Load(), stats.Failed.Load(), total)
			}
			if !able && kind == "runs" && os.Getenv(noRunsVar) == "" {
				t.Skip("this kernel has no UDP_SEGMENT")
			}
		})
	}
}

// TestRunOf: a run has one peer and one size, only its last datagram may be shorter, and it fits into what the kernel takes.
func TestRunOf(t *testing.T) {
	a, b := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.2:1")
	list := func(to netip.AddrPort, sizes ...int) (l []datagram) {
		at := 0
		for _, n := range sizes {
			l = append(l, datagram{to: to, start: at, end: at + n})
			at += n
		}
		return l
	}
	many := make([]int, 100)
	for i := range many {
		many[i] = 100
	}
	large := make([]int, 100)
	for i := range large {
		large[i] = 2000
	}
	other := list(a, 100, 100, 100)
	other[2].to = b
	probe, behind := list(a, 120, 100), list(a, 100, 100, 100)
	probe[0].alone, behind[1].alone = true, true
	for _, c := range []struct {
		list []datagram
		want int
	}{
		{list(a, 100), 1}, {list(a, 100, 100, 100), 3}, {list(a, 100, 100, 99, 99), 3}, {list(a, 100, 101), 1}, {list(a, 0, 0), 1},
		{list(a, 100, 0, 100), 1}, {other, 2}, {probe, 1}, {behind, 1}, {list(a, many...), runDatagrams}, {list(a, large...), runBytes / 2000},
	} {
		if got := runOf(c.list); got != c.want {
			t.Errorf("%d, want %d: %v", got, c.want, c.list[:min(len(c.list), 5)])
		}
	}
}
