package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// The util service is the driver's own little server for what no stock program
// does. A client sends a command byte and, for a pour, a big-endian byte count;
// the server answers with the byte and then either waits (idle), sends that
// many bytes (pour), or sends back whatever comes (echo).
const (
	cmdIdle = 'i'
	cmdPour = 'p'
	cmdEcho = 'e'
)

// serveUtil runs the util service until the process is ended. It is a process of
// its own (`paths -util-server PORT`), so that its work is not the driver's.
func serveUtil(port string) error {
	l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			_ = serveUtilConn(c) // a client that went away is no news
		}()
	}
}

func serveUtilConn(c net.Conn) error {
	var cmd [9]byte
	if _, err := io.ReadFull(c, cmd[:1]); err != nil {
		return err
	}
	switch cmd[0] {
	case cmdIdle:
		if _, err := c.Write(cmd[:1]); err != nil {
			return err
		}
		_, err := io.Copy(io.Discard, c)
		return err
	case cmdEcho:
		buf := make([]byte, 64<<10)
		for n := copy(buf, cmd[:1]); ; {
			if _, err := c.Write(buf[:n]); err != nil {
				return err
			}
			var err error
			if n, err = c.Read(buf); err != nil {
				return err
			}
		}
	case cmdPour:
		if _, err := io.ReadFull(c, cmd[1:]); err != nil {
			return err
		}
		if _, err := c.Write(cmd[:1]); err != nil {
			return err
		}
		chunk := make([]byte, 64<<10)
		for left := binary.BigEndian.Uint64(cmd[1:]); left > 0; {
			n, err := c.Write(chunk[:min(left, uint64(len(chunk)))])
			if err != nil {
				return err
			}
			left -= uint64(n)
		}
		return nil
	}
	return errors.New("unknown command")
}

// dialUtil opens a connection to the util service at port, sends the command and
// waits for the answer, which proves that the connection reaches the server.
func dialUtil(ctx context.Context, port int, cmd byte, count uint64) (net.Conn, error) {
	var d net.Dialer
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, err := d.DialContext(ctx, "tcp4", loopback(port))
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	msg := []byte{cmd}
	if cmd == cmdPour {
		msg = binary.BigEndian.AppendUint64(msg, count)
	}
	var answer [1]byte
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	err = c.SetDeadline(deadline)
	if err == nil {
		_, err = c.Write(msg)
	}
	if err == nil {
		_, err = io.ReadFull(c, answer[:])
	}
	if err == nil && answer[0] != cmd {
		err = fmt.Errorf("answer %q", answer[:])
	}
	if err == nil && !stop() {
		err = ctx.Err()
	}
	if err == nil {
		err = c.SetDeadline(time.Time{})
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("util service through port %d: %w", port, err)
	}
	return c, nil
}

// openIdle opens n connections that stay silent, eight at a time. The caller
// closes what is returned, also on error.
func openIdle(ctx context.Context, port, n int) ([]net.Conn, error) {
	conns := make([]net.Conn, n)
	errs := make([]error, 8)
	var next atomic.Int64
	var wg sync.WaitGroup
	for w := range errs {
		wg.Go(func() {
			for errs[w] == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				conns[i], errs[w] = dialUtil(ctx, port, cmdIdle, 0)
			}
		})
	}
	wg.Wait()
	conns = slices.DeleteFunc(conns, func(c net.Conn) bool { return c == nil })
	return conns, errors.Join(errs...)
}

// readers are connections that take all they get from a pouring server.
type readers struct {
	conns []net.Conn
	bytes atomic.Int64
	wg    sync.WaitGroup
}

func startReaders(ctx context.Context, port, n int) (*readers, error) {
	r := &readers{}
	for range n {
		// 1 TiB outlasts any run.
		c, err := dialUtil(ctx, port, cmdPour, 1<<40)
		if err != nil {
			r.stop()
			return nil, err
		}
		r.conns = append(r.conns, c)
		r.wg.Go(func() {
			buf := make([]byte, 128<<10)
			for {
				n, err := c.Read(buf)
				r.bytes.Add(int64(n))
				if err != nil {
					return
				}
			}
		})
	}
	return r, nil
}

func (r *readers) stop() {
	for _, c := range r.conns {
		c.Close()
	}
	r.wg.Wait()
}

// rate measures for the given time how many bytes a second arrive.
func (r *readers) rate(ctx context.Context, d time.Duration) (float64, error) {
	from, start := r.bytes.Load(), time.Now()
	if err := sleep(ctx, d); err != nil {
		return 0, err
	}
	return float64(r.bytes.Load()-from) / time.Since(start).Seconds(), nil
}

// pingFor sends redis PINGs one after the other for the given time and returns
// the 99th percentile of the answer times in milliseconds. A time, rather than a
// number of requests, bounds it however slow the path becomes.
func pingFor(ctx context.Context, port int, d time.Duration) (float64, error) {
	c, err := net.DialTimeout("tcp4", loopback(port), 5*time.Second)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	// One answer may be late by the whole time again, but no more.
	if err := c.SetDeadline(time.Now().Add(2*d + 5*time.Second)); err != nil {
		return 0, err
	}
	request, reply := []byte("*1\r\n$4\r\nPING\r\n"), bufio.NewReader(c)
	var times []float64
	for start := time.Now(); time.Since(start) < d; {
		sent := time.Now()
		if _, err := c.Write(request); err != nil {
			return 0, err
		}
		line, err := reply.ReadString('\n')
		if err != nil {
			return 0, err
		}
		if line != "+PONG\r\n" {
			return 0, fmt.Errorf("redis answered %q", abbreviate(line, 40))
		}
		times = append(times, float64(time.Since(sent))/float64(time.Millisecond))
	}
	return percentile(times, 99), nil
}

// sleep waits, or returns ctx's error if it ends sooner.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
