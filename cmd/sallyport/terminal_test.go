package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal runs a command line on a terminal and types an answer after each prompt that it waits for.
func (p *program) terminal(t *testing.T, answers [][2]string, args ...string) outcome {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	defer master.Close()
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.path, args...)
	cmd.Dir, cmd.Env = p.dir, p.env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	var mu sync.Mutex
	var seen bytes.Buffer
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 4096)
		for {
			n, err := master.Read(b)
			mu.Lock()
			seen.Write(b[:n])
			mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	from := 0
	for _, a := range answers {
		eventually(t, "the prompt "+a[0], func() bool {
			mu.Lock()
			defer mu.Unlock()
			at := strings.Index(seen.String()[from:], a[0])
			if at >= 0 {
				from += at + len(a[0])
			}
			return at >= 0
		})
		eventually(t, "a prompt without echo", func() bool { // it is shown just before the echo is turned off
			state, err := unix.IoctlGetTermios(int(master.Fd()), unix.TCGETS)
			return err == nil && state.Lflag&unix.ECHO == 0
		})
		if _, err := master.WriteString(a[1] + "\n"); err != nil {
			t.Fatal(err)
		}
	}
	_ = cmd.Wait()
	select { // a node in the background may hold nothing of the terminal
	case <-done:
	case <-ctx.Done():
		t.Error("the terminal stays open")
	}
	mu.Lock()
	defer mu.Unlock()
	return outcome{cmd.ProcessState.ExitCode(), seen.String(), ""}
}
