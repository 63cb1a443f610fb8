package state

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Process names one process of this machine for good: a process number alone is given out again after its process has ended.
type Process struct {
	PID int `json:"pid"`
	// StartTime is when the process started, in clock ticks since boot (/proc/PID/task/PID/stat, field 22).
	StartTime uint64 `json:"start_time"`
	// Boot is the random id of the boot during which it ran (/proc/sys/kernel/random/boot_id).
	Boot string `json:"boot,omitempty"`
}

// Status is the state of a node's process. Its text is that of docs/protocol/03 §5.
type Status string

// The states of a node's process.
const (
	Running Status = "running"
	// Zombie: it has ended and its parent has not noticed yet.
	Zombie  Status = "zombie"
	Stopped Status = "stopped"
)

// CurrentProcess returns the calling process.
func CurrentProcess() (Process, error) { return FindProcess(os.Getpid()) }

// FindProcess describes the process that has this number now.
func FindProcess(pid int) (Process, error) {
	now, err := procStat(pid)
	if err != nil {
		return Process{}, fmt.Errorf("process %d: %w", pid, err)
	}
	return Process{PID: pid, StartTime: now.start, Boot: bootID()}, nil
}

// Status says whether this very process still runs.
func (p Process) Status() Status {
	if p.PID <= 0 {
		return Stopped
	}
	now, err := procStat(p.PID)
	if err != nil || now.start != p.StartTime || p.Boot != "" && p.Boot != bootID() {
		return Stopped
	}
	if now.ended() {
		return Zombie
	}
	return Running
}

// exists reports whether this user has a process of that number now, seen or not, in the boot of which the record speaks.
func (p Process) exists() bool {
	return p.PID > 0 && (p.Boot == "" || p.Boot == bootID()) && unix.Kill(p.PID, 0) == nil
}

// stat is what /proc/PID/task/PID/stat says of a process.
type stat struct {
	start   uint64
	state   byte // of the first thread
	threads int
}

// ended reports whether nothing of the process is left but its number. A process that was killed is a zombie as soon as its first thread
// has ended; as long as others have not, its descriptors are open: its ports are taken.
func (s stat) ended() bool {
	return (s.state == 'Z' || s.state == 'X' || s.state == 'x') && s.threads <= 1
}

// procStat reads the state of a process. The command name, in parentheses, may itself contain anything.
func procStat(pid int) (stat, error) {
	// That of the first thread has the same start, state and number of threads as /proc/PID/stat. That file is not the kernel's where a program for
	// another processor runs under qemu-user: qemu makes it up for the process itself, with a start of its own and zeros, and shows others the true one.
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/stat", pid))
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			return stat{}, err
		}
		return stat{}, fs.ErrNotExist
	}
	return parseStat(data)
}

func parseStat(data []byte) (s stat, err error) {
	f := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	const stateField, threadsField, startField = 0, 20 - 3, 22 - 3 // numbers in proc(5) count from 1, and the first two are before the parenthesis
	if len(f) <= startField || len(f[stateField]) != 1 {
		return s, errors.New("unexpected /proc/PID/task/PID/stat")
	}
	s.state = f[stateField][0]
	if s.threads, err = strconv.Atoi(f[threadsField]); err != nil {
		return s, fmt.Errorf("/proc/PID/task/PID/stat: number of threads: %w", err)
	}
	s.start, err = strconv.ParseUint(f[startField], 10, 64)
	return s, err
}

func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
