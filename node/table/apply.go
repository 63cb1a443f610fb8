package table

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sallyport/node/admin"
	"sallyport/node/resource"
)

// plan is what has to be done for a configuration, in two passes: what goes is closed before anything is opened, because the new
// may need its name or its port.
type plan struct {
	prune  bool
	byHand []string
	steps  []*step
}

// step deals with one difference.
type step struct {
	difference *admin.Difference // nil: nothing that a person would call a difference
	close      func(context.Context) error
	open       func(context.Context) error
}

// Apply makes the node have what a configuration describes, or says what it would do. When the configuration asks for what can never
// be, the answer has the faults and nothing was done. What fails on the way is noted with its difference, and everything else is done.
func (s *Set) Apply(ctx context.Context, r admin.ApplyRequest) (admin.Applied, error) {
	s.applying.Lock()
	defer s.applying.Unlock()
	p := &plan{prune: r.Prune}
	answer := admin.Applied{Differences: []admin.Difference{}}
	tables := s.order()
	for _, w := range r.Resources {
		if !slices.ContainsFunc(tables, func(m member) bool { return m.name() == w.Kind }) {
			answer.Faults = append(answer.Faults, admin.Fault{Kind: w.Kind, Name: w.Name, Message: "the node has no such kind of resource"})
		}
	}
	for _, m := range tables {
		var wanted []resource.Stored
		for _, w := range r.Resources {
			if w.Kind == m.name() {
				wanted = append(wanted, w)
			}
		}
		answer.Faults = append(answer.Faults, m.plan(ctx, p, wanted)...)
	}
	if len(answer.Faults) > 0 {
		return answer, nil
	}
	if !r.Check {
		p.do(ctx)
		if err := s.Save(ctx); err != nil {
			return admin.Applied{}, fmt.Errorf("applied, but not remembered for the next start: %w", err)
		}
	}
	answer.ByHand = p.byHand
	for _, st := range p.steps {
		if st.difference != nil {
			answer.Differences = append(answer.Differences, *st.difference)
		}
	}
	return answer, nil
}

func (p *plan) do(ctx context.Context) {
	for _, st := range slices.Backward(p.steps) {
		if st.close != nil {
			st.note(st.close(ctx))
		}
	}
	for _, st := range p.steps {
		if st.open != nil {
			st.note(st.open(ctx))
		}
	}
}

func (st *step) note(err error) {
	if err != nil && st.difference != nil {
		st.difference.Error = err.Error()
	}
}

// plan compares the entries with what a configuration wants of this kind.
func (t *Table[R, V]) plan(ctx context.Context, p *plan, wanted []resource.Stored) (faults []admin.Fault) {
	names := map[string]bool{}
	for _, w := range wanted {
		var r R
		err := json.Unmarshal(w.Request, &r)
		if err == nil {
			err = t.check(ctx, &r)
		}
		if name := t.key(&r); err == nil && names[name] {
			err = errors.New("there are two of this name")
		}
		if err != nil {
			faults = append(faults, admin.Fault{Kind: w.Kind, Name: w.Name, Message: trimmed(err)})
			continue
		}
		names[t.key(&r)] = true
		p.steps = append(p.steps, t.compare(r))
	}
	for _, i := range t.List() {
		name := t.key(&i.Request)
		switch {
		case i.Owner != "" || names[name]:
		case !i.FromFile && !p.prune:
			p.byHand = append(p.byHand, t.kind.Noun+" "+name)
		default:
			p.steps = append(p.steps, &step{
				difference: t.difference(admin.Remove, name),
				close: func(ctx context.Context) error {
					if err := t.remove(ctx, name); err != nil && !errors.Is(err, admin.ErrNotFound) {
						return err
					}
					return nil
				},
			})
		}
	}
	return faults
}

// trimmed is an error's text without what only tells programs that the request is wrong.
func trimmed(err error) string { return strings.TrimPrefix(err.Error(), admin.ErrInvalid.Error()+": ") }

func (t *Table[R, V]) difference(op admin.Operation, name string) *admin.Difference {
	return &admin.Difference{Operation: op, Kind: t.kind.Name, Noun: t.kind.Noun, Name: name}
}

// compare makes the step for one wanted resource.
func (t *Table[R, V]) compare(r R) *step {
	name := t.key(&r)
	st := &step{open: func(ctx context.Context) error { return t.put(ctx, r, true) }}
	i, ok := t.Get(name)
	if !ok || i.tentative {
		st.difference = t.difference(admin.Add, name)
		return st
	}
	fields := resource.Differences(&i.Request, &r)
	if len(fields) == 0 {
		st.open = func(ctx context.Context) error { return t.adopt(ctx, name, r) }
		return st
	}
	st.difference = t.difference(admin.Change, name)
	st.difference.Fields = fields
	if st.difference.InPlace = t.inPlace(fields); !st.difference.InPlace {
		st.close = func(ctx context.Context) error { return t.shutNamed(ctx, name) }
	}
	return st
}

// adopt notes that a configuration asks for what is there already. What failed is tried again now, not only when its time has come.
func (t *Table[R, V]) adopt(ctx context.Context, name string, r R) error {
	t.mu.Lock()
	e := t.entries[name]
	if e != nil && !e.removed && len(resource.Differences(&e.request, &r)) == 0 {
		e.fromFile = true
		if e.retry != nil && e.retry.Stop() {
			go t.again(e)
		}
		t.mu.Unlock()
		return nil
	}
	t.mu.Unlock()
	return t.put(ctx, r, true)
}
