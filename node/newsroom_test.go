package node

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/authority"
	"sallyport/routing"
	"sallyport/routing/fair"
	"sallyport/routing/rpc"
)

// listeners subscribes a number of workers of the authority's own node to its news, as nodes do that do not ask for beats, and counts what they are told.
func listeners(t *testing.T, p *testProject, count int) (told *atomic.Int64) {
	t.Helper()
	r, told := newNewsroom(p.Node, p.auth), &atomic.Int64{}
	ear := routing.WorkerFunc(func(*routing.Shard, *routing.Message) { told.Add(1) })
	if err := p.router.StartNamed(t.Context(), "ear", func(*routing.Shard) routing.Worker { return ear }); err != nil {
		t.Fatal(err)
	}
	now, err := p.auth.Beat(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.last = now
	for i := range count {
		sub := &subscriber{
			back: routing.LocalRoute("ear"), query: authority.Query{List: now.List, Since: now.Head}, re: rpc.NewRequest(rpc.Get, "/", nil), until: time.Now().Add(time.Hour),
		}
		key := fmt.Sprint(i)
		sub.place, _, _ = r.places.Take(fair.Source{key}, key)
		r.subscribers[key] = sub
	}
	go r.run()
	return told
}

// TestNewMembersAreNobodysNews: members that are added do not cause a word to each that listens to revocations; one that was deleted does, and one that comes back.
func TestNewMembersAreNobodysNews(t *testing.T) {
	p := newProject(t, 0)
	const ears = 50
	told := listeners(t, p, ears)
	for k := range 20 {
		if err := p.client().AddMember(within(t), numbered(100+k), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.client().DeleteMember(within(t), numbered(100)); err != nil {
		t.Fatal(err)
	}
	settles(t, "all are told of the member that was deleted", func() bool { return told.Load() >= ears })
	if n := told.Load(); n != ears {
		t.Errorf("%d words to %d listeners about 20 new members and one that was deleted", n, ears)
	}
	if err := p.client().AddMember(within(t), numbered(100), nil); err != nil {
		t.Fatal(err)
	}
	settles(t, "all are told of the member that came back", func() bool { return told.Load() >= 2*ears })
}

// TestNewsAreToldInGroups: however fast members are revoked, no more is said to those that listen than newsPerSecond.
func TestNewsAreToldInGroups(t *testing.T) {
	p := newProject(t, 0)
	const ears, gone = newsPerSecond / 5, 60
	for k := range gone {
		if err := p.client().AddMember(within(t), numbered(100+k), nil); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	told := listeners(t, p, ears)
	deleted := make(chan error, 1)
	go func() {
		for k := range gone {
			if err := p.client().DeleteMember(context.Background(), numbered(100+k)); err != nil {
				deleted <- err
				return
			}
		}
		deleted <- nil
	}()
	if err := <-deleted; err != nil {
		t.Fatal(err)
	}
	settles(t, "something is told", func() bool { return told.Load() > 0 })
	settles(t, "the last is told", func() bool {
		n := told.Load()
		time.Sleep(3 * time.Second * ears / newsPerSecond)
		return n == told.Load()
	})
	// One group is told at once, the next ones when there is room again.
	if n, most := told.Load(), int64(ears)+int64(time.Since(began).Seconds()*newsPerSecond); n > most {
		t.Errorf("%d words in %v, at most %d", n, time.Since(began), most)
	}
}
