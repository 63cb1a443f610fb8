package profile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/crypto/aead"
)

// Machine is what this machine does at best on one core, measured here and now.
type Machine struct {
	CopyNS    float64 `json:"copy_ns_byte"`     // to copy a byte of 256 KiB that are in a cache
	SealNS    float64 `json:"seal_ns_byte"`     // to seal a byte of 16 KiB with AES-256-GCM
	LoopNS    float64 `json:"loopback_ns_byte"` // to write 64 KiB to a TCP socket of the loopback interface and read them, for each byte
	SyscallNS float64 `json:"syscall_ns"`       // a system call that does nothing
	MessageNS float64 `json:"message_ns"`       // to write 64 bytes to such a socket and read them
	WakeNS    float64 `json:"wake_ns"`          // to wake a thread that sleeps, and for it to run
	GHz       float64 `json:"ghz"`              // what the system says; 0 if it does not
}

// each returns how many nanoseconds do takes, the best of many short rounds: others have the processor in some.
func each(do func()) float64 {
	best := 0.0
	for range 60 {
		n := 0
		start := time.Now()
		for time.Since(start) < 2*time.Millisecond {
			do()
			n++
		}
		if took := float64(time.Since(start)) / float64(n); best == 0 || took < best {
			best = took
		}
	}
	return best
}

// Measure takes about a second.
func Measure() (Machine, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var m Machine
	from, to := make([]byte, 256<<10), make([]byte, 256<<10)
	m.CopyNS = each(func() { copy(to, from) }) / float64(len(to))

	var key aead.Key
	key.Init(new([aead.KeySize]byte))
	record := make([]byte, 16<<10+aead.Overhead)
	var nonce [aead.NonceSize]byte
	m.SealNS = each(func() { key.Seal(record, &nonce, record[:16<<10], nil) }) / (16 << 10)
	m.SyscallNS = each(func() { unix.Getppid() })

	a, b, done, err := sockets()
	if err != nil {
		return m, fmt.Errorf("a connection of the loopback interface: %w", err)
	}
	defer done()
	var failed error
	pass := func(n int) func() {
		return func() {
			if _, err := unix.Write(a, from[:n]); err != nil {
				failed = err
			}
			for got := 0; got < n && failed == nil; {
				k, err := unix.Read(b, to[:n-got])
				if err != nil || k == 0 {
					failed = fmt.Errorf("read: %d bytes, %w", k, err)
					return
				}
				got += k
			}
		}
	}
	m.LoopNS = each(pass(64<<10)) / (64 << 10)
	m.MessageNS = each(pass(64))
	if failed != nil {
		return m, failed
	}
	m.WakeNS, err = wake()
	m.GHz = clock()
	return m, err
}

// sockets are the two ends of a TCP connection, blocking.
func sockets() (a, b int, done func(), err error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, 0, nil, err
	}
	defer l.Close()
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		return 0, 0, nil, err
	}
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		return 0, 0, nil, err
	}
	defer s.Close()
	fc, err := c.(*net.TCPConn).File() // a copy that blocks
	if err != nil {
		return 0, 0, nil, err
	}
	fs, err := s.(*net.TCPConn).File()
	if err != nil {
		fc.Close()
		return 0, 0, nil, err
	}
	a, b = int(fc.Fd()), int(fs.Fd())
	// What is written must fit, since the same thread reads it.
	err = errors.Join(unix.SetsockoptInt(a, unix.SOL_SOCKET, unix.SO_SNDBUF, 200<<10), unix.SetsockoptInt(b, unix.SOL_SOCKET, unix.SO_RCVBUF, 200<<10))
	return a, b, func() { fc.Close(); fs.Close() }, err
}

// wake measures two threads that wake each other by turns.
func wake() (float64, error) {
	here, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return 0, err
	}
	defer unix.Close(here)
	there, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return 0, err
	}
	defer unix.Close(there)
	one, two, word := binary.NativeEndian.AppendUint64(nil, 1), binary.NativeEndian.AppendUint64(nil, 2), make([]byte, 8)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // it ends with the goroutine
		word := make([]byte, 8)
		for {
			if _, err := unix.Read(there, word); err != nil || binary.NativeEndian.Uint64(word) > 1 {
				return
			}
			if _, err := unix.Write(here, word); err != nil {
				return
			}
		}
	}()
	trip := each(func() {
		_, err1 := unix.Write(there, one)
		_, err2 := unix.Read(here, word)
		if err1 != nil {
			err = err1
		} else if err2 != nil {
			err = err2
		}
	})
	if _, werr := unix.Write(there, two); werr != nil {
		return 0, werr
	}
	<-ended
	return trip / 2, err
}

// clock is the processor's frequency in GHz as the system says it.
func clock() float64 {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "cpu MHz" {
			var mhz float64
			if _, err := fmt.Sscan(v, &mhz); err == nil {
				return mhz / 1000
			}
		}
	}
	return 0
}
