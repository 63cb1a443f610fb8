package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"sallyport/internal/freeport"
)

// crashRows end nodes while they are at work.
var crashRows = []row{
	cutRow("kill-bank", 18, "bank", true), cutRow("kill-shop", 18, "shop", true),
	cutRow("stop-bank", 25, "bank", false), cutRow("stop-shop", 25, "shop", false),
	{
		name: "restart", number: 30, attack: "node stop --force, then node start, with 2,000 connections, twice", pause: -1, alone: true,
		promised: "starts at once on the same port",
		run:      restart,
	},
	{
		name: "in-memory", number: 19, attack: "kill -9 of a node with --in-memory",
		promised: "no secret key of it is left, neither in /dev/shm nor where temporary files are",
		run:      inMemory,
	},
}

func cutRow(name string, number int, node string, kill bool) row {
	how := map[bool]string{true: "kill -9", false: "node stop"}[kill]
	return row{
		name: name, number: number, attack: how + " of the node of the " + node + " with 20 half-done transfers", pause: -1, alone: true,
		promised: "client and target of each read a reset, none an end",
		run:      func(ctx context.Context, s *stage) (string, error) { return cutOff(ctx, s, node, kill) },
	}
}

// cutOff ends a node in the middle of transfers. Whose node goes on may keep its end for a while, to go on over another path; it must
// not end it as if all were well. The end of the node that went away is looked at.
func cutOff(ctx context.Context, s *stage, node string, kill bool) (string, error) {
	targets, release := s.target.take()
	defer release()
	var clients, servers []net.Conn
	for range 20 {
		c, err := dial(s.inlet)
		if err != nil {
			return "", err
		}
		defer c.Close()
		if _, err := c.Write([]byte("half of it")); err != nil {
			return "", err
		}
		select {
		case t := <-targets:
			defer t.Close()
			_ = t.SetDeadline(time.Now().Add(5 * time.Second))
			if _, err := io.ReadFull(t, make([]byte, 10)); err != nil {
				return "", err
			}
			clients, servers = append(clients, c), append(servers, t)
		case <-time.After(10 * time.Second):
			return "", fmt.Errorf("the target was not reached")
		}
	}
	if kill {
		if err := syscall.Kill(s.pid(node), syscall.SIGKILL); err != nil {
			return "", err
		}
	} else if _, err := s.cli(ctx, node, "node", "stop", node); err != nil {
		return "", err
	}
	near, far := servers, clients
	if node == "shop" {
		near, far = clients, servers
	}
	for i, c := range near {
		if err := reset(c, 10*time.Second); err != nil {
			return "", fmt.Errorf("connection %d of the node that went: %w", i, err)
		}
	}
	for i, c := range far {
		_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		if n, err := c.Read(make([]byte, 1)); err == io.EOF {
			return "", fmt.Errorf("connection %d of the other node: read %d bytes and an end", i, n)
		}
	}
	return fmt.Sprintf("%d of %d resets, no end", len(near), len(near)), nil
}

func restart(ctx context.Context, s *stage) (string, error) {
	var longest time.Duration
	for range 2 {
		var conns []net.Conn
		for range 2000 {
			c, err := net.DialTimeout("tcp", s.inlet, 5*time.Second)
			if err != nil {
				return "", err
			}
			defer c.Close()
			conns = append(conns, c)
		}
		began := time.Now()
		if _, err := s.cli(ctx, "shop", "node", "stop", "shop", "--force"); err != nil {
			return "", err
		}
		if _, err := s.cli(ctx, "shop", "node", "start", "shop"); err != nil {
			return "", err
		}
		longest = max(longest, time.Since(began))
		for _, c := range conns {
			c.Close()
		}
		if err := s.await(ctx, "the inlet carries data again", func() error { return once(s.inlet) }); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("stopped and started in %v at most", longest.Round(time.Millisecond)), nil
}

// inMemory looks for files that a node without a state directory leaves behind.
func inMemory(ctx context.Context, s *stage) (string, error) {
	tmp := filepath.Join(s.dir, "tmp")
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return "", err
	}
	files := func() map[string]bool {
		m := map[string]bool{}
		for _, dir := range []string{"/dev/shm", tmp, "/tmp", "/var/tmp", "/run"} {
			entries, _ := os.ReadDir(dir)
			for _, e := range entries {
				m[filepath.Join(dir, e.Name())] = true
			}
		}
		return m
	}
	before := files()
	port, err := freeport.Get()
	if err != nil {
		return "", err
	}
	at := fmt.Sprint("127.0.0.1:", port)
	out, err := os.Create(filepath.Join(s.dir, "in-memory.out"))
	if err != nil {
		return "", err
	}
	defer out.Close()
	cmd := exec.CommandContext(ctx, s.binary, "node", "create", "mem", "--in-memory", "--foreground", "--no-status-endpoint", "--tcp-listener-address", at)
	cmd.Env = append(s.env, "TMPDIR="+tmp, "HOME="+tmp, "SALLYPORT_HOME="+filepath.Join(s.dir, "nowhere"))
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return "", err
	}
	up := s.await(ctx, "the node listens", func() error {
		c, err := dial(at)
		if err == nil {
			c.Close()
		}
		return err
	})
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if up != nil {
		return "", up
	}
	left := 0
	for f := range files() {
		if before[f] {
			continue
		}
		var keys []string
		_ = filepath.WalkDir(f, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.Contains(path, "sallyport") && !strings.HasPrefix(path, tmp) {
				return nil
			}
			left++
			if name := filepath.Base(path); strings.HasPrefix(name, "x25519-") || strings.HasPrefix(name, "ed25519-") {
				keys = append(keys, path)
			}
			return nil
		})
		if len(keys) > 0 {
			return "", fmt.Errorf("left behind: %s", strings.Join(keys, ", "))
		}
		if strings.HasPrefix(filepath.Base(f), "sallyport-") {
			_ = os.RemoveAll(f)
		}
	}
	if _, err := os.Stat(filepath.Join(s.dir, "nowhere")); err == nil {
		return "", fmt.Errorf("it made its state directory")
	}
	return fmt.Sprintf("no key among %d files that are left", left), nil
}
