package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"
)

// The server of the stall stories is a process of its own, so that it can be stopped: this test program, started with the port in
// its environment. A client begins with an order; every byte after it is known to both sides.
const stallServerVar = "STALL_SERVER_PORT"

func TestMain(m *testing.M) {
	if port := os.Getenv(stallServerVar); port != "" {
		if err := serveStall(port); err != nil {
			logf("stall server: %v", err)
		}
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// order is what a client asks for.
type order struct {
	What  uint8         // one of the orders below
	Size  uint64        // bytes of a transfer
	Seed  uint64        // of its bytes
	Rate  uint64        // bytes a second at which the server sends; 0 as fast as it can
	Sleep time.Duration // before the server touches the transfer
}

const (
	orderEcho     = 'e' // the server sends back what comes
	orderDownload = 'd' // the server sends, ends its side, and waits for the client's end
	orderUpload   = 'u' // the server reads to the end, compares, and answers verdictGood or not
	orderCount    = 'n' // the server answers how many other connections it has, eight bytes
)

const verdictGood = 'k'

func serveStall(port string) error {
	l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		return err
	}
	var open atomic.Int64
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			open.Add(1)
			defer open.Add(-1)
			_ = serveOrder(c.(*net.TCPConn), &open) // a client that was cut off is part of the stories
		}()
	}
}

func serveOrder(c *net.TCPConn, open *atomic.Int64) error {
	var first [1]byte
	if _, err := io.ReadFull(c, first[:]); err != nil {
		return err
	}
	if first[0] == cmdIdle { // the driver's own probe of a path
		if _, err := c.Write(first[:]); err != nil {
			return err
		}
		_, err := io.Copy(io.Discard, c)
		return err
	}
	var o order
	if err := binary.Read(io.MultiReader(bytes.NewReader(first[:]), c), binary.BigEndian, &o); err != nil {
		return err
	}
	time.Sleep(o.Sleep)
	switch o.What {
	case orderEcho:
		_, err := io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{c}, make([]byte, 4<<10))
		return err
	case orderDownload:
		if err := pour(c, o); err != nil {
			return err
		}
		if err := c.CloseWrite(); err != nil {
			return err
		}
		_, err := io.Copy(io.Discard, c)
		return err
	case orderUpload:
		verdict := []byte{verdictGood}
		if err := verify(c, o, nil); err != nil {
			verdict = []byte(err.Error())
		}
		_, err := c.Write(verdict)
		return err
	case orderCount:
		return binary.Write(c, binary.BigEndian, open.Load()-1)
	}
	return errors.New("unknown order")
}

func stream(seed uint64) *rand.ChaCha8 {
	var s [32]byte
	binary.BigEndian.PutUint64(s[:], seed)
	return rand.NewChaCha8(s)
}

const stallBlock = 64 << 10

// pour writes the bytes of o at o's rate.
func pour(w io.Writer, o order) error {
	from, block, start := stream(o.Seed), make([]byte, stallBlock), time.Now()
	for sent := uint64(0); sent < o.Size; {
		b := block[:min(o.Size-sent, stallBlock)]
		_, _ = from.Read(b) // never fails
		if _, err := w.Write(b); err != nil {
			return fmt.Errorf("after %d of %d bytes: %w", sent, o.Size, err)
		}
		sent += uint64(len(b))
		if o.Rate > 0 {
			time.Sleep(time.Until(start.Add(time.Duration(float64(sent) / float64(o.Rate) * float64(time.Second)))))
		}
	}
	return nil
}

// verify reads to the end and expects the bytes of o, no more and no fewer. It tells seen how many have come.
func verify(r io.Reader, o order, seen func(uint64)) error {
	want, block, expected := stream(o.Seed), make([]byte, stallBlock), make([]byte, stallBlock)
	for got := uint64(0); ; {
		n, err := r.Read(block)
		_, _ = want.Read(expected[:n])
		if !bytes.Equal(block[:n], expected[:n]) {
			return fmt.Errorf("wrong bytes between %d and %d", got, got+uint64(n))
		}
		if got += uint64(n); seen != nil {
			seen(got)
		}
		if got > o.Size {
			return fmt.Errorf("more than %d bytes", o.Size)
		}
		if err == io.EOF && got == o.Size {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%d of %d bytes: %w", got, o.Size, err)
		}
	}
}

// place opens a connection and sends the order. A small receive buffer leaves the backlog to the nodes instead of the kernel.
func place(port int, o order) (*net.TCPConn, error) {
	c, err := net.DialTimeout("tcp4", loopback(port), 5*time.Second)
	if err != nil {
		return nil, err
	}
	tcp := c.(*net.TCPConn)
	if err = tcp.SetReadBuffer(32 << 10); err == nil {
		err = binary.Write(tcp, binary.BigEndian, o)
	}
	if err != nil {
		tcp.Close()
		return nil, err
	}
	return tcp, nil
}

// download reads a transfer to its end and compares it. After `before` bytes it stops to read until goOn is closed.
func download(port int, o order, halfClose bool, before uint64, stalled func(), goOn <-chan struct{}) error {
	o.What = orderDownload
	c, err := place(port, o)
	if err != nil {
		return err
	}
	defer c.Close()
	if halfClose {
		if err := c.CloseWrite(); err != nil {
			return err
		}
	}
	waited := goOn == nil
	return verify(c, o, func(n uint64) {
		if n >= before && !waited {
			waited = true
			stalled()
			<-goOn
		}
	})
}

// upload sends a transfer and returns the server's verdict.
func upload(port int, o order) error {
	o.What = orderUpload
	rate, sleep := o.Rate, o.Sleep
	o.Rate = 0
	c, err := place(port, o)
	if err != nil {
		return err
	}
	defer c.Close()
	o.Rate = rate
	if err := pour(c, o); err != nil {
		return err
	}
	if err := c.CloseWrite(); err != nil {
		return err
	}
	verdict, err := io.ReadAll(c)
	if err == nil && string(verdict) != string(rune(verdictGood)) {
		err = fmt.Errorf("the server, after a sleep of %v, found: %s", sleep, verdict)
	}
	return err
}

// othersAt asks the server itself how many connections it has.
func othersAt(port int) (n int64, err error) {
	c, err := place(port, order{What: orderCount})
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return 0, err
	}
	return n, binary.Read(c, binary.BigEndian, &n)
}
