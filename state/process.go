package state

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// Process names one process of this machine for good: a process number alone is given out again after its process has ended.
type Process struct {
	PID int `json:"pid"`
	// StartTime is when the process started, in clock ticks since boot (/proc/PID/stat, field 22).
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
	start, _, err := procStat(pid)
	if err != nil {
		return Process{}, fmt.Errorf("process %d: %w", pid, err)
	}
	return Process{PID: pid, StartTime: start, Boot: bootID()}, nil
}

// Status says whether this very process still runs.
func (p Process) Status() Status {
	if p.PID <= 0 {
		return Stopped
	}
	start, state, err := procStat(p.PID)
	if err != nil || start != p.StartTime || p.Boot != "" && p.Boot != bootID() {
		return Stopped
	}
	if state == 'Z' || state == 'X' || state == 'x' {
		return Zombie
	}
	return Running
}

// procStat reads start time and state of a process. The command name, in parentheses, may itself contain anything.
func procStat(pid int) (start uint64, state byte, err error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			return 0, 0, err
		}
		return 0, 0, fs.ErrNotExist
	}
	return parseStat(data)
}

func parseStat(data []byte) (start uint64, state byte, err error) {
	f := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	const stateField, startField = 0, 22 - 3 // numbers in proc(5) count from 1, and the first two are before the parenthesis
	if len(f) <= startField || len(f[stateField]) != 1 {
		return 0, 0, errors.New("unexpected /proc/PID/stat")
	}
	start, err = strconv.ParseUint(f[startField], 10, 64)
	return start, f[stateField][0], err
}

func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
