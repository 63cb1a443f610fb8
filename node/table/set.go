package table

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"

	"sallyport/node/admin"
	"sallyport/node/resource"
)

// Store keeps what a node was asked for.
type Store interface {
	// Save replaces what is kept.
	Save([]resource.Stored) error
	// Load returns it.
	Load() ([]resource.Stored, error)
}

// member is a table of any kind.
type member interface {
	name() string
	after() []string
	restore(resource.Stored) error
	openAll(context.Context) []error
	stored() []resource.Stored
	summaries() []admin.Resource
	closeAll(context.Context)
	mount(*http.ServeMux)
	plan(ctx context.Context, p *plan, wanted []resource.Stored) []admin.Fault
}

// Set is all that a node has, one table for each kind.
type Set struct {
	log   *slog.Logger
	store Store
	ctx   context.Context // ends with the node

	tables  []member
	strange []resource.Stored // of kinds that this program does not know: they are kept
	saves   chan chan error
	ended   chan struct{}

	applying sync.Mutex // one configuration at a time
	closing  sync.Once
}

// NewSet makes a set that writes down to a store. It ends with ctx.
func NewSet(ctx context.Context, store Store, log *slog.Logger) *Set {
	s := &Set{ctx: ctx, store: store, log: log, saves: make(chan chan error), ended: make(chan struct{})}
	go s.write()
	return s
}

// Find returns the table of a kind, nil if there is none of that name and those types.
func Find[R, V any](s *Set, kind string) *Table[R, V] {
	for _, m := range s.tables {
		if t, ok := m.(*Table[R, V]); ok && t.kind.Name == kind {
			return t
		}
	}
	return nil
}

func (s *Set) add(m member) { s.tables = append(s.tables, m) }

// order returns the tables so that each comes after those that it depends on.
func (s *Set) order() []member {
	var list []member
	var visit func(m member)
	visit = func(m member) {
		if slices.Contains(list, m) {
			return
		}
		for _, other := range s.tables {
			if slices.Contains(m.after(), other.name()) {
				visit(other)
			}
		}
		list = append(list, m)
	}
	for _, m := range s.tables {
		visit(m)
	}
	return list
}

// Restore opens what was there in an earlier run. What cannot be opened stays, and is tried again. An error means that nothing
// could be read.
func (s *Set) Restore(ctx context.Context) error {
	list, err := s.store.Load()
	if err != nil {
		return err
	}
	var failed []error
	tables := s.order()
	for _, r := range list {
		i := slices.IndexFunc(tables, func(m member) bool { return m.name() == r.Kind })
		err := fmt.Errorf("%s %q: this program does not know the kind", r.Kind, r.Name)
		if i >= 0 {
			err = tables[i].restore(r)
		}
		if err != nil {
			s.strange = append(s.strange, r)
			failed = append(failed, err)
		}
	}
	for _, m := range tables {
		failed = append(failed, m.openAll(ctx)...)
	}
	if err := errors.Join(failed...); err != nil {
		s.log.Error("not everything the node had could be opened again; it is tried again", "err", err.Error())
	}
	return nil
}

// Close closes what has to be closed when a node stops, in reverse order. It may be called again.
func (s *Set) Close(ctx context.Context) {
	s.closing.Do(func() {
		for _, m := range slices.Backward(s.order()) {
			m.closeAll(ctx)
		}
	})
}

// Save returns when what there is now is written down.
func (s *Set) Save(ctx context.Context) error {
	done := make(chan error, 1)
	select {
	case s.saves <- done:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.ended:
		return errors.New("the node has stopped")
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// saveLater has what there is written down, without waiting.
func (s *Set) saveLater() {
	go func() {
		if err := s.Save(s.ctx); err != nil && s.ctx.Err() == nil {
			s.log.Error("not remembered for the next start", "err", err.Error())
		}
	}()
}

// write is the one goroutine that writes down. Those who wait while it writes are served together by the next write.
func (s *Set) write() {
	defer close(s.ended)
	for {
		var waiting []chan error
		select {
		case w := <-s.saves:
			waiting = append(waiting, w)
		case <-s.ctx.Done():
			return
		}
		for more := true; more; {
			select {
			case w := <-s.saves:
				waiting = append(waiting, w)
			default:
				more = false
			}
		}
		err := s.store.Save(s.stored())
		for _, w := range waiting {
			w <- err
		}
	}
}

func (s *Set) stored() []resource.Stored {
	var list []resource.Stored
	for _, m := range s.tables {
		list = append(list, m.stored()...)
	}
	return append(list, s.strange...)
}

// Resources lists everything with its state, in the order in which it is opened.
func (s *Set) Resources() []admin.Resource {
	list := []admin.Resource{}
	for _, m := range s.order() {
		list = append(list, m.summaries()...)
	}
	return list
}

// Mount adds the routes of all kinds to the administration interface.
func (s *Set) Mount(mux *http.ServeMux) {
	for _, m := range s.tables {
		m.mount(mux)
	}
	mux.HandleFunc("GET "+admin.PathResources, func(w http.ResponseWriter, _ *http.Request) { admin.Write(w, s.Resources()) })
}
