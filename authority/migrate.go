package authority

import (
	"context"
	"errors"
	"fmt"
)

// ErrNotEmpty reports a store that has something, where an empty one is needed.
var ErrNotEmpty = errors.New("authority: the store is not empty")

// Moved is what Migrate moved.
type Moved struct {
	Members, Tickets, SpentCodes, Revocations, Entries uint64
}

// migrateStep is how many entries or revocations are read at once.
const migrateStep = 1000

// Migrate copies all that one store has to another, which must be empty: members, tickets, codes that were spent, the audit trail with its numbers
// and hashes, the list of revocations with its name and numbers, the lifetime of credentials. It is one transaction of the other store, at whose end
// what it holds is counted and its trail verified. The first is as it is at one moment, and stays as it was.
func Migrate(ctx context.Context, from, to Store) (moved Moved, err error) {
	source, ok1 := from.(*store)
	target, ok2 := to.(*store)
	if !ok1 || !ok2 {
		return moved, errors.New("authority: only stores of a database can be migrated")
	}
	err = source.db.Snapshot(ctx, func(in Tx) error {
		return target.db.Load(ctx, func(out Tx) error {
			if err := isEmpty(out); err != nil {
				return err
			}
			if moved, err = copyRows(in, out); err != nil {
				return err
			}
			there, err := countRows(out)
			if err != nil {
				return err
			}
			if there != moved {
				return fmt.Errorf("authority: of %+v that were written %+v are there", moved, there)
			}
			return nil
		})
	})
	if err != nil {
		return Moved{}, err
	}
	return moved, nil
}

// isEmpty returns ErrNotEmpty if there is anything.
func isEmpty(tx Tx) error {
	there, err := countRows(tx)
	if err != nil {
		return err
	}
	list, err := tx.Revocations(0, 0)
	if err != nil {
		return err
	}
	if there != (Moved{}) || list.Head != 0 {
		return fmt.Errorf("%w: it has %d members, %d tickets, %d entries in its audit trail", ErrNotEmpty, there.Members, there.Tickets, there.Entries)
	}
	return nil
}

func copyRows(in, out Tx) (moved Moved, err error) {
	if err := in.Members(func(m MemberRow) error { moved.Members++; return out.PutMember(m) }); err != nil {
		return moved, err
	}
	if err := in.Tokens(func(t Token) error { moved.Tickets++; return out.PutToken(t) }); err != nil {
		return moved, err
	}
	if err := in.SpentCodes(func(c SpentCode) error { moved.SpentCodes++; return out.PutSpentCode(c) }); err != nil {
		return moved, err
	}
	var last uint64
	for {
		list, err := in.Revocations(last, migrateStep)
		if err != nil {
			return moved, err
		}
		for _, r := range list.Entries {
			if err := out.PutRevocation(r); err != nil {
				return moved, err
			}
			last = r.Seq
			moved.Revocations++
		}
		if len(list.Entries) == 0 {
			if err := out.SetRevocationList(list.Name, list.Head); err != nil {
				return moved, err
			}
			break
		}
	}
	var chain Chain
	for {
		list, err := in.Entries(chain.Last, migrateStep)
		if err != nil {
			return moved, err
		}
		for _, e := range list {
			if err := chain.Next(e); err != nil {
				return moved, err
			}
			if err := out.PutEntry(e); err != nil {
				return moved, err
			}
		}
		if len(list) == 0 {
			break
		}
	}
	moved.Entries = chain.Entries
	ttl, err := in.CredentialTTL()
	if err != nil || ttl == 0 {
		return moved, err
	}
	return moved, out.SetCredentialTTL(ttl)
}

// countRows counts what there is, and verifies the trail.
func countRows(tx Tx) (n Moved, err error) {
	if err := tx.Members(func(MemberRow) error { n.Members++; return nil }); err != nil {
		return n, err
	}
	if err := tx.Tokens(func(Token) error { n.Tickets++; return nil }); err != nil {
		return n, err
	}
	if err := tx.SpentCodes(func(SpentCode) error { n.SpentCodes++; return nil }); err != nil {
		return n, err
	}
	var last uint64
	for {
		list, err := tx.Revocations(last, migrateStep)
		if err != nil {
			return n, err
		}
		if len(list.Entries) == 0 {
			break
		}
		last = list.Entries[len(list.Entries)-1].Seq
		n.Revocations += uint64(len(list.Entries))
	}
	var chain Chain
	for {
		list, err := tx.Entries(chain.Last, migrateStep)
		if err != nil {
			return n, err
		}
		for _, e := range list {
			if err := chain.Next(e); err != nil {
				return n, err
			}
		}
		if len(list) == 0 {
			n.Entries = chain.Entries
			return n, nil
		}
	}
}
