package node

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/authority"
	"sallyport/crypto/identity"
	"sallyport/crypto/vault"
	"sallyport/node/admin"
)

// lossyRoad is a way to a node on which whole frames get lost on the way back.
type lossyRoad struct {
	at      string
	lose    atomic.Bool
	lost    atomic.Int64
	blocked atomic.Bool // nobody gets through
}

func newLossyRoad(t *testing.T, to string) *lossyRoad {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	r := &lossyRoad{at: l.Addr().String()}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", to)
			if err != nil || r.blocked.Load() {
				_ = c.Close()
				continue
			}
			go func() {
				_, _ = io.Copy(up, c)
				_ = up.Close()
			}()
			go func() {
				defer c.Close()
				defer up.Close()
				head := make([]byte, 4)
				if _, err := io.ReadFull(up, head[:1]); err != nil { // the version
					return
				}
				_, _ = c.Write(head[:1])
				for {
					if _, err := io.ReadFull(up, head); err != nil {
						return
					}
					body := make([]byte, binary.BigEndian.Uint32(head))
					if _, err := io.ReadFull(up, body); err != nil {
						return
					}
					if r.lose.Load() {
						r.lost.Add(1)
						continue
					}
					if _, err := c.Write(append(append([]byte{}, head...), body...)); err != nil {
						return
					}
				}
			}()
		}
	}()
	return r
}

// through has a member reach its authority over a road.
func (m *member) through(r *lossyRoad) {
	m.t.Helper()
	m.trust.Route = mustRoute(m.t, "/ip4/127.0.0.1/tcp/"+portOf(r.at)+"/service/api")
	m.restart()
	m.told(AuthorityUp)
}

// TestTrustLostNews: what an authority told and a node did not hear is noticed with the next word and asked for, by a member's node and by a relay that is
// none; also when the authority has started again in between.
func TestTrustLostNews(t *testing.T) {
	p := newProject(t, 0)
	road := newLossyRoad(t, p.Listening())
	relay, bank := p.join(nil, ""), p.join(authority.Attributes{"side": "bank"}, "p")
	relay.through(road)
	bank.through(road)
	nodes := map[string]*member{"relay": relay, "member": bank}
	gone := make([]identity.Identifier, 10)
	for k := range gone {
		gone[k] = numbered(100 + k)
		if err := p.client().AddMember(within(t), gone[k], nil); err != nil {
			t.Fatal(err)
		}
	}
	take := func(k int) time.Time {
		t.Helper()
		if err := p.client().DeleteMember(within(t), gone[k]); err != nil {
			t.Fatal(err)
		}
		return time.Now()
	}
	knows := func(what string, k int, began time.Time) {
		t.Helper()
		for name, m := range nodes {
			settles(t, what+": the "+name+" knows", func() bool { return m.access.isRevoked(gone[k]) })
		}
		t.Logf("%s: known everywhere after %.3f s", what, time.Since(began).Seconds())
	}
	knows("told", 0, take(0))

	// Lost, with a later word: that one, or the authority's beat, tells of the gap.
	vain := func(k int) {
		t.Helper()
		lost := road.lost.Load()
		road.lose.Store(true)
		take(k)
		settles(t, "both were told in vain", func() bool { return road.lost.Load() >= lost+4 }) // the news and a beat
		for name, m := range nodes {
			if m.access.isRevoked(gone[k]) {
				t.Errorf("the %s heard what was lost", name)
			}
		}
	}
	vain(1)
	road.lose.Store(false)
	began := take(2)
	knows("the one that was told", 2, began)
	knows("the one that was lost", 1, began)

	// Lost, and nothing later happens: the beat alone tells of it, long before it is time to ask. Of some tries one must be so soon, since a machine may be busy.
	soon := time.Hour
	for k := 5; k < len(gone) && soon > newsInterval/2; k++ {
		vain(k)
		road.lose.Store(false)
		began = time.Now()
		knows("lost, with no later word", k, began)
		soon = min(soon, time.Since(began))
	}
	if soon > newsInterval/2 {
		t.Errorf("without a later word it took %v and more", soon)
	}

	vain(3)
	road.blocked.Store(true)
	p.Stop()
	p.start(p.Listening(), 0)
	take(4)
	road.lose.Store(false)
	road.blocked.Store(false)
	began = time.Now()
	knows("lost before the authority started again", 3, began)
	knows("while nobody could hear it", 4, began)
}

// TestTrustGapInNews: news from which something is missing are not taken, so that they are asked for.
func TestTrustGapInNews(t *testing.T) {
	p := newProject(t, 0)
	m := p.join(nil, "")
	m.told(AuthorityUp)
	for k := 100; k < 103; k++ {
		if err := p.client().AddMember(within(t), numbered(k), nil); err != nil {
			t.Fatal(err)
		}
	}
	r := m.revoked
	r.mu.Lock()
	list := r.list
	r.mu.Unlock()
	m.Stop() // what it is told from now on is told here
	for k := 100; k < 103; k++ {
		if err := p.client().DeleteMember(within(t), numbered(k)); err != nil {
			t.Fatal(err)
		}
	}
	all, err := p.auth.News(t.Context(), authority.Query{List: list})
	if err != nil || len(all.Statements) != 3 {
		t.Fatal(len(all.Statements), err)
	}
	hole := all
	hole.Statements = [][]byte{all.Statements[0], all.Statements[2]}
	if err := r.take(t.Context(), hole, false); err == nil {
		t.Error("a hole in the news is taken")
	}
	swapped := all
	swapped.Statements = [][]byte{all.Statements[1], all.Statements[0], all.Statements[2]}
	if err := r.take(t.Context(), swapped, false); err == nil {
		t.Error("news in another order are taken")
	}
	later := all
	later.From, later.Statements = 2, all.Statements[2:]
	if err := r.take(t.Context(), later, false); err != nil || r.since != 0 || m.access.revokedCount() != 0 {
		t.Errorf("news that begin later: %v, %d known, %d revoked", err, r.since, m.access.revokedCount())
	}
	other := all // the word that there is nothing new, of a store that was replaced: its list has to be asked for
	other.List, other.From, other.Statements = []byte("another "), all.Head, nil
	if err := r.take(t.Context(), other, false); err != nil || string(r.list) != string(list) || r.since != 0 {
		t.Errorf("a word without statements, of another list: %v, list %x, %d known", err, r.list, r.since)
	}
	beat := all
	beat.From, beat.Statements = all.Head, nil
	if err := r.take(t.Context(), beat, false); err != nil || r.since != 0 {
		t.Errorf("a word without statements: %v, %d known", err, r.since)
	}
	if err := r.take(t.Context(), all, false); err != nil || r.since != 3 || m.access.revokedCount() != 3 {
		t.Errorf("all: %v, %d known, %d revoked", err, r.since, m.access.revokedCount())
	}
}

// TestTrustAuthorityGrace: a node that does not hear of its authority for longer than it was told says so, in its description, in /readyz and in its
// metrics, opens no channel with a member meanwhile, also after a restart, and keeps what is open. Without a grace it goes on.
func TestTrustAuthorityGrace(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 15 s")
	}
	p := newProject(t, 0)
	road := newLossyRoad(t, p.Listening())
	strict, lenient, client := p.join(authority.Attributes{"side": "bank"}, "p"), p.join(authority.Attributes{"side": "bank"}, "p"), p.join(authority.Attributes{"side": "client"}, "p")
	strict.trust.Grace = 13 * time.Second // longer than from one question to the next
	strict.through(road)
	lenient.through(road)
	for _, m := range []*member{strict, lenient} {
		if _, err := m.CreateOutlet(within(t), admin.OutletRequest{To: echoServer(t)}); err != nil {
			t.Fatal(err)
		}
	}
	_, open := client.inlet(strict.route() + "/secure/api/service/outlet")
	client.inlet(lenient.route() + "/secure/api/service/outlet") // all have a credential now
	settles(t, "it hears of it", func() bool { return !strict.AuthorityState().Late })
	ready := func(m *member) string {
		w := httptest.NewRecorder()
		m.serveReady(w, httptest.NewRequest("GET", "/readyz", nil))
		return w.Body.String()
	}
	// comes opens a channel to a member's node, as the client.
	comes := func(m *member) {
		t.Helper()
		c, err := client.connectListener(within(t), mustRoute(t, m.route()+"/service/api"), connectOptions{self: client.self})
		if err != nil {
			return
		}
		t.Cleanup(c.close)
	}
	has := func(m *member) (n int) {
		for _, ch := range m.channels.List() {
			if ch.Peer.ID == client.self {
				n++
			}
		}
		return n
	}

	road.blocked.Store(true)
	p.Stop()
	settles(t, "it is late", func() bool { return strict.AuthorityState().Late })
	if d := strict.Describe(); d.Authority == nil || !d.Authority.Late || d.Authority.Grace != 13 || d.Authority.State != AuthorityUnreachable {
		t.Errorf("described as %+v", d.Authority)
	}
	if heard := strict.AuthorityState().Heard; heard.IsZero() || strict.Describe().Authority.Heard == nil || !strict.Describe().Authority.Heard.Equal(heard) {
		t.Errorf("heard at %v, described as %v", heard, strict.Describe().Authority.Heard)
	}
	if text := ready(strict); !strings.Contains(text, "authority: out of reach") {
		t.Errorf("/readyz: %s", text)
	}
	metrics := func(m *member) string {
		t.Helper()
		at, err := m.ServeStatus(m.ctx, "127.0.0.1:0", false)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.Get("http://" + at + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	before := has(strict)
	comes(strict)
	settles(t, "a new channel is refused", func() bool { return strict.counters.lateRefused.Load() > 0 })
	if n := has(strict); n > before {
		t.Error("there is a new channel")
	}
	if err := says(open); err != nil {
		t.Errorf("what is open ends: %v", err)
	}
	if text := metrics(strict); !strings.Contains(text, "sallyport_authority_late 1") || !strings.Contains(text, `sallyport_revocations_total{event="authority_late"}`) {
		t.Error("the metrics do not say so")
	}
	before = has(lenient)
	comes(lenient)
	settles(t, "without a grace a channel is opened", func() bool { return has(lenient) > before })
	if s := lenient.AuthorityState(); s.Late || s.Grace != authority.DefaultCredentialTTL {
		t.Errorf("without a grace: %+v", s)
	}

	strict.restart()
	if !strict.AuthorityState().Late {
		t.Error("a restart begins the grace anew")
	}
	comes(strict)
	settles(t, "a new channel is refused after a restart", func() bool { return strict.counters.lateRefused.Load() > 0 })

	road.blocked.Store(false)
	p.start(p.Listening(), 0)
	strict.told(AuthorityUp)
	settles(t, "the authority is there", func() bool {
		comes(strict)
		return has(strict) > 0
	})
	if text := ready(strict); strings.Contains(text, "authority") {
		t.Errorf("/readyz: %s", text)
	}
}

// TestTrustClock: a member whose clock is wrong by a day gets no credential, and is told in one line that it is the clock and what to do.
func TestTrustClock(t *testing.T) {
	if testing.Short() {
		t.Skip("a silent authority takes its time")
	}
	p := newProject(t, 0)
	for name, wrong := range map[string]time.Duration{"a day ahead": 24 * time.Hour, "a day behind": -24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			m := p.join(authority.Attributes{"side": name}, "p")
			m.Stop()
			var off atomic.Int64
			m.ids = identity.New(identity.Options{Vault: vault.NewMemory(), Store: identity.NewMemoryStore(), Now: func() time.Time {
				return time.Now().Add(time.Duration(off.Load()))
			}})
			self, err := m.ids.Create(t.Context(), identity.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			history, err := p.ids.History(t.Context(), p.self)
			if err == nil {
				_, err = m.ids.Import(t.Context(), history, nil)
			}
			if err == nil {
				err = p.client().AddMember(t.Context(), self.Identifier(), nil)
			}
			if err != nil {
				t.Fatal(err)
			}
			m.self = self.Identifier()
			off.Store(int64(wrong)) // it was right when the identity was made
			m.start("127.0.0.1:0")
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
			defer cancel()
			_, err = m.creds.get(ctx)
			if err == nil {
				t.Fatal("it gets a credential")
			}
			if text := err.Error(); !strings.Contains(text, "clock") || strings.Contains(text, "\n") || len(text) > 600 {
				t.Errorf("it is told: %s", text)
			} else {
				t.Log(text)
			}
		})
	}
}
