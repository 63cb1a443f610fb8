package limits

import (
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Descriptors returns how many descriptors this process may have open.
func Descriptors() int {
	var r unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &r) != nil {
		return 1024
	}
	return int(min(r.Cur, 1<<20))
}

// systemMemory returns what this process may use: the least of GOMEMLIMIT and 90 % of the limit of its control group, 0 without either.
func systemMemory() Bytes {
	limit := Bytes(math.MaxInt64)
	if n := debug.SetMemoryLimit(-1); n < math.MaxInt64 {
		limit = Bytes(n)
	}
	if n, ok := groupMemory("/proc/self/cgroup", "/sys/fs/cgroup"); ok {
		limit = min(limit, Bytes(n/10*9))
	}
	if limit == math.MaxInt64 {
		return 0
	}
	return limit
}

// groupMemory returns the least limit of memory of the control group that the process is in and of those above it (cgroups(7)).
// Both versions of control groups are asked.
func groupMemory(list, root string) (limit int64, ok bool) {
	b, err := os.ReadFile(list)
	if err != nil {
		return 0, false
	}
	limit = math.MaxInt64
	for _, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		f := strings.SplitN(line, ":", 3)
		if len(f) != 3 {
			continue
		}
		dir, file := root, "memory.max"
		if f[1] != "" {
			if !hasController(f[1], "memory") {
				continue
			}
			dir, file = filepath.Join(root, "memory"), "memory.limit_in_bytes"
		}
		// In a container with a view of its own the path is that of the host, and the root is the group itself.
		for path := filepath.Clean("/" + f[2]); ; path = filepath.Dir(path) {
			if text, err := os.ReadFile(filepath.Join(dir, path, file)); err == nil {
				if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && n > 0 && n < 1<<60 {
					limit = min(limit, n)
				}
			}
			if path == "/" {
				break
			}
		}
	}
	return limit, limit < math.MaxInt64
}

func hasController(list, name string) bool {
	for _, c := range strings.Split(list, ",") {
		if c == name {
			return true
		}
	}
	return false
}
