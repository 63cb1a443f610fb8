package table

import (
	"context"
	"net/http"

	"sallyport/node/admin"
)

func (t *Table[R, V]) name() string    { return t.kind.Name }
func (t *Table[R, V]) after() []string { return t.kind.After }

// Describe is what lists show of an entry.
func (t *Table[R, V]) Describe(i Item[R, V]) any {
	if t.kind.Describe != nil {
		return t.kind.Describe(i)
	}
	return i.Request
}

func (t *Table[R, V]) summaries() []admin.Resource {
	var list []admin.Resource
	for _, i := range t.List() {
		list = append(list, admin.Resource{
			Kind: t.kind.Name, Name: t.key(&i.Request), FromFile: i.FromFile, Owner: i.Owner, Status: i.Status,
		})
	}
	return list
}

// mount adds the kind's routes.
func (t *Table[R, V]) mount(mux *http.ServeMux) {
	if t.kind.Path == "" {
		return
	}
	mux.HandleFunc("POST "+t.kind.Path, admin.Handle(func(ctx context.Context, r R) (any, error) {
		i, err := t.Create(ctx, r)
		if err != nil {
			return nil, err
		}
		if t.kind.Created != nil {
			err = t.kind.Created(ctx, i)
			i, _ = t.Get(t.key(&i.Request))
		}
		return t.Describe(i), err
	}))
	mux.HandleFunc("GET "+t.kind.Path, func(w http.ResponseWriter, _ *http.Request) {
		list := []any{}
		for _, i := range t.List() {
			list = append(list, t.Describe(i))
		}
		admin.Write(w, list)
	})
	mux.HandleFunc("GET "+t.kind.Path+"/{name}", func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("name")
		if i, ok := t.Get(name); ok && t.kind.Show != nil {
			admin.Write(w, t.kind.Show(r.Context(), i))
			return
		} else if ok {
			admin.Write(w, t.Describe(i))
			return
		}
		admin.WriteError(w, t.notFound(name))
	})
	mux.HandleFunc("DELETE "+t.kind.Path+"/{name}", func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("name")
		if err := t.Delete(r.Context(), name); err != nil {
			admin.WriteError(w, err)
			return
		}
		admin.Write(w, admin.Deleted{Name: name})
	})
}
