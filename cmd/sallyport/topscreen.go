package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/node/admin"
)

// topScreen is the terminal that top draws on: its other screen, with keys that come one by one.
type topScreen struct {
	a      *app
	in     *os.File      // nil: there are no keys
	before *unix.Termios // how it was
	keys   chan byte
}

// newTopScreen takes the terminal; close gives it back.
func newTopScreen(a *app) *topScreen {
	s := &topScreen{a: a, keys: make(chan byte)}
	fmt.Fprint(a.stdout, "\x1b[?1049h\x1b[?25l") // the other screen, without a cursor
	in, ok := a.stdin.(*os.File)
	if !ok || !isTerminal(in) {
		return s
	}
	before, err := unix.IoctlGetTermios(int(in.Fd()), unix.TCGETS)
	if err != nil {
		return s
	}
	now := *before
	now.Lflag &^= unix.ICANON | unix.ECHO // Ctrl-C stays what it is
	now.Cc[unix.VMIN], now.Cc[unix.VTIME] = 1, 0
	if unix.IoctlSetTermios(int(in.Fd()), unix.TCSETS, &now) != nil {
		return s
	}
	s.in, s.before = in, before
	go func() { // until the program ends
		b := make([]byte, 1)
		for {
			if n, err := in.Read(b); err != nil || n == 0 {
				return
			}
			s.keys <- b[0]
		}
	}()
	return s
}

// close gives the terminal back as it was.
func (s *topScreen) close() {
	if s.in != nil {
		_ = unix.IoctlSetTermios(int(s.in.Fd()), unix.TCSETS, s.before)
	}
	fmt.Fprint(s.a.stdout, "\x1b[?25h\x1b[?1049l")
}

// draw shows as much of a text as there is room for, and a line below it.
func (s *topScreen) draw(text, below string) {
	height, width := 24, 0
	if size, err := unix.IoctlGetWinsize(int(s.a.stdout.(*os.File).Fd()), unix.TIOCGWINSZ); err == nil && size.Row > 0 {
		height, width = int(size.Row), int(size.Col)
	}
	lines := strings.Split(strings.TrimRight(forTerminal(text), "\n"), "\n")
	if room := max(height-2, 1); len(lines) > room {
		lines = lines[:room]
	}
	var b strings.Builder
	b.WriteString("\x1b[H")
	for _, line := range append(lines, "", below) {
		if r := []rune(line); width > 0 && len(r) > width {
			line = string(r[:width])
		}
		b.WriteString(line + "\x1b[K\n")
	}
	_, _ = fmt.Fprint(s.a.stdout, strings.TrimSuffix(b.String(), "\n")+"\x1b[J")
}

// run looks again and again until a person ends it.
func (s *topScreen) run(ctx context.Context, c *admin.Client, node, by string, every time.Duration, before *admin.Stats) error {
	now, paused := before, false
	show := func() {
		rows := topRows(before, now)
		sortTop(rows, by)
		var keys strings.Builder
		for _, name := range topNames {
			fmt.Fprintf(&keys, "%c %s  ", topOrders[name].key, name)
		}
		pause := "space pauses"
		if paused {
			pause = "PAUSED, space goes on"
		}
		s.draw(topText(node, by, before, now, rows), "sort: "+keys.String()+" "+pause+"  q ends")
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	show()
	for {
		select {
		case <-ctx.Done():
			return nil
		case key := <-s.keys:
			switch key {
			case 'q', 'Q', 0x1b, 4: // Escape, Ctrl-D
				return nil
			case ' ', 'p':
				paused = !paused
			}
			for name, order := range topOrders {
				if order.key == key {
					by = name
				}
			}
		case <-tick.C:
			if paused {
				continue
			}
			next, err := admin.Get[admin.Stats](ctx, c, admin.PathCounts)
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				return fmt.Errorf("%w: %w", errStopped, err)
			}
			before, now = now, &next
		}
		show()
	}
}
