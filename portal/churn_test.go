package portal

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// TestManyOpensAndCloses opens and closes connections over the whole path, in every manner there is, and expects that no node keeps a
// worker or memory of them.
func TestManyOpensAndCloses(t *testing.T) {
	rounds := 40
	if raced {
		rounds = 15
	}
	target := serve(t, func(c net.Conn) {
		defer c.Close()
		c.SetDeadline(time.Now().Add(90 * time.Second))
		var b [1]byte
		if _, err := io.ReadFull(c, b[:]); err != nil {
			return
		}
		c.Write(b[:])
		switch b[0] {
		case 'r':
			c.(*net.TCPConn).SetLinger(0)
		case 'w': // the client ends first
			io.Copy(io.Discard, c)
		}
	})
	c := newChain(t, 2, 2, false, Limits{}, OutletOptions{Target: target})
	workers := func() (n int) {
		for _, m := range c.members() {
			list, err := m.router.Addresses(limited(t))
			if err != nil {
				t.Fatal(err)
			}
			n += len(list)
		}
		return n
	}
	round := func() {
		var wg sync.WaitGroup
		for k := range 24 {
			wg.Go(func() {
				conn, err := net.Dial("tcp", c.in[k%2].Bound().String())
				if err != nil {
					t.Error(err)
					return
				}
				client := conn.(*net.TCPConn)
				defer client.Close()
				client.SetDeadline(time.Now().Add(90 * time.Second))
				how := "xrwgsc"[k%6]
				if how == 'g' { // gone at once
					client.SetLinger(0)
					return
				}
				if how == 's' { // closed at once
					return
				}
				client.Write([]byte{how})
				if _, err := io.ReadFull(client, make([]byte, 1)); err != nil && how != 'r' {
					t.Error(fmt.Errorf("%c: %w", how, err))
				}
				if how == 'c' {
					client.CloseWrite()
					io.Copy(io.Discard, client)
				}
			})
		}
		wg.Wait()
	}
	for range 5 {
		round()
	}
	c.idle(t)
	before, memory := workers(), heap()
	for range rounds {
		round()
	}
	c.idle(t)
	eventually(t, "workers forgotten", func() bool { return workers() <= before })
	// Sockets that closed a moment ago are still waited for.
	eventually(t, fmt.Sprintf("memory of %d connections given back", 24*rounds), func() bool { return heap()-memory <= 1<<20 })
}

// TestCrowdedWindows: the windows of very many connections do not add up to more than is allowed; those that came late work, and grow.
func TestCrowdedWindows(t *testing.T) {
	limits := Limits{Window: 128 << 10, Budget: 1 << 20}
	l := newEcho(t, limits, limits)
	var clients []*net.TCPConn
	for range 40 {
		c := dial(t, l.in)
		c.Write([]byte("hello"))
		expect(t, c, "hello")
		clients = append(clients, c)
	}
	total := 0
	if err := l.a.router.Shards()[0].Do(limited(t), func() {
		l.in.mu.Lock()
		defer l.in.mu.Unlock()
		for c := range l.in.conns {
			total += c.window.first
		}
	}); err != nil {
		t.Fatal(err)
	}
	if most := 1<<20 + 32*(32<<10); total > most {
		t.Errorf("windows of %d bytes, at most %d", total, most)
	}
	data := make([]byte, 4<<20)
	rand.Read(data)
	late := clients[len(clients)-1]
	go func() { late.Write(data); late.CloseWrite() }()
	if got, err := io.ReadAll(late); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d of %d bytes, %v", len(got), len(data), err)
	}
	for _, c := range clients {
		c.Close()
	}
	l.idle(t)
}
