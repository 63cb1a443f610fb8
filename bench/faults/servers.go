package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// What a client asks of the data server with its first byte; a seed of eight bytes follows.
const (
	askUp   = 'U' // the client sends the stream of the seed; the server checks it
	askDown = 'D' // the server sends it until the client's end, then its own end
	askEcho = 'E' // what comes goes back
	askHand = 'H' // the case itself is the server, with serverEnd.conn, until it closes that
)

// servers are what the portals lead to, in the outlet's namespace.
type servers struct {
	ln net.Listener
	mu sync.Mutex
	// at is how each connection stands, by its seed.
	at map[uint64]*serverEnd
}

// serverEnd is the server's end of one connection.
type serverEnd struct {
	conn  *net.TCPConn
	mu    sync.Mutex
	bytes int64 // sent or checked
	err   error // with which it ended; io.EOF for a clean end
	ended chan struct{}
}

func (e *serverEnd) count(n int) {
	e.mu.Lock()
	e.bytes += int64(n)
	e.mu.Unlock()
}

func (e *serverEnd) total() int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.bytes
}

// generator returns the stream of a seed.
func generator(seed uint64) *rand.ChaCha8 {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	return rand.NewChaCha8(key)
}

const blockSize = 16 << 10

var errWrong = errors.New("a byte is wrong")

// check reads from r until its end and compares with the stream of a seed.
func check(r io.Reader, seed uint64, count func(int)) error {
	from, buf, want := generator(seed), make([]byte, blockSize), make([]byte, blockSize)
	for {
		n, err := r.Read(buf)
		_, _ = from.Read(want[:n])
		if !bytes.Equal(buf[:n], want[:n]) {
			return errWrong
		}
		if count(n); err != nil {
			return err
		}
	}
}

// send writes the stream of a seed, a block every few milliseconds, until stop is closed.
func send(w io.Writer, seed uint64, stop <-chan struct{}, count func(int)) error {
	from, buf := generator(seed), make([]byte, blockSize)
	for {
		select {
		case <-stop:
			return nil
		case <-time.After(10 * time.Millisecond):
		}
		_, _ = from.Read(buf)
		n, err := w.Write(buf)
		if count(n); err != nil {
			return err
		}
	}
}

func startServers(ctx context.Context, w *world) (*servers, error) {
	s := &servers{at: map[uint64]*serverEnd{}}
	if err := w.outlet.Do(func() (err error) {
		s.ln, err = net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", dataPort))
		return err
	}); err != nil {
		return nil, err
	}
	go func() {
		for {
			c, err := s.ln.Accept()
			if err != nil {
				return
			}
			go s.serve(c.(*net.TCPConn))
		}
	}()
	if err := w.background(w.outlet, nil, "redis-server", "--port", strconv.Itoa(redisPort), "--bind", "127.0.0.1", "--save", "", "--dir", w.dir); err != nil {
		return nil, err
	}
	return s, w.postgres(ctx)
}

func (s *servers) serve(c *net.TCPConn) {
	var head [9]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		_ = c.Close()
		return
	}
	handed := head[0] == askHand
	seed := binary.LittleEndian.Uint64(head[1:])
	e := &serverEnd{conn: c, ended: make(chan struct{})}
	s.mu.Lock()
	s.at[seed] = e
	s.mu.Unlock()
	if handed {
		return
	}
	defer c.Close()
	defer close(e.ended)
	var err error
	switch head[0] {
	case askUp:
		err = check(c, seed, e.count)
	case askDown:
		stop := make(chan struct{})
		go func() {
			_, _ = c.Read(head[:1]) // the client's end
			close(stop)
		}()
		if err = send(c, seed, stop, e.count); err == nil {
			err = io.EOF
		}
	case askEcho:
		if _, err = io.Copy(c, c); err == nil {
			err = io.EOF
		}
	}
	e.mu.Lock()
	e.err = err
	e.mu.Unlock()
}

// end returns the server's end of a connection, once it is there.
func (s *servers) end(seed uint64) (*serverEnd, error) {
	for until := time.Now().Add(20 * time.Second); time.Now().Before(until); time.Sleep(5 * time.Millisecond) {
		s.mu.Lock()
		e := s.at[seed]
		s.mu.Unlock()
		if e != nil {
			return e, nil
		}
	}
	return nil, errors.New("the server was not reached")
}

// forget drops what is known of a connection.
func (s *servers) forget(seed uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.at, seed)
}

// result waits until the server's end has ended and returns how.
func (e *serverEnd) result(within time.Duration) (int64, error) {
	select {
	case <-e.ended:
	case <-time.After(within):
		return e.total(), errors.New("no end came")
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.bytes, e.err
}

// background starts a program on a machine that runs until the end.
func (w *world) background(m *machine, as *syscall.Credential, name string, args ...string) error {
	return m.Do(func() error {
		cmd := exec.Command(name, args...)
		cmd.Dir = w.dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
		if err := cmd.Start(); err != nil {
			return fmt.Errorf("%s: %w (make test-faults needs redis-server and PostgreSQL)", name, err)
		}
		return cmd.Process.Release()
	})
}

// postgres starts a database with pgbench's tables.
func (w *world) postgres(ctx context.Context) error {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		return errors.New("initdb of PostgreSQL is not there (Debian package postgresql)")
	}
	slices.Sort(found)
	bin := filepath.Dir(found[len(found)-1])
	owner, err := user.Lookup("postgres")
	if err != nil {
		return err
	}
	uid, _ := strconv.Atoi(owner.Uid)
	gid, _ := strconv.Atoi(owner.Gid)
	as := &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	data := filepath.Join(w.dir, "postgres")
	if err := os.Mkdir(data, 0o700); err != nil {
		return err
	}
	if err := os.Chown(data, uid, gid); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", data, "-A", "trust", "-U", "postgres", "--no-sync", "--encoding=UTF8", "--locale=C")
	cmd.Dir, cmd.SysProcAttr = data, &syscall.SysProcAttr{Credential: as}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	if err := w.background(w.outlet, as, filepath.Join(bin, "postgres"), "-D", data, "-p", strconv.Itoa(postgresPort), "-c", "listen_addresses=127.0.0.1",
		"-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "max_connections=60"); err != nil {
		return err
	}
	var out []byte
	for until := time.Now().Add(30 * time.Second); time.Now().Before(until); time.Sleep(200 * time.Millisecond) {
		if out, err = w.pgbench(ctx, w.outlet, postgresPort, nil, "-i", "-q", "-s", "1"); err == nil {
			return nil
		}
	}
	return fmt.Errorf("pgbench -i: %w: %s", err, out)
}

// pgbench runs pgbench on a machine against a port there. begun, if it is not nil, is called when its connections are at work, with -P 1 among args.
func (w *world) pgbench(ctx context.Context, m *machine, port int, begun func(), args ...string) ([]byte, error) {
	out := progress{begun: begun}
	err := m.Do(func() error {
		cmd := exec.CommandContext(ctx, "pgbench", append(append([]string{"-h", "127.0.0.1", "-p", strconv.Itoa(port), "-U", "postgres"}, args...), "postgres")...)
		cmd.Dir = w.dir
		cmd.Stdout, cmd.Stderr = &out, &out // the same, so one goroutine writes
		return cmd.Run()
	})
	return out.Bytes(), err
}

// progress is the output of pgbench.
type progress struct {
	bytes.Buffer
	begun func()
}

func (p *progress) Write(b []byte) (int, error) {
	n, err := p.Buffer.Write(b)
	if p.begun != nil && bytes.Contains(p.Bytes(), []byte("progress: ")) {
		p.begun()
		p.begun = nil
	}
	return n, err
}
