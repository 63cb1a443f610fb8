// Package sandbox takes from a node's process what it does not need once it runs: writing anywhere but in its own directories (landlock),
// and system calls with which a process takes over others or the machine (seccomp). A fault that lets a peer run code in a node then
// ends there. Both need no privilege; what the kernel does not have is left out.
package sandbox

import (
	"fmt"
	"strings"

	seccomp "github.com/elastic/go-seccomp-bpf"
)

// denied are the system calls that a node never makes. They fail with EPERM.
var denied = []string{
	"acct", "add_key", "bpf", "delete_module", "finit_module", "init_module", "kcmp", "kexec_file_load", "kexec_load", "keyctl",
	"lookup_dcookie", "mount", "move_pages", "name_to_handle_at", "open_by_handle_at", "perf_event_open", "personality", "pivot_root",
	"process_vm_readv", "process_vm_writev", "ptrace", "quotactl", "reboot", "request_key", "setdomainname", "sethostname", "setns",
	"swapoff", "swapon", "syslog", "umount2", "unshare", "userfaultfd", "vhangup",
}

// Confine restricts this process, for good and with all its threads: it may write below the directories given and nowhere else, and
// make none of the denied calls. Programs that it starts are restricted too. It returns what is in force, such as "landlock, seccomp",
// and an error for what the kernel has but refused.
func Confine(writable []string) (inForce string, err error) {
	var parts []string
	if inLandlock, err := confineFiles(writable); err != nil {
		return "", err
	} else if inLandlock {
		parts = append(parts, "landlock")
	}
	if seccomp.Supported() {
		filter := seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync, Policy: seccomp.Policy{
			DefaultAction: seccomp.ActionAllow,
			Syscalls:      []seccomp.SyscallGroup{{Action: seccomp.ActionErrno, Names: denied}},
		}}
		if err := seccomp.LoadFilter(filter); err != nil {
			return strings.Join(parts, ", "), fmt.Errorf("sandbox: seccomp: %w", err)
		}
		parts = append(parts, "seccomp")
	}
	return strings.Join(parts, ", "), nil
}
