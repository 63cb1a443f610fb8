package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestCLITopKeys: keys sort, pause and end `top` on a terminal, which is as it was afterwards.
func TestCLITopKeys(t *testing.T) {
	t.Parallel()
	p := ours(t)
	p.must(t, "node", "create", "n1")
	p.must(t, "tcp-outlet", "create", "db", "--at", "n1", "--to", "127.0.0.1:1")
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	defer master.Close()
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	before, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	shown := ""
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := master.Read(b)
			if err != nil {
				return
			}
			mu.Lock()
			shown += string(b[:n])
			mu.Unlock()
		}
	}()
	until := func(what string) {
		t.Helper()
		for end := time.Now().Add(40 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			mu.Lock()
			text := shown
			found := strings.Contains(text, what)
			if found {
				shown = ""
			}
			mu.Unlock()
			if found {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%q is not shown:\n%q", what, text)
			}
		}
	}
	cmd := exec.Command(p.path, "top", "--at", "n1", "--every", "100ms")
	cmd.Dir, cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = p.dir, p.env, slave, slave, slave
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()
	for _, k := range []struct{ key, shows string }{
		{"", "IN ▼"}, {"o", "OUT ▼"}, {"c", "OPEN ▼"}, {"n", "NEW ▼"}, {"s", "P99 ▼"}, {"t", "TRIP ▼"}, {"r", "REFUSED ▼"}, {"i", "IN ▼"},
		{" ", "PAUSED"}, {" ", "space pauses"},
	} {
		if _, err := master.WriteString(k.key); err != nil {
			t.Fatal(err)
		}
		until(k.shows)
	}
	if _, err := master.WriteString("q"); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(40 * time.Second):
		t.Fatal("q does not end it")
	}
	until("\x1b[?1049l")
	after, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil || *after != *before {
		t.Errorf("the terminal is not as it was: %+v, %+v, %v", before, after, err)
	}
}
