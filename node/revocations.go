package node

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/fxamacker/cbor/v2"

	"sallyport/authority"
	"sallyport/crypto/identity"
	"sallyport/routing"
	"sallyport/routing/rpc"
)

// How a node asks its authority what was revoked: at once when the path to it is there, then in every newsInterval, while the authority
// tells by itself of what is new.
const (
	newsInterval = 10 * time.Second
	newsRetry    = time.Second
	newsRetryMax = 15 * time.Second
	// newsSilence is how many queries in a row stay without an answer until the path is made anew; an authority that has never answered
	// one is of the reference, and is asked again after newsForeign. One that says something in every beat is asked when two of them are missing, and
	// the path made anew after beatSilence queries more.
	newsSilence = 2
	beatSilence = 4
	newsForeign = 10 * time.Minute
)

// States of the connection to the authority that tells of revocations.
const (
	AuthorityUp          = "up"
	AuthorityUnreachable = "unreachable"
	// AuthoritySilent is one that does not tell of revocations: it is of the reference, or older. Credentials are believed until they
	// expire.
	AuthoritySilent = "silent"
)

var errNews = errors.New("the authority's news cannot be used")

// revocationStore is a Store that keeps what was revoked from one start to the next.
type revocationStore interface {
	PutRevoked(data []byte) error
	Revoked() ([]byte, error)
}

// revocations is what the node knows of members whose credentials were taken back.
type revocations struct {
	node *Node
	skip int // how many authorities were silent; of run

	mu    sync.Mutex
	list  []byte // the name of the authority's list
	since uint64 // the number of its last entry that is known
	known []knownRevocation
	// pending are credentials of peers that an unknown key of the authority vouches for.
	pending []pendingCredential
	heard   time.Time // when the authority last answered, zero if it never did
	kept    time.Time // the value of heard that is stored
	// unstored tells that what is known is not what is stored.
	unstored bool
	key      [32]byte // names the authority's primary key that is known here
	other    otherKey // that it has by now, as it says; only for listen
	state    string
	late     bool // it was said that the authority has been out of reach for too long
}

// knownRevocation is kept for as long as it matters.
type knownRevocation struct {
	signed []byte
	until  time.Time
}

// keptRevocations is how a Store keeps them: signed by the authority, so that they are verified again.
type keptRevocations struct {
	List       []byte   `cbor:"1,keyasint"`
	Since      uint64   `cbor:"2,keyasint"`
	Statements [][]byte `cbor:"3,keyasint"`
	Heard      int64    `cbor:"4,keyasint"` // Unix seconds; 0 if not known
}

// AuthorityState says how the node stands with the authority whose credentials it believes.
type AuthorityState struct {
	// State is one of the Authority constants, empty if there is no authority or no route to it.
	State string
	// Heard is when it last answered, also before a restart; zero if that is not known.
	Heard time.Time
	// Silence is how long ago that was, else how long the node has been running.
	Silence time.Duration
	// Grace is how long it may be silent: Trust.Grace, else the life of credentials.
	Grace time.Duration
	// Late tells that it has been silent for longer than Grace. An authority that does not tell of revocations is never late.
	Late bool
	// Revoked is how many members are known to be revoked.
	Revoked int
}

// AuthorityState returns how the node stands with its authority. Any goroutine.
func (n *Node) AuthorityState() AuthorityState {
	if n.revoked == nil {
		return AuthorityState{}
	}
	r := n.revoked
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.stateNow()
	s.Revoked = n.access.revokedCount()
	return s
}

// stateNow is the state without the number of revoked members. r.mu is held.
func (r *revocations) stateNow() AuthorityState {
	s := AuthorityState{State: r.state, Heard: r.heard, Grace: r.node.opts.Trust.Grace}
	since := r.heard
	if since.IsZero() {
		since = r.node.started
	}
	s.Silence = max(time.Since(since), 0)
	if s.Grace == 0 {
		s.Grace = authority.DefaultCredentialTTL
		if r.node.creds != nil {
			s.Grace = r.node.creds.life(s.Grace)
		}
	}
	s.Late = r.state != AuthoritySilent && s.Silence > s.Grace
	return s
}

// watch says once when the authority has been out of reach for too long.
func (r *revocations) watch() {
	r.mu.Lock()
	s := r.stateNow()
	said := r.late
	r.late = s.Late
	r.mu.Unlock()
	if s.Late && !said {
		r.node.log.Error("the authority has been out of reach for too long: what it revokes is not known here", "silence", s.Silence.Round(time.Second).String(),
			"authority-grace", s.Grace.String(), "new_channels", map[bool]string{true: "refused", false: "as credentials say"}[r.node.opts.Trust.Grace > 0])
	}
}

// load takes back what was known before a restart.
func (r *revocations) load(ctx context.Context) {
	if history, err := r.node.opts.Identities.History(ctx, *r.node.opts.Trust.Authority); err == nil {
		r.mu.Lock()
		r.key = authority.KeyName(history)
		r.mu.Unlock()
	}
	store, ok := r.node.opts.Store.(revocationStore)
	if !ok {
		return
	}
	raw, err := store.Revoked()
	if err == nil && len(raw) > 0 {
		var kept keptRevocations
		if err = cbor.Unmarshal(raw, &kept); err == nil {
			err = r.take(ctx, authority.News{List: kept.List, Head: kept.Since, Statements: kept.Statements}, true)
			// A clock that was set back must not make it later than now.
			if heard := time.Unix(kept.Heard, 0); kept.Heard > 0 && !heard.After(time.Now()) {
				r.mu.Lock()
				r.heard, r.kept = heard, heard
				r.mu.Unlock()
			}
		}
	}
	if err != nil {
		r.node.log.Warn("what was revoked before the restart cannot be read; the authority is asked again", "reason", err.Error())
	}
}

// run keeps a channel to the authority and takes what it tells.
func (r *revocations) run(ctx context.Context) {
	pause := newsRetry
	everAnswered := false
	for ctx.Err() == nil {
		r.watch()
		answered, err := r.listen(ctx)
		everAnswered = everAnswered || answered
		if ctx.Err() != nil {
			return
		}
		if answered {
			pause = newsRetry
		}
		r.mu.Lock()
		foreign := !everAnswered && errors.Is(err, errSilentAuthority) && r.heard.IsZero()
		before := r.state
		if errors.Is(err, errOtherKey) { // a new channel at once
			r.mu.Unlock()
			continue
		}
		if r.state = AuthorityUnreachable; foreign {
			r.state = AuthoritySilent
		}
		now := r.state
		changed := before != now
		r.mu.Unlock()
		if changed {
			r.node.log.Warn("not told of revocations by the authority", "state", now, "reason", err.Error())
		}
		wait := jitter(pause)
		if pause = min(2*pause, newsRetryMax); foreign {
			wait = jitter(newsForeign)
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

var errSilentAuthority = errors.New("the authority does not answer")

// listen asks over one channel for as long as it is answered.
func (r *revocations) listen(ctx context.Context) (answered bool, err error) {
	n := r.node
	attempt, cancel := context.WithTimeout(ctx, n.opts.ChannelTimeout)
	c, err := n.connectAuthority(attempt, connectOptions{
		self: n.opts.Self, authorized: []identity.Identifier{*n.opts.Trust.Authority}, noCredential: true,
	}, r.skip)
	cancel()
	if err != nil {
		return false, err
	}
	defer c.close()
	box, err := n.router.OpenMailbox(ctx, c.route)
	if err != nil {
		return false, err
	}
	defer box.Close()
	to := c.route.Concat(routing.LocalRoute(authority.Revocations))
	if err := r.follow(ctx); err != nil {
		return false, err
	}
	ask := func() {
		r.mu.Lock()
		q := authority.Query{List: r.list, Since: r.since, Beats: true}
		r.mu.Unlock()
		box.Send(to, rpc.NewRequest(rpc.Get, "/", q.Encode()).Encode())
	}
	n.writers.Go(func() { n.learnAuthorities(c) })
	var asked, followed time.Time
	silence, most := newsInterval, newsSilence // how long it may say nothing, and how many queries may stay without an answer
	unanswered := 0
	wait := time.NewTimer(newsInterval)
	defer wait.Stop()
	for next := time.Now(); ; {
		if !time.Now().Before(next) {
			if unanswered++; unanswered > most {
				r.skip++ // another one, if there are several
				return answered, errSilentAuthority
			}
			ask()
			asked = time.Now()
			next = asked.Add(silence)
		}
		wait.Reset(time.Until(next))
		var reply routing.Reply
		select {
		case reply = <-box.Replies():
		case <-wait.C: // nothing came
			r.enforce()
			continue
		case <-c.done():
			return answered, errPathClosed
		case <-ctx.Done():
			return answered, ctx.Err()
		}
		resp, err := rpc.DecodeResponse(reply.Payload)
		if err == nil {
			err = resp.Err()
		}
		var news authority.News
		if err == nil {
			news, err = authority.DecodeNews(resp.Body)
		}
		if err == nil {
			err = r.take(ctx, news, false)
		}
		if err != nil {
			return answered, fmt.Errorf("%w: %w", errNews, err)
		}
		answered, unanswered = true, 0
		if silence, most = newsInterval, newsSilence; news.Beat > 0 {
			silence, most = min(2*time.Duration(min(news.Beat, 1<<20))*time.Millisecond, newsInterval), beatSilence
		}
		next = asked.Add(newsInterval)
		if quiet := time.Now().Add(silence); quiet.Before(next) {
			next = quiet
		}
		r.mu.Lock()
		more := r.since < news.Head || string(r.list) != string(news.List) // not all fitted, or some were missed
		r.mu.Unlock()
		if more {
			next = time.Now()
		}
		if now := time.Now(); !r.hasKey(news.Key) || now.Sub(followed) >= 6*newsInterval { // another process of this machine may know a key before this authority
			if err := r.follow(ctx); err != nil {
				return answered, err
			}
			followed = now
		}
		if len(news.Key) == sha256.Size && !r.hasKey(news.Key) && r.other.due(news.Key, time.Now()) {
			return answered, errOtherKey
		}
	}
}

// hasKey reports whether a name is that of the authority's primary key that is known here.
func (r *revocations) hasKey(name []byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return string(name) == string(r.key[:])
}

// otherKey says when a new channel is made to learn of a key: at once, and with growing pauses while channels do not tell of it.
type otherKey struct {
	name  []byte
	next  time.Time
	pause time.Duration
}

func (o *otherKey) due(name []byte, now time.Time) bool {
	if string(o.name) != string(name) {
		*o = otherKey{name: name, pause: 2 * newsRetry}
	}
	if now.Before(o.next) {
		return false
	}
	o.next, o.pause = now.Add(o.pause), min(2*o.pause, newsForeign)
	return true
}

// errOtherKey: the authority has a primary key that is not known here; a new channel tells which.
var errOtherKey = errors.New("the authority has a new primary key")

// follow does what is due when the authority has a new primary key, which a channel has told.
func (r *revocations) follow(ctx context.Context) error {
	n := r.node
	history, err := n.opts.Identities.History(ctx, *n.opts.Trust.Authority)
	if err != nil {
		return err
	}
	key := authority.KeyName(history)
	r.mu.Lock()
	rotated := r.key != key && r.key != [32]byte{}
	r.key = key
	var pending []pendingCredential
	if rotated {
		pending, r.pending = r.pending, nil
	}
	r.mu.Unlock()
	if !rotated {
		return nil
	}
	n.log.Info("the authority has a new primary key")
	if n.creds != nil {
		n.creds.outdated(ctx)
	}
	for _, p := range pending {
		if time.Since(p.at) < pendingFor {
			n.acceptCredential(ctx, p.peer, p.raw)
		}
	}
	return nil
}

// pendingCredential is one that could not be verified: perhaps the authority has a new primary key of which this node is told in a moment.
type pendingCredential struct {
	peer identity.Identifier
	raw  []byte
	at   time.Time
}

// Bounds of credentials that wait for a new key of the authority.
const (
	maxPending = 256
	pendingFor = 30 * time.Second
)

// wait keeps a credential for when the authority turns out to have a new primary key.
func (r *revocations) wait(peer identity.Identifier, raw []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pending = slices.DeleteFunc(r.pending, func(p pendingCredential) bool { return p.peer == peer })
	if len(r.pending) >= maxPending {
		r.pending = slices.Delete(r.pending, 0, 1)
	}
	r.pending = append(r.pending, pendingCredential{peer, slices.Clone(raw), time.Now()})
}

// take verifies news and does what they say. again is set for those that were kept: they are not kept again.
func (r *revocations) take(ctx context.Context, news authority.News, again bool) error {
	n := r.node
	r.mu.Lock()
	list, since := r.list, r.since
	r.mu.Unlock()
	fresh := string(news.List) != string(list) || news.Head < since
	if fresh && news.From > 0 {
		return nil // of a new list all is asked for
	}
	if fresh {
		if len(list) > 0 {
			n.log.Warn("the authority has a new list of revocations: its store was replaced; what it revoked before stays revoked here")
		}
		since = 0
	} else if news.From > since {
		return nil // some between are missing: they are asked for
	}
	var entries []authority.Revocation
	for _, raw := range news.Statements {
		e, err := authority.VerifyRevocation(ctx, n.opts.Identities, raw, *n.opts.Trust.Authority, news.List)
		if err != nil {
			return err
		}
		// The oldest end first, so what is missing at the front has ended; what is missing between has not been told.
		if k := len(entries); k > 0 && e.Seq != entries[k-1].Seq+1 && !again {
			return fmt.Errorf("revocation %d is followed by %d", entries[k-1].Seq, e.Seq)
		}
		entries = append(entries, e)
	}
	gone := false
	for _, e := range entries {
		if e.Seq > since {
			n.revoke(e)
			gone = gone || !e.Restored
		}
	}
	if gone {
		r.enforce() // once for all of them: it looks at every channel
	}
	r.mu.Lock()
	if fresh {
		r.list, r.since, r.known = news.List, 0, nil
	}
	changed := false
	for i, e := range entries {
		if e.Seq > r.since {
			r.since = e.Seq
			r.known = append(r.known, knownRevocation{news.Statements[i], e.Until})
			changed = true
		}
	}
	if len(entries) == 0 || again {
		r.since = max(r.since, news.Head) // those that are missing have ended
	}
	if !again {
		if r.state != AuthorityUp {
			n.log.Info("told of revocations by the authority", "revoked", n.access.revokedCount())
		}
		r.heard, r.state, r.late = time.Now(), AuthorityUp, false
		// So that a restart does not begin the grace anew.
		if grace := n.opts.Trust.Grace; grace > 0 && r.heard.Sub(r.kept) > grace/4 {
			changed = true
		}
	}
	r.unstored = r.unstored || changed && !again
	// All are written each time, so of many that are told one after the other the last is waited for.
	write := r.unstored && r.since >= news.Head
	r.mu.Unlock()
	if write {
		r.store()
	}
	return nil
}

// store keeps what is known for the next start.
func (r *revocations) store() {
	r.mu.Lock()
	now := time.Now()
	r.known = slices.DeleteFunc(r.known, func(k knownRevocation) bool { return now.After(k.until) })
	kept := keptRevocations{List: r.list, Since: r.since, Heard: r.heard.Unix()}
	for _, k := range r.known {
		kept.Statements = append(kept.Statements, k.signed)
	}
	r.kept, r.unstored = r.heard, false
	r.mu.Unlock()
	store, ok := r.node.opts.Store.(revocationStore)
	if !ok {
		return
	}
	raw, err := cbor.Marshal(kept)
	if err == nil {
		err = store.PutRevoked(raw)
	}
	if err != nil {
		r.node.log.Error("what was revoked is not stored", "err", err.Error())
	}
}

// revoke takes back what a member was given: its record, and with it its portal connections. Its channels, and with them its relays, end with enforce.
func (n *Node) revoke(e authority.Revocation) {
	n.access.revoke(e.Subject, e.Time, e.Until, e.Restored)
	if e.Subject == n.opts.Self && n.creds != nil {
		n.creds.takenBack(e.Time)
	}
	if e.Restored {
		n.log.Info("member may come back", "member", e.Subject.String())
		return
	}
	n.log.Info("member revoked", "member", e.Subject.String())
	n.counters.revoked.Add(1)
}

// enforce ends the channels of revoked members: also one whose handshake was under way when its peer was revoked.
func (r *revocations) enforce() {
	for _, ch := range r.node.channels.List() {
		if r.node.isRevoked(identity.Identifier(ch.Peer.ID)) {
			ch.Close()
		}
	}
}

// isRevoked reports whether the authority has taken a peer's membership back. The node that a project names as its own needs none, so it
// has none to lose.
func (n *Node) isRevoked(peer identity.Identifier) bool {
	return !n.isProjectNode(peer) && n.access.isRevoked(peer)
}

func (n *Node) isProjectNode(peer identity.Identifier) bool {
	_, named := n.projectNodes.Load(peer)
	return named
}

// errLate is why no channel is opened while the authority has been out of reach for longer than Trust.Grace.
var errLate = errors.New("the authority has been out of reach for longer than --authority-grace, so whom it has revoked is not known")

// trusts refuses a channel to a revoked member, and to any while too long nothing was heard of the authority.
func (n *Node) trusts(peer identity.Identifier) error {
	if n.isRevoked(peer) {
		n.counters.revokedRefused.Add(1)
		return errors.New("the authority has revoked this member")
	}
	if r := n.revoked; r != nil && n.opts.Trust.Grace > 0 && peer != *n.opts.Trust.Authority && !n.isProjectNode(peer) {
		r.mu.Lock()
		late := r.stateNow().Late
		r.mu.Unlock()
		if late {
			n.counters.lateRefused.Add(1)
			return errLate
		}
	}
	return nil
}

// PutRevoked implements revocationStore.
func (h *home) PutRevoked(data []byte) error {
	if !h.trusts {
		return nil
	}
	return h.dir.PutRevoked(h.node, data)
}

// Revoked implements revocationStore.
func (h *home) Revoked() ([]byte, error) {
	if !h.trusts {
		return nil, nil
	}
	return h.dir.Revoked(h.node)
}
