package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// processes keeps track of all that the driver started, directly or not.
//
// Nodes go to the background, so they are no children of the driver at first.
// Two things find them again: the driver adopts orphans (child subreaper), and
// every process that is ours has an OCKAM_HOME under the driver's directory in
// its environment.
type processes struct {
	root string // directory above all state directories

	mu    sync.Mutex
	waits map[int]bool // processes that os/exec waits for; the reaper leaves these alone
	stop  chan struct{}
	done  chan struct{}
}

// newProcesses makes the driver the adoptive parent of background nodes.
func newProcesses(root string) (*processes, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("become child subreaper: %w", err)
	}
	p := &processes{root: root, waits: map[int]bool{}, stop: make(chan struct{}), done: make(chan struct{})}
	go p.reap()
	return p, nil
}

// run starts a command and waits for it.
func (p *processes) run(cmd *exec.Cmd) error {
	if err := p.start(cmd); err != nil {
		return err
	}
	return p.wait(cmd)
}

func (p *processes) start(cmd *exec.Cmd) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	p.waits[cmd.Process.Pid] = true
	return nil
}

func (p *processes) wait(cmd *exec.Cmd) error {
	err := cmd.Wait()
	p.mu.Lock()
	delete(p.waits, cmd.Process.Pid)
	p.mu.Unlock()
	return err
}

// reap collects adopted processes that ended. Otherwise a killed node would
// stay a zombie, and its program would believe that it still runs.
func (p *processes) reap() {
	defer close(p.done)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-tick.C:
			p.reapOnce()
		}
	}
}

func (p *processes) reapOnce() {
	entries, _ := filepath.Glob("/proc/self/task/*/children")
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range entries {
		text, err := os.ReadFile(e)
		if err != nil {
			continue
		}
		for field := range strings.FieldsSeq(string(text)) {
			pid, err := strconv.Atoi(field)
			if err == nil && !p.waits[pid] {
				syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
			}
		}
	}
}

// alive says whether a process exists and is no zombie.
func alive(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	// The state follows the name, which stands in parentheses and may contain anything.
	_, rest, _ := strings.Cut(string(text[strings.LastIndexByte(string(text), ')'):]), " ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

// belongsTo says whether a process has its state in a directory of the driver.
func belongsTo(pid int, dir string) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return false
	}
	for entry := range strings.SplitSeq(string(text), "\x00") {
		if value, ok := strings.CutPrefix(entry, "OCKAM_HOME="); ok {
			return value == dir || strings.HasPrefix(value, dir+"/")
		}
	}
	return false
}

// killUnder kills every process with its state under dir, and says how many there were.
func (p *processes) killUnder(dir string) int {
	killed := 0
	for range 50 {
		found := 0
		entries, _ := os.ReadDir("/proc")
		for _, e := range entries {
			pid, err := strconv.Atoi(e.Name())
			if err != nil || pid == os.Getpid() || !alive(pid) || !belongsTo(pid, dir) {
				continue
			}
			found++
			if syscall.Kill(pid, syscall.SIGKILL) == nil {
				killed++
			}
		}
		if found == 0 {
			break
		}
		time.Sleep(20 * time.Millisecond) // and look again: one of them may have started another
	}
	return killed
}

// close kills all that is left and stops reaping.
func (p *processes) close() {
	p.killUnder(p.root)
	p.reapOnce()
	close(p.stop)
	<-p.done
}
