package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// The transfer protocol, spoken through a portal. The client sends one byte of
// mode and eight bytes of length (big-endian). Then:
//
//	'U'  the client sends length bytes, the server answers with their SHA-256;
//	'D'  the server sends length bytes and their SHA-256;
//	'E'  the server sends back whatever comes.
//
// Neither side closes before it has all it waits for: portals of the reference
// do not carry half-closed connections.
const (
	modeUpload   = 'U'
	modeDownload = 'D'
	modeEcho     = 'E'
)

const transferChunk = 256 << 10

// transferServer is the target behind the second outlet.
type transferServer struct {
	listener net.Listener
	mu       sync.Mutex
	conns    map[net.Conn]bool
	wg       sync.WaitGroup
}

func startTransferServer() (*transferServer, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &transferServer{listener: l, conns: map[net.Conn]bool{}}
	s.wg.Go(s.accept)
	return s, nil
}

func (s *transferServer) address() string { return s.listener.Addr().String() }

func (s *transferServer) accept() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns[c] = true
		s.mu.Unlock()
		s.wg.Go(func() {
			serveTransfer(c) // the client sees and reports what goes wrong
			c.Close()
			s.mu.Lock()
			delete(s.conns, c)
			s.mu.Unlock()
		})
	}
}

// close ends all connections and waits for their goroutines.
func (s *transferServer) close() {
	s.listener.Close()
	s.mu.Lock()
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

func serveTransfer(c net.Conn) error {
	var head [9]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return err
	}
	length := int64(binary.BigEndian.Uint64(head[1:]))
	switch head[0] {
	case modeUpload:
		sum := sha256.New()
		if _, err := io.CopyN(sum, c, length); err != nil {
			return err
		}
		if _, err := c.Write(sum.Sum(nil)); err != nil {
			return err
		}
	case modeDownload:
		if err := sendChecked(c, length, uint64(length)); err != nil {
			return err
		}
	case modeEcho:
		_, err := io.Copy(c, c)
		return err
	default:
		return fmt.Errorf("mode %d", head[0])
	}
	_, err := io.Copy(io.Discard, c) // until the client closes
	return err
}

// sendChecked writes length pseudo-random bytes and their digest.
func sendChecked(w io.Writer, length int64, seed uint64) error {
	sum := sha256.New()
	if err := sendRandom(io.MultiWriter(w, sum), length, seed); err != nil {
		return err
	}
	_, err := w.Write(sum.Sum(nil))
	return err
}

func sendRandom(w io.Writer, length int64, seed uint64) error {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	source := rand.NewChaCha8(key)
	chunk := make([]byte, transferChunk)
	for length > 0 {
		part := chunk[:min(length, transferChunk)]
		source.Read(part)
		if _, err := w.Write(part); err != nil {
			return err
		}
		length -= int64(len(part))
	}
	return nil
}

// openTransfer connects to an inlet and sends the request.
func openTransfer(ctx context.Context, port int, mode byte, length int64) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		c.SetDeadline(deadline)
	}
	head := binary.BigEndian.AppendUint64([]byte{mode}, uint64(length))
	if _, err := c.Write(head); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

var errDigest = errors.New("SHA-256 differs: the portal changed the bytes")

// transfer moves length bytes through the inlet at a port and checks the digest.
// It returns the rate as text.
func transfer(ctx context.Context, port int, mode byte, length int64) (string, error) {
	begin := time.Now()
	c, err := openTransfer(ctx, port, mode, length)
	if err != nil {
		return "", err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	sum := sha256.New()
	moved := int64(0)
	if mode == modeUpload {
		err = sendRandom(io.MultiWriter(c, sum), length, 1)
		moved = length
	} else {
		moved, err = io.CopyN(sum, c, length)
	}
	if err != nil {
		return "", fmt.Errorf("after %d of %d bytes: %w", moved, length, err)
	}
	theirs := make([]byte, sha256.Size)
	if _, err := io.ReadFull(c, theirs); err != nil {
		return "", fmt.Errorf("no digest after %d bytes: %w", length, err)
	}
	if !bytes.Equal(theirs, sum.Sum(nil)) {
		return "", errDigest
	}
	return fmt.Sprintf("%.0f MiB/s", float64(length)/(1<<20)/time.Since(begin).Seconds()), nil
}

// pingEcho sends a few bytes over an echo connection and waits for them.
func pingEcho(c net.Conn, limit time.Duration) error {
	message := []byte("are you there?")
	c.SetDeadline(time.Now().Add(limit))
	if _, err := c.Write(message); err != nil {
		return err
	}
	back := make([]byte, len(message))
	if _, err := io.ReadFull(c, back); err != nil {
		return err
	}
	if !bytes.Equal(back, message) {
		return fmt.Errorf("echo gave back %q", back)
	}
	return nil
}

// portalWorks makes one new connection through an inlet and back.
func portalWorks(ctx context.Context, port int, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c, err := openTransfer(ctx, port, modeEcho, 0)
	if err != nil {
		return err
	}
	defer c.Close()
	return pingEcho(c, limit)
}

// eventually repeats a test until it passes or the time is over. It returns how
// long it took.
func eventually(ctx context.Context, limit time.Duration, test func() error) (time.Duration, error) {
	begin := time.Now()
	for {
		err := test()
		switch {
		case err == nil:
			return time.Since(begin), nil
		case ctx.Err() != nil:
			return 0, ctx.Err()
		case time.Since(begin) > limit:
			return 0, fmt.Errorf("not within %s: %w", limit, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(250 * time.Millisecond):
		}
	}
}
