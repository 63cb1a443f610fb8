package authority

import (
	"context"
	"fmt"
	"io"
	"maps"

	"sallyport/crypto/identity"
)

// store is the Store of a Database.
type store struct{ db Database }

// NewStore returns the store whose rows a database keeps. Closing the store closes the database.
func NewStore(db Database) Store { return &store{db} }

func (s *store) Close() error { return s.db.Close() }

func (s *store) Copy(ctx context.Context, w io.Writer) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.db.Copy(ctx, w)
}

func (s *store) view(ctx context.Context, f func(Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.db.View(ctx, f)
}

func (s *store) update(ctx context.Context, f func(Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.db.Update(ctx, f)
}

func (s *store) batch(ctx context.Context, f func(Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.db.Batch(ctx, f)
}

func (s *store) Member(ctx context.Context, id identity.Identifier) (m Member, ok bool, err error) {
	err = s.view(ctx, func(tx Tx) error {
		var r MemberRow
		r, ok, err = tx.Member(id)
		m = r.Member
		return err
	})
	return m, ok && err == nil, err
}

func (s *store) Members(ctx context.Context) (all []Member, err error) {
	err = s.view(ctx, func(tx Tx) error {
		all = nil
		return tx.Members(func(r MemberRow) error { all = append(all, r.Member); return nil })
	})
	return all, err
}

// putMember writes a row. What the store notes of a member that is there stays.
func putMember(tx Tx, m Member) error {
	r, _, err := tx.Member(m.ID)
	if err != nil {
		return err
	}
	r.ID = m.ID
	r.Attributes, r.AddedBy, r.AddedAt, r.PreTrusted = m.Attributes, m.AddedBy, m.AddedAt, m.PreTrusted
	r.Blocked = m.Blocked
	if m.Ticket != "" {
		r.Ticket = m.Ticket
	}
	return tx.PutMember(r)
}

func (s *store) PutMember(ctx context.Context, m Member, allow func(old *Member) error) error {
	return s.update(ctx, func(tx Tx) error {
		m := m
		old, ok, err := tx.Member(m.ID)
		if err != nil {
			return err
		}
		if allow != nil {
			row := &old.Member
			if !ok {
				row = nil
			}
			if err := allow(row); err != nil {
				return err
			}
		}
		m.PreTrusted = m.PreTrusted || old.PreTrusted
		m.Blocked = old.Blocked
		return admitMember(tx, originOf(ctx), m, ok)
	})
}

// admitMember writes the row of a member that was added or changed, and takes back its revocation if it had been deleted.
func admitMember(tx Tx, o Origin, m Member, known bool) error {
	event := EventMemberChanged
	if !known {
		event = EventMemberAdded
		r, ok, err := tx.RevocationOf(m.ID)
		if err != nil {
			return err
		}
		if ok && !r.Restored {
			if err := revoke(tx, &m, true, o.Time); err != nil {
				return err
			}
		}
	}
	if err := putMember(tx, m); err != nil {
		return err
	}
	return record(tx, AuditEntry{
		Time: o.Time, Event: event, Actor: o.Actor, Source: o.Source, Subject: m.ID, Ticket: m.Ticket, Attributes: m.Attributes,
	})
}

// dropMember removes a member and revokes it.
func dropMember(tx Tx, o Origin, m *Member) error {
	if err := tx.DeleteMember(m.ID); err != nil {
		return err
	}
	if err := revoke(tx, m, false, o.Time); err != nil {
		return err
	}
	return record(tx, AuditEntry{Time: o.Time, Event: EventMemberDeleted, Actor: o.Actor, Source: o.Source, Subject: m.ID})
}

func (s *store) DeleteMembers(ctx context.Context, ids []identity.Identifier, allow func(old *Member) error) error {
	var refused error
	err := s.update(ctx, func(tx Tx) error {
		refused = nil
		var targets []Member
		if ids == nil {
			if err := tx.Members(func(r MemberRow) error { targets = append(targets, r.Member); return nil }); err != nil {
				return err
			}
		}
		seen := map[identity.Identifier]bool{}
		for _, id := range ids {
			r, ok, err := tx.Member(id)
			if err != nil {
				return err
			}
			if ok && !seen[id] {
				targets = append(targets, r.Member)
			}
			seen[id] = true
		}
		for _, m := range targets {
			if allow != nil {
				if err := allow(&m); err != nil {
					if refused == nil {
						refused = err
					}
					continue
				}
			}
			if err := dropMember(tx, originOf(ctx), &m); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return refused
}

func (s *store) ReplacePreTrusted(ctx context.Context, members []Member) error {
	return s.update(ctx, func(tx Tx) error {
		o := originOf(ctx)
		stay := map[identity.Identifier]bool{}
		for _, m := range members {
			stay[m.ID] = true
		}
		var gone []Member
		if err := tx.Members(func(r MemberRow) error {
			if r.PreTrusted && !stay[r.ID] {
				gone = append(gone, r.Member)
			}
			return nil
		}); err != nil {
			return err
		}
		for _, m := range gone {
			if err := dropMember(tx, Origin{Actor: o.Actor, Time: o.Time}, &m); err != nil {
				return err
			}
		}
		for _, m := range members {
			m.PreTrusted = true
			old, known, err := tx.Member(m.ID)
			if err != nil {
				return err
			}
			m.Blocked = old.Blocked
			if known && old.PreTrusted && maps.Equal(old.Attributes, m.Attributes) {
				continue // as it was at the last start
			}
			if err := admitMember(tx, o, m, known); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *store) Block(ctx context.Context, id identity.Identifier, blocked bool, allow func(old *Member) error) error {
	return s.update(ctx, func(tx Tx) error {
		r, ok, err := tx.Member(id)
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("%w: %s", ErrNoMember, id)
		}
		if allow != nil {
			if err := allow(&r.Member); err != nil {
				return err
			}
		}
		if r.Blocked == blocked {
			return nil
		}
		o := originOf(ctx)
		r.Blocked = blocked
		event := EventMemberBlocked
		if !blocked {
			event = EventMemberUnblocked
		}
		if err := tx.PutMember(r); err != nil {
			return err
		}
		if err := revoke(tx, &r.Member, !blocked, o.Time); err != nil {
			return err
		}
		return record(tx, AuditEntry{Time: o.Time, Event: event, Actor: o.Actor, Source: o.Source, Subject: id})
	})
}
