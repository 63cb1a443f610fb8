package storetest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/authority"
)

// Benchmark measures what one operation costs in stores of different sizes, each of a database that open makes and the benchmark closes. What a member asks for costs about
// the same whether there are a hundred members or a hundred thousand: nothing may be looked for by reading all.
func Benchmark(b *testing.B, open func(t testing.TB) authority.Database) {
	for _, size := range []int{100, 1_000, 10_000, 100_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			if testing.Short() && size > 1_000 {
				b.Skip("takes a while to fill")
			}
			db := open(b)
			s := authority.NewStore(db)
			defer func() { check(b, s.Close()) }()
			populate(b, db, size)
			operations(b, s, size)
		})
	}
}

// populate writes as many members, tickets and entries of the trail as size says, and a tenth as many revocations.
func populate(b *testing.B, db authority.Database, size int) {
	check(b, db.Load(b.Context(), func(tx authority.Tx) error {
		var previous [32]byte
		for i := range size {
			e, err := authority.AuditEntry{Time: now, Event: authority.EventMemberAdded, Subject: member(i)}.Chained(uint64(i+1), previous)
			if err != nil {
				return err
			}
			previous = e.Hash
			m := authority.MemberRow{Member: authority.Member{ID: member(i), AddedBy: member(0), AddedAt: now, Ticket: fmt.Sprint("T", i), Attributes: authority.Attributes{"side": "bank"}}}
			if err := errors.Join(tx.PutEntry(e), tx.PutMember(m), tx.PutToken(ticket(i))); err != nil {
				return err
			}
			if i%10 == 0 {
				if err := tx.PutRevocation(authority.Revocation{Seq: uint64(i/10 + 1), Subject: member(1<<30 + i), Time: now, Until: now.Add(time.Hour)}); err != nil {
					return err
				}
			}
		}
		return nil
	}))
}

// ticket returns one that has a number, for one use.
func ticket(n int) authority.Token {
	var c authority.Code
	binary.BigEndian.PutUint64(c[:], uint64(n))
	return authority.Token{Hash: c.Hash(), Reference: fmt.Sprint("T", n), ExpiresAt: now.Add(time.Hour), Uses: 1, IssuedBy: member(0), Attributes: authority.Attributes{"side": "bank"}}
}

// operations measures each operation, with as many callers at a time as join in one transaction where the store joins them.
func operations(b *testing.B, s authority.Store, size int) {
	const callers = 64
	ctx := at(b, 0, now)
	next := &atomic.Int64{} // numbers of what is new
	next.Store(1 << 26)
	for name, f := range map[string]func(k int) error{
		"Member": func(k int) error {
			_, ok, err := s.Member(ctx, member(k%size))
			if err == nil && !ok {
				err = errors.New("the member is not there")
			}
			return err
		},
		"Renew": func(k int) error { return s.Issued(ctx, member(k%size), nil, now.Add(time.Hour)) },
		"Enrol": func(k int) error {
			t := ticket(k)
			if err := s.AddToken(ctx, t, now); err != nil {
				return err
			}
			r, err := s.Redeem(ctx, t.Hash, member(k), now)
			if err == nil && r.Outcome != authority.Redeemed {
				err = errors.New(string(r.Outcome))
			}
			return err
		},
		"RevokeTicket": func(k int) error {
			if err := s.AddToken(ctx, ticket(k), now); err != nil {
				return err
			}
			return s.RevokeToken(ctx, ticket(k).Reference)
		},
		"Block": func(k int) error {
			return errors.Join(s.Block(ctx, member(k%size), true, nil), s.Block(ctx, member(k%size), false, nil))
		},
		"News":  func(int) error { _, err := s.Revocations(ctx, uint64(size/10), 200); return err },
		"Trail": func(int) error { _, err := s.Audit(ctx, uint64(size)-10, 10); return err },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(callers)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := f(int(next.Add(1))); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
