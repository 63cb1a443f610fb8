package dataplane

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// lines is a framing of lines: a frame is one, "?" is answered, "." is the announced end and "!" a fault; it begins with "hello" and ends with "bye".
type lines struct{ begun bool }

func (l *lines) Begin() []byte { return []byte("hello\n") }
func (l *lines) Begun() bool   { return l.begun }
func (l *lines) Next(b []byte) (Piece, error) {
	i := bytes.IndexByte(b, '\n')
	if i < 0 {
		return Piece{Need: len(b) + 1}, nil
	}
	l.begun = true
	switch string(b[:i]) {
	case "?":
		return Piece{Used: i + 1, Reply: bytes.Repeat([]byte("y"), 1000)}, nil
	case ".":
		return Piece{Used: i + 1, Reply: []byte("ended\n")}, io.EOF
	case ",":
		return Piece{Used: i + 1}, io.EOF
	case "!":
		return Piece{Used: i + 1, Reply: []byte("fault\n")}, ErrFrameSize
	case "x":
		return Piece{}, ErrFrameSize
	}
	return Piece{Used: i + 1, End: i}, nil
}
func (l *lines) Kept() (uint64, int) { return 0, 0 }
func (l *lines) Head(int) int        { return 2 }
func (l *lines) Seal(frame []byte, head int) {
	copy(frame, "> ")
	for i := range frame[head:] {
		frame[head+i] ^= 0x20
	}
}
func (l *lines) End(why error) []byte {
	if why != nil {
		return []byte("refused\n")
	}
	return []byte("bye\n")
}

// said collects frames.
type said struct {
	lines  chan string
	ended  chan error
	closes int
}

var errRefused = errors.New("refused")

func (s *said) OnFrame(buf []byte, _, start, end int) error {
	s.lines <- string(buf[start:end])
	if string(buf[start:end]) == "refused" {
		return errRefused
	}
	return nil
}
func (s *said) OnDrain()          {}
func (s *said) OnClose(err error) { s.closes++; s.ended <- err }

func newSaid(t *testing.T, l *Loop, early string) (*said, *Framed, net.Conn) {
	t.Helper()
	fd, peer := pair(t, "unix")
	s := &said{lines: make(chan string, 100), ended: make(chan error, 2)}
	var f *Framed
	on(t, l, func() {
		c, err := l.Adopt(fd, nil)
		if err != nil {
			t.Error(err)
			return
		}
		f = NewFramed(c, &lines{}, s, []byte(early))
	})
	return s, f, peer
}

// TestFirstAndLastWords: what a framing begins and ends with is sent once, what was read before is the beginning of the input, and an end that was announced
// is none that was not.
func TestFirstAndLastWords(t *testing.T) {
	l := newLoop(t)
	for early, want := range map[string]string{"": "one", "zero\non": "zero", "zero\n": "zero"} {
		s, f, peer := newSaid(t, l, early)
		switch early {
		case "", "zero\n":
			_, _ = io.WriteString(peer, "one\ntwo\n")
		default:
			_, _ = io.WriteString(peer, "e\ntwo\n")
		}
		list := []string{want, "one", "two"}
		if early == "" {
			list = list[1:]
		}
		for _, line := range list {
			if got := <-s.lines; got != line {
				t.Errorf("early %q: %q, not %q", early, got, line)
			}
		}
		on(t, l, func() {
			if n := f.Received(); n != uint64(len("one\ntwo\n"))+uint64(map[bool]int{true: len("zero\n")}[early != ""]) {
				t.Errorf("early %q: %d bytes came", early, n)
			}
			copy(f.ReserveFrame(3), "abc")
			if n := f.CommitFrame(3); n != 5 {
				t.Errorf("a frame of %d bytes", n)
			}
			f.Close()
			if early != "" { // once more
				f.Close()
			}
		})
		if got, err := io.ReadAll(peer); err != nil || string(got) != "hello\n> ABCbye\n" {
			t.Errorf("early %q: sent %q, %v", early, got, err)
		}
		_ = peer.Close()
		if err := <-s.ended; err != nil && err != ErrConnClosed {
			t.Errorf("early %q: %v", early, err)
		}
		on(t, l, func() {
			f.Close()
			copy(f.ReserveFrame(3), "abc")
			if n := f.CommitFrame(3); n != 5 || f.Pending() != 0 || s.closes != 1 {
				t.Errorf("when it has ended: %d, %d wait, told %d times", n, f.Pending(), s.closes)
			}
		})
	}
	for text, x := range map[string]struct {
		sent string
		err  error
	}{
		"a\n.\nb\n": {"hello\nended\n", nil}, "a\n,\nb\n": {"hello\n", nil}, "a\n!\nb\n": {"hello\nfault\n", ErrFrameSize}, "a\nx\nb\n": {"hello\n", ErrFrameSize}, "a\nrefused\nb\n": {"hello\nrefused\n", errRefused}, "a\n": {"hello\n", nil},
	} {
		s, _, peer := newSaid(t, l, "")
		_, _ = io.WriteString(peer, text)
		closeWrite(t, peer)
		got, err := io.ReadAll(peer)
		if string(got) != x.sent || err != nil && !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("%q: %q, %v", text, got, err)
		}
		_ = peer.Close()
		if err := <-s.ended; !errors.Is(err, x.err) {
			t.Errorf("%q: ended with %v", text, err)
		}
		if line := <-s.lines; line != "a" || len(s.lines) != bytes.Count([]byte(text), []byte("refused")) {
			t.Errorf("%q: %q and %d more", text, line, len(s.lines))
		}
	}
	// Who asks and does not read costs no memory beyond a bound, and is answered when it reads.
	s, f, peer := newSaid(t, l, "")
	for _, full := range []bool{false, true} {
		before := 0
		on(t, l, func() {
			if full {
				f.Write(make([]byte, 8<<20)) // more than the kernel takes
				f.flush()
				before = f.Pending()
			}
		})
		if full != (before >= mostReplies) {
			t.Fatalf("%d bytes wait", before)
		}
		for range 20 {
			_, _ = io.WriteString(peer, "?\n")
		}
		_, _ = io.WriteString(peer, "last\n")
		<-s.lines
		on(t, l, func() {
			if n := f.Pending(); full && n != before {
				t.Errorf("%d bytes wait, %d before", n, before)
			}
		})
		if !full {
			if _, err := io.ReadFull(peer, make([]byte, len("hello\n")+20*1000)); err != nil {
				t.Errorf("answered: %v", err)
			}
		}
	}
	on(t, l, f.Abort)
}

// TestWriteThatFails: a connection whose output the kernel refuses is closed with the reason at once, however it was written.
func TestWriteThatFails(t *testing.T) {
	l := newLoop(t)
	for name, write := range map[string]func(c *Conn){
		"written":  func(c *Conn) { c.Write([]byte("x")) },
		"large":    func(c *Conn) { c.Write(make([]byte, flushAt)) },
		"borrowed": func(c *Conn) { c.WriteBorrowed(make([]byte, borrowedDirect)) },
		"several": func(c *Conn) {
			c.Write(make([]byte, 5000))
			c.Write(make([]byte, 50_000))
		},
		"lent": func(c *Conn) { c.lend(make([]byte, 100)); c.markDirty() },
	} {
		rec := newRecorder()
		c, _ := adopt(t, l, "tcp", rec)
		on(t, l, func() {
			c.Pause()
			rawShutdown(c.fd, unix.SHUT_WR)
			write(c)
		})
		if err := rec.wait(t); !errors.Is(err, unix.EPIPE) {
			t.Errorf("%s: %v", name, err)
		}
		on(t, l, func() {
			if c.Pending() != 0 || !c.closed {
				t.Errorf("%s: %d wait, closed %v", name, c.Pending(), c.closed)
			}
		})
	}
}

// TestLastTasks: however many tasks bring others when a loop ends, each one that was accepted has run.
func TestLastTasks(t *testing.T) {
	g, err := NewGroup(1, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l := g.Loop(0)
	accepted, ran := 0, 0
	var task TaskFunc
	task = func() {
		ran++
		if l.Post(task) {
			accepted++
		}
	}
	on(t, l, func() {
		if l.Post(task) {
			accepted++
		}
	})
	time.Sleep(time.Millisecond)
	g.Stop()
	if accepted != ran || l.Post(task) {
		t.Errorf("%d tasks were accepted, %d have run", accepted, ran)
	}
}

// TestTasksOfTheEnd: what tasks and closing connections bring while a loop ends is run too.
func TestTasksOfTheEnd(t *testing.T) {
	g, err := NewGroup(1, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l := g.Loop(0)
	const links = lastRounds / 2
	ran, posted := 0, false
	var link func()
	link = func() {
		if ran++; ran == 1 {
			l.stopped = true // the rest is done while it ends
		}
		if ran < links && !l.Post(TaskFunc(link)) {
			t.Errorf("refused after %d", ran)
		}
	}
	rec := &closing{closed: func() { posted = l.Post(TaskFunc(func() {})) }}
	adopt(t, l, "unix", rec)
	if !l.Post(TaskFunc(link)) {
		t.Fatal("refused")
	}
	<-l.done
	g.Stop()
	if ran != links || !posted {
		t.Errorf("%d of %d tasks have run; what a closing connection brings is taken: %v", ran, links, posted)
	}
}

// closing is a handler that does something when its connection has closed.
type closing struct{ closed func() }

func (*closing) OnReadable(c *Conn)     { _, _ = c.Read(c.Loop().ReadBuffer()) }
func (*closing) OnDrain(*Conn)          {}
func (h *closing) OnClose(*Conn, error) { h.closed() }
