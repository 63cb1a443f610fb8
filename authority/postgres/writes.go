package postgres

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/authority"
	"sallyport/internal/database"
)

const (
	// tries is how often a transaction is run at most that failed since another one, or the connection, was in its way.
	tries = 6
	// maxGroup is how many callers' changes are one transaction at most.
	maxGroup = 128
)

// errClosed reports a database that was closed.
var errClosed = errors.New("authority: the store is closed")

// write is what a caller wants written.
type write struct {
	f    func(authority.Tx) error
	done chan error
}

// writes puts together what callers want written while a transaction is on its way. The zero value with d is ready.
type writes struct {
	d *Database

	mu      sync.Mutex
	waiting []*write
	running bool
	closed  bool
	runners sync.WaitGroup
}

// do has f run in a transaction, and returns when it is committed or failed.
func (w *writes) do(ctx context.Context, f func(authority.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	call := &write{f, make(chan error, 1)}
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return errClosed
	}
	w.waiting = append(w.waiting, call)
	if !w.running {
		w.running = true
		w.runners.Go(w.run)
	}
	w.mu.Unlock()
	return <-call.done // bounded by patience, for this call and the group before it
}

func (w *writes) close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.runners.Wait()
}

// take returns the next group, nil if nobody waits.
func (w *writes) take(limit int) []*write {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := min(len(w.waiting), limit)
	group := w.waiting[:n:n]
	w.waiting = w.waiting[n:]
	if n == 0 {
		w.running, w.waiting = false, nil
	}
	return group
}

// run writes groups until nobody waits.
func (w *writes) run() {
	for group := w.take(maxGroup); len(group) > 0; group = w.take(maxGroup) {
		ctx, cancel := context.WithTimeout(context.Background(), w.d.patience)
		err := w.d.commit(ctx, group)
		cancel()
		if err == nil {
			continue
		}
		// Who came meanwhile has waited as long, for a database that is away.
		if errors.Is(err, authority.ErrStoreAway) {
			for _, call := range w.take(1 << 30) {
				call.done <- err
			}
		}
	}
}

// commit writes a group, and answers all of it. The error is that of the database.
func (d *Database) commit(ctx context.Context, group []*write) error {
	var err error
	for try := 0; len(group) > 0; try++ {
		var failed *write
		var answers map[*write]error
		failed, answers, err = d.attempt(ctx, group)
		if err == nil {
			_ = d.note(nil)
			for _, call := range group {
				call.done <- answers[call]
			}
			return nil
		}
		if failed != nil { // the caller's own fault, after it wrote: the others begin anew without it
			failed.done <- err
			rest := group[:0:0]
			for _, call := range group {
				if call != failed {
					rest = append(rest, call)
				}
			}
			group, err = rest, nil
			continue
		}
		if database.MayRetry(err) && ctx.Err() == nil && try < tries && !errors.Is(err, errOutcomeUnknown) {
			pause(ctx, try)
			continue
		}
		err = d.note(err)
		if len(group) > 1 && !errors.Is(err, authority.ErrStoreAway) && !errors.Is(err, errOutcomeUnknown) {
			// One of them is what the database refuses: each by itself.
			for _, call := range group {
				if one := d.commit(ctx, []*write{call}); one != nil {
					err = one
				}
			}
			return err
		}
		for _, call := range group {
			call.done <- err
		}
		return err
	}
	return err
}

// attempt runs a group in one transaction. failed is the call whose own error ends the transaction.
func (d *Database) attempt(ctx context.Context, group []*write) (failed *write, answers map[*write]error, err error) {
	t, err := d.pool.Begin(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		// Rollback does nothing after a commit. A connection on which it fails is closed.
		_ = t.Rollback(ctx)
	}()
	w := &tx{ctx: ctx, q: t}
	id, err := w.lock()
	if err != nil {
		return nil, nil, err
	}
	answers = map[*write]error{}
	for _, call := range group {
		before := w.changes
		err := call.f(w)
		switch {
		case w.err != nil:
			return nil, nil, w.err
		case err != nil && w.changes != before:
			return call, nil, err
		}
		answers[call] = err
	}
	if w.changes == 0 {
		return nil, answers, t.Rollback(ctx)
	}
	if err := w.finish(); err != nil {
		return nil, nil, err
	}
	if err := t.Commit(ctx); err != nil {
		return nil, answers, d.outcome(ctx, id, err)
	}
	return nil, answers, nil
}

// outcome finds out what became of a transaction whose commit got no answer.
func (d *Database) outcome(ctx context.Context, id string, cause error) error {
	if !database.Away(cause) {
		return cause // the server has said no
	}
	var status *string
	for try := 0; ; try++ {
		err := d.pool.QueryRow(ctx, "SELECT pg_xact_status($1::text::xid8)", id).Scan(&status)
		if err == nil && status != nil && *status != "in progress" {
			break
		}
		if ctx.Err() != nil || err != nil && !database.MayRetry(err) {
			return fmt.Errorf("%w: %w", errOutcomeUnknown, cause)
		}
		pause(ctx, try)
	}
	if *status == "committed" {
		return nil
	}
	return cause
}

// pause waits a little, longer each time, and not as long as others do.
func pause(ctx context.Context, try int) {
	limit := 10 * time.Millisecond << min(try, 5)
	select {
	case <-time.After(limit/2 + rand.N(limit/2)):
	case <-ctx.Done():
	}
}

var _ querier = (pgx.Tx)(nil)
