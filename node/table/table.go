package table

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"sallyport/node/admin"
	"sallyport/node/resource"
)

// Table holds the entries of one kind. It is safe for concurrent use.
type Table[R, V any] struct {
	kind Kind[R, V]
	set  *Set

	mu      sync.Mutex // held for moments only, never while anything is opened or closed
	entries map[string]*entry[R, V]
}

// entry is one resource. Its fields are guarded by Table.mu, except that they change only while turn is held.
type entry[R, V any] struct {
	turn chan struct{} // holds a token while somebody opens, changes or closes

	request   R
	value     V
	isOpen    bool
	tentative bool // a command is opening it for the first time: it is not written down
	removed   bool
	fromFile  bool
	owner     string
	open      func(context.Context, *Opening[R]) (V, error)
	status    resource.Status // while it is not open; since when it is open
	refused   error           // why a change in place was not made
	retry     *time.Timer
	pause     time.Duration
}

// Add adds a kind to a set and returns its table.
func Add[R, V any](s *Set, k Kind[R, V]) *Table[R, V] {
	t := &Table[R, V]{kind: k, set: s, entries: map[string]*entry[R, V]{}}
	s.add(t)
	return t
}

func (t *Table[R, V]) key(r *R) string { return *t.kind.Key(r) }

// Name returns the name that a request has in the table.
func (t *Table[R, V]) Name(r *R) string { return t.key(r) }

func (t *Table[R, V]) taken(name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.entries[name] != nil
}

func (t *Table[R, V]) check(ctx context.Context, r *R) error {
	if t.kind.Check == nil {
		return nil
	}
	return t.kind.Check(ctx, r, t.taken)
}

func now(s resource.State, err error) resource.Status {
	st := resource.Status{State: s, Since: time.Now()}
	if err != nil {
		st.Reason = err.Error()
	}
	return st
}

// hold takes an entry's turn.
func (e *entry[R, V]) hold(ctx context.Context) error {
	select {
	case e.turn <- struct{}{}:
		return nil
	default:
	}
	select {
	case e.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("another change is under way: %w", ctx.Err())
	}
}

func (e *entry[R, V]) release() { <-e.turn }

// reserve returns the entry with a name and its turn. If there is none it makes one, which is not open.
func (t *Table[R, V]) reserve(ctx context.Context, name string, r R) (e *entry[R, V], isNew bool, err error) {
	for {
		t.mu.Lock()
		e = t.entries[name]
		if isNew = e == nil; isNew {
			e = &entry[R, V]{
				turn: make(chan struct{}, 1), request: r, tentative: true, status: now(resource.Opening, nil), open: t.kind.Open,
			}
			t.entries[name] = e
			e.turn <- struct{}{}
			t.mu.Unlock()
			return e, true, nil
		}
		t.mu.Unlock()
		if err := e.hold(ctx); err != nil {
			return nil, false, fmt.Errorf("%s %q: %w", t.kind.Noun, name, err)
		}
		if !e.removed {
			return e, false, nil
		}
		e.release()
	}
}

// Create opens what a command asks for. A failure leaves nothing behind.
func (t *Table[R, V]) Create(ctx context.Context, r R) (Item[R, V], error) {
	return t.create(ctx, r, "", t.kind.Open)
}

// CreateAs is Create of what was opened already, or is opened in another way than its kind says, the first time.
func (t *Table[R, V]) CreateAs(ctx context.Context, r R, open func(context.Context, *Opening[R]) (V, error)) (Item[R, V], error) {
	i, err := t.create(ctx, r, "", open)
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.entries[t.key(&r)]; err == nil && e != nil {
		e.open = t.kind.Open
	}
	return i, err
}

// CreatePart opens a part of another resource, which opens it again itself when it comes back: parts are not written down.
func (t *Table[R, V]) CreatePart(
	ctx context.Context, owner string, r R, open func(context.Context, *Opening[R]) (V, error),
) (Item[R, V], error) {
	return t.create(ctx, r, owner, open)
}

func (t *Table[R, V]) create(
	ctx context.Context, r R, owner string, open func(context.Context, *Opening[R]) (V, error),
) (none Item[R, V], err error) {
	if err := t.check(ctx, &r); err != nil {
		return none, err
	}
	if t.kind.Creating != nil {
		if err := t.kind.Creating(ctx, &r); err != nil {
			return none, err
		}
	}
	name := t.key(&r)
	if t.kind.Replaces {
		if err := t.put(ctx, r, false); err != nil {
			return none, err
		}
		return t.finish(ctx, name, owner)
	}
	if i, ok := t.Get(name); ok && (i.IsOpen || i.Status.State == resource.Opening) {
		return none, t.existsError(name)
	}
	e, isNew, err := t.reserve(ctx, name, r)
	if err != nil {
		return none, err
	}
	if e.isOpen {
		e.release()
		return none, t.existsError(name)
	}
	o := &Opening[R]{Request: r}
	v, err := open(ctx, o)
	t.mu.Lock()
	switch {
	case err != nil && isNew:
		t.drop(name, e)
	case err == nil:
		e.fromFile, e.owner, e.open = false, owner, open
		t.opened(e, o.Request, v)
	}
	t.mu.Unlock()
	e.release()
	if err != nil {
		return none, err
	}
	return t.finish(ctx, name, owner)
}

func (t *Table[R, V]) existsError(name string) error {
	return fmt.Errorf("%w: %s with the name %q", admin.ErrExists, article(t.kind.Noun), name)
}

func article(noun string) string {
	switch noun[0] {
	case 'a', 'e', 'i', 'o', 'u':
		return "an " + noun
	}
	return "a " + noun
}

// finish writes down that an entry was made, and returns it.
func (t *Table[R, V]) finish(ctx context.Context, name, owner string) (Item[R, V], error) {
	i, _ := t.Get(name)
	if owner != "" {
		return i, nil
	}
	if err := t.set.Save(ctx); err != nil {
		return i, fmt.Errorf("created, but not remembered for the next start: %w", err)
	}
	return i, nil
}

// opened notes that an entry is open. t.mu is held.
func (t *Table[R, V]) opened(e *entry[R, V], r R, v V) {
	e.request, e.value, e.isOpen, e.tentative, e.refused, e.pause = r, v, true, false, nil, 0
	e.status = now(resource.Up, nil)
	if e.retry != nil {
		e.retry.Stop()
		e.retry = nil
	}
}

// drop removes an entry. t.mu is held.
func (t *Table[R, V]) drop(name string, e *entry[R, V]) {
	if e.retry != nil {
		e.retry.Stop()
	}
	e.removed = true
	delete(t.entries, name)
}

// Delete closes an entry and forgets it. The error matches admin.ErrNotFound if there is none.
func (t *Table[R, V]) Delete(ctx context.Context, name string) error {
	err := t.remove(ctx, name)
	if saveErr := t.set.Save(ctx); err == nil && saveErr != nil {
		err = fmt.Errorf("deleted, but it comes back at the next start: %w", saveErr)
	}
	return err
}

func firstOf(errs ...error) error { return cmp.Or(errs...) }

// remove is Delete without writing it down.
func (t *Table[R, V]) remove(ctx context.Context, name string) error {
	t.mu.Lock()
	e := t.entries[name]
	t.mu.Unlock()
	if e == nil {
		return t.notFound(name)
	}
	if err := e.hold(ctx); err != nil {
		return fmt.Errorf("%s %q: %w", t.kind.Noun, name, err)
	}
	defer e.release()
	if e.removed {
		return t.notFound(name)
	}
	var err error
	if e.isOpen {
		err = t.kind.Close(ctx, e.value)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	e.isOpen = false
	t.drop(name, e)
	return err
}

func (t *Table[R, V]) notFound(name string) error {
	return fmt.Errorf("%w: no %s %q", admin.ErrNotFound, t.kind.Noun, name)
}

// DeleteParts closes the parts of another resource.
func (t *Table[R, V]) DeleteParts(ctx context.Context, owner string) error {
	var err error
	for _, i := range t.List() {
		if i.Owner == owner {
			err = firstOf(err, t.remove(ctx, t.key(&i.Request)))
		}
	}
	return err
}

// DeletePart closes a part of another resource.
func (t *Table[R, V]) DeletePart(ctx context.Context, name string) error { return t.remove(ctx, name) }

// Get returns an entry.
func (t *Table[R, V]) Get(name string) (Item[R, V], bool) {
	t.mu.Lock()
	e := t.entries[name]
	if e == nil {
		t.mu.Unlock()
		return Item[R, V]{}, false
	}
	i := e.item()
	t.mu.Unlock()
	return t.ask(i), true
}

// List returns the entries by name.
func (t *Table[R, V]) List() []Item[R, V] {
	items := t.snapshot()
	for i := range items {
		items[i] = t.ask(items[i])
	}
	return items
}

func (t *Table[R, V]) snapshot() []Item[R, V] {
	t.mu.Lock()
	defer t.mu.Unlock()
	items := make([]Item[R, V], 0, len(t.entries))
	for _, name := range slices.Sorted(maps.Keys(t.entries)) {
		items = append(items, t.entries[name].item())
	}
	return items
}

func (e *entry[R, V]) item() Item[R, V] {
	return Item[R, V]{
		Request: e.request, Value: e.value, IsOpen: e.isOpen, FromFile: e.fromFile, Owner: e.owner, Status: e.status,
		refused: e.refused, tentative: e.tentative,
	}
}

// ask completes an item by asking what is open how it is. No lock is held.
func (t *Table[R, V]) ask(i Item[R, V]) Item[R, V] {
	if i.IsOpen && t.kind.Status != nil {
		since := i.Status.Since
		if i.Status = t.kind.Status(i.Value); i.Status.Since.IsZero() {
			i.Status.Since = since
		}
	}
	if i.IsOpen && i.refused != nil {
		i.Status.Reason = "it is as before; the change was not made: " + i.refused.Error()
		if i.Status.State == resource.Up {
			i.Status.State = resource.Degraded
		}
	}
	return i
}

// Note changes what an open entry remembers, for what the node finds out while it runs, and writes it down.
func (t *Table[R, V]) Note(ctx context.Context, name string, change func(*R)) error {
	t.mu.Lock()
	if e := t.entries[name]; e != nil {
		change(&e.request)
	}
	t.mu.Unlock()
	return t.set.Save(ctx)
}
