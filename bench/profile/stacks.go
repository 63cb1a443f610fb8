// Package profile reads samples of stacks from perf, sorts them into the stages of the way of a byte, and draws them as flame graphs.
package profile

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// Frame is a function on a stack.
type Frame struct {
	Name   string
	Kernel bool
}

// Stack is a sample, the innermost frame first.
type Stack []Frame

// maxDepth bounds a stack: what is deeper is cut off at the outer end.
const maxDepth = 128

// Read reads the output of `perf script -F comm,ip,sym`: for each sample a line with the program's name, one line for each frame from the inside out, an empty line.
func Read(r io.Reader) ([]Stack, error) {
	var all []Stack
	var now Stack
	end := func() {
		if len(now) > 0 {
			all = append(all, now)
		}
		now = nil
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		switch {
		case strings.TrimSpace(line) == "":
			end()
		case line[0] != '\t' && line[0] != ' ':
			end()
		case len(now) < maxDepth:
			address, name, _ := strings.Cut(strings.TrimSpace(line), " ")
			if name = strings.TrimSpace(name); name == "" || name == "[unknown]" {
				name = "unknown"
			}
			// The kernel's half of the addresses has its highest bit set; perf prints them without leading zeros.
			now = append(now, Frame{Name: name, Kernel: len(address) == 16 && address[0] >= '8'})
		}
	}
	end()
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("output of perf script: %w", err)
	}
	return all, nil
}

// Stages of the way of a byte, in the order in which they are shown.
const (
	StageSeal    = "AES-GCM"
	StageCopy    = "kernel: copies"
	StageTCP     = "kernel: TCP and loopback"
	StageWake    = "kernel: epoll, wake-ups, scheduler"
	StageKernel  = "kernel: the rest"
	StageRuntime = "Go's scheduler and memory"
	StageProgram = "Sallyport's own code"
	StageOther   = "other programs' own code"
)

// Stages are all of them.
var Stages = []string{StageSeal, StageCopy, StageTCP, StageWake, StageKernel, StageRuntime, StageProgram, StageOther}

// Words of kernel functions.
var (
	copyWords = []string{"copy_user", "rep_movs", "copy_to_iter", "copy_from_iter", "copyin", "copyout", "copy_page", "clear_page", "memcpy", "skb_copy_datagram", "csum_and_copy", "copy_from_user", "copy_to_user"}
	wakeWords = []string{"epoll", "ep_", "futex", "schedule", "try_to_wake", "wake_up", "eventfd", "timerfd", "hrtimer", "nanosleep", "dequeue", "enqueue", "update_curr", "pick_next", "switch_to", "default_wake"}
	tcpWords  = []string{"tcp_", "ip_", "inet_", "sock_", "skb", "net_rx", "netif", "dev_", "loopback", "napi", "nf_", "__sys_send", "__sys_recv", "process_backlog", "__local_bh"}
)

// Stage says to which stage a sample belongs: what its innermost frame does, or on whose behalf the kernel does it.
func (s Stack) Stage() string {
	if len(s) == 0 {
		return StageOther
	}
	leaf := s[0]
	if leaf.Kernel {
		if holds(leaf.Name, copyWords) {
			return StageCopy
		}
		for _, f := range s { // from the inside out: the first that says what it is about
			if !f.Kernel {
				break
			}
			switch {
			case holds(f.Name, wakeWords):
				return StageWake
			case holds(f.Name, tcpWords):
				return StageTCP
			}
		}
		return StageKernel
	}
	for _, f := range s {
		switch {
		case f.Kernel:
		case strings.HasPrefix(f.Name, "sallyport/crypto/aead."), strings.Contains(f.Name, "/gcm."), strings.HasPrefix(f.Name, "crypto/aes"):
			return StageSeal
		case strings.HasPrefix(f.Name, "sallyport/"), strings.HasPrefix(f.Name, "main."):
			if strings.HasPrefix(leaf.Name, "runtime.") && !strings.HasPrefix(leaf.Name, "runtime.mem") {
				return StageRuntime
			}
			return StageProgram
		}
	}
	if strings.HasPrefix(leaf.Name, "runtime.") || strings.HasPrefix(leaf.Name, "gcWriteBarrier") {
		return StageRuntime
	}
	return StageOther
}

func holds(name string, words []string) bool {
	for _, w := range words {
		if strings.Contains(name, w) {
			return true
		}
	}
	return false
}

// ByStage counts samples by their stage.
func ByStage(all []Stack) map[string]int {
	count := map[string]int{}
	for _, s := range all {
		count[s.Stage()]++
	}
	return count
}
