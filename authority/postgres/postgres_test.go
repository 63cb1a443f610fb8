package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"sallyport/authority"
	"sallyport/crypto/identity"
	"sallyport/internal/servers"
	"sallyport/internal/storetest"
)

// cluster is started for the first test that needs it, and is all tests'.
var cluster struct {
	once   sync.Once
	server *servers.Postgres
	err    error
	schema atomic.Int64
	doc    []string // the statements of docs/authority-store.md
}

func TestMain(m *testing.M) {
	code := m.Run()
	if cluster.server != nil {
		_ = cluster.server.Close()
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// server returns the cluster; the test is skipped where there is no PostgreSQL.
func server(t testing.TB) *servers.Postgres {
	t.Helper()
	cluster.once.Do(func() {
		doc, err := os.ReadFile("../../docs/authority-store.md")
		if err != nil {
			cluster.err = err
			return
		}
		for _, block := range regexp.MustCompile("(?s)```sql\n(.*?)```").FindAllStringSubmatch(string(doc), -1) {
			cluster.doc = append(cluster.doc, block[1])
		}
		if cluster.server, cluster.err = servers.NewPostgres(); cluster.err == nil {
			cluster.err = execute(cluster.server.URL("", "", "postgres"), cluster.doc[0])
		}
	})
	if errors.Is(cluster.err, servers.ErrNotInstalled) {
		t.Skip(cluster.err)
	}
	if cluster.err != nil {
		t.Fatal(cluster.err)
	}
	return cluster.server
}

// execute runs statements.
func execute(url, statements string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	_, err = c.Exec(ctx, statements)
	return errors.Join(err, c.Close(ctx))
}

// newSchema makes an empty schema with tables as the documentation says, and returns its name.
func newSchema(t testing.TB) string {
	t.Helper()
	s := server(t)
	name := fmt.Sprintf("s%d", cluster.schema.Add(1))
	for _, step := range []func() error{
		func() error {
			return execute(s.URL("", "", "postgres"), strings.ReplaceAll(cluster.doc[1], "SCHEMA sallyport ", "SCHEMA "+name+" "))
		},
		func() error {
			d, err := Open(t.Context(), s.PatientURL("sallyport_owner", "owner-secret", "postgres", "search_path", name), t.TempDir())
			if err != nil {
				return err
			}
			return d.Close()
		},
		func() error {
			return execute(s.URL("", "", "postgres"), strings.ReplaceAll(cluster.doc[2], " sallyport.", " "+name+"."))
		},
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	return name
}

// opened opens a schema in the role of an authority, with time for a busy machine.
func opened(t testing.TB, schema string) *Database {
	t.Helper()
	return openURL(t, server(t).PatientURL("sallyport_authority", "authority-secret", "postgres", "search_path", schema))
}

func openURL(t testing.TB, url string) *Database {
	t.Helper()
	d, err := Open(t.Context(), url, t.TempDir())
	for end := time.Now().Add(time.Minute); errors.Is(err, authority.ErrStoreAway) && time.Now().Before(end); {
		d, err = Open(t.Context(), url, t.TempDir()) // a busy machine
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestStore: a store in PostgreSQL passes the tests of all stores, in the role that the documentation gives it.
func TestStore(t *testing.T) {
	server(t)
	storetest.Run(t, func(t testing.TB) authority.Store { return authority.NewStore(opened(t, newSchema(t))) })
}

func BenchmarkStore(b *testing.B) {
	server(b)
	storetest.Benchmark(b, func(t testing.TB) authority.Database { return opened(t, newSchema(t)) })
}

// TestSeveralAuthorities: three connections' worth of authorities on one store.
func TestSeveralAuthorities(t *testing.T) {
	three := func() (stores []authority.Store) {
		name := newSchema(t)
		for range 3 {
			s := authority.NewStore(opened(t, name))
			t.Cleanup(func() { _ = s.Close() })
			stores = append(stores, s)
		}
		return stores
	}
	stores := three()
	now := time.Now()
	for round := range 1 {
		hash := authority.Code{byte(round), 1}.Hash()
		if err := stores[round].AddToken(t.Context(), authority.Token{Hash: hash, Reference: "R", ExpiresAt: now.Add(time.Hour), Uses: 1}, now); err != nil {
			t.Fatal(err)
		}
		if n := storetest.Redeem(t, stores, hash, 1000*round, 100, now); n[authority.Redeemed] != 1 || n[authority.CodeUsed] != 99 {
			t.Errorf("%v", n)
		}
	}
	storetest.Write(t, three(), 9, 3)
}

// TestPrivileges: the authority's role can do no more than it needs to.
func TestPrivileges(t *testing.T) {
	name := newSchema(t)
	url := server(t).PatientURL("sallyport_authority", "authority-secret", "postgres", "search_path", name)
	for _, statement := range []string{
		"CREATE TABLE mine (a int)", "DROP TABLE authority_members", "ALTER TABLE authority_members ADD a int", "TRUNCATE authority_members", "CREATE SCHEMA mine", "CREATE ROLE other",
		"UPDATE authority_trail SET content = ''", "UPDATE authority_schema SET version = 7", "DELETE FROM authority_schema", "CREATE INDEX ON authority_members (ticket)",
	} {
		if err := execute(url, statement); err == nil || !strings.Contains(err.Error(), "42501") {
			t.Errorf("%s: %v", statement, err)
		}
	}
}

// TestVersions: who may not make the tables says who does, and tables of a newer program are left alone.
func TestVersions(t *testing.T) {
	s := server(t)
	name := fmt.Sprintf("s%d", cluster.schema.Add(1))
	if err := execute(s.URL("", "", "postgres"), strings.ReplaceAll(cluster.doc[1], "SCHEMA sallyport ", "SCHEMA "+name+" ")); err != nil {
		t.Fatal(err)
	}
	mine := s.PatientURL("sallyport_authority", "authority-secret", "postgres", "search_path", name)
	owners := s.PatientURL("sallyport_owner", "owner-secret", "postgres", "search_path", name)
	if _, err := Open(t.Context(), mine, t.TempDir()); err == nil || !strings.Contains(err.Error(), "authority migrate") {
		t.Errorf("without tables: %v", err)
	}
	var all sync.WaitGroup
	for range 6 { // at once
		all.Go(func() {
			d, err := Open(t.Context(), owners, t.TempDir())
			if err != nil {
				t.Error(err)
				return
			}
			_ = d.Close()
		})
	}
	all.Wait()
	if err := execute(owners, "INSERT INTO authority_schema (version) VALUES (99)"); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), mine, t.TempDir()); err == nil || !strings.Contains(err.Error(), "version 99") {
		t.Errorf("newer tables: %v", err)
	}
}

// TestNoSecrets: no password is in an error, whatever is wrong.
func TestNoSecrets(t *testing.T) {
	s := server(t)
	const secret = "hunter2hunter2"
	for _, url := range []string{
		s.URL("sallyport_authority", secret, "postgres"), s.URL("nobody-there", secret, "postgres"), "postgres://u:" + secret + "@127.0.0.1:1/d", "postgres://u:" + secret + "@127.0.0.1:99999/d",
		"postgres://u:" + secret + "@h/d?sslmode=nonsense", "postgres://u:%zz" + secret + "@h/d", "postgres://u:" + secret + "@[::1/d", "postgres://u:" + secret + " x@h:port/d",
		"postgres://u:" + secret + "@no-such-host.invalid/d", "mysql://u:" + secret + "@h/d", "postgres://h/d?password=" + secret + "&sslmode=verify-full&sslrootcert=/nonexistent",
	} {
		d, err := Open(t.Context(), url, t.TempDir())
		if err == nil {
			_ = d.Close()
			t.Error("opened")
			continue
		}
		if text := fmt.Sprintf("%v %+v %q", err, err, err); strings.Contains(text, secret) {
			t.Errorf("the password is in the error %s", text)
		}
	}
}

// TestIndices: with 10,000 members and as much of everything else nothing that a request needs reads a whole table.
func TestIndices(t *testing.T) {
	name := newSchema(t)
	owners := server(t).PatientURL("sallyport_owner", "owner-secret", "postgres", "search_path", name)
	if err := execute(owners, `
		INSERT INTO authority_members (id, attributes, added_by, added_at, pre_trusted, blocked, ticket, issued)
			SELECT sha256(n::text::bytea), '\xa0', sha256('a'), now(), false, false, 'T', 0 FROM generate_series(1, 10000) n;
		INSERT INTO authority_tickets SELECT sha256(n::text::bytea), 'R' || n, '\xa0', sha256('a'), now(), now() + n * interval '1 minute', 1, 0 FROM generate_series(1, 10000) n;
		INSERT INTO authority_spent SELECT sha256(n::text::bytea), 'R' || n, 'used', now() + n * interval '1 minute' FROM generate_series(1, 10000) n;
		INSERT INTO authority_revocations SELECT n, sha256(n::text::bytea), now(), false, now() + interval '30 days' FROM generate_series(1, 10000) n;
		INSERT INTO authority_trail SELECT n, sha256('a'), sha256('b') FROM generate_series(1, 10000) n;
		ANALYZE authority_members, authority_tickets, authority_spent, authority_revocations, authority_trail`); err != nil {
		t.Fatal(err)
	}
	c, err := pgx.Connect(t.Context(), owners)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	key := make([]byte, 32)
	for statement, args := range map[string][]any{
		selectMember: {key}, selectTicket: {key}, selectNamed: {"R5"}, selectExpired: {time.Now(), 1000}, selectSpent: {key}, forgetSpent: {time.Now(), 1000},
		selectRevocations: {int64(9990), 200}, selectRevocation: {key}, selectEntries: {int64(9000), 500},
	} {
		var plan []json.RawMessage
		if err := c.QueryRow(t.Context(), "EXPLAIN (FORMAT JSON) "+statement, args...).Scan(&plan); err != nil {
			t.Errorf("%s: %v", statement, err)
			continue
		}
		// The table of state has one row.
		for _, scan := range regexp.MustCompile(`"Node Type": ?"Seq Scan"[^{}]*?"Relation Name": ?"(\w+)"`).FindAllStringSubmatch(string(plan[0]), -1) {
			if scan[1] != "authority_state" {
				t.Errorf("%s reads all of %s: %s", statement, scan[1], plan[0])
			}
		}
		if !strings.Contains(string(plan[0]), "Index") {
			t.Errorf("%s uses no index: %s", statement, plan[0])
		}
	}
}

// line is a connection to the server that can be cut, or fall silent.
type line struct {
	ln    net.Listener
	to    string
	mu    sync.Mutex
	state string // "", "cut", "silent", or "no answer to COMMIT"
	open  map[net.Conn]bool
	all   sync.WaitGroup
}

func newLine(t testing.TB, to string) *line {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &line{ln: ln, to: to, open: map[net.Conn]bool{}}
	l.all.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			l.all.Go(func() { l.carry(c) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		l.set("cut")
		l.all.Wait()
	})
	return l
}

func (l *line) get() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

func (l *line) set(state string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state = state
	if state == "cut" || state == "" {
		for c := range l.open {
			_ = c.Close()
		}
	}
}

func (l *line) keep(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[c] = true
}

func (l *line) drop(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, c)
	_ = c.Close()
}

func (l *line) carry(a net.Conn) {
	l.keep(a)
	defer l.drop(a)
	if l.get() == "cut" {
		return
	}
	b, err := net.Dial("tcp", l.to)
	if err != nil {
		return
	}
	l.keep(b)
	defer l.drop(b)
	var deaf atomic.Bool
	l.all.Go(func() { // from the server
		defer l.drop(a)
		defer l.drop(b)
		buf := make([]byte, 64<<10)
		for {
			n, err := b.Read(buf)
			if err != nil {
				return
			}
			if deaf.Load() {
				l.set("")
				return
			}
			if l.get() != "silent" {
				if _, err := a.Write(buf[:n]); err != nil {
					return
				}
			}
		}
	})
	buf := make([]byte, 64<<10)
	for {
		n, err := a.Read(buf)
		if err != nil {
			return
		}
		if l.get() == "no answer to COMMIT" && strings.Contains(strings.ToLower(string(buf[:n])), "commit") {
			deaf.Store(true)
		}
		if l.get() != "silent" {
			if _, err := b.Write(buf[:n]); err != nil {
				return
			}
		}
	}
}

func someone(n int) (id identity.Identifier) {
	id[0], id[1], id[2] = 1, byte(n>>8), byte(n)
	return id
}

// TestAway: a database that cannot be reached, or does not answer, is a refusal within about 2 s, for all who wait, and is found again by itself.
func TestAway(t *testing.T) {
	name := newSchema(t)
	l := newLine(t, server(t).Address)
	url := strings.Replace(server(t).PatientURL("sallyport_authority", "authority-secret", "postgres", "search_path", name), server(t).Address, l.ln.Addr().String(), 1)
	d := openURL(t, url)
	s := authority.NewStore(d)
	defer s.Close()
	now := time.Now()
	put := func(n int) error {
		return s.PutMember(t.Context(), authority.Member{ID: someone(n), AddedAt: now}, nil)
	}
	// until tries until something succeeds.
	until := func(f func() error) {
		t.Helper()
		for end := time.Now().Add(time.Minute); ; {
			err := f()
			if err == nil {
				return
			}
			if time.Now().After(end) {
				t.Fatal(err)
			}
		}
	}
	until(func() error { return put(1) })
	for i, state := range []string{"cut", "silent"} {
		d.patience = 1900 * time.Millisecond
		l.set(state)
		began := time.Now()
		var all sync.WaitGroup
		for k := range 20 {
			all.Go(func() {
				var err error
				switch k % 4 {
				case 0, 1:
					err = put(100 + k)
				case 2:
					_, _, err = s.Member(t.Context(), someone(1))
				case 3:
					_, err = s.Redeem(t.Context(), authority.CodeHash{1}, someone(2), now)
				}
				if !errors.Is(err, authority.ErrStoreAway) || !strings.Contains(err.Error(), d.Name()) {
					t.Errorf("%s: %v", state, err)
				}
			})
		}
		all.Wait()
		t.Logf("%s: all are refused after %v", state, time.Since(began)) // that they are is the test: with a bound of a minute they would not be
		if _, err := d.State(); !errors.Is(err, authority.ErrStoreAway) {
			t.Errorf("%s: the state is %v", state, err)
		}
		l.set("")
		d.patience = time.Minute
		until(func() error { return put(2 + i) })
		if since, err := d.State(); err != nil || since.Before(began) {
			t.Errorf("%s: back since %v, %v", state, since, err)
		}
	}
	storetest.Trail(t, s)
	if _, ok, err := s.Member(t.Context(), someone(100)); ok || err != nil {
		t.Errorf("what was refused was written: %v", err)
	}
}

// TestCommitWithoutAnswer: where a commit gets no answer, it is found out what became of it.
func TestCommitWithoutAnswer(t *testing.T) {
	name := newSchema(t)
	l := newLine(t, server(t).Address)
	d := openURL(t, strings.Replace(server(t).PatientURL("sallyport_authority", "authority-secret", "postgres", "search_path", name), server(t).Address, l.ln.Addr().String(), 1))
	s := authority.NewStore(d)
	defer s.Close()
	now := time.Now()
	hash := authority.Code{1}.Hash()
	if err := s.AddToken(t.Context(), authority.Token{Hash: hash, Reference: "R", ExpiresAt: now.Add(time.Hour), Uses: 1}, now); err != nil {
		t.Fatal(err)
	}
	l.set("no answer to COMMIT")
	if r, err := s.Redeem(t.Context(), hash, someone(1), now); err != nil || r.Outcome != authority.Redeemed {
		t.Errorf("%+v, %v", r, err)
	}
	if l.get() != "" {
		t.Error("no commit was seen")
	}
	if n := len(storetest.Trail(t, s)); n != 3 {
		t.Errorf("%d entries", n)
	}
}

// TestRestart: the server crashes and comes back under writers. What was acknowledged is there.
func TestRestart(t *testing.T) {
	if testing.Short() {
		t.Skip("restarts the server")
	}
	s := server(t)
	d := opened(t, newSchema(t))
	defer d.Close()
	store := authority.NewStore(d)
	now := time.Now()
	var written, next atomic.Int64
	var all sync.WaitGroup
	stop := make(chan struct{})
	acknowledged := make([]atomic.Bool, 1<<16)
	for range 8 {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				n := int(next.Add(1))
				if n >= len(acknowledged) {
					return
				}
				if store.PutMember(t.Context(), authority.Member{ID: someone(n), AddedAt: now}, nil) == nil {
					acknowledged[n].Store(true)
					written.Add(1)
				}
			}
		})
	}
	more := func() {
		t.Helper()
		for before, end := written.Load(), time.Now().Add(time.Minute); written.Load() < before+20; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("nothing is written")
			}
		}
	}
	for range 2 {
		more()
		s.Stop()
		if err := s.Begin(); err != nil {
			t.Fatal(err)
		}
	}
	more()
	close(stop)
	all.Wait()
	for n := range acknowledged {
		if acknowledged[n].Load() {
			if _, ok, err := store.Member(t.Context(), someone(n)); err != nil || !ok {
				t.Errorf("member %d was acknowledged: %v, %v", n, ok, err)
			}
		}
	}
	storetest.Trail(t, store)
}
