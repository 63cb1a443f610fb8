package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/internal/freeport"
)

// hostileRows have somebody between the nodes who does to what goes by whatever it likes.
var hostileRows = []row{
	{
		name: "hostile-relay", attack: "a relay of its own between shop and bank, which drops, flips, repeats, reorders, truncates, splices, delays, … one message in 40, in turn",
		promised: "no client ever reads a wrong byte or an end before all has come: streams are whole or reset; the path works again when it stops",
		run:      hostileRelay,
	},
	{
		name: "hostile-network", attack: "a line between shop and relay that flips, leaves out, repeats and cuts bytes of TCP streams",
		promised: "no client ever reads a wrong byte or an end before all has come; the path works again when it stops",
		run:      hostileNetwork,
	},
}

// outcome counts what became of streams.
type outcome struct {
	whole, reset, waiting atomic.Int64
	mu                    sync.Mutex
	wrong                 error
}

func (o *outcome) fault(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.wrong == nil {
		o.wrong = err
	}
}

// streams sends through an inlet for a while, 6 streams at a time of 300 kB each, and compares what comes back.
func streams(ctx context.Context, at string, during time.Duration, o *outcome) {
	ctx, cancel := context.WithTimeout(ctx, during)
	defer cancel()
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			for ctx.Err() == nil {
				oneStream(ctx, at, 300_000, o)
			}
		})
	}
	wg.Wait()
}

func oneStream(ctx context.Context, at string, size int, o *outcome) {
	c, err := net.DialTimeout("tcp", at, 5*time.Second)
	if err != nil {
		o.reset.Add(1)
		return
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Now()) })()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(rand.Uint32())
	}
	sent := make([]byte, size)
	_, _ = rand.NewChaCha8(seed).Read(sent)
	go func() { // in pieces, so that there are messages of many sizes
		for b := sent; len(b) > 0; {
			n := min(len(b), 1+rand.IntN(30_000))
			if _, err := c.Write(b[:n]); err != nil {
				return
			}
			b = b[n:]
		}
	}()
	buf := make([]byte, 32<<10)
	for got := 0; got < size; {
		n, err := c.Read(buf)
		if !bytes.Equal(buf[:n], sent[got:min(got+n, size)]) {
			o.fault(fmt.Errorf("a wrong byte between %d and %d", got, got+n))
			return
		}
		got += n
		switch {
		case err == io.EOF && got < size:
			o.fault(fmt.Errorf("an end after %d of %d bytes, as if all had come", got, size))
			return
		case errors.Is(err, os.ErrDeadlineExceeded):
			o.waiting.Add(1)
			return
		case err != nil && got < size:
			o.reset.Add(1)
			return
		}
	}
	o.whole.Add(1)
}

func hostileRelay(ctx context.Context, s *stage) (string, error) {
	h, err := newHostile(ctx)
	if err != nil {
		return "", err
	}
	defer h.close()
	_, port, _ := net.SplitHostPort(h.at)
	route := "/dnsaddr/127.0.0.1/tcp/" + port + "/secure/api"
	// Two nodes of their own, so that there is nothing left of it in the others.
	for _, node := range []string{"west", "east"} {
		if err := s.newNode(ctx, node); err != nil {
			return "", err
		}
		defer s.removeNode(ctx, node)
	}
	if _, err := s.cli(ctx, "west", "tcp-outlet", "create", "--at", "west", "--to", s.target.addr(), "--from", "db"); err != nil {
		return "", err
	}
	if _, err := s.cli(ctx, "west", "relay", "create", "west", "--at", route, "--to", "west"); err != nil {
		return "", err
	}
	var inlets []string
	for range 2 { // two channels, of which pieces are exchanged
		free, err := freeport.Get()
		if err != nil {
			return "", err
		}
		at := fmt.Sprint("127.0.0.1:", free)
		if _, err := s.cli(ctx, "east", "tcp-inlet", "create", "--at", "east", "--from", at, "--to", route+"/service/forward_to_west/secure/api/service/db"); err != nil {
			return "", err
		}
		if err := s.await(ctx, "a path through the hostile relay while it is good", func() error { return once(at) }); err != nil {
			return "", err
		}
		inlets = append(inlets, at)
	}
	during, list := 4*time.Second, allMischief
	if s.suite.short {
		during = time.Second
	}
	var seen []string
	for _, m := range list {
		h.do(m)
		var o outcome
		var wg sync.WaitGroup
		for _, at := range inlets {
			wg.Go(func() { streams(ctx, at, during, &o) })
		}
		wg.Wait()
		touched := h.touched.Load()
		h.do(none)
		if o.wrong != nil {
			return strings.Join(seen, "; "), fmt.Errorf("%s: %w", m, o.wrong)
		}
		for _, at := range inlets {
			if err := s.await(ctx, fmt.Sprintf("the path is there again after: %s", m), func() error { return once(at) }); err != nil {
				return strings.Join(seen, "; "), err
			}
		}
		if touched == 0 {
			return strings.Join(seen, "; "), fmt.Errorf("%s: no message was touched", m)
		}
		seen = append(seen, fmt.Sprintf("%s %d: %d whole, %d reset, %d unfinished", m, touched, o.whole.Load(), o.reset.Load(), o.waiting.Load()))
	}
	return strings.Join(seen, "; "), nil
}

func hostileNetwork(ctx context.Context, s *stage) (string, error) {
	l, err := newLine(s.relay)
	if err != nil {
		return "", err
	}
	defer l.close()
	var bad atomic.Bool
	var touched atomic.Int64
	l.pass = func(_ int, _ bool, b []byte) []byte {
		if !bad.Load() || rand.IntN(15) != 0 {
			return b
		}
		touched.Add(1)
		at := rand.IntN(len(b))
		switch rand.IntN(5) {
		case 0:
			b[at] ^= 1 << rand.IntN(8)
		case 1:
			return append(b[:at:at], b[min(at+1+rand.IntN(100), len(b)):]...)
		case 2:
			return append(b[:len(b):len(b)], b[at:]...)
		case 3:
			for i := range b[at:] {
				b[at+i] = byte(rand.Uint32())
			}
		case 4:
			return nil
		}
		return b
	}
	l.start()
	at, remove, err := s.beyond(ctx, l)
	if err != nil {
		return "", err
	}
	defer remove()
	during := 20 * time.Second
	if s.suite.short {
		during = 5 * time.Second
	}
	bad.Store(true)
	var o outcome
	streams(ctx, at, during, &o)
	bad.Store(false)
	seen := fmt.Sprintf("%d times bytes were changed: %d streams whole, %d reset, %d unfinished", touched.Load(), o.whole.Load(), o.reset.Load(), o.waiting.Load())
	if o.wrong != nil {
		return seen, o.wrong
	}
	if touched.Load() == 0 {
		return seen, fmt.Errorf("nothing was changed")
	}
	return seen, s.await(ctx, "the path is there again", func() error { return once(at) })
}
