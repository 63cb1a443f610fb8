// Package registry keeps in PostgreSQL what the relays of a fleet know together: whose a relay name is, and who is registered under it where
// (docs/protocol/08-groups.md). Each relay has a copy of all of it in memory, which notifications (LISTEN) keep up to date. While the database is away
// the copy stays as it is, and what this relay has to say is said when the database is back.
package registry

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"sallyport/internal/database"
	"sallyport/routing"
)

const (
	// beat is how often a relay says that it is alive.
	beat = 2 * time.Second
	// alive is for how long that holds.
	alive = 6 * time.Second
	// forgotten is after how long what a relay left behind that has gone is removed.
	forgotten = time.Minute
	// claimHolds is for how long a name stays with who claimed it though nobody is registered under it: until the registration can be told.
	claimHolds = 30 * time.Second
	// keepsName is for how long a name stays its owner's under which nobody is registered: so long its owner may register it also while the database is away. sweepEvery is how often it is
	// looked for names that nobody has had for as long.
	keepsName  = 30 * 24 * time.Hour
	sweepEvery = time.Hour
	// tellPatience is how long it takes at most to tell what this relay has, or to read what others have.
	tellPatience = 5 * time.Second
	// channel is where changes are notified, with the name that changed, or an empty text.
	channel = "sallyport_relays"
	// gather is for how long further notifications are waited for when one has come, and gathered how many are at most: their names are read together.
	gather   = 10 * time.Millisecond
	gathered = 500
	// maxName bounds names, in bytes: a notification holds 8000.
	maxName = 4000
)

//go:embed migrations/*.sql
var migrations embed.FS

// schema are the tables of relays.
var schema = database.Schema{Table: "relay_schema", Version: 1, Files: migrations}

// Registry implements routing.Registry.
type Registry struct {
	db   *database.Pool
	self routing.RelayNode
	log  *slog.Logger
	// The first is claimHolds, the second is alive.
	hold, lease time.Duration

	stop    context.CancelFunc
	all     sync.WaitGroup
	wake    chan struct{} // there is something to tell
	reading chan struct{} // has a value while somebody reads
	// began tells that the database knows of this relay; of run.
	began bool

	mu       sync.Mutex
	owners   map[string]routing.Ownership
	members  map[string][]routing.RemoteMember // of other relays, whether alive or not
	relays   map[string]routing.RelayNode      // other ones that are alive
	mine     map[string][]routing.RemoteMember // what this relay has
	untold   map[string]bool                   // names of which mine is to be told
	telling  map[string][]routing.RemoteMember // what is being told
	waiting  map[string][]func()               // who waits until it was
	watchers map[int]func(string)
	next     int
	since    time.Time
	err      error // why the database is away
	known    bool
}

var _ routing.Registry = (*Registry)(nil)

// Open begins to keep a copy of the registry in the database at a URL, in the name of the relay self, and to tell of that relay. The database need not be there: State
// says whether it is.
func Open(url string, self routing.RelayNode, log *slog.Logger) (*Registry, error) {
	return open(url, self, log, claimHolds, alive)
}

func open(url string, self routing.RelayNode, log *slog.Logger, hold, lease time.Duration) (*Registry, error) {
	db, err := database.Open(url)
	if err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &Registry{
		db: db, self: self, log: log, hold: hold, lease: lease, stop: stop, wake: make(chan struct{}, 1), owners: map[string]routing.Ownership{},
		members: map[string][]routing.RemoteMember{}, relays: map[string]routing.RelayNode{}, mine: map[string][]routing.RemoteMember{}, untold: map[string]bool{},
		waiting: map[string][]func(){}, reading: make(chan struct{}, 1),
		watchers: map[int]func(string){}, since: time.Now(), err: errUnknown,
	}
	r.all.Go(func() { r.run(ctx) })
	return r, nil
}

// CheckURL reports whether Open takes a URL. It does not connect.
func CheckURL(url string) error {
	db, err := database.Open(url)
	if err != nil {
		return err
	}
	db.Close()
	return nil
}

// errUnknown is what State says before the database has answered, or has not in time.
var errUnknown = errors.New("it has not been asked yet")

// Prepare makes the tables at a URL, or brings them to this version, in the role of their owner.
func Prepare(ctx context.Context, url string) error {
	db, err := database.Open(url)
	if err != nil {
		return err
	}
	defer db.Close()
	return db.Prepare(ctx, schema)
}

// Name says where the database is, without user and password.
func (r *Registry) Name() string { return r.db.Name }

// State returns since when the database is there, or is away and why. Before the first answer it is away.
func (r *Registry) State() (since time.Time, away error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.since, r.err
}

// Close takes back what this relay has told, if the database is there, and releases it.
func (r *Registry) Close() error {
	r.stop()
	r.all.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), r.db.Patience)
	defer cancel()
	err := pgx.BeginFunc(ctx, r.db.Pool, func(t pgx.Tx) error {
		b := &pgx.Batch{}
		b.Queue("DELETE FROM relay_members WHERE relay = $1", r.self.ID)
		b.Queue("DELETE FROM relay_nodes WHERE id = $1", r.self.ID)
		b.Queue("SELECT pg_notify($1, '')", channel)
		return t.SendBatch(ctx, b).Close()
	})
	r.db.Pool.Close()
	if err != nil { // its lease ends by itself
		return fmt.Errorf("%w: %s: %w", routing.ErrRegistryAway, r.db.Name, database.OneLine(err))
	}
	return nil
}

// note keeps whether the database answers, and logs when that changes.
func (r *Registry) note(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.known || (err == nil) != (r.err == nil) {
		r.known, r.since = true, time.Now()
		if err != nil {
			r.log.Warn("the registry of relay names is away: what is registered goes on", "store", r.db.Name, "error", database.OneLine(err))
		} else {
			r.log.Info("the registry of relay names is there", "store", r.db.Name)
		}
	}
	if r.err = err; err != nil {
		r.err = database.OneLine(err)
	}
}

// Members implements routing.Registry.
func (r *Registry) Members(name string) (list []routing.RemoteMember) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.members[name] {
		if _, ok := r.relays[m.Relay]; ok {
			list = append(list, m)
		}
	}
	return list
}

// Names implements routing.Registry.
func (r *Registry) Names() (names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, list := range r.members {
		if slices.ContainsFunc(list, func(m routing.RemoteMember) bool { _, ok := r.relays[m.Relay]; return ok }) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Owner implements routing.Registry.
func (r *Registry) Owner(name string) (routing.Ownership, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o, ok := r.owners[name]
	return o, ok
}

// Relays implements routing.Registry.
func (r *Registry) Relays() []routing.RelayNode {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.SortedFunc(maps.Values(r.relays), func(a, b routing.RelayNode) int { return strings.Compare(a.ID, b.ID) })
}

// Watch implements routing.Registry.
func (r *Registry) Watch(ctx context.Context, changed func(name string)) {
	r.mu.Lock()
	n := r.next
	r.next++
	r.watchers[n] = changed
	r.mu.Unlock()
	changed("")
	<-ctx.Done()
	r.mu.Lock()
	delete(r.watchers, n)
	r.mu.Unlock()
}

// tell calls the watchers.
func (r *Registry) tell(name string) {
	r.mu.Lock()
	list := slices.Collect(maps.Values(r.watchers))
	r.mu.Unlock()
	for _, changed := range list {
		changed(name)
	}
}

// sayable reports whether a name can be kept.
func sayable(name string) bool {
	return len(name) <= maxName && utf8.ValidString(name) && !strings.ContainsRune(name, 0)
}

// Put implements routing.Registry.
func (r *Registry) Put(name string, members []routing.RemoteMember) {
	if !sayable(name) {
		return // it is known at this relay alone
	}
	r.mu.Lock()
	if len(members) == 0 {
		delete(r.mine, name)
	} else {
		r.mine[name] = slices.Clone(members)
	}
	r.untold[name] = true
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Told implements routing.Registry.
func (r *Registry) Told(name string, then func()) {
	r.mu.Lock()
	_, isTold := r.telling[name]
	wait := (r.untold[name] || isTold) && (r.err == nil || !r.known)
	if wait {
		r.waiting[name] = append(r.waiting[name], then)
	}
	r.mu.Unlock()
	if !wait {
		then()
	}
}

// told goes on with those who have waited for what is told, or with err for anything.
func (r *Registry) told(err error) {
	var list []func()
	r.mu.Lock()
	for name, waiting := range r.waiting {
		if err != nil || !r.untold[name] {
			list = append(list, waiting...)
			delete(r.waiting, name)
		}
	}
	r.mu.Unlock()
	for _, then := range list {
		then()
	}
}

// Claim implements routing.Registry.
func (r *Registry) Claim(ctx context.Context, o routing.Ownership) (routing.Ownership, error) {
	if !sayable(o.Name) || !sayable(o.Share) {
		return routing.Ownership{}, fmt.Errorf("routing: the name %.40q cannot be kept by a registry: it must be UTF-8 without NUL, of at most %d bytes", o.Name, maxName)
	}
	own, cancel := context.WithTimeout(ctx, r.db.Patience)
	defer cancel()
	now := routing.Ownership{Name: o.Name}
	var owner []byte
	var rule int16
	// One statement decides: who comes at the same time waits for the row. A name without members goes to another identity, but not in the moment after it was claimed,
	// in which its first member has not been told yet.
	err := r.db.Pool.QueryRow(own, `WITH mine AS (
			INSERT INTO relay_names AS n (name, owner, rule, share, claimed) VALUES ($1, $2, $3, $4, now())
			ON CONFLICT (name) DO UPDATE SET owner = $2, rule = $3, share = $4, claimed = now()
			WHERE n.owner = $2 OR n.claimed < now() - $5::interval AND NOT EXISTS (
				SELECT FROM relay_members m JOIN relay_nodes r ON r.id = m.relay WHERE m.name = $1 AND r.alive_until > now())
			RETURNING owner, rule, share)
		SELECT owner, rule, share FROM mine, pg_notify($6, $1)`, o.Name, o.Owner[:], int16(o.Rule), o.Share, r.hold, channel).Scan(&owner, &rule, &now.Share)
	if errors.Is(err, pgx.ErrNoRows) {
		err = r.db.Pool.QueryRow(own, "SELECT owner, rule, share FROM relay_names WHERE name = $1", o.Name).Scan(&owner, &rule, &now.Share)
	}
	if err != nil {
		if ctx.Err() == nil && database.Away(err) {
			r.note(err)
		}
		remembered, _ := r.Owner(o.Name)
		return remembered, fmt.Errorf("%w: %s: %w", routing.ErrRegistryAway, r.db.Name, database.OneLine(err))
	}
	copy(now.Owner[:], owner)
	now.Rule = routing.Rule(rule)
	r.mu.Lock()
	r.owners[o.Name] = now
	r.mu.Unlock()
	return now, nil
}

// run tells and listens, until ctx ends.
func (r *Registry) run(ctx context.Context) {
	r.all.Go(func() { r.listen(ctx) })
	tick := time.NewTicker(beat)
	defer tick.Stop()
	prepared := false
	var swept time.Time
	for {
		own, cancel := context.WithTimeout(ctx, max(tellPatience, r.db.Patience))
		var err error
		if !prepared {
			err = r.db.Prepare(ctx, schema)
			prepared = err == nil
		}
		if err == nil {
			err = twice(func() error { return r.beat(own) })
		}
		if err == nil {
			err = r.put(own)
		}
		cancel()
		if ctx.Err() != nil {
			return
		}
		r.note(err)
		r.told(err)
		if err == nil && time.Since(swept) > sweepEvery {
			swept = time.Now()
			if n, err := r.sweep(ctx, keepsName); err != nil {
				r.log.Warn("names that nobody has had for long are not removed from the registry", "store", r.db.Name, "error", database.OneLine(err))
			} else if n > 0 {
				r.log.Info("names that nobody has had for long were removed from the registry", "store", r.db.Name, "names", n)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-r.wake:
		}
	}
}

// beat says that this relay is alive, and finds out which others are.
func (r *Registry) beat(ctx context.Context) error {
	var fresh bool
	relays := map[string]routing.RelayNode{}
	if err := pgx.BeginFunc(ctx, r.db.Pool, func(t pgx.Tx) error {
		if err := t.QueryRow(ctx, `INSERT INTO relay_nodes (id, address, alive_until) VALUES ($1, $2, now() + $3::interval)
			ON CONFLICT (id) DO UPDATE SET address = $2, alive_until = now() + $3::interval RETURNING xmax = 0`, r.self.ID, r.self.Address, r.lease).Scan(&fresh); err != nil {
			return err
		}
		b := &pgx.Batch{}
		b.Queue("DELETE FROM relay_members m USING relay_nodes n WHERE n.id = m.relay AND n.alive_until < now() - $1::interval", forgotten)
		b.Queue("DELETE FROM relay_nodes WHERE alive_until < now() - $1::interval", forgotten)
		if !r.began { // who had the address before has ended, and cannot say so
			b.Queue("DELETE FROM relay_members m USING relay_nodes n WHERE n.id = m.relay AND n.address = $1 AND n.id <> $2", r.self.Address, r.self.ID)
			b.Queue("DELETE FROM relay_nodes WHERE address = $1 AND id <> $2", r.self.Address, r.self.ID)
		}
		if fresh {
			b.Queue("SELECT pg_notify($1, '')", channel)
		}
		if err := t.SendBatch(ctx, b).Close(); err != nil {
			return err
		}
		rows, err := t.Query(ctx, "SELECT id, address FROM relay_nodes WHERE alive_until > now() AND id <> $1", r.self.ID)
		if err != nil {
			return err
		}
		var n routing.RelayNode
		_, err = pgx.ForEachRow(rows, []any{&n.ID, &n.Address}, func() error { relays[n.ID] = n; return nil })
		return err
	}); err != nil {
		return err
	}
	r.began = true
	r.mu.Lock()
	changed := !maps.Equal(relays, r.relays)
	r.relays = relays
	if fresh { // the others do not know of what this one has, or have forgotten it
		for name := range r.mine {
			r.untold[name] = true
		}
	}
	r.mu.Unlock()
	if changed {
		r.tell("")
	}
	return nil
}

// sweep removes names under which nobody has been registered for as long as keep, and returns how many. To be claimed counts as to be registered, and a claim that comes at the same time is
// the stronger. That somebody has a name now is noted by moving its claim, to where another identity could claim it as soon as it is free.
func (r *Registry) sweep(ctx context.Context, keep time.Duration) (removed int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, max(tellPatience, r.db.Patience))
	defer cancel()
	const held = "EXISTS (SELECT FROM relay_members m JOIN relay_nodes r ON r.id = m.relay WHERE m.name = n.name AND r.alive_until > now())"
	err = pgx.BeginFunc(ctx, r.db.Pool, func(t pgx.Tx) error {
		if _, err := t.Exec(ctx, "UPDATE relay_names n SET claimed = now() - $2::interval WHERE claimed < now() - $1::interval AND "+held, keep/8, r.hold); err != nil {
			return err
		}
		tag, err := t.Exec(ctx, "DELETE FROM relay_names n WHERE claimed < now() - $1::interval AND NOT "+held, keep)
		if removed = tag.RowsAffected(); err != nil || removed == 0 {
			return err
		}
		_, err = t.Exec(ctx, "SELECT pg_notify($1, '')", channel)
		return err
	})
	return removed, err
}

// twice calls f again if that may help: the pool may have had a connection that had ended a moment before, which says nothing of the database.
func twice(f func() error) error {
	err := f()
	if database.MayRetry(err) {
		err = f()
	}
	return err
}

// put tells of names whose members changed.
func (r *Registry) put(ctx context.Context) error {
	const step = 200
	for {
		r.mu.Lock()
		list := map[string][]routing.RemoteMember{}
		for name := range r.untold {
			if len(list) == step {
				break
			}
			list[name] = r.mine[name]
			delete(r.untold, name)
		}
		r.telling = list
		r.mu.Unlock()
		if len(list) == 0 {
			return nil
		}
		err := pgx.BeginFunc(ctx, r.db.Pool, func(t pgx.Tx) error {
			b := &pgx.Batch{}
			for name, members := range list {
				b.Queue("DELETE FROM relay_members WHERE name = $1 AND relay = $2", name, r.self.ID)
				for _, m := range members {
					b.Queue(`INSERT INTO relay_members (name, relay, member, identity, priority, down, connections, reports, since) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
						ON CONFLICT DO NOTHING`,
						name, r.self.ID, m.Member[:], m.Identity[:], int64(m.Priority), m.Down, int64(m.Connections), m.Reports, m.Since)
				}
				b.Queue("SELECT pg_notify($1, $2)", channel, name)
			}
			return t.SendBatch(ctx, b).Close()
		})
		if err != nil {
			r.mu.Lock()
			for name := range list {
				r.untold[name] = true
			}
			r.mu.Unlock()
			return err
		}
		r.told(nil)
	}
}
