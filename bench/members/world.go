package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"sallyport/internal/freeport"
	"sallyport/internal/servers"
	"sallyport/state"
)

// machine is one node of the project, with a state directory that it may share with the keeper's.
type machine struct {
	home, node string
	status     string // host:port
	pid        int
}

// world is a project of processes: an authority and its relays.
type world struct {
	bin, dir  string
	postgres  *servers.Postgres // nil without
	authority *machine
	relays    []*machine
}

// sallyport runs a command with a state directory.
func (w *world) sallyport(ctx context.Context, home string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, w.bin, args...)
	cmd.Env = append(os.Environ(), "SALLYPORT_HOME="+home)
	var failed strings.Builder
	cmd.Stderr = &failed
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("sallyport %s: %w: %s", strings.Join(args, " "), err, failed.String())
	}
	return strings.TrimSpace(string(out)), nil
}

// newWorld makes a project for a number of members, all from this machine. What it returns with an error is to be ended too.
func newWorld(ctx context.Context, o options, n int) (w *world, err error) {
	w = &world{bin: o.bin}
	if w.dir, err = os.MkdirTemp("", "members-"); err != nil {
		return w, err
	}
	keeper := filepath.Join(w.dir, "project")
	args := []string{"project", "create", "p"}
	registry := ""
	if o.relays > 1 || o.postgres {
		if w.postgres, err = servers.NewPostgres(); err != nil {
			return w, err
		}
		file := filepath.Join(w.dir, "database.url")
		if err := os.WriteFile(file, []byte(w.postgres.PatientURL("", "", "postgres")), 0o600); err != nil {
			return w, err
		}
		if o.postgres {
			args = append(args, "--store", "@"+file)
		}
		if o.relays > 1 {
			registry = "@" + file
			args = append(args, "--registry", registry)
		}
	}
	ports := make([]string, 2+2*o.relays)
	for i := range ports {
		port, err := freeport.Get()
		if err != nil {
			return w, err
		}
		ports[i] = strconv.Itoa(port)
	}
	w.authority = &machine{home: keeper, node: "authority-p"}
	w.relays = []*machine{{home: keeper, node: "relay-p", status: "127.0.0.1:" + ports[3]}}
	if _, err := w.sallyport(ctx, keeper, append(args, "--authority-port", ports[0], "--relay-port", ports[2], "--relay-status", w.relays[0].status)...); err != nil {
		return w, err
	}
	for i := 1; i < o.relays; i++ {
		ticket, err := w.sallyport(ctx, keeper, "project", "relay-node", "ticket")
		if err != nil {
			return w, err
		}
		m := &machine{home: filepath.Join(w.dir, fmt.Sprint("relay", i)), node: fmt.Sprint("relay-node-r", i), status: "127.0.0.1:" + ports[3+2*i]}
		w.relays = append(w.relays, m)
		if _, err := w.sallyport(ctx, m.home, "relay-node", "create", ticket, "--name", fmt.Sprint("r", i), "--port", ports[2+2*i], "--status", m.status, "--registry", registry); err != nil {
			return w, err
		}
	}
	return w, w.allow(ctx, n)
}

// handshakes is the limit of handshakes in a second of which one address gets as many as all together have by default.
const handshakes = 12_500

// allow lets all members come from one address, and starts each node with that.
func (w *world) allow(ctx context.Context, n int) error {
	for _, m := range append([]*machine{w.authority}, w.relays...) {
		if _, err := w.sallyport(ctx, m.home, "node", "stop", m.node); err != nil {
			return err
		}
		dir, err := state.Open(m.home)
		if err == nil {
			err = dir.UpdateNode(ctx, m.node, func(s *state.Node) error {
				most := min(2*n+1000, max(files()-500, 100))
				l := &s.Options.Limits
				l.Connections, l.ConnectionsPerAddress, l.HandshakesPerSecond = most, most, handshakes
				return nil
			})
		}
		if err == nil {
			err = w.start(ctx, m)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *world) start(ctx context.Context, m *machine) error {
	if _, err := w.sallyport(ctx, m.home, "node", "start", m.node); err != nil {
		return err
	}
	text, err := w.sallyport(ctx, m.home, "node", "show", m.node, "--jq", ".pid")
	if err != nil {
		return err
	}
	m.pid, err = strconv.Atoi(text)
	return err
}

func (w *world) relayPIDs() (list []int) {
	for _, m := range w.relays {
		list = append(list, m.pid)
	}
	return list
}

// killRelays ends all relays at once, as a crash would, and returns when each has been started again.
func (w *world) killRelays(ctx context.Context) error {
	for _, m := range w.relays {
		if err := syscall.Kill(m.pid, syscall.SIGKILL); err != nil {
			return fmt.Errorf("kill %s: %w", m.node, err)
		}
	}
	errs := make([]error, len(w.relays))
	var all sync.WaitGroup
	for i, m := range w.relays {
		all.Go(func() { errs[i] = w.start(ctx, m) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// sum adds up metrics of all relays.
func (w *world) sum(ctx context.Context, names ...string) ([]float64, error) {
	sums := make([]float64, len(names))
	for _, m := range w.relays {
		values, err := scrape(ctx, m.status)
		if err != nil {
			return nil, err
		}
		for i, name := range names {
			sums[i] += values[name]
		}
	}
	return sums, nil
}

func (w *world) end() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for _, m := range append([]*machine{w.authority}, w.relays...) {
		if m != nil {
			_, _ = w.sallyport(ctx, m.home, "node", "stop", m.node)
		}
	}
	if w.postgres != nil {
		_ = w.postgres.Close()
	}
	_ = os.RemoveAll(w.dir)
}
