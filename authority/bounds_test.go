package authority

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"sallyport/crypto/identity"
)

// TestRecentMakesRoom: where all places are taken, credentials that are no longer handed out again make room for new ones, and those that are stay.
func TestRecentMakesRoom(t *testing.T) {
	var r recent
	who := func(i int) (id identity.Identifier) {
		binary.BigEndian.PutUint32(id[:], uint32(i+1))
		return id
	}
	now, ttl, key := time.Unix(1_000_000, 0), time.Hour, [32]byte{1}
	put := func(i int, at time.Time) { r.put(who(i), nil, ttl, key, at, []byte{1}) }
	has := func(i int, at time.Time) bool { return r.get(who(i), nil, ttl, key, at) != nil }
	for i := range maxRecent {
		put(i, now)
	}
	if put(maxRecent, now); len(r.list) != maxRecent || has(maxRecent, now) || !has(0, now) {
		t.Errorf("%d of %d kept, the new one %v, the first %v", len(r.list), maxRecent, has(maxRecent, now), has(0, now))
	}
	later := now.Add(recentFor + time.Second)
	if put(maxRecent, later); len(r.list) > maxRecent || !has(maxRecent, later) {
		t.Errorf("later: %d of %d kept, the new one %v", len(r.list), maxRecent, has(maxRecent, later))
	}
	// What was remembered anew, or forgotten, leaves nothing behind.
	for i := range 3 * maxRecent {
		later = later.Add(recentFor / maxRecent)
		if put(i%7, later); i%5 == 0 {
			r.forget(who(i % 7))
		}
	}
	if later = later.Add(recentFor + time.Second); len(r.order) > maxRecent {
		t.Errorf("%d in order", len(r.order))
	}
	if put(0, later); len(r.list) != 1 || len(r.order) != 1 || !has(0, later) {
		t.Errorf("in the end %d are kept, %d in order", len(r.list), len(r.order))
	}
}

// TestFeedTrims: signatures go with what they were for, and those of what is still there stay.
func TestFeedTrims(t *testing.T) {
	signed := func(f *feed) (list []uint64) {
		for seq := range f.signed {
			list = append(list, seq)
		}
		slices.Sort(list)
		return list
	}
	for _, c := range []struct {
		signed, all, want []uint64
	}{
		{[]uint64{1, 2, 3}, []uint64{1, 2, 3}, []uint64{1, 2, 3}}, {[]uint64{1, 2, 3, 4}, []uint64{3, 4}, []uint64{3, 4}}, {[]uint64{1, 2}, nil, nil},
		{[]uint64{5}, []uint64{5, 6, 7}, []uint64{5}}, {nil, []uint64{1}, nil},
	} {
		f := feed{signed: map[uint64]signedStatement{}}
		for _, seq := range c.signed {
			f.signed[seq] = signedStatement{}
		}
		list := RevocationList{Head: 9}
		if len(c.all) > 0 {
			list.First, list.Head = c.all[0], c.all[len(c.all)-1]
		}
		if f.trim(list); !slices.Equal(signed(&f), c.want) {
			t.Errorf("of %d signed, %d there: %d are left", c.signed, c.all, signed(&f))
		}
	}
}

// TestSignInEndsItsOwn: who has begun a second sign-in does not lose it when the first one ends; what ends is cancelled.
func TestSignInEndsItsOwn(t *testing.T) {
	who := identity.Identifier{1}
	cancelled := 0
	first, second := &signIn{cancel: func() { cancelled++ }}, &signIn{cancel: func() { cancelled += 10 }}
	s := signIns{all: map[identity.Identifier]*signIn{who: second}}
	if s.end(who, first); s.get(who) != second || cancelled != 1 {
		t.Errorf("the first has ended: the second is there %v, cancelled %d", s.get(who) == second, cancelled)
	}
	if s.end(who, second); s.get(who) != nil || cancelled != 11 {
		t.Errorf("the second has ended: it is there %v, cancelled %d", s.get(who) != nil, cancelled)
	}
	if s.end(who, second); s.get(who) != nil {
		t.Error("there again")
	}
}
