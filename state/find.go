package state

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// FoundNode is a process that runs a node of a state directory.
type FoundNode struct {
	// Name is the node's, or empty when nothing says it.
	Name    string
	Process Process
}

// FindRunning finds the processes that run nodes here, those among them whose record is broken or gone: by the records, by who
// answers at the nodes' sockets, and by the files and sockets that this user's processes hold open. The calling process is left out.
func (d *Dir) FindRunning() []FoundNode {
	seen := map[int]bool{os.Getpid(): true}
	var found []FoundNode
	add := func(name string, p Process) {
		if p.PID > 0 && !seen[p.PID] && p.Status() == Running {
			seen[p.PID] = true
			found = append(found, FoundNode{name, p})
		}
	}
	names, _ := entries(d.file("nodes"))
	for _, name := range names {
		if n, err := d.readNode(name); err == nil {
			add(name, n.Process)
		}
	}
	for _, name := range names {
		if s, err := d.SocketPath(name); err == nil {
			if p, ok := behind(s); ok {
				add(name, p)
			}
		}
	}
	for _, n := range d.holders() {
		add(n.Name, n.Process)
	}
	return found
}

// behind returns the process that listens at a Unix socket, if it is one of this user.
func behind(socket string) (Process, bool) {
	pid, ok := listener(socket)
	if !ok {
		return Process{}, false
	}
	p, err := FindProcess(pid)
	return p, err == nil
}

// listener returns the number of the process that listens at a Unix socket, if it is one of this user: the kernel says so, not the process.
func listener(socket string) (pid int, ok bool) {
	c, err := net.DialTimeout("unix", socket, time.Second)
	if err != nil {
		return 0, false
	}
	defer c.Close()
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, false
	}
	var cred *unix.Ucred
	if e := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); e != nil || err != nil {
		return 0, false
	}
	return int(cred.Pid), int(cred.Uid) == os.Geteuid()
}

// holders finds the processes of nodes by what they hold open: the log and the admin socket of a node, the store of an authority. Somebody who
// reads a log is no node: only processes that were started as one count.
func (d *Dir) holders() []FoundNode {
	sockets := d.boundSockets()
	processes, _ := os.ReadDir("/proc")
	var found []FoundNode
	for _, e := range processes {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || !startsNode(pid) {
			continue
		}
		links, _ := os.ReadDir(filepath.Join("/proc", e.Name(), "fd")) // none of another user's
		for _, link := range links {
			to, err := os.Readlink(filepath.Join("/proc", e.Name(), "fd", link.Name()))
			if err != nil {
				continue
			}
			path := strings.TrimSuffix(to, " (deleted)")
			if at, ok := sockets[to]; ok {
				path = at
			}
			name, ok := d.nodeOf(path)
			if !ok {
				continue
			}
			if p, err := FindProcess(pid); err == nil {
				found = append(found, FoundNode{name, p})
			}
			break
		}
	}
	return found
}

// startsNode reports whether a process is of this program, perhaps another version of it, and has the command line of one that runs a node.
func startsNode(pid int) bool {
	line, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err != nil || programName(pid) != programName(os.Getpid()) {
		return false
	}
	args := bytes.Split(line, []byte{0})
	has := func(words ...string) bool {
		for _, a := range args {
			for _, w := range words {
				if string(a) == w {
					return true
				}
			}
		}
		return false
	}
	return has("create", "run") && has("node", "authority", "run")
}

// programName is the name of the file that a process runs; a new version may have taken the file's place.
func programName(pid int) string {
	path, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "exe"))
	if err != nil {
		return ""
	}
	return filepath.Base(strings.TrimSuffix(path, " (deleted)"))
}

// nodeOf returns the name of the node that a file belongs to; empty for the store of an authority.
func (d *Dir) nodeOf(path string) (name string, ok bool) {
	rest, ok := strings.CutPrefix(path, d.path+string(filepath.Separator))
	if !ok {
		return "", false
	}
	if inside, ok := strings.CutPrefix(rest, "nodes"+string(filepath.Separator)); ok {
		name, _, _ = strings.Cut(inside, string(filepath.Separator))
		return name, true
	}
	return "", strings.HasPrefix(rest, "authority-")
}

// boundSockets returns the paths of Unix sockets by what a descriptor of them links to, "socket:[inode]".
func (d *Dir) boundSockets() map[string]string {
	table, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return nil
	}
	out := map[string]string{}
	for _, line := range strings.Split(string(table), "\n") {
		f := strings.Fields(line) // Num RefCount Protocol Flags Type St Inode Path
		if len(f) == 8 {
			out["socket:["+f[6]+"]"] = f[7]
		}
	}
	return out
}
