package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// Limits of the logs of a node in the background, the reference's (docs/protocol/03 §7.4).
const (
	logSizeMB = 100 // OCKAM_LOG_MAX_SIZE_MB
	logFiles  = 60  // OCKAM_LOG_MAX_FILES, with the one that is written
)

// logFile is standard error of a node in the background: a file that makes way for a new one when it is large. Older ones are path.1,
// path.2 and so on.
type logFile struct {
	path string
	max  int64 // bytes
	keep int   // files

	mu   sync.Mutex
	size int64
}

// newLogFile takes over standard error, which the parent has opened as the file at path.
func newLogFile(path string) (*logFile, error) {
	l := &logFile{path: path}
	size, err := numberFrom("OCKAM_LOG_MAX_SIZE_MB", logSizeMB)
	if err != nil {
		return nil, err
	}
	l.max = int64(size) << 20
	if l.keep, err = numberFrom("OCKAM_LOG_MAX_FILES", logFiles); err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
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
	if l.size > 0 && l.size+int64(len(record)) > l.max {
		if err := l.rotate(); err != nil {
			fmt.Fprintf(os.Stderr, "the log cannot be rotated: %v\n", err)
		}
		l.size = 0
	}
	n, err := os.Stderr.Write(record)
	l.size += int64(n)
	return n, err
}

// rotate moves each file to the next number, the last one away, and makes standard error a new file.
func (l *logFile) rotate() error {
	name := func(i int) string {
		if i == 0 {
			return l.path
		}
		return l.path + "." + strconv.Itoa(i)
	}
	if l.keep == 1 {
		return os.Truncate(l.path, 0)
	}
	last := 1
	for ; last < l.keep-1; last++ {
		if _, err := os.Lstat(name(last)); errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	for i := last; i > 0; i-- {
		if err := os.Rename(name(i-1), name(i)); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	// What the runtime says of a crash goes there too.
	return unix.Dup3(int(f.Fd()), int(os.Stderr.Fd()), 0)
}
