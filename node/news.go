package node

import (
	"context"
	"errors"
	"sync"
	"time"

	"sallyport/authority"
	"sallyport/routing"
	"sallyport/routing/fair"
	"sallyport/routing/rpc"
)

// Revoker is what an authority's node needs in order to tell other nodes what was revoked.
type Revoker interface {
	News(ctx context.Context, q authority.Query) (authority.News, error)
	// Beat is what is said when there is no news.
	Beat(ctx context.Context) (authority.News, error)
	// Changed returns a channel that is closed when there is news.
	Changed() <-chan struct{}
}

// Bounds of who is told.
const (
	maxSubscribers = 16_384
	subscription   = 3 * newsInterval // from one query to when it ends without another
	// newsBeat is how often subscribers are told something, also when there is nothing new; more seldom where there are more than beatsPerSecond.
	newsBeat       = time.Second
	beatsPerSecond = 2000
	// newsPerSecond is how many are told of news in a second at most: who revokes one member after the other, before ten thousand that listen, is told of in groups.
	newsPerSecond = 20_000
)

// subscriber is a node that has asked, and is told until it has not asked for a while.
type subscriber struct {
	back  routing.Route
	query authority.Query // what it knows
	re    *rpc.Request
	until time.Time
	place *fair.Place[string]
}

// newsroom answers queries about revocations, and tells all who asked when there are new ones. One worker is on all shards.
type newsroom struct {
	n      *Node
	source Revoker
	self   routing.Route
	last   authority.News // what all were told of last, without statements; of run

	mu          sync.Mutex
	subscribers map[string]*subscriber // by return route
	places      *fair.Shares[string]
}

// startNews starts the worker, and the goroutine that tells.
func (n *Node) startNews(ctx context.Context, source Revoker) error {
	r := newNewsroom(n, source)
	go r.run()
	return n.router.StartNamed(ctx, authority.Revocations, func(*routing.Shard) routing.Worker { return r }, n.api.Flow)
}

func newNewsroom(n *Node, source Revoker) *newsroom {
	return &newsroom{
		n: n, source: source, self: routing.LocalRoute(authority.Revocations), subscribers: map[string]*subscriber{},
		places: fair.NewShares[string](maxSubscribers),
	}
}

// HandleMessage implements routing.Worker.
func (r *newsroom) HandleMessage(s *routing.Shard, m *routing.Message) {
	if m.Peer == nil || len(m.Payload()) > 1024 || m.Return.Len() == 0 {
		s.Drops.Malformed.Add(1)
		return
	}
	req, err := rpc.DecodeRequest(append([]byte(nil), m.Payload()...))
	var q authority.Query
	if err == nil {
		q, err = authority.DecodeQuery(req)
	}
	if err != nil {
		s.Drops.Malformed.Add(1)
		return
	}
	back := m.Return.Clone()
	key, from := back.String(), fair.OriginOf(s.FirstTerminal(back), back)
	r.mu.Lock()
	sub := r.subscribers[key]
	if sub == nil {
		sub = &subscriber{back: back}
		var oldest string
		var evicted bool
		if sub.place, oldest, evicted = r.places.Take(from, key); evicted {
			delete(r.subscribers, oldest)
		}
		r.subscribers[key] = sub
	}
	sub.query, sub.re, sub.until = q, req, time.Now().Add(subscription)
	r.mu.Unlock()
	go r.tell([]*subscriber{sub})
}

// run tells of news, and from time to time that there are none, and forgets who has not asked for a while.
func (r *newsroom) run() {
	tick := time.NewTimer(newsBeat)
	defer tick.Stop()
	changed := r.source.Changed()
	for {
		beat := false
		select {
		case <-r.n.ctx.Done():
			return
		case <-tick.C:
			beat = true
			tick.Reset(r.beat())
			r.forget()
		case <-changed:
			changed = r.source.Changed() // before it is looked at what has changed: what comes meanwhile is looked at next
		}
		if told := r.speak(beat); told > 0 {
			select {
			case <-r.n.ctx.Done():
			case <-time.After(time.Duration(told) * time.Second / newsPerSecond):
			}
		}
	}
}

// forget forgets who has not asked for a while.
func (r *newsroom) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for key, sub := range r.subscribers {
		if now.After(sub.until) {
			r.places.Leave(sub.place)
			delete(r.subscribers, key)
		}
	}
}

// listening returns the subscribers, those alone that want to hear that there is nothing new if beats is set.
func (r *newsroom) listening(beats bool) (all []*subscriber) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, sub := range r.subscribers {
		if !beats || sub.query.Beats {
			all = append(all, sub)
		}
	}
	return all
}

// speak tells all subscribers if something was revoked or restored since it was called last, and else, if beat is set, that there is nothing new. It returns how many it told
// of news. Most of what has Changed close its channel is a member that was added, which is nobody's concern: that costs the same however many listen.
func (r *newsroom) speak(beat bool) (told int) {
	last, err := r.source.Beat(r.n.ctx)
	if err != nil {
		r.failed(err) // subscribers find out with the next beat that something is missing
		return 0
	}
	if string(last.List) != string(r.last.List) || last.Head != r.last.Head {
		r.last = last
		all := r.listening(false)
		r.tell(all)
		return len(all)
	}
	if beat {
		r.tellNothing(r.listening(true), last)
	}
	return 0
}

func (r *newsroom) failed(err error) {
	if !errors.Is(err, context.Canceled) {
		r.n.log.Error("revocations cannot be told", "err", err.Error())
	}
}

// beat is how long it takes until subscribers hear something again.
func (r *newsroom) beat() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return max(newsBeat, time.Duration(len(r.subscribers))*time.Second/beatsPerSecond)
}

// tellNothing tells subscribers what the last news was.
func (r *newsroom) tellNothing(subscribers []*subscriber, news authority.News) {
	if len(subscribers) == 0 {
		return
	}
	news.Beat = uint64(r.beat().Milliseconds())
	body := news.Encode()
	for _, sub := range subscribers {
		r.mu.Lock()
		re := sub.re
		r.mu.Unlock()
		r.n.router.Inject(sub.back, r.self, rpc.NewResponse(re, rpc.OK, body).Encode())
	}
}

// tell sends news to subscribers, each what it does not know.
func (r *newsroom) tell(subscribers []*subscriber) {
	type known struct {
		list  string
		since uint64
		beats bool
	}
	answers := map[known][]byte{} // most know the same, so most are told the same
	for _, sub := range subscribers {
		r.mu.Lock()
		q, re := sub.query, sub.re
		r.mu.Unlock()
		k := known{string(q.List), q.Since, q.Beats}
		body := answers[k]
		if body == nil {
			news, err := r.source.News(r.n.ctx, q)
			if err != nil {
				r.failed(err)
				return
			}
			if q.Beats {
				news.Beat = uint64(r.beat().Milliseconds())
			}
			body = news.Encode()
			answers[k] = body
		}
		r.n.router.Inject(sub.back, r.self, rpc.NewResponse(re, rpc.OK, body).Encode())
	}
}
