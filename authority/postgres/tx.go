package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"
	"github.com/jackc/pgx/v5"

	"sallyport/authority"
	"sallyport/crypto/identity"
)

// querier is a connection, a pool or a transaction.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

// maxPending is how many statements wait to be sent.
const maxPending = 500

// tx is a transaction, or reads without one. What is written waits and goes with the next read, or at the end: each change costs no round trip of its own.
type tx struct {
	ctx     context.Context
	q       querier
	pending *pgx.Batch
	changes int   // statements that write, and changes of state
	err     error // of the database, after which nothing more is sent

	locked bool // the state is in here, and nobody else changes it
	dirty  bool // the state is to be written
	state  state
}

// state is the row that every writer locks.
type state struct {
	list  []byte
	head  uint64
	trail uint64
	hash  [32]byte
	ttl   time.Duration
}

// lock locks and reads the state, and returns the transaction's name.
func (t *tx) lock() (id string, err error) {
	var hash []byte
	var head, trail, ttl int64
	err = t.q.QueryRow(t.ctx, "SELECT list, head, trail, trail_hash, credential_ttl, pg_current_xact_id()::text FROM authority_state FOR UPDATE").
		Scan(&t.state.list, &head, &trail, &hash, &ttl, &id)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", errors.New("authority: the store's table authority_state is empty")
	}
	if err != nil {
		return "", err
	}
	t.state.head, t.state.trail, t.state.ttl, t.locked = uint64(head), uint64(trail), time.Duration(ttl), true
	if copy(t.state.hash[:], hash) != len(t.state.hash) {
		return "", fmt.Errorf("%w: its last hash has %d bytes", authority.ErrTrail, len(hash))
	}
	return id, nil
}

// finish sends what waits.
func (t *tx) finish() error {
	if t.dirty {
		t.dirty = false
		if err := t.write("UPDATE authority_state SET list = $1, head = $2, trail = $3, trail_hash = $4, credential_ttl = $5",
			t.state.list, int64(t.state.head), int64(t.state.trail), t.state.hash[:], int64(t.state.ttl)); err != nil {
			return err
		}
	}
	return t.flush("", nil, nil)
}

// write has a statement sent later.
func (t *tx) write(sql string, args ...any) error {
	if t.err != nil {
		return t.err
	}
	if t.pending == nil {
		t.pending = &pgx.Batch{}
	}
	t.pending.Queue(sql, args...)
	t.changes++
	if t.pending.Len() >= maxPending {
		return t.flush("", nil, nil)
	}
	return nil
}

// change notes that the state is another one.
func (t *tx) change() {
	t.dirty = true
	t.changes++
}

// read sends what waits and a query, and calls f for each of its rows.
func (t *tx) read(f func(pgx.Rows) error, sql string, args ...any) error {
	return t.flush(sql, args, f)
}

// one is read for at most one row, whose columns are put into to.
func (t *tx) one(to []any, sql string, args ...any) (ok bool, err error) {
	err = t.read(func(r pgx.Rows) error { ok = true; return r.Scan(to...) }, sql, args...)
	return ok && err == nil, err
}

// flush sends what waits, and a query if there is one.
func (t *tx) flush(sql string, args []any, f func(pgx.Rows) error) error {
	if t.err != nil {
		return t.err
	}
	b := t.pending
	t.pending = nil
	if b == nil {
		if sql == "" {
			return nil
		}
		b = &pgx.Batch{}
	}
	before := b.Len()
	if sql != "" {
		b.Queue(sql, args...)
	}
	results := t.q.SendBatch(t.ctx, b)
	var own error // of f
	err := func() error {
		for range before {
			if _, err := results.Exec(); err != nil {
				return err
			}
		}
		if sql == "" {
			return nil
		}
		rows, err := results.Query()
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			if own = f(rows); own != nil {
				return nil
			}
		}
		return rows.Err()
	}()
	if closing := results.Close(); err == nil {
		err = closing
	}
	if err != nil {
		t.err = err
		return err
	}
	return own
}

// second and millisecond cut what is not kept; the zero time is NULL.
func second(t time.Time) *time.Time { return cut(t, t.Truncate(time.Second)) }

func millisecond(t time.Time) *time.Time { return cut(t, t.Truncate(time.Millisecond)) }

func cut(t, short time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &short
}

// timeOf is the zero time for NULL.
func timeOf(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

func encode(a authority.Attributes) ([]byte, error) { return cbor.Marshal(a) }

func decode(raw []byte) (a authority.Attributes, err error) {
	if err := cbor.Unmarshal(raw, &a); err != nil {
		return nil, fmt.Errorf("authority: damaged attributes: %w", err)
	}
	return a, nil
}

func identifier(raw []byte) (id identity.Identifier, err error) {
	if len(raw) != len(id) {
		return id, fmt.Errorf("authority: a damaged identifier of %d bytes", len(raw))
	}
	return identity.Identifier(raw), nil
}

// sayable reports whether a text can be in a column.
func sayable(text string) bool { return utf8.ValidString(text) && !strings.ContainsRune(text, 0) }

const memberColumns = "id, attributes, added_by, added_at, pre_trusted, blocked, ticket, last_seen, credential_expires, audited_at, issued"

func memberOf(r pgx.Rows) (m authority.MemberRow, err error) {
	var id, attributes, by []byte
	var added time.Time
	var seen, expires, audited *time.Time
	var issued int64
	if err := r.Scan(&id, &attributes, &by, &added, &m.PreTrusted, &m.Blocked, &m.Ticket, &seen, &expires, &audited, &issued); err != nil {
		return m, err
	}
	if m.ID, err = identifier(id); err != nil {
		return m, err
	}
	if m.AddedBy, err = identifier(by); err != nil {
		return m, err
	}
	m.AddedAt, m.LastSeen, m.CredentialExpires, m.AuditedAt, m.Issued = added, timeOf(seen), timeOf(expires), timeOf(audited), uint64(issued)
	m.Attributes, err = decode(attributes)
	return m, err
}

const selectMember = "SELECT " + memberColumns + " FROM authority_members WHERE id = $1"

func (t *tx) Member(id identity.Identifier) (m authority.MemberRow, ok bool, err error) {
	err = t.read(func(r pgx.Rows) error {
		ok = true
		m, err = memberOf(r)
		return err
	}, selectMember, id[:])
	return m, ok && err == nil, err
}

func (t *tx) Members(f func(authority.MemberRow) error) error {
	return t.read(func(r pgx.Rows) error {
		m, err := memberOf(r)
		if err != nil {
			return err
		}
		return f(m)
	}, "SELECT "+memberColumns+" FROM authority_members ORDER BY id")
}

func (t *tx) PutMember(m authority.MemberRow) error {
	attributes, err := encode(m.Attributes)
	if err != nil {
		return err
	}
	return t.write("INSERT INTO authority_members ("+memberColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
		ON CONFLICT (id) DO UPDATE SET attributes = $2, added_by = $3, added_at = $4, pre_trusted = $5, blocked = $6, ticket = $7, last_seen = $8,
		credential_expires = $9, audited_at = $10, issued = $11`,
		m.ID[:], attributes, m.AddedBy[:], m.AddedAt.Truncate(time.Second), m.PreTrusted, m.Blocked, m.Ticket, millisecond(m.LastSeen), second(m.CredentialExpires),
		millisecond(m.AuditedAt), int64(m.Issued))
}

func (t *tx) DeleteMember(id identity.Identifier) error {
	return t.write("DELETE FROM authority_members WHERE id = $1", id[:])
}

const (
	ticketColumns = "hash, reference, attributes, issued_by, issued_at, expires_at, uses, used"
	selectTicket  = "SELECT " + ticketColumns + " FROM authority_tickets WHERE hash = $1"
	selectNamed   = "SELECT " + ticketColumns + " FROM authority_tickets WHERE reference = $1 LIMIT 1"
	selectExpired = "SELECT " + ticketColumns + " FROM authority_tickets WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2"
)

func ticketOf(r pgx.Rows) (k authority.Token, err error) {
	var hash, attributes, by []byte
	var issued *time.Time
	var uses, used int64
	if err := r.Scan(&hash, &k.Reference, &attributes, &by, &issued, &k.ExpiresAt, &uses, &used); err != nil {
		return k, err
	}
	if copy(k.Hash[:], hash) != len(k.Hash) || len(hash) != len(k.Hash) {
		return k, fmt.Errorf("authority: a damaged hash of %d bytes", len(hash))
	}
	if k.IssuedBy, err = identifier(by); err != nil {
		return k, err
	}
	k.IssuedAt, k.Uses, k.Used = timeOf(issued), uint64(uses), uint64(used)
	k.Attributes, err = decode(attributes)
	return k, err
}

func (t *tx) tickets(f func(authority.Token) error, sql string, args ...any) error {
	return t.read(func(r pgx.Rows) error {
		k, err := ticketOf(r)
		if err != nil {
			return err
		}
		return f(k)
	}, sql, args...)
}

func (t *tx) Token(hash authority.CodeHash) (k authority.Token, ok bool, err error) {
	err = t.tickets(func(found authority.Token) error { k, ok = found, true; return nil }, selectTicket, hash[:])
	return k, ok && err == nil, err
}

func (t *tx) TokenNamed(reference string) (k authority.Token, ok bool, err error) {
	if !sayable(reference) {
		return k, false, nil
	}
	err = t.tickets(func(found authority.Token) error { k, ok = found, true; return nil }, selectNamed, reference)
	return k, ok && err == nil, err
}

func (t *tx) Tokens(f func(authority.Token) error) error {
	return t.tickets(f, "SELECT "+ticketColumns+" FROM authority_tickets ORDER BY hash")
}

func (t *tx) ExpiredTokens(now time.Time, limit int) (list []authority.Token, err error) {
	err = t.tickets(func(k authority.Token) error { list = append(list, k); return nil }, selectExpired, now.Truncate(time.Millisecond), limit)
	return list, err
}

func (t *tx) PutToken(k authority.Token) error {
	attributes, err := encode(k.Attributes)
	if err != nil {
		return err
	}
	return t.write("INSERT INTO authority_tickets ("+ticketColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (hash) DO UPDATE SET reference = $2, attributes = $3, issued_by = $4, issued_at = $5, expires_at = $6, uses = $7, used = $8`,
		k.Hash[:], k.Reference, attributes, k.IssuedBy[:], millisecond(k.IssuedAt), k.ExpiresAt.Truncate(time.Millisecond), int64(k.Uses), int64(k.Used))
}

func (t *tx) DeleteToken(k authority.Token) error {
	return t.write("DELETE FROM authority_tickets WHERE hash = $1", k.Hash[:])
}

const selectSpent = "SELECT reference, outcome, until FROM authority_spent WHERE hash = $1"

func (t *tx) SpentCode(hash authority.CodeHash) (c authority.SpentCode, ok bool, err error) {
	c.Hash = hash
	ok, err = t.one([]any{&c.Reference, (*string)(&c.Outcome), &c.Until}, selectSpent, hash[:])
	return c, ok, err
}

func (t *tx) SpentCodes(f func(authority.SpentCode) error) error {
	return t.read(func(r pgx.Rows) error {
		var c authority.SpentCode
		var hash []byte
		if err := r.Scan(&hash, &c.Reference, (*string)(&c.Outcome), &c.Until); err != nil {
			return err
		}
		copy(c.Hash[:], hash)
		return f(c)
	}, "SELECT hash, reference, outcome, until FROM authority_spent ORDER BY hash")
}

func (t *tx) PutSpentCode(c authority.SpentCode) error {
	return t.write(`INSERT INTO authority_spent (hash, reference, outcome, until) VALUES ($1, $2, $3, $4)
		ON CONFLICT (hash) DO UPDATE SET reference = $2, outcome = $3, until = $4`, c.Hash[:], c.Reference, string(c.Outcome), c.Until.Truncate(time.Millisecond))
}

const forgetSpent = "DELETE FROM authority_spent WHERE hash IN (SELECT hash FROM authority_spent WHERE until <= $1 ORDER BY until LIMIT $2)"

func (t *tx) ForgetSpentCodes(now time.Time, limit int) error {
	changes := t.changes
	err := t.write(forgetSpent, now.Truncate(time.Millisecond), limit)
	t.changes = changes // by itself it is no change that anybody asked for
	return err
}

// revocationColumns beside what there is of the list, in one statement, so that all is of one moment.
const selectRevocations = `SELECT s.list, s.head, coalesce((SELECT min(seq) FROM authority_revocations), 0), r.seq, r.subject, r.at, r.restored, r.until
	FROM authority_state s LEFT JOIN (SELECT * FROM authority_revocations WHERE seq > $1 ORDER BY seq LIMIT $2) r ON true ORDER BY r.seq`

func (t *tx) Revocations(after uint64, limit int) (list authority.RevocationList, err error) {
	err = t.read(func(r pgx.Rows) error {
		var head, first int64
		var seq *int64
		var subject []byte
		var at, until *time.Time
		var restored *bool
		if err := r.Scan(&list.Name, &head, &first, &seq, &subject, &at, &restored, &until); err != nil {
			return err
		}
		list.Head, list.First = uint64(head), uint64(first)
		if seq == nil {
			return nil
		}
		id, err := identifier(subject)
		list.Entries = append(list.Entries, authority.Revocation{Seq: uint64(*seq), Subject: id, Time: *at, Restored: *restored, Until: *until})
		return err
	}, selectRevocations, int64(min(after, 1<<62)), limit)
	if t.locked {
		list.Name, list.Head = append([]byte(nil), t.state.list...), t.state.head
	}
	return list, err
}

const selectRevocation = "SELECT seq, at, restored, until FROM authority_revocations WHERE subject = $1 ORDER BY seq DESC LIMIT 1"

func (t *tx) RevocationOf(id identity.Identifier) (r authority.Revocation, ok bool, err error) {
	var seq int64
	ok, err = t.one([]any{&seq, &r.Time, &r.Restored, &r.Until}, selectRevocation, id[:])
	r.Seq, r.Subject = uint64(seq), id
	return r, ok, err
}

func (t *tx) PutRevocation(r authority.Revocation) error {
	t.state.head = r.Seq
	t.change()
	return t.write("INSERT INTO authority_revocations (seq, subject, at, restored, until) VALUES ($1, $2, $3, $4, $5)", int64(r.Seq), r.Subject[:],
		r.Time.Truncate(time.Second), r.Restored, r.Until.Truncate(time.Second))
}

func (t *tx) DeleteRevocations(last uint64) error {
	return t.write("DELETE FROM authority_revocations WHERE seq <= $1", int64(last))
}

func (t *tx) SetRevocationList(name []byte, head uint64) error {
	t.state.list, t.state.head = append([]byte(nil), name...), head
	t.change()
	return nil
}

const selectEntries = "SELECT seq, previous, content FROM authority_trail WHERE seq > $1 ORDER BY seq LIMIT $2"

func (t *tx) Entries(after uint64, limit int) (list []authority.AuditEntry, err error) {
	err = t.read(func(r pgx.Rows) error {
		var seq int64
		var previous, content []byte
		if err := r.Scan(&seq, &previous, &content); err != nil {
			return err
		}
		e, err := authority.ReadAuditEntry(uint64(seq), previous, content)
		list = append(list, e)
		return err
	}, selectEntries, int64(min(after, 1<<62)), limit)
	return list, err
}

func (t *tx) LastEntry() (seq uint64, hash [32]byte, err error) {
	if !t.locked {
		return 0, hash, errors.New("authority: the trail's end is read by writers alone")
	}
	return t.state.trail, t.state.hash, nil
}

func (t *tx) PutEntry(e authority.AuditEntry) error {
	t.state.trail, t.state.hash = e.Seq, e.Hash
	t.change()
	return t.write("INSERT INTO authority_trail (seq, previous, content) VALUES ($1, $2, $3)", int64(e.Seq), e.Previous[:], e.Content())
}

func (t *tx) DeleteEntries(last uint64) error {
	return t.write("DELETE FROM authority_trail WHERE seq <= $1", int64(last))
}

func (t *tx) CredentialTTL() (time.Duration, error) {
	if t.locked {
		return t.state.ttl, nil
	}
	var ttl int64
	_, err := t.one([]any{&ttl}, "SELECT credential_ttl FROM authority_state")
	return time.Duration(ttl), err
}

func (t *tx) SetCredentialTTL(ttl time.Duration) error {
	t.state.ttl = ttl
	t.change()
	return nil
}
