package client

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/internal/await"
	"sallyport/internal/servers"
	"sallyport/limits"
)

var eventually = await.Success

// TestHalfCloseBoth: each end says that it is done while the other still writes, and both read all.
func TestHalfCloseBoth(t *testing.T) {
	p := newProject(t)
	from, to := join(t, p, nil), join(t, p, server)
	l := listen(t, to, "api", ListenOptions{})
	a := dialled(t, from, "api").(*Conn)
	b := accepted(t, l).(*Conn)
	text := bytes.Repeat([]byte("0123456789"), 200_000)
	var both sync.WaitGroup
	for _, c := range []*Conn{a, b} {
		both.Go(func() {
			if _, err := c.Write(text); err != nil {
				t.Error(err)
			}
			if err := c.CloseWrite(); err != nil {
				t.Error(err)
			}
			if _, err := c.Write([]byte("more")); err == nil {
				t.Error("written after CloseWrite")
			}
		})
		both.Go(func() {
			if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, text) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	both.Wait()
}

// TestClosedConn: what was closed says so, whatever is asked of it and however often.
func TestClosedConn(t *testing.T) {
	p := newProject(t)
	from, to := join(t, p, nil), join(t, p, server)
	l := listen(t, to, "api", ListenOptions{})
	servers.Serve(l, servers.Echo)
	c := dialled(t, from, "api").(*Conn)
	// Readers, writers and those who close it, all at once.
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for {
				if _, err := c.Write(make([]byte, 1000)); err != nil {
					if !errors.Is(err, net.ErrClosed) {
						t.Error("write:", err)
					}
					return
				}
			}
		})
		all.Go(func() {
			for n := 0; ; n++ {
				if _, err := c.Read(make([]byte, 1000)); err != nil {
					if !errors.Is(err, net.ErrClosed) {
						t.Error("read:", err)
					}
					return
				}
				if n == 20 {
					c.Close()
				}
			}
		})
	}
	all.Wait()
	for what, f := range map[string]func() error{
		"read":       func() error { _, err := c.Read(make([]byte, 1)); return err },
		"write":      func() error { _, err := c.Write(make([]byte, 1)); return err },
		"closewrite": c.CloseWrite,
		"deadline":   func() error { return c.SetDeadline(time.Now()) },
		"close":      c.Close,
	} {
		if err := f(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if c.Peer().Identifier != to.Identifier() {
		t.Error("the peer is forgotten")
	}
}

// TestContexts: a context that has ended, or ends meanwhile, ends what waits, and what it began is undone: the name is free.
func TestContexts(t *testing.T) {
	p := newProject(t)
	from, to := join(t, p, nil), join(t, p, server)
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Open(gone, Options{InMemory: true, Ticket: "x"}); err == nil {
		t.Error("opened")
	}
	if _, err := from.Dial(gone, "nobody"); !errors.Is(err, context.Canceled) {
		t.Error("dial:", err)
	}
	if _, err := to.Listen(gone, "api"); !errors.Is(err, context.Canceled) {
		t.Error("listen:", err)
	}
	if _, err := to.Worker(gone, "api/worker", WorkerOptions{}, func(context.Context, *Message) {}); !errors.Is(err, context.Canceled) {
		t.Error("worker:", err)
	}
	if _, err := from.Route(gone, "nobody"); err == nil {
		t.Error("a route")
	}
	// While it waits: nobody's name is registered, and may not be.
	waiting, cancel := context.WithCancel(context.Background())
	dialling := make(chan error)
	go func() {
		_, err := from.Dial(waiting, "nobody")
		dialling <- err
	}()
	cancel()
	if err := <-dialling; !errors.Is(err, context.Canceled) {
		t.Error("dial:", err)
	}
	l := listen(t, to, "api", ListenOptions{})
	servers.Serve(l, servers.Echo)
	dialled(t, from, "api")
}

// TestDeadlineIsATimeout: a Dial that ran into the end of its context says so as net does, also while it is known why there is no path.
func TestDeadlineIsATimeout(t *testing.T) {
	c := opened(t, Options{InMemory: true, NoProject: true})
	d, err := c.Dialer(within(t), "/ip4/127.0.0.1/tcp/1/secure/api/service/web", DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		short, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		_, err := d.Dial(short)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "connection refused") {
			return fmt.Errorf("the failure is not known: %w", err)
		}
		var of net.Error
		if !errors.As(err, &of) || !of.Timeout() {
			t.Errorf("no timeout: %v", err)
		}
		return nil
	})
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = d.Dial(gone)
	var of net.Error
	if !errors.Is(err, context.Canceled) || !errors.As(err, &of) || of.Timeout() {
		t.Errorf("cancelled: %v", err)
	}
}

// TestFirstGivesUp: who waits for a name that another began to register does not fail with the other's context.
func TestFirstGivesUp(t *testing.T) {
	p := newProject(t)
	to := join(t, p, server)
	first := &registered{name: "api", users: 1, made: make(chan struct{})}
	to.mu.Lock()
	to.relays["api"] = first
	to.mu.Unlock()
	made := make(chan error, 1)
	go func() {
		r, err := to.register(within(t), "api")
		to.unregister(r)
		made <- err
	}()
	eventually(t, func() error {
		to.mu.Lock()
		defer to.mu.Unlock()
		if first.users < 2 {
			return errors.New("nobody waits")
		}
		return nil
	})
	to.mu.Lock()
	first.err = context.Canceled
	delete(to.relays, "api")
	to.mu.Unlock()
	close(first.made)
	if err := <-made; err != nil {
		t.Error(err)
	}
}

// TestListenWhileGivenUp: who registers a name that is just being given up waits for that, as long as its context says, and has it then.
func TestListenWhileGivenUp(t *testing.T) {
	p := newProject(t)
	to := join(t, p, server)
	before := &registered{name: "api", users: 1, made: make(chan struct{})}
	to.mu.Lock()
	to.relays["api"] = before
	to.mu.Unlock()
	go to.unregister(before) // waits until it is known what there is to give up
	eventually(t, func() error {
		to.mu.Lock()
		defer to.mu.Unlock()
		if before.users > 0 {
			return errors.New("it is used")
		}
		return nil
	})
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := to.register(gone, "api"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	made := make(chan error, 1)
	go func() {
		r, err := to.register(within(t), "api")
		select {
		case <-before.ended:
		default:
			t.Error("it was not waited for")
		}
		to.unregister(r)
		made <- err
	}()
	to.mu.Lock()
	if to.relays["api"] != before {
		t.Error("the name is free before it was given up")
	}
	to.mu.Unlock()
	close(before.made)
	if err := <-made; err != nil {
		t.Error(err)
	}
}

// TestClosedClient: Close ends what waits, also without an end of its own, and afterwards everything is net.ErrClosed.
func TestClosedClient(t *testing.T) {
	p := newProject(t)
	c := join(t, p, server)
	dial := func() error { _, err := c.Dial(context.Background(), "nobody"); return err }
	work := map[string]func() error{
		"dial": dial,
		"dialer": func() error {
			d, err := c.Dialer(context.Background(), "nobody", DialOptions{})
			if err == nil {
				_, err = d.Dial(context.Background())
			}
			return err
		},
	}
	after := map[string]func() error{
		"listen": func() error { _, err := c.Listen(context.Background(), "api"); return err },
		"worker": func() error {
			_, err := c.Worker(context.Background(), "api/worker", WorkerOptions{}, func(context.Context, *Message) {})
			return err
		},
		"route": func() error { _, err := c.Route(context.Background(), "api"); return err },
	}
	var all sync.WaitGroup
	check := func(what string, f func() error) {
		if err := f(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, f := range work {
		all.Go(func() { check(what, f) })
	}
	// A name whose registration never ends.
	c.mu.Lock()
	c.relays["stuck"] = &registered{name: "stuck", users: 1, made: make(chan struct{})}
	c.mu.Unlock()
	all.Go(func() {
		check("listen", func() error { _, err := c.Listen(context.Background(), "stuck"); return err })
	})
	eventually(t, func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if len(c.dialers) == 0 || c.relays["stuck"].users < 2 {
			return errors.New("they do not wait yet")
		}
		return nil
	})
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	all.Wait()
	for what, f := range work {
		check(what+" after Close", f)
	}
	for what, f := range after {
		check(what+" after Close", f)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// TestBadTickets: pieces of a ticket, and one that another authority gave, are refused as tickets.
func TestBadTickets(t *testing.T) {
	p := newProject(t)
	ticket, err := p.Ticket(within(t), nil, 1)
	if err != nil {
		t.Fatal(err)
	}
	bad := []string{" ", "{}", "null", ticket[1:], ticket + ticket, "\x00\xff"}
	for n := 1; n < len(ticket); n += 1 + len(ticket)/16 {
		bad = append(bad, ticket[:n])
	}
	for _, text := range bad {
		if c, err := Open(within(t), Options{InMemory: true, Ticket: text}); !errors.Is(err, ErrTicket) {
			t.Errorf("%.40q: %v", text, err)
			if err == nil {
				c.Close()
			}
		}
	}
	if c, err := Open(within(t), Options{InMemory: true, Ticket: ticket}); err != nil {
		t.Errorf("the ticket itself: %v", err)
	} else {
		c.Close()
	}
}

// TestTwoOfOneDirectory: programs that share a directory are one member, each with services of its own.
func TestTwoOfOneDirectory(t *testing.T) {
	p := newProject(t)
	ticket, err := p.Ticket(within(t), server, 1)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	a, b := opened(t, Options{Directory: dir, Name: "a", Ticket: ticket}), opened(t, Options{Directory: dir, Name: "b", Ticket: ticket})
	if a.Identifier() != b.Identifier() {
		t.Fatal(a.Identifier(), b.Identifier())
	}
	servers.Serve(listen(t, a, "of-a", ListenOptions{}), servers.Echo)
	servers.Serve(listen(t, b, "of-b", ListenOptions{}), servers.Echo)
	for c, name := range map[*Client]string{a: "of-b", b: "of-a"} {
		conn := dialled(t, c, name)
		if _, err := conn.Write([]byte(name)); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(name))
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != name {
			t.Error(string(got), err)
		}
	}
}

// TestManyDials: a thousand connections at a time, each with its own bytes, and one more than there may be is told so.
func TestManyDials(t *testing.T) {
	many := min(1000, limits.Descriptors()/16)
	p := newProject(t)
	from, to := join(t, p, nil), join(t, p, server)
	// One peer has four places in five.
	l := listen(t, to, "api", ListenOptions{MaxConnections: (many*5 + 3) / 4})
	servers.Serve(l, servers.Echo)
	conns := make([]net.Conn, many)
	var all sync.WaitGroup
	for i := range conns {
		all.Go(func() {
			c, err := from.Dial(within(t), "api")
			if err != nil {
				t.Error(i, err)
				return
			}
			conns[i] = c
			said := binary.BigEndian.AppendUint32(nil, uint32(i))
			if _, err := c.Write(said); err != nil {
				t.Error(i, err)
			}
			got := make([]byte, len(said))
			if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, said) {
				t.Error(i, got, err)
			}
		})
	}
	all.Wait()
	if c, err := from.Dial(within(t), "api"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("more than there may be: %v", err)
		if err == nil {
			c.Close()
		}
	}
	for _, c := range conns {
		if c != nil {
			c.Close()
		}
	}
}

// TestFailuresLeaveNothing: what failed leaves no goroutine, while the Client goes on.
func TestFailuresLeaveNothing(t *testing.T) {
	p := newProject(t)
	from, to := join(t, p, nil), join(t, p, server)
	servers.Serve(listen(t, to, "api", ListenOptions{}), servers.Echo)
	dialled(t, from, "api")
	fail := func() {
		if _, err := from.Dial(within(t), "api/other"); !errors.Is(err, ErrUnavailable) {
			t.Error(err)
		}
		if _, err := from.Listen(within(t), "api"); !errors.Is(err, ErrDenied) {
			t.Error(err)
		}
		d, err := from.Dialer(within(t), "nobody", DialOptions{})
		if err != nil {
			t.Fatal(err)
		}
		gone, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := d.Dial(gone); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	fail() // the first one keeps a path to the service
	// The nodes have goroutines of their own that come and go, a few of each.
	const times, some = 30, 15
	before := runtime.NumGoroutine()
	for range times {
		fail()
	}
	eventually(t, func() error {
		if now := runtime.NumGoroutine(); now > before+some {
			return fmt.Errorf("%d goroutines, %d before %d failures of each kind", now, before, times)
		}
		return nil
	})
}
