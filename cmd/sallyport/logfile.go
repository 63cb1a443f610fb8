package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of the logs of a node in the background, the reference's (docs/protocol/03 §7.4).
const (
	logSizeMB = 100 // OCKAM_LOG_MAX_SIZE_MB
	logFiles  = 60  // OCKAM_LOG_MAX_FILES, with the one that is written
)

// logFile is standard error of a node in the background: a file for each day (UTC), stdout.YYYY-MM-DD.log as the reference's, that makes way
// for a new one when it is large. Older ones of a day are named like it with .1, .2 and so on at the end.
type logFile struct {
	dir  string
	path string
	max  int64 // bytes
	keep int   // files
	now  func() time.Time

	mu   sync.Mutex
	size int64
}

// logName is the name of a node's log of a day.
func logName(day time.Time) string { return "stdout." + day.UTC().Format(time.DateOnly) + ".log" }

// logPath returns where a node logs now, in its directory, which is created.
func (a *app) logPath(node string) (string, error) {
	dir, err := a.dirOnce.NodeDir(node)
	return filepath.Join(dir, logName(time.Now())), err
}

// latestLog returns a node's log that was written to last.
func (a *app) latestLog(node string) (string, error) {
	dir, err := a.dirOnce.NodeDir(node)
	if err != nil {
		return "", err
	}
	logs := logsIn(dir)
	if len(logs) == 0 {
		return "", fmt.Errorf("there is no log file for the node %s", node)
	}
	return logs[0], nil
}

// logsIn returns the logs of a node's directory, that which was written to last first; of several of the same time the unnumbered one.
func logsIn(dir string) []string {
	list, _ := filepath.Glob(filepath.Join(dir, "stdout*"))
	written := map[string]time.Time{}
	for _, path := range list {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			written[path] = info.ModTime()
		}
	}
	return slices.SortedFunc(maps.Keys(written), func(a, b string) int {
		return cmp.Or(written[b].Compare(written[a]), cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
	})
}

// newLogFile takes over standard error, which the parent has opened as the file at path.
func newLogFile(path string) (*logFile, error) {
	l := &logFile{dir: filepath.Dir(path), path: path, now: time.Now}
	size, err := numberFrom("OCKAM_LOG_MAX_SIZE_MB", logSizeMB)
	if err != nil {
		return nil, err
	}
	l.max = int64(size) << 20
	if l.keep, err = numberFrom("OCKAM_LOG_MAX_FILES", logFiles); err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) { // standard error is the file of another day: the program was upgraded after midnight
		if err = l.open(); err == nil {
			info, err = os.Stat(path)
		}
	}
	if err != nil {
		return nil, err
	}
	l.size = info.Size()
	return l, nil
}

// numberFrom reads a number from 1 from the environment.
func numberFrom(name string, missing int) (int, error) {
	text := os.Getenv(name)
	if text == "" {
		return missing, nil
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return 0, usageError("the environment variable %s is %q; it must be a number from 1 to 65535", name, text)
	}
	return int(n), nil
}

// Write writes one record. When no new file can be made the old one grows on.
func (l *logFile) Write(record []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	today := filepath.Join(l.dir, logName(l.now()))
	if today != l.path || l.size > 0 && l.size+int64(len(record)) > l.max {
		if err := l.next(today); err != nil {
			fmt.Fprintf(os.Stderr, "the log cannot be rotated: %v\n", err)
		}
		l.size = 0
	}
	n, err := os.Stderr.Write(record)
	l.size += int64(n)
	return n, err
}

// next begins the log of a new day, or a new one of today, and deletes the oldest of all beyond those that are kept.
func (l *logFile) next(today string) error {
	if today == l.path {
		if l.keep == 1 {
			return os.Truncate(l.path, 0)
		}
		if err := shift(l.path); err != nil {
			return err
		}
	}
	l.path = today
	if err := l.open(); err != nil {
		return err
	}
	logs := logsIn(l.dir)
	for _, old := range logs[min(len(logs), l.keep):] {
		if err := os.Remove(old); err != nil {
			return err
		}
	}
	return nil
}

// shift moves a log and its older ones to the next number.
func shift(path string) error {
	name := func(i int) string {
		if i == 0 {
			return path
		}
		return path + "." + strconv.Itoa(i)
	}
	last := 1
	for ; ; last++ {
		if _, err := os.Lstat(name(last)); errors.Is(err, fs.ErrNotExist) {
			break
		} else if err != nil {
			return err
		}
	}
	for i := last; i > 0; i-- {
		if err := os.Rename(name(i-1), name(i)); err != nil {
			return err
		}
	}
	return nil
}

// open makes standard error the file at l.path.
func (l *logFile) open() error {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	// What the runtime says of a crash goes there too.
	return unix.Dup3(int(f.Fd()), int(os.Stderr.Fd()), 0)
}
