package registry

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/internal/database"
	"sallyport/routing"
)

// listen hears what changed, and reads all of it whenever it may have missed something.
func (r *Registry) listen(ctx context.Context) {
	for ctx.Err() == nil {
		_ = r.hear(ctx) // run says whether the database is there
		select {
		case <-ctx.Done():
		case <-time.After(beat / 4):
		}
	}
}

// hear has a connection of its own, on which it waits for changes.
func (r *Registry) hear(ctx context.Context) error {
	own, cancel := context.WithTimeout(ctx, max(tellPatience, r.db.Patience))
	defer cancel()
	pooled, err := r.db.Pool.Acquire(own)
	if err != nil {
		return err
	}
	c := pooled.Hijack()
	defer func() {
		closing, cancel := context.WithTimeout(context.Background(), r.db.Patience)
		defer cancel()
		_ = c.Close(closing)
	}()
	if _, err := c.Exec(own, "LISTEN "+channel); err != nil {
		return err
	}
	if err := r.readAll(own); err != nil {
		return err
	}
	for {
		names, err := changes(ctx, c)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		reading, cancel := context.WithTimeout(ctx, max(tellPatience, r.db.Patience))
		switch {
		case err == nil && names[""]:
			err = r.readAll(reading)
		case err == nil:
			err = r.read(reading, slices.Sorted(maps.Keys(names)))
		case errors.Is(err, context.DeadlineExceeded):
			err = c.Ping(reading) // the line may be dead without a word
		}
		cancel()
		if err != nil {
			return err
		}
	}
}

// changes waits for notifications and returns which names have changed, "" for all.
func changes(ctx context.Context, c *pgx.Conn) (names map[string]bool, err error) {
	waiting, cancel := context.WithTimeout(ctx, 2*beat)
	n, err := c.WaitForNotification(waiting)
	cancel()
	if err != nil {
		return nil, err
	}
	names = map[string]bool{n.Payload: true}
	waiting, cancel = context.WithTimeout(ctx, gather)
	defer cancel()
	for len(names) < gathered {
		n, err := c.WaitForNotification(waiting)
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		if err != nil {
			return nil, err
		}
		names[n.Payload] = true
	}
	return names, nil
}

// readAll reads all there is.
func (r *Registry) readAll(ctx context.Context) error { return r.read(ctx, nil) }

// read reads what there is of names, or all for nil. One reads at a time: what was read first is not what stays.
func (r *Registry) read(ctx context.Context, names []string) error {
	select {
	case r.reading <- struct{}{}:
		defer func() { <-r.reading }()
	case <-ctx.Done():
		return ctx.Err()
	}
	owners, members, relays := map[string]routing.Ownership{}, map[string][]routing.RemoteMember{}, map[string]routing.RelayNode{}
	err := pgx.BeginTxFunc(ctx, r.db.Pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(t pgx.Tx) error {
		where, args := "", []any{}
		if names != nil {
			where, args = " WHERE name = ANY ($1)", []any{names}
		}
		rows, err := t.Query(ctx, "SELECT name, owner, rule, share FROM relay_names"+where, args...)
		if err != nil {
			return err
		}
		var o routing.Ownership
		var owner []byte
		var rule int16
		if _, err := pgx.ForEachRow(rows, []any{&o.Name, &owner, &rule, &o.Share}, func() error {
			copy(o.Owner[:], owner)
			o.Rule = routing.Rule(rule)
			owners[o.Name] = o
			return nil
		}); err != nil {
			return err
		}
		if rows, err = t.Query(ctx, "SELECT name, relay, member, identity, priority, down, connections, reports, since FROM relay_members"+where+" ORDER BY since, relay, member", args...); err != nil {
			return err
		}
		var m routing.RemoteMember
		var member, identity []byte
		var priority, connections int64
		if _, err := pgx.ForEachRow(rows, []any{&m.Name, &m.Relay, &member, &identity, &priority, &m.Down, &connections, &m.Reports, &m.Since}, func() error {
			copy(m.Member[:], member)
			copy(m.Identity[:], identity)
			m.Priority, m.Connections = uint32(priority), uint64(connections)
			if m.Relay != r.self.ID {
				members[m.Name] = append(members[m.Name], m)
			}
			return nil
		}); err != nil {
			return err
		}
		if rows, err = t.Query(ctx, "SELECT id, address FROM relay_nodes WHERE alive_until > now() AND id <> $1", r.self.ID); err != nil {
			return err
		}
		var n routing.RelayNode
		_, err = pgx.ForEachRow(rows, []any{&n.ID, &n.Address}, func() error { relays[n.ID] = n; return nil })
		return err
	})
	if err != nil {
		return err
	}
	r.mu.Lock()
	moved := !maps.Equal(relays, r.relays)
	r.relays = relays
	if names == nil {
		r.owners, r.members = owners, members
	}
	for _, name := range names {
		put(r.owners, name, owners)
		put(r.members, name, members)
	}
	r.mu.Unlock()
	if moved || names == nil {
		r.tell("")
	}
	for _, name := range names {
		r.tell(name)
	}
	return nil
}

// Look implements routing.Registry.
func (r *Registry) Look(ctx context.Context, names []string) {
	names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !sayable(name) })
	if _, away := r.State(); away != nil || len(names) == 0 {
		return
	}
	reading, cancel := context.WithTimeout(ctx, r.db.Patience)
	defer cancel()
	if err := twice(func() error { return r.read(reading, names) }); err != nil && ctx.Err() == nil && database.Away(err) {
		r.note(err)
	}
}

// put takes over what was read of a name.
func put[T any](to map[string]T, name string, read map[string]T) {
	if v, ok := read[name]; ok {
		to[name] = v
	} else {
		delete(to, name)
	}
}
