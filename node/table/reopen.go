package table

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"sallyport/node/resource"
)

// Pauses before what failed is tried again, and the bound of one attempt.
const (
	firstPause  = time.Second
	longPause   = 30 * time.Second
	openTimeout = 30 * time.Second
)

// put makes an entry be as asked for. What is the same stays untouched; what can be changed in place is. After a failure the entry
// stays, with the reason, and is tried again.
func (t *Table[R, V]) put(ctx context.Context, r R, fromFile bool) error {
	name := t.key(&r)
	e, isNew, err := t.reserve(ctx, name, r)
	if err != nil {
		return err
	}
	defer e.release()
	t.mu.Lock()
	before := e.request
	t.mu.Unlock()
	if !isNew {
		resource.KeepNotes(&before, &r)
	}
	if e.isOpen {
		changed := resource.Differences(&before, &r)
		if len(changed) == 0 || t.inPlace(changed) {
			return t.update(ctx, e, &before, &r, fromFile, len(changed) > 0)
		}
		if err := t.shut(ctx, e); err != nil {
			t.set.log.Warn("not closed cleanly", t.kind.Noun, name, "err", err.Error())
		}
	}
	t.mu.Lock()
	e.request, e.fromFile, e.tentative, e.status = r, fromFile, false, now(resource.Opening, nil)
	t.mu.Unlock()
	return t.tryOpen(ctx, e, !isNew)
}

func (t *Table[R, V]) inPlace(changed []string) bool {
	return t.kind.Update != nil && !slices.ContainsFunc(changed, func(f string) bool { return !slices.Contains(t.kind.InPlace, f) })
}

// update changes an open entry in place. Its turn is held.
func (t *Table[R, V]) update(ctx context.Context, e *entry[R, V], from, to *R, fromFile, changed bool) error {
	var err error
	if changed {
		err = t.kind.Update(ctx, e.value, from, to)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	e.fromFile, e.refused = fromFile, err
	if err == nil {
		e.request = *to
	}
	return err
}

// shut closes what is open; the entry stays. Its turn is held.
func (t *Table[R, V]) shut(ctx context.Context, e *entry[R, V]) error {
	err := t.kind.Close(ctx, e.value)
	t.mu.Lock()
	defer t.mu.Unlock()
	var none V
	e.value, e.isOpen, e.refused, e.status = none, false, nil, now(resource.Opening, nil)
	return err
}

// shutNamed is shut of an entry that may be gone.
func (t *Table[R, V]) shutNamed(ctx context.Context, name string) error {
	t.mu.Lock()
	e := t.entries[name]
	t.mu.Unlock()
	if e == nil {
		return nil
	}
	if err := e.hold(ctx); err != nil {
		return err
	}
	defer e.release()
	if !e.isOpen {
		return nil
	}
	return t.shut(ctx, e)
}

// tryOpen opens an entry that is not open, and plans the next try if that fails. Its turn is held.
func (t *Table[R, V]) tryOpen(ctx context.Context, e *entry[R, V], again bool) error {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	t.mu.Lock()
	r := e.request
	t.mu.Unlock()
	err := t.check(ctx, &r)
	var v V
	o := &Opening[R]{Request: r, Again: again}
	if err == nil {
		v, err = e.open(ctx, o)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		t.opened(e, o.Request, v)
		return nil
	}
	e.pause = min(max(firstPause, 2*e.pause), longPause)
	since := e.status
	if e.status = now(resource.Down, err); since.State == resource.Down {
		e.status.Since = since.Since
	}
	e.status.NextTry = time.Now().Add(e.pause)
	e.retry = time.AfterFunc(e.pause, func() { t.again(e) })
	return err
}

// again tries to open what failed.
func (t *Table[R, V]) again(e *entry[R, V]) {
	if t.set.ctx.Err() != nil {
		return
	}
	select {
	case e.turn <- struct{}{}:
	default:
		return // whoever has its turn opens or closes it
	}
	defer e.release()
	if e.isOpen || e.removed || t.set.ctx.Err() != nil {
		return
	}
	t.mu.Lock()
	before := e.request
	t.mu.Unlock()
	name := t.key(&before)
	if err := t.tryOpen(t.set.ctx, e, true); err != nil {
		t.set.log.Warn("not opened", "kind", t.kind.Name, "name", name, "reason", err.Error(), "retry", e.pause.String())
		return
	}
	t.set.log.Info("opened", "kind", t.kind.Name, "name", name)
	t.mu.Lock()
	after := e.request
	t.mu.Unlock()
	if !sameNotes(&before, &after) {
		t.set.saveLater()
	}
}

func sameNotes[R any](a, b *R) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return string(x) == string(y)
}

// restore takes back an entry from an earlier run; it is not opened yet.
func (t *Table[R, V]) restore(s resource.Stored) error {
	e := &entry[R, V]{
		turn: make(chan struct{}, 1), fromFile: s.FromFile, open: t.kind.Open, status: now(resource.Opening, nil),
	}
	if err := json.Unmarshal(s.Request, &e.request); err != nil {
		return fmt.Errorf("%s %q: what is stored cannot be read: %w", t.kind.Noun, s.Name, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.entries[t.key(&e.request)] = e
	return nil
}

// openAll opens what was taken back.
func (t *Table[R, V]) openAll(ctx context.Context) (failed []error) {
	for _, i := range t.snapshot() {
		name := t.key(&i.Request)
		t.mu.Lock()
		e := t.entries[name]
		t.mu.Unlock()
		if e == nil || e.isOpen || e.hold(ctx) != nil {
			continue
		}
		if err := t.tryOpen(ctx, e, true); err != nil {
			failed = append(failed, fmt.Errorf("%s %q: %w", t.kind.Noun, name, err))
		}
		e.release()
	}
	return failed
}

// stored is what to write down, by name.
func (t *Table[R, V]) stored() []resource.Stored {
	var list []resource.Stored
	for _, i := range t.snapshot() {
		if i.Owner != "" || i.tentative {
			continue
		}
		raw, err := json.Marshal(i.Request)
		if err != nil {
			t.set.log.Error("not written down", "kind", t.kind.Name, "err", err.Error())
			continue
		}
		list = append(list, resource.Stored{Kind: t.kind.Name, Name: t.key(&i.Request), FromFile: i.FromFile, Request: raw})
	}
	return list
}

// closeAll closes what a stopping node has to close. The entries stay, as they are written down.
func (t *Table[R, V]) closeAll(ctx context.Context) {
	if !t.kind.Ends {
		return
	}
	for _, i := range t.snapshot() {
		if i.IsOpen {
			_ = t.kind.Close(ctx, i.Value) // the node ends: nobody is left to hear of it
		}
	}
}
