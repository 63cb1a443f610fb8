package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"

	"sallyport/bench/wire"
)

// pair opens a connection both ends of which are the case's.
func (w *world) pair(portal string) (client, server *net.TCPConn, seed uint64, err error) {
	client, far, seed, err := w.open(portal, askHand)
	if err != nil {
		return nil, nil, 0, err
	}
	for _, c := range []*net.TCPConn{client, far.conn} {
		_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
	}
	return client, far.conn, seed, nil
}

// write sends the beginning of a seed's stream.
func write(c net.Conn, seed uint64, n int) error {
	b := make([]byte, n)
	_, _ = generator(seed).Read(b)
	_, err := c.Write(b)
	return err
}

var errEnd = errors.New("the end is not what was sent")

// wholeEnd expects n bytes of a seed's stream, and then a clean end.
func wholeEnd(c net.Conn, seed uint64, n int) error {
	got := 0
	if err := check(c, seed, func(k int) { got += k }); err != io.EOF || got != n {
		return fmt.Errorf("%w: %d of %d bytes, then %w", errEnd, got, n, err)
	}
	return nil
}

// halfCloses ends one direction at each moment of a loss, on either side, while the other direction goes on.
func halfCloses(_ context.Context, w *world) (string, error) {
	const lost, size = 6 * time.Second, 300_000
	moments := []time.Duration{-500 * time.Millisecond, -10 * time.Millisecond, 10 * time.Millisecond, 2 * time.Second, 4 * time.Second, lost + 20*time.Millisecond, lost + time.Second}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	begun := time.Now().Add(time.Second) // of the loss
	ready := make(chan error, 2*len(moments))
	for _, byClient := range []bool{true, false} {
		for _, at := range moments {
			wg.Go(func() {
				a, b, seed, err := w.pair("data")
				ready <- err
				if err != nil {
					return
				}
				defer a.Close()
				defer b.Close()
				if !byClient {
					a, b = b, a
				}
				err = func() error {
					time.Sleep(time.Until(begun.Add(at)))
					if err := write(a, seed, size); err != nil { // and the end behind it
						return err
					}
					if err := a.CloseWrite(); err != nil {
						return err
					}
					if err := wholeEnd(b, seed, size); err != nil {
						return err
					}
					if err := write(b, seed+1<<32, size); err != nil { // the other direction stays as it was
						return err
					}
					if err := b.CloseWrite(); err != nil {
						return err
					}
					return wholeEnd(a, seed+1<<32, size)
				}()
				if err != nil {
					mu.Lock()
					errs = append(errs, fmt.Errorf("by the client: %v, %v from the loss: %w", byClient, at, err))
					mu.Unlock()
				}
			})
		}
	}
	for range cap(ready) {
		if err := <-ready; err != nil {
			errs = append(errs, err)
		}
	}
	if late := time.Since(begun.Add(moments[0])); late > 0 && len(errs) == 0 {
		errs = append(errs, fmt.Errorf("the connections were ready %v too late", late))
	}
	time.Sleep(time.Until(begun))
	if err := drop(w.near, lost); err != nil {
		return "", err
	}
	wg.Wait()
	return fmt.Sprintf("%d of %d half-closes failed", len(errs), 2*len(moments)), errors.Join(errs...)
}

// asOverTCP compares what odd ends see through the portal with what they see over one TCP connection.
func asOverTCP(_ context.Context, w *world) (string, error) {
	tried := 0
	for name, try := range map[string]func(a, b *net.TCPConn, seed uint64) error{
		"the first end": func(a, b *net.TCPConn, seed uint64) error { // a ends at once and still reads
			if err := a.CloseWrite(); err != nil {
				return err
			}
			if err := wholeEnd(b, seed, 0); err != nil {
				return err
			}
			if err := write(b, seed, 100_000); err != nil {
				return err
			}
			_ = b.CloseWrite()
			return wholeEnd(a, seed, 100_000)
		},
		"nothing is read": func(a, b *net.TCPConn, seed uint64) error { // b does not read for a while: a is stopped, and nothing is lost
			const piece = 1 << 20
			sent, from := 0, generator(seed)
			buf := make([]byte, piece)
			for sent < 1<<28 {
				_, _ = from.Read(buf)
				_ = a.SetWriteDeadline(time.Now().Add(2 * time.Second))
				n, err := a.Write(buf)
				if sent += n; err != nil {
					if errors.Is(err, syscall.ECONNRESET) {
						return err
					}
					break
				}
			}
			if sent >= 1<<28 {
				return fmt.Errorf("%d MiB were taken for somebody who reads nothing", sent>>20)
			}
			_ = a.CloseWrite()
			return wholeEnd(b, seed, sent)
		},
		"nothing is said": func(a, b *net.TCPConn, seed uint64) error {
			time.Sleep(8 * time.Second)
			if err := write(a, seed, 1000); err != nil {
				return err
			}
			_ = a.CloseWrite()
			return wholeEnd(b, seed, 1000)
		},
		"a reset": func(a, b *net.TCPConn, _ uint64) error {
			_ = a.SetLinger(0)
			_ = a.Close()
			_, err := wasReset(b, 5*time.Second)
			return err
		},
		"a reset behind data that is not read": func(a, b *net.TCPConn, seed uint64) error { // the bytes may be lost, the reset must not be an end
			if err := write(a, seed, 1000); err != nil {
				return err
			}
			_ = a.SetLinger(0)
			_ = a.Close()
			_, err := wasReset(b, 5*time.Second)
			return err
		},
	} {
		for _, byClient := range []bool{true, false} {
			a, b, seed, err := w.pair("data")
			if err != nil {
				return "", err
			}
			if !byClient {
				a, b = b, a
			}
			err = try(a, b, seed)
			_ = a.Close()
			_ = b.Close()
			if tried++; err != nil {
				return "", fmt.Errorf("%s, by the client: %v: %w", name, byClient, err)
			}
		}
	}
	return fmt.Sprintf("%d as over plain TCP", tried), nil
}

// throughput compares a stream through the portal with one plain TCP connection over the same wire.
func throughput(_ context.Context, w *world) (string, error) {
	const during, settles, runs = 8 * time.Second, 2 * time.Second, 3
	bad := wire.Options{Delay: 50 * time.Millisecond, Loss: 0.01}
	var ln net.Listener
	at := net.JoinHostPort(relayAddr, strconv.Itoa(plainPort))
	if err := w.relay.Do(func() (err error) {
		ln, err = net.Listen("tcp4", at)
		return err
	}); err != nil {
		return "", err
	}
	defer ln.Close()
	if err := w.near.Set(bad, bad); err != nil {
		return "", err
	}
	defer func() { _ = w.near.Set(usual, usual) }()
	plain := func() (a, b net.Conn, err error) {
		if err = w.inlet.Do(func() error { a, err = net.DialTimeout("tcp4", at, 10*time.Second); return err }); err == nil {
			b, err = ln.Accept()
		}
		return a, b, err
	}
	ours := func() (a, b net.Conn, err error) {
		client, server, _, err := w.pair("data")
		return client, server, err
	}
	var best [2]float64
	for range runs {
		for i, open := range []func() (a, b net.Conn, err error){plain, ours} {
			a, b, err := open()
			if err != nil {
				return "", err
			}
			rate := pour(a, b, settles, during)
			_ = a.Close()
			_ = b.Close()
			best[i] = max(best[i], rate)
		}
	}
	seen := fmt.Sprintf("plain TCP %.1f Mbit/s, ours %.1f, %.2f times (best of %d)", best[0], best[1], best[1]/best[0], runs)
	if best[1] < 0.9*best[0] { // losses are drawn by lot
		return seen, errors.New("less than plain TCP")
	}
	return seen, nil
}

// pour sends as fast as it goes, and returns the rate in Mbit/s at which that comes after it has settled.
func pour(a, b net.Conn, settles, during time.Duration) float64 {
	go func() {
		for buf := make([]byte, 1<<16); ; {
			if _, err := a.Write(buf); err != nil {
				return
			}
		}
	}()
	buf, got := make([]byte, 1<<18), 0
	begun := time.Now().Add(settles)
	_ = b.SetReadDeadline(begun.Add(during))
	for {
		n, err := b.Read(buf)
		if time.Now().After(begun) {
			got += n
		}
		if err != nil {
			return float64(got) * 8 / 1e6 / during.Seconds()
		}
	}
}
