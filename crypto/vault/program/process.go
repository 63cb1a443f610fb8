package program

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Process is another program, started when it is needed. One request is under way at a time.
type Process struct {
	// Program is its name: it is beside this program, or in PATH. Made is the command that builds it, for people.
	Program, Made string
	// Wait is how long an answer is waited for.
	Wait time.Duration
	// Idle, if set, is after how long without a request it is ended.
	Idle time.Duration
	// Env reports whether the program is given a variable of the environment. Those of sallyport are not asked for.
	Env func(name string) bool

	mu    sync.Mutex
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *os.File
	quiet *time.Timer
}

// Find returns the path of the program: beside this one, else in PATH.
func (p *Process) Find() (string, error) {
	if self, err := os.Executable(); err == nil {
		if path := filepath.Join(filepath.Dir(self), p.Program); isProgram(path) {
			return path, nil
		}
	}
	path, err := exec.LookPath(p.Program)
	if err != nil {
		return "", fmt.Errorf("the program %s is not installed: put it beside sallyport (%s builds it)", p.Program, p.Made)
	}
	return path, nil
}

func isProgram(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}

// environment is what the program is given.
func (p *Process) environment() []string {
	var env []string
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if !strings.HasPrefix(name, "SALLYPORT_") && !strings.HasPrefix(name, "OCKAM_") && name != "ENROLLMENT_TICKET" && p.Env(name) {
			env = append(env, v)
		}
	}
	return env
}

// Start starts the program if it does not run.
func (p *Process) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.startLocked()
}

func (p *Process) startLocked() error {
	if p.cmd != nil {
		return nil
	}
	path, err := p.Find()
	if err != nil {
		return err
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd := exec.Command(path)
	cmd.Env, cmd.Dir, cmd.Stdout = p.environment(), "/", outW
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a terminal's Ctrl-C is for this process
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	outW.Close()
	if err != nil {
		return errors.Join(fmt.Errorf("start %s: %w", path, err), outR.Close())
	}
	p.cmd, p.in, p.out = cmd, in, outR
	return nil
}

// Ask sends a request and reads the answer into resp. After an error the program is ended, and started again with the next request.
func (p *Process) Ask(ctx context.Context, req, resp any) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := p.startLocked(); err != nil {
		return err
	}
	if p.quiet != nil {
		p.quiet.Stop()
	}
	wait := time.Now().Add(p.Wait)
	if at, ok := ctx.Deadline(); ok && at.Before(wait) {
		wait = at
	}
	_ = p.out.SetReadDeadline(wait)
	interrupted := context.AfterFunc(ctx, func() { _ = p.out.SetReadDeadline(time.Unix(1, 0)) })
	defer interrupted()
	err := WriteMessage(p.in, req)
	if err == nil {
		err = ReadMessage(p.out, resp)
	}
	if err != nil {
		p.stopLocked()
		switch {
		case ctx.Err() != nil:
			err = ctx.Err()
		case errors.Is(err, os.ErrDeadlineExceeded):
			err = errors.New("it does not answer")
		case errors.Is(err, io.EOF):
			err = errors.New("it has ended")
		}
		return err
	}
	if p.Idle > 0 {
		p.quiet = time.AfterFunc(p.Idle, p.Stop)
	}
	return nil
}

// Stop ends the program, if it runs.
func (p *Process) Stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopLocked()
}

func (p *Process) stopLocked() {
	if p.cmd == nil {
		return
	}
	_ = p.in.Close() // it ends with its input
	cmd, out := p.cmd, p.out
	p.cmd = nil
	kill := time.AfterFunc(2*time.Second, func() { _ = cmd.Process.Kill() })
	go func() {
		_ = cmd.Wait()
		kill.Stop()
		_ = out.Close()
	}()
}
