package state

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// lockTimeout bounds how long a change waits for the lock when the caller's context has no earlier deadline. Critical sections take
// milliseconds; only a stopped process keeps the lock longer.
const lockTimeout = 10 * time.Second

// Dir is a state directory. Its methods may be called from several goroutines, and any number of processes may use the same
// directory. Methods that take a context change something: they wait for the lock until the context ends, and at most 10 s, and then
// fail with ErrLocked. All others only read.
type Dir struct {
	path string
	sem  chan struct{} // excludes goroutines of this process, cheaper than polling the file lock
}

// DefaultPath returns the directory that the environment selects: $SALLYPORT_HOME, else $OCKAM_HOME, else ~/.sallyport.
func DefaultPath() (string, error) {
	for _, name := range []string{"SALLYPORT_HOME", "OCKAM_HOME"} {
		if v := os.Getenv(name); v != "" {
			return filepath.Abs(v)
		}
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no state directory: set SALLYPORT_HOME: %w", err)
	}
	return filepath.Join(home, ".sallyport"), nil
}

// Open opens the state directory, and creates it with mode 0700 if it is not there. It refuses one that belongs to another user or
// that others may write to, as they could replace keys and trust (ErrUnsafe). There is nothing to close.
func Open(path string) (*Dir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(path, 0o700); err == nil {
			info, err = os.Stat(path)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if err := checkOwned(path, info, 0o022); err != nil {
		return nil, err
	}
	d := &Dir{path: path, sem: make(chan struct{}, 1)}
	if err := d.resume(); err != nil {
		return nil, err
	}
	return d, nil
}

// checkOwned makes sure that path is a directory of ours without any of the permissions in forbidden.
func checkOwned(path string, info fs.FileInfo, forbidden fs.FileMode) error {
	if !info.IsDir() {
		return fmt.Errorf("%w: %s is not a directory", ErrUnsafe, path)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%w: %s belongs to user %d, this program runs as user %d", ErrUnsafe, path, st.Uid, os.Geteuid())
	}
	if bits := info.Mode().Perm() & forbidden; bits != 0 {
		what := "written to"
		if forbidden&0o077 == 0o077 {
			what = "used"
		}
		return fmt.Errorf("%w: %s can be %s by others (mode %04o); run: chmod go-%s %s", ErrUnsafe, path, what, info.Mode().Perm(),
			map[bool]string{true: "rwx", false: "w"}[forbidden&0o077 == 0o077], path)
	}
	return nil
}

// Path returns the absolute path of the directory.
func (d *Dir) Path() string { return d.path }

func (d *Dir) file(elem ...string) string {
	return filepath.Join(append([]string{d.path}, elem...)...)
}

// locked runs f while no other process and no other goroutine changes the state. f must be short and must not call locked.
func (d *Dir) locked(ctx context.Context, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	select {
	case d.sem <- struct{}{}:
		defer func() { <-d.sem }()
	case <-ctx.Done():
		return d.lockError(ctx)
	}
	lock, err := d.lock(ctx)
	if err != nil {
		return err
	}
	defer lock.Close() // closing releases the lock
	return f()
}

// First runs f while no other process does the same for this kind of thing: so that what is made at first use, and what is named by what
// there is, is made once. f may change the state. It must not call First for the same kind. Unlike for a change, f may take as
// long as it takes to start a node: who waits does so until its context ends.
func (d *Dir) First(ctx context.Context, kind string, f func() error) error {
	release, err := d.LockFirst(ctx, kind)
	if err != nil {
		return err
	}
	defer release()
	return f()
}

// LockFirst is First for what is not one function. release may be called more than once.
func (d *Dir) LockFirst(ctx context.Context, kind string) (release func(), err error) {
	lock, err := d.lockFile(ctx, d.file("first-use-"+kind+".lock"))
	if err != nil {
		return nil, err
	}
	return func() { _ = lock.Close() }, nil // closing releases the lock
}

func (d *Dir) lock(ctx context.Context) (*os.File, error) { return d.lockFile(ctx, d.file(lockName)) }

// lockFile polls, because a blocking flock cannot be interrupted.
func (d *Dir) lockFile(ctx context.Context, path string) (*os.File, error) {
	for wait := time.Millisecond; ; wait = min(2*wait, 20*time.Millisecond) {
		// The directory may be gone after a Reset in another process.
		if err := os.MkdirAll(d.path, 0o700); err != nil {
			return nil, fmt.Errorf("state lock: %w", err)
		}
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, fmt.Errorf("state lock: %w", err)
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil && sameFile(f, path) {
			return f, nil
		}
		f.Close()
		switch {
		case err == nil:
			continue // Reset removed the file between our open and flock: take the new one
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return nil, fmt.Errorf("state lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: another process holds %s: %w", ErrLocked, path, ctx.Err())
		case <-time.After(wait):
		}
	}
}

func (d *Dir) lockError(ctx context.Context) error {
	return fmt.Errorf("%w: another process holds %s: %w", ErrLocked, d.file(lockName), ctx.Err())
}

func sameFile(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}

// Reset deletes everything that is this program's: all records and node directories, the stores of authorities, and the vaults that lie
// inside the state directory. It is the way out of state that is broken, so nothing has to be readable: what can be deleted is deleted, and
// the error tells of everything that could not be. It refuses while a node runs whose record can be read. Vaults elsewhere and unknown files
// stay; their paths are returned. The directory goes too if nothing else is in it.
func (d *Dir) Reset(ctx context.Context) (left []string, err error) {
	if info, err := os.Lstat(d.file(lockName)); err == nil && !info.Mode().IsRegular() {
		_ = os.RemoveAll(d.file(lockName)) // nobody can hold it
	}
	err = d.locked(ctx, func() error {
		nodes, _ := entries(d.file("nodes"))
		var running []string
		for _, name := range nodes {
			if n, err := d.readNode(name); err == nil && n.Status() == Running {
				running = append(running, fmt.Sprintf("running node %q", name))
			}
		}
		if len(running) > 0 {
			return &InUseError{Kind: "state directory", Name: d.path, By: running}
		}
		var vaults vaultsFile
		if d.readJSON(d.file("vaults.json"), &vaults) == nil {
			for _, v := range vaults.Vaults {
				if !d.inside(v.Path) {
					left = append(left, v.Path)
				}
			}
		}
		var errs []error
		remove := func(path string) {
			if err := os.RemoveAll(path); err != nil {
				errs = append(errs, err)
			}
		}
		for _, name := range nodes {
			if info, err := os.Lstat(d.file("nodes", name)); err == nil && !info.IsDir() {
				continue // no node; a link may lead to where nothing is ours
			}
			// The record goes first: a node directory without it is not a node, whatever happens next.
			remove(d.file("nodes", name, "node.json"))
			if s, err := d.SocketPath(name); err == nil {
				remove(s)
			}
		}
		list, err := os.ReadDir(d.path)
		if err != nil {
			errs = append(errs, err)
		}
		for _, e := range list {
			switch path := d.file(e.Name()); {
			case e.Name() == lockName:
			case isOwn(e.Name()):
				remove(path)
			default:
				left = append(left, path)
			}
		}
		_ = os.Remove(d.file(lockName))
		_ = os.Remove(d.path) // fails if something unknown is inside, which then stays
		if len(errs) > 0 {
			return fmt.Errorf("reset: not everything could be deleted: %w", errors.Join(errs...))
		}
		return nil
	})
	return left, err
}

// lockName is the file that is locked by whoever changes the state.
const lockName = "lock"

// ownNames are what this program keeps in a state directory, as in filepath.Match. The copies of broken files and what a crash left of a
// write are own too.
var ownNames = []string{"identities.json", "vaults.json", "nodes.json", "projects.json", pinsFile, "histories", "purpose_keys", "credentials", "vaults", "nodes",
	"authority-*.db", "authority-*.db.made", "first-use-*.lock", reserveName, readyName, movingName, replacedName + "*",
	"*.json.broken-*", ".*.tmp"}

func isOwn(name string) bool {
	for _, pattern := range ownNames {
		if ok, _ := filepath.Match(pattern, name); ok {
			return true
		}
	}
	return false
}

// inside reports whether path is a vault's place in the state directory.
func (d *Dir) inside(path string) bool { return filepath.Dir(path) == d.file("vaults") }
