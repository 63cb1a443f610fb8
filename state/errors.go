package state

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// Errors that callers may want to tell apart.
var (
	// ErrNotFound: there is no such thing. See NotFoundError.
	ErrNotFound = errors.New("not found")
	// ErrExists: the name or identifier is taken.
	ErrExists = errors.New("already exists")
	// ErrInUse: something else still needs what was to be deleted or moved. See InUseError.
	ErrInUse = errors.New("in use")
	// ErrName: the name contains something else than word characters, '_' and '-'.
	ErrName = errors.New("invalid name")
	// ErrLocked: another process kept the lock for too long.
	ErrLocked = errors.New("state is locked")
	// ErrUnsafe: somebody else could change the directory.
	ErrUnsafe = errors.New("unsafe directory")
	// ErrBroken: a file cannot be understood. See BrokenFileError.
	ErrBroken = errors.New("broken file")
	// ErrNewer: a file was written by a later version of this program.
	ErrNewer = errors.New("written by a newer version")
)

// NotFoundError says what was looked for.
type NotFoundError struct {
	// Kind is "identity", "vault", "node", "project", "credential", "change history" or "purpose key".
	Kind string
	// Name is the name or identifier, or empty if the default was asked for.
	Name string
}

func (e *NotFoundError) Error() string {
	if e.Name == "" {
		return fmt.Sprintf("there is no default %s", e.Kind)
	}
	return fmt.Sprintf("there is no %s %q", e.Kind, e.Name)
}

// Is reports ErrNotFound.
func (e *NotFoundError) Is(target error) bool { return target == ErrNotFound }

// InUseError says what still needs the thing.
type InUseError struct {
	// Kind and Name say which thing.
	Kind, Name string
	// By lists the users, such as `node "n1"`.
	By []string
}

func (e *InUseError) Error() string {
	return fmt.Sprintf("%s %q is in use by %s", e.Kind, e.Name, strings.Join(e.By, ", "))
}

// Is reports ErrInUse.
func (e *InUseError) Is(target error) bool { return target == ErrInUse }

// BrokenFileError says that a file of the state directory cannot be understood. The file is left as it is and nothing overwrites it
// until somebody repaired or removed it.
type BrokenFileError struct {
	// Path is the file.
	Path string
	// Copy is a copy of its content made when the fault was found, or empty if that failed too.
	Copy string
	// Err says what is wrong.
	Err error

	mend string // what to do; empty: repair or remove the file
}

func (e *BrokenFileError) Error() string {
	s := fmt.Sprintf("%s is broken: %v", e.Path, e.Err)
	if e.Copy != "" {
		s += "; a copy is in " + e.Copy
	}
	return s + "; " + cmp.Or(e.mend, "repair or remove the file")
}

// Is reports ErrBroken.
func (e *BrokenFileError) Is(target error) bool { return target == ErrBroken }

// Unwrap returns what is wrong with the content.
func (e *BrokenFileError) Unwrap() error { return e.Err }

// maxName keeps names usable as file names next to prefixes and suffixes of ours.
const maxName = 128

var validName = regexp.MustCompile(`^[\p{L}\p{N}_-]+$`)

// CheckName reports whether a name of an identity, vault or node is valid: word characters (letters, digits), '_' and '-'
// (docs/protocol/03 §7.5). Such a name is safe as a file name.
func CheckName(kind, name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: the name of the %s is empty", ErrName, kind)
	case len(name) > maxName:
		return fmt.Errorf("%w: the name of the %s has %d bytes, at most %d are allowed", ErrName, kind, len(name), maxName)
	case !validName.MatchString(name):
		return fmt.Errorf("%w: %s %q: only letters, digits, '_' and '-' are allowed", ErrName, kind, name)
	}
	return nil
}

func exists(kind, name string) error { return fmt.Errorf("%s %q %w", kind, name, ErrExists) }
