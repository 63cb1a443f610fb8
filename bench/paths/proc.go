package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// tagVar marks every process of a path in its environment: its value is
// "<directory of the path>/<role>". Nodes that put themselves in the background
// (and so have no parent of ours) are found and ended by it.
const tagVar = "SALLYPORT_BENCH"

// clockTicks is the unit of utime and stime in /proc/PID/stat: USER_HZ, which is
// 100 on every architecture that Go supports on Linux.
const clockTicks = 100

// proc is one child process that the driver started and waits for.
type proc struct {
	role string
	cmd  *exec.Cmd
	done chan struct{} // closed once the process has been reaped
}

// childEnv is the environment of every child: small and the same on every
// machine, plus extra settings.
func childEnv(home string, extra ...string) []string {
	env := []string{
		"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin",
		"HOME=" + home,
		"LANG=C",
		"LC_ALL=C",
	}
	return append(env, extra...)
}

// lookTool finds a program on PATH, in the system administrator's folders, which are often not on an ordinary user's PATH, or
// in sallyport-tools/bin in the user's cache directory.
func lookTool(name string) (string, error) {
	if p, err := exec.LookPath(name); err == nil {
		return filepath.Abs(p)
	}
	dirs := []string{"/usr/sbin", "/sbin", "/usr/local/sbin"}
	if cache, err := os.UserCacheDir(); err == nil {
		dirs = append(dirs, filepath.Join(cache, "sallyport-tools", "bin"))
	}
	for _, dir := range dirs {
		p := filepath.Join(dir, name)
		if st, err := os.Stat(p); err == nil && !st.IsDir() && st.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, exec.ErrNotFound)
}

// spawn starts a long-lived child in a process group of its own. Its output goes
// to logPath.
func spawn(role, logPath string, env []string, name string, args ...string) (*proc, error) {
	return spawnAs(&syscall.SysProcAttr{Setpgid: true}, role, logPath, env, name, args...)
}

// spawnAs is spawn with attributes of its own, such as another user.
func spawnAs(attr *syscall.SysProcAttr, role, logPath string, env []string, name string, args ...string) (*proc, error) {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(name, args...)
	cmd.Env = env
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = attr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &proc{role: role, cmd: cmd, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // how it ended is told by its log
		close(p.done)
	}()
	return p, nil
}

// exited says whether the process has ended.
func (p *proc) exited() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// run executes a short command and returns its standard output. Both outputs go
// through files rather than pipes, since a node that stays in the background may
// keep them open. The whole process group is killed when ctx ends.
func run(ctx context.Context, dir string, env []string, name string, args ...string) (string, error) {
	outFile, err := os.CreateTemp(dir, "out")
	if err != nil {
		return "", err
	}
	defer os.Remove(outFile.Name())
	defer outFile.Close()
	errFile, err := os.CreateTemp(dir, "err")
	if err != nil {
		return "", err
	}
	defer os.Remove(errFile.Name())
	defer errFile.Close()

	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env, cmd.Dir = env, dir
	cmd.Stdout, cmd.Stderr = outFile, errFile
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	runErr := cmd.Run()
	out := readBack(outFile)
	if runErr != nil {
		if ctx.Err() != nil {
			runErr = ctx.Err()
		}
		return out, fmt.Errorf("%s %s: %w: %s", filepath.Base(name), abbreviate(strings.Join(args, " "), 80), runErr,
			lastLine(readBack(errFile)+"\n"+out))
	}
	return out, nil
}

// readBack returns the start of what a child wrote to f; 4 MiB is far more than
// any tool here prints.
func readBack(f *os.File) string {
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 4<<20))
	if err != nil {
		return ""
	}
	return string(b)
}

func abbreviate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n] + "..."
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return abbreviate(strings.TrimSpace(lines[len(lines)-1]), 200)
}

// processes returns, by role, the processes that belong to the path in dir:
// those tagged in their environment, the given children, and the descendants of
// both (sshd's sessions carry neither tag nor a known parent of ours).
func processes(dir string, children []*proc) map[string][]int {
	role := map[int]string{}
	parent := map[int]int{}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		st, err := readStat(pid)
		if err != nil || st.state == 'Z' {
			continue
		}
		parent[pid] = st.ppid
		if r, ok := tagOf(pid, dir); ok {
			role[pid] = r
		}
	}
	for _, c := range children {
		if !c.exited() {
			role[c.cmd.Process.Pid] = c.role
		}
	}
	for pid := range parent {
		if _, ok := role[pid]; ok {
			continue
		}
		// The walk is bounded: a snapshot of /proc may in theory hold a cycle.
		for p, depth := parent[pid], 0; p > 1 && depth < 16; p, depth = parent[p], depth+1 {
			if r, ok := role[p]; ok {
				role[pid] = r
				break
			}
		}
	}
	byRole := map[string][]int{}
	for pid, r := range role {
		byRole[r] = append(byRole[r], pid)
	}
	return byRole
}

func tagOf(pid int, dir string) (string, bool) {
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return "", false
	}
	prefix := []byte(tagVar + "=" + dir + "/")
	for _, kv := range bytes.Split(env, []byte{0}) {
		if r, ok := bytes.CutPrefix(kv, prefix); ok {
			return string(r), true
		}
	}
	return "", false
}

type procStat struct {
	state byte
	ppid  int
	ticks int64 // utime + stime of all threads
}

func readStat(pid int) (procStat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return procStat{}, err
	}
	return parseStat(string(b))
}

var errBadStat = errors.New("unexpected form of /proc/PID/stat")

// parseStat reads /proc/PID/stat. The command name in parentheses may hold
// spaces and parentheses itself, hence the search for the last one.
func parseStat(s string) (procStat, error) {
	i := strings.LastIndexByte(s, ')')
	if i < 0 {
		return procStat{}, errBadStat
	}
	f := strings.Fields(s[i+1:])
	if len(f) < 13 || len(f[0]) != 1 {
		return procStat{}, errBadStat
	}
	ppid, err1 := strconv.Atoi(f[1])
	utime, err2 := strconv.ParseInt(f[11], 10, 64)
	stime, err3 := strconv.ParseInt(f[12], 10, 64)
	if err := errors.Join(err1, err2, err3); err != nil {
		return procStat{}, fmt.Errorf("%w: %w", errBadStat, err)
	}
	return procStat{state: f[0][0], ppid: ppid, ticks: utime + stime}, nil
}

// cpuSeconds is the processor time that the processes have used so far.
func cpuSeconds(pids []int) float64 {
	var ticks int64
	for _, pid := range pids {
		if st, err := readStat(pid); err == nil {
			ticks += st.ticks
		}
	}
	return float64(ticks) / clockTicks
}

// resident is memory in KiB.
type resident struct {
	rss float64
	pss float64 // pages that several have are divided among them
	own float64 // anonymous pages: no file's, such as those of a program
}

// memory returns that of the processes together.
func memory(pids []int) (sum resident, err error) {
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return resident{}, err
		}
		m, err := parseSmaps(string(b))
		if err != nil {
			return resident{}, err
		}
		sum.rss, sum.pss, sum.own = sum.rss+m.rss, sum.pss+m.pss, sum.own+m.own
	}
	return sum, nil
}

func parseSmaps(s string) (m resident, err error) {
	wanted := map[string]*float64{"Rss:": &m.rss, "Pss:": &m.pss, "Anonymous:": &m.own}
	for line := range strings.Lines(s) {
		f := strings.Fields(line)
		if len(f) != 3 || f[2] != "kB" || wanted[f[0]] == nil {
			continue
		}
		if *wanted[f[0]], err = strconv.ParseFloat(f[1], 64); err != nil {
			return resident{}, err
		}
		delete(wanted, f[0])
	}
	if len(wanted) > 0 {
		return resident{}, errors.New("no Rss, Pss and Anonymous in smaps_rollup")
	}
	return m, nil
}

// endAll stops every process of the path in dir: politely, and after three
// seconds by force. It looks again until none is left, since a process may have
// been starting another one meanwhile.
func endAll(dir string, children []*proc) {
	sig := syscall.SIGTERM
	start := time.Now()
	signalled := map[int]bool{}
	for time.Since(start) < 6*time.Second {
		left := 0
		for _, pids := range processes(dir, children) {
			for _, pid := range pids {
				left++
				if sig == syscall.SIGKILL || !signalled[pid] {
					_ = syscall.Kill(pid, sig)
					signalled[pid] = true
				}
			}
		}
		reap(signalled, children)
		if left == 0 {
			break
		}
		if time.Since(start) > 3*time.Second {
			sig = syscall.SIGKILL
		}
		time.Sleep(30 * time.Millisecond)
	}
	for _, c := range children {
		select {
		case <-c.done:
		case <-time.After(time.Second):
		}
	}
}

// adoptOrphans makes this process the parent of background nodes whose own
// parent has ended, so that they can be waited for. Without it they would stay as
// zombies where nothing collects them, as in most containers.
func adoptOrphans() {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		logf("adopting background nodes: %v", err)
	}
}

// reap collects those of the processes that have ended, except the children that
// spawn waits for.
func reap(pids map[int]bool, children []*proc) {
	for pid := range pids {
		if slices.ContainsFunc(children, func(c *proc) bool { return c.cmd.Process.Pid == pid }) {
			continue
		}
		// An error means that it is somebody else's child: nothing to do.
		_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
	}
}
