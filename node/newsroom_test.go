package node

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/authority"
	"sallyport/routing"
	"sallyport/routing/fair"
	"sallyport/routing/rpc"
)

// listeners subscribes a number of workers of the authority's own node to its news, as nodes do that do not ask for beats, and counts what they are told.
func listeners(t *testing.T, p *testProject, source Revoker, count int) (told *atomic.Int64) {
	t.Helper()
	r, told := newNewsroom(p.Node, source), &atomic.Int64{}
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
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.run()
	}()
	t.Cleanup(func() {
		p.Stop()
		<-ended
	})
	return told
}

// TestNewMembersAreNobodysNews: members that are added do not cause a word to each that listens to revocations; one that was deleted does, and one that comes back.
func TestNewMembersAreNobodysNews(t *testing.T) {
	p := newProject(t, 0)
	const ears = 50
	told := listeners(t, p, p.auth, ears)
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

// lookedAt is an authority that notes when it is asked what its last revocation is, and which that was.
type lookedAt struct {
	*authority.Authority
	mu    sync.Mutex
	times []time.Time
	heads []uint64
}

func (l *lookedAt) Beat(ctx context.Context) (authority.News, error) {
	at := time.Now()
	news, err := l.Authority.Beat(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.times, l.heads = append(l.times, at), append(l.heads, news.Head)
	return news, err
}

// TestNewsAreToldInGroups: after news nothing is looked at until there is room for more words, however fast members are revoked; what was revoked meanwhile is told then.
func TestNewsAreToldInGroups(t *testing.T) {
	p := newProject(t, 0)
	const ears, gone = newsPerSecond / 5, 60
	for k := range gone {
		if err := p.client().AddMember(within(t), numbered(100+k), nil); err != nil {
			t.Fatal(err)
		}
	}
	source := &lookedAt{Authority: p.auth}
	told := listeners(t, p, source, ears)
	for k := range gone {
		if err := p.client().DeleteMember(within(t), numbered(100+k)); err != nil {
			t.Fatal(err)
		}
	}
	settles(t, "the last is looked at", func() bool {
		source.mu.Lock()
		defer source.mu.Unlock()
		return len(source.heads) > 0 && source.heads[len(source.heads)-1] == gone
	})
	settles(t, "all are told", func() bool { return told.Load() >= ears })
	source.mu.Lock()
	defer source.mu.Unlock()
	before := uint64(0)
	for i := range source.times[1:] {
		fresh := source.heads[i] != before
		before = source.heads[i]
		if pause := source.times[i+1].Sub(source.times[i]); fresh && pause < time.Second*ears/newsPerSecond {
			t.Errorf("%v after %d were told of news it is looked at again", pause, ears)
		}
	}
}
