// Command transfer sends a stream of random bytes each way over one TCP connection at a time and compares checksums.
// The demo runs it through a portal.
//
// usage: transfer serve ADDRESS | transfer run ADDRESS MEBIBYTES
//
// A connection begins with one direction byte and the length, 8 bytes big-endian. Upwards the client's bytes
// follow, then the client's FIN, and the server answers with their SHA-256. Downwards the server sends the bytes and then
// their SHA-256. Neither side knows the other's bytes beforehand.
package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	mathrand "math/rand/v2"
	"net"
	"os"
	"strconv"
	"time"
)

const (
	up   = 'u'
	down = 'd'

	// longest is how long either side waits for a transfer.
	longest = 10 * time.Minute
	// maxLength bounds what a server sends on request.
	maxLength = 1 << 40
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "transfer:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "serve":
		return serve(args[1])
	case len(args) == 3 && args[0] == "run":
		mib, err := strconv.ParseInt(args[2], 10, 20)
		if err != nil || mib < 1 {
			return fmt.Errorf("%q is no number of mebibytes", args[2])
		}
		for _, direction := range []byte{up, down} {
			if err := transfer(args[1], direction, mib<<20); err != nil {
				return err
			}
		}
		return nil
	}
	return errors.New("usage: transfer serve ADDRESS | transfer run ADDRESS MEBIBYTES")
}

func serve(address string) error {
	l, err := net.Listen("tcp", address)
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
			if err := answer(c.(*net.TCPConn)); err != nil {
				fmt.Fprintln(os.Stderr, "transfer:", err)
			}
		}()
	}
}

// answer is the server's side of one connection. A connection that says nothing is a portal's test of the target.
func answer(c *net.TCPConn) error {
	_ = c.SetDeadline(time.Now().Add(longest))
	var head [9]byte
	if _, err := io.ReadFull(c, head[:]); err == io.EOF {
		return nil
	} else if err != nil {
		return err
	}
	n := int64(binary.BigEndian.Uint64(head[1:]))
	if n < 0 || n > maxLength {
		return fmt.Errorf("length %d is out of range", n)
	}
	sum := sha256.New()
	switch head[0] {
	case up:
		got, err := io.Copy(sum, c)
		if err != nil {
			return err
		}
		if got != n {
			return fmt.Errorf("%d bytes came instead of %d", got, n)
		}
	case down:
		if err := send(c, sum, n); err != nil {
			return err
		}
	default:
		return fmt.Errorf("unknown direction %q", head[0])
	}
	_, err := c.Write(sum.Sum(nil))
	return err
}

// transfer is the client's side of one connection.
func transfer(address string, direction byte, n int64) error {
	conn, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	c := conn.(*net.TCPConn)
	_ = c.SetDeadline(time.Now().Add(longest))
	start := time.Now()
	head := binary.BigEndian.AppendUint64([]byte{direction}, uint64(n))
	if _, err := c.Write(head); err != nil {
		return err
	}
	name, sum := "up", sha256.New()
	if direction == up {
		if err := send(c, sum, n); err != nil {
			return err
		}
		if err := c.CloseWrite(); err != nil {
			return err
		}
	} else {
		name = "down"
		if _, err := io.CopyN(sum, c, n); err != nil {
			return err
		}
	}
	// After the other side's checksum the stream ends: bytes too many are an error as well.
	theirs, err := io.ReadAll(io.LimitReader(c, sha256.Size+1))
	if err != nil {
		return err
	}
	if own := sum.Sum(nil); !bytes.Equal(own, theirs) {
		return fmt.Errorf("%s: checksums differ: %x here, %x there", name, own, theirs)
	}
	took := time.Since(start)
	fmt.Printf("%-4s %d bytes in %.1f s, %.0f MB/s, SHA-256 the same at both ends: %x\n", name, n, took.Seconds(), float64(n)/took.Seconds()/1e6, theirs[:8])
	return nil
}

// send writes n random bytes to w and into sum.
func send(w io.Writer, sum hash.Hash, n int64) error {
	var seed [32]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return err
	}
	_, err := io.CopyN(io.MultiWriter(w, sum), mathrand.NewChaCha8(seed), n)
	return err
}
