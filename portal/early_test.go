package portal

import (
	"context"
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"sallyport/routing"
)

// slowOutlet makes an outlet whose dial waits until it is let go. dialing is told when it has begun.
func slowOutlet(t *testing.T, l *link, target string) (dialing, letGo chan struct{}) {
	t.Helper()
	dialing, letGo = make(chan struct{}, 10), make(chan struct{})
	_, err := NewOutlet(limited(t), l.b.env, l.b.router, OutletOptions{Name: "outlet", Flows: []*routing.Flow{l.b.ln.Flow}, Dial: unpiped(func(ctx context.Context) (int, error) {
		dialing <- struct{}{}
		select {
		case <-letGo:
		case <-ctx.Done():
			return -1, ctx.Err()
		}
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", target)
		if err != nil {
			return -1, err
		}
		defer c.Close()
		f, err := c.(*net.TCPConn).File()
		if err != nil {
			return -1, err
		}
		defer f.Close()
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return -1, err
		}
		return fd, unix.SetNonblock(fd, true)
	})})
	if err != nil {
		t.Fatal(err)
	}
	return dialing, letGo
}

func closedSoon(t *testing.T, s *net.TCPConn) {
	t.Helper()
	if n, err := s.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("target read %d bytes", n)
	} else if ne, ok := err.(net.Error); ok && ne.Timeout() {
		t.Error("the target's connection stays open")
	}
}

// TestClientGoneBeforeAnswer: a client that resets its connection while the outlet still opens the target, or an inlet that has
// waited too long, leaves nothing open at the other end when the answer comes.
func TestClientGoneBeforeAnswer(t *testing.T) {
	for _, why := range []string{"reset", "timeout"} {
		kinds(t, func(t *testing.T, plain bool) {
			target, ch := served(t)
			limits := Limits{}
			if why == "timeout" {
				limits.OpenTimeout = 1 << 27 // an eighth of a second
			}
			l := newLink(t, "", plain, limits, Limits{})
			dialing, letGo := slowOutlet(t, l, target)
			c, err := net.Dial("tcp", l.in.Bound().String())
			if err != nil && why == "reset" {
				t.Fatal(err)
			}
			<-dialing
			if err == nil { // else the timeout was faster than the connecting
				if why == "reset" {
					c.(*net.TCPConn).SetLinger(0)
					c.Close()
				}
				defer c.Close()
			}
			eventually(t, "the inlet has ended the connection", func() bool { return l.a.env.Stats.Active.Load() == 0 })
			close(letGo)
			if why == "reset" { // else the late answer may find nobody left: it is a race with the same timeout
				closedSoon(t, next(t, ch))
				l.idle(t)
			}
			eventually(t, "no worker waits for the answer", func() bool {
				list, err := l.a.router.Addresses(limited(t))
				return err == nil && len(list) <= 1 // the transport's
			})
		})
	}
}

// TestPathLostBeforeAnswer: an outlet whose inlet's path breaks while it opens the target does not keep the target's connection.
func TestPathLostBeforeAnswer(t *testing.T) {
	target, ch := served(t)
	l := newLink(t, "", false, Limits{}, Limits{})
	dialing, letGo := slowOutlet(t, l, target)
	l.in.SetPath(routing.NewRoute(l.conn.Sender.Address(), routing.LocalAddress("outlet")))
	dial(t, l.in)
	<-dialing
	l.conn.Close()
	eventually(t, "path gone", func() bool { return len(l.b.tcp.Connections()) == 0 })
	close(letGo)
	closedSoon(t, next(t, ch))
	eventually(t, "connection forgotten", func() bool { return l.b.env.Stats.Active.Load() == 0 })
}

// TestClientHandedToClosedInlet: a client that is on its way between two shards when the inlet is closed is closed too.
func TestClientHandedToClosedInlet(t *testing.T) {
	target, _ := served(t)
	l := newLink(t, target, false, Limits{}, Limits{})
	if err := l.in.Close(limited(t)); err != nil {
		t.Fatal(err)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[1])
	p := l.in.path.Load()
	if err := p.shard.Do(limited(t), func() { l.in.start(p, fds[0], offer{}) }); err != nil {
		t.Fatal(err)
	}
	l.idle(t)
}
