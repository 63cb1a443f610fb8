package authority

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"sallyport/crypto/identity"
)

// save writes a snapshot to a file.
func save(t *testing.T, s *Snapshot) string {
	t.Helper()
	defer s.Close()
	path := filepath.Join(t.TempDir(), "authority-p.db")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(f, s); err != nil || n != s.Size {
		t.Fatalf("%d of %d bytes, %v", n, s.Size, err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// verified checks a store's trail and returns it.
func verified(t *testing.T, s Store) (all []AuditEntry) {
	t.Helper()
	var chain Chain
	for after := uint64(0); ; after = chain.Last {
		list, err := s.Audit(t.Context(), after, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 0 {
			return all
		}
		for _, e := range list {
			if err := chain.Next(e); err != nil {
				t.Fatal(err)
			}
			all = append(all, e)
		}
	}
}

// TestSnapshotUnderLoad: a copy is the store as it was at one moment, while others write; of what was written before it all is there.
func TestSnapshotUnderLoad(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenStore(filepath.Join(dir, "authority-p.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, stop := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	for range 4 {
		writers.Go(func() {
			for ctx.Err() == nil {
				var id identity.Identifier
				_, _ = rand.Read(id[:])
				if err := s.PutMember(ctx, Member{ID: id, AddedAt: time.Now()}, nil); err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
			}
		})
	}
	defer writers.Wait()
	defer stop()
	for range 5 {
		before, err := s.Members(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		copied, err := TakeSnapshot(t.Context(), s, dir)
		if err != nil {
			t.Fatal(err)
		}
		c, err := OpenStore(save(t, copied))
		if err != nil {
			t.Fatal(err)
		}
		members, err := c.Members(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		// Each member that was added is an entry, and there is no other.
		if n := len(verified(t, c)); n != len(members) || len(members) < len(before) {
			t.Errorf("%d members, %d entries, %d members before", len(members), n, len(before))
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if _, err := FileSnapshot(filepath.Join(dir, "authority-p.db"), dir); !errors.Is(err, ErrStoreBusy) {
		t.Errorf("of a store that is open: %v", err)
	}
}

// TestRestored: a store that is back from a backup has members, trail and, on request, tickets; it admits nobody with a ticket that may have been used
// since, and its revocations are told to all.
func TestRestored(t *testing.T) {
	for _, keep := range []bool{false, true} {
		dir, ctx := t.TempDir(), t.Context()
		path := filepath.Join(dir, "authority-p.db")
		s, err := OpenStore(path)
		if err != nil {
			t.Fatal(err)
		}
		now := time.Now()
		code := Code{1}
		token := Token{Hash: code.Hash(), Reference: "reference1", ExpiresAt: now.Add(time.Hour), Uses: 2}
		for _, err := range []error{s.AddToken(ctx, token, now), s.PutMember(ctx, Member{ID: some(1), AddedAt: now}, nil), s.PutMember(ctx, Member{ID: some(2), AddedAt: now}, nil),
			s.DeleteMembers(ctx, []identity.Identifier{some(2)}, nil)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		before, err := s.Revocations(ctx, 0, 10)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		copied, err := FileSnapshot(path, dir)
		if err != nil {
			t.Fatal(err)
		}
		restored := save(t, copied)
		revoked, err := Restored(ctx, restored, now, keep)
		if want := map[bool]int{false: 1, true: 0}[keep]; err != nil || revoked != want {
			t.Fatalf("%d revoked, %v", revoked, err)
		}
		if s, err = OpenStore(restored); err != nil {
			t.Fatal(err)
		}
		after, err := s.Revocations(ctx, 0, 10)
		if err != nil || string(after.Name) == string(before.Name) || after.Head != before.Head || len(after.Entries) != 1 {
			t.Errorf("%+v, before %+v; %v", after, before, err)
		}
		trail := verified(t, s)
		events := map[string]int{}
		for _, e := range trail {
			events[e.Event]++
		}
		if events[EventRestored] != 1 || events[EventTicketRevoked] != revoked || events[EventTicketMade] != 1 {
			t.Errorf("%v", events)
		}
		r, err := s.Redeem(ctx, code.Hash(), some(3), time.Now())
		if want := map[bool]Outcome{false: CodeRevoked, true: Redeemed}[keep]; err != nil || r.Outcome != want {
			t.Errorf("keep %v: a ticket is %q, %v", keep, r.Outcome, err)
		}
		if _, ok, err := s.Member(ctx, some(1)); err != nil || !ok {
			t.Errorf("a member is none: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	empty := filepath.Join(t.TempDir(), "authority-p.db")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Restored(t.Context(), empty, time.Now(), false); !errors.Is(err, ErrStoreBroken) {
		t.Errorf("an empty store: %v", err)
	}
	if err := os.WriteFile(empty, make([]byte, 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Restored(t.Context(), empty, time.Now(), false); !errors.Is(err, ErrStoreBroken) {
		t.Errorf("a broken store: %v", err)
	}
}
