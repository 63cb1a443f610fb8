package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/client"
	"sallyport/crypto/vault"
	"sallyport/member"
	"sallyport/node"
	"sallyport/state"
)

// work is what a child is told at its beginning.
type work struct {
	Ticket      string // its text
	Homes       string // a directory for those of members
	From, Share int    // the first member, and how many there are
	All         int    // members of all children
	Width       int    // at a time
	Outlets     int    // of all members
	Inlets      int
}

// tries is how often a member does something that fails, and patience how long it may take.
const (
	tries    = 4
	patience = 10 * time.Minute
)

// childProcess has a share of the members.
type childProcess struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	done atomic.Int64 // of what it does now
}

func startChild(ctx context.Context, w work) (*childProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, "-child")
	cmd.Stderr = os.Stderr
	if w.All/w.Share >= runtime.NumCPU() { // the processors are for the children together: more threads than that only wake each other
		cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	}
	c := &childProcess{cmd: cmd}
	if c.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, err
	}
	c.out = bufio.NewReader(out)
	return c, json.NewEncoder(c.in).Encode(w)
}

// do has the child's members do something, and waits for it. It returns how many attempts were repeated.
func (c *childProcess) do(what string) (retries int, err error) {
	c.done.Store(0)
	if _, err := fmt.Fprintln(c.in, what); err != nil {
		return 0, fmt.Errorf("%s: a child has gone: %w", what, err)
	}
	for {
		line, err := c.out.ReadString('\n')
		if err != nil {
			return 0, fmt.Errorf("%s: a child has gone: %w", what, err)
		}
		line = strings.TrimSpace(line)
		var count int64
		switch {
		case strings.HasPrefix(line, "at "):
			if _, err := fmt.Sscanf(line, "at %d", &count); err == nil {
				c.done.Store(count)
			}
		case strings.HasPrefix(line, "ok "):
			_, err := fmt.Sscanf(line, "ok %d", &retries)
			return retries, err
		default:
			return 0, fmt.Errorf("%s: %s", what, line)
		}
	}
}

// end ends the child: its members end with its input.
func (c *childProcess) end() {
	_ = c.in.Close()
	_ = c.cmd.Wait()
}

// members are those of one child.
type members struct {
	work
	homes   string
	clients []*client.Client
	dialers []*client.Dialer
	retries atomic.Int64
	done    atomic.Int64
}

// serve has members, and does what it reads.
func serve(in io.Reader, out io.Writer) error {
	lines := bufio.NewReader(in)
	first, err := lines.ReadString('\n')
	if err != nil {
		return err
	}
	m := &members{}
	if err := json.Unmarshal([]byte(first), &m.work); err != nil {
		return err
	}
	if m.homes, err = os.MkdirTemp(m.Homes, ""); err != nil {
		return err
	}
	defer os.RemoveAll(m.homes)
	m.clients = make([]*client.Client, m.Share)
	defer func() {
		_ = m.each(m.Share, func(_ context.Context, i int) error {
			if m.clients[i] != nil {
				return m.clients[i].Close()
			}
			return nil
		})
	}()
	for {
		what, err := lines.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		m.done.Store(0)
		m.retries.Store(0)
		ended := make(chan error, 1)
		go func() { ended <- m.carryOut(strings.TrimSpace(what)) }()
		answer := ""
		for tick := time.NewTicker(time.Second); answer == ""; {
			select {
			case err := <-ended:
				tick.Stop()
				if answer = fmt.Sprintf("ok %d", m.retries.Load()); err != nil {
					answer = strings.ReplaceAll(err.Error(), "\n", " ")
				}
			case <-tick.C:
				fmt.Fprintf(out, "at %d\n", m.done.Load())
			}
		}
		fmt.Fprintln(out, answer)
	}
}

func (m *members) carryOut(what string) error {
	switch what {
	case "enrol":
		return m.each(m.Share, func(ctx context.Context, i int) (err error) {
			m.clients[i], err = client.Open(ctx, client.Options{Directory: m.home(i), Ticket: m.Ticket})
			return err
		})
	case "register":
		mine := m.mine(m.Outlets)
		return m.each(len(mine), func(ctx context.Context, k int) error {
			l, err := m.clients[m.of(mine[k])].ListenWith(ctx, outletName(mine[k]), client.ListenOptions{})
			if err == nil {
				go echo(l)
			}
			return err
		})
	case "renew":
		return m.each(m.Share, func(ctx context.Context, i int) error { return renew(ctx, m.home(i)) })
	case "dial":
		mine := m.mine(m.Inlets)
		m.dialers = make([]*client.Dialer, len(mine))
		return m.each(len(mine), func(ctx context.Context, k int) (err error) {
			// Not the outlet of the member itself, but where there is none else.
			if m.dialers[k] == nil {
				m.dialers[k], err = m.clients[m.of(mine[k])].Dialer(ctx, outletName((mine[k]+1)%m.Outlets), client.DialOptions{})
			}
			if err != nil {
				return err
			}
			return m.ask(ctx, m.dialers[k]) // so that paths are made Width at a time: members of machines of their own would not share these processors
		})
	case "echo":
		return m.each(len(m.dialers), func(ctx context.Context, k int) error { return m.ask(ctx, m.dialers[k]) })
	}
	return fmt.Errorf("unknown: %q", what)
}

// mine returns which of things that all members have together are those of this child: thing k is the member's with the number k modulo all members.
func (m *members) mine(things int) (list []int) {
	for k := range things {
		if i := k%m.All - m.From; i >= 0 && i < m.Share {
			list = append(list, k)
		}
	}
	return list
}

// of returns the member here that a thing is of.
func (m *members) of(thing int) int { return thing%m.All - m.From }

// outletName names the relay name and the outlet of a thing: a member may have several, each under names of its own.
func outletName(k int) string { return fmt.Sprintf("m%d/m%d", k, k) }

func (m *members) home(i int) string { return filepath.Join(m.homes, fmt.Sprint(i)) }

// each calls f for each number, Width at a time, and again where it fails. It returns the first error that stays, and how many there were.
func (m *members) each(count int, f func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var first error
	failed := 0
	next := atomic.Int64{}
	for range min(m.Width, count) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < count; i = int(next.Add(1)) - 1 {
				err := m.try(ctx, i, f)
				m.done.Add(1)
				if err == nil {
					continue
				}
				mu.Lock()
				if failed++; first == nil {
					first = fmt.Errorf("number %d: %w", m.From+i, err)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if first != nil {
		return fmt.Errorf("%d of %d failed; %w", failed, count, first)
	}
	return nil
}

func (m *members) try(ctx context.Context, i int, f func(ctx context.Context, i int) error) (err error) {
	for try := range tries {
		if try > 0 {
			m.retries.Add(1)
			time.Sleep(time.Duration(try) * time.Second)
		}
		own, cancel := context.WithTimeout(ctx, patience)
		err = f(own, i)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// echo answers everything with itself.
func echo(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_, _ = io.Copy(c, c)
		}()
	}
}

// ask sends something through a path until the answer comes.
func (m *members) ask(ctx context.Context, d *client.Dialer) error {
	c, err := d.Dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	want, got := []byte("are you there?"), make([]byte, 14)
	if _, err := c.Write(want); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if string(got) != string(want) {
		return fmt.Errorf("the answer is %q", got)
	}
	return nil
}

// renew fetches a credential once more as the member of a state directory, over a connection and a channel of its own, as its node does.
func renew(ctx context.Context, path string) error {
	dir, err := state.Open(path)
	if err != nil {
		return err
	}
	h := &member.Home{Dir: dir, Vault: func(v state.Vault) (vault.Vault, error) { return vault.OpenFile(v.Path) }}
	self, err := h.Identity(ctx, "")
	if err != nil {
		return err
	}
	trust, err := h.Trust(ctx, self.Manager, "")
	if err != nil {
		return err
	}
	n, err := node.Start(ctx, node.Options{
		Name: "renew", IdentityName: self.Named.Name, Self: self.ID, Identities: self.Manager, Store: node.CommandHome(dir), Shards: 1, NoListener: true,
		Trust: node.Trust{Authority: trust.Authority, Route: trust.Route}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	defer n.Stop()
	_, err = member.Ask(n, self.ID).RenewingCredential(ctx)
	return err
}
