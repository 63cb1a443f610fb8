package authority

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

func (s *boltDatabase) Copy(_ context.Context, w io.Writer) error { return copyBolt(s.db, w) }

func copyBolt(db *bolt.DB, w io.Writer) error {
	return db.View(func(tx *bolt.Tx) error {
		_, err := tx.WriteTo(w)
		return err
	})
}

// Snapshot is a copy of a store in a file without a name, which goes when it is closed.
type Snapshot struct {
	*os.File
	Size int64
}

// TakeSnapshot copies a store into a directory with room for it. So the store does not wait for who reads the copy.
func TakeSnapshot(ctx context.Context, s Store, dir string) (*Snapshot, error) {
	return snapshot(dir, func(w io.Writer) error { return s.Copy(ctx, w) })
}

// FileSnapshot is TakeSnapshot for a store that no process has open; else the error is ErrStoreBusy.
func FileSnapshot(path, dir string) (*Snapshot, error) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: openTimeout, ReadOnly: true})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("%w: %s", ErrStoreBusy, path)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrStoreBroken, path, err)
	}
	defer db.Close() // nothing was written
	return snapshot(dir, func(w io.Writer) error { return copyBolt(db, w) })
}

func snapshot(dir string, write func(io.Writer) error) (*Snapshot, error) {
	f, err := os.CreateTemp(dir, ".authority-*.tmp")
	if err == nil {
		err = os.Remove(f.Name())
	}
	if err != nil {
		return nil, fmt.Errorf("authority: copy of the store: %w", err)
	}
	err = write(f)
	var size int64
	if err == nil {
		size, err = f.Seek(0, io.SeekCurrent)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("authority: copy of the store: %w", err), f.Close())
	}
	return &Snapshot{File: f, Size: size}, nil
}

// Restored makes the copy of a store ready for use in place of the store: whatever has happened since the copy was made, at a time, is not known to it. Its
// list of revocations is a new one, so that nodes ask for all of it; and its tickets are revoked, since they may have been used, unless
// keepTickets is set. The audit trail goes on. It returns how many tickets were revoked.
func Restored(ctx context.Context, path string, made time.Time, keepTickets bool) (revoked int, err error) {
	if info, err := os.Stat(path); err != nil || info.Size() == 0 {
		return 0, fmt.Errorf("%w: %s is empty", ErrStoreBroken, path)
	}
	db, err := OpenDatabase(path)
	if err != nil {
		return 0, err
	}
	err = db.Update(ctx, func(tx Tx) error {
		now := originOf(ctx).Time
		list, err := tx.Revocations(0, 0)
		if err != nil {
			return err
		}
		if err := tx.SetRevocationList(NewListName(), list.Head); err != nil {
			return err
		}
		if err := record(tx, AuditEntry{Time: now, Event: EventRestored, Reason: "backup of " + made.UTC().Format(time.RFC3339)}); err != nil || keepTickets {
			return err
		}
		var tokens []Token
		if err := tx.Tokens(func(t Token) error { tokens = append(tokens, t); return nil }); err != nil {
			return err
		}
		for _, t := range tokens {
			if err := spend(tx, t, CodeRevoked, now); err != nil {
				return err
			}
			if err := record(tx, AuditEntry{Time: now, Event: EventTicketRevoked, Ticket: t.Reference, Reason: EventRestored}); err != nil {
				return err
			}
		}
		revoked = len(tokens)
		return nil
	})
	if err != nil {
		err = fmt.Errorf("authority: %s: %w", filepath.Base(path), err)
	}
	return revoked, errors.Join(err, db.Close())
}

// Save writes the copy to a new file that only its owner may read.
func (s *Snapshot) Save(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("authority: copy of the store: %w", err)
	}
	_, err = io.Copy(f, s)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("authority: copy of the store: %w", err)
	}
	return nil
}
