package secure

import (
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"sallyport/routing"
)

// meddler is a worker on a relay, in the middle of a channel's way, that does what it likes with the messages it passes on. It
// lives on one shard.
type meddler struct {
	self  routing.WireAddress
	act   func(forward bool) string // what to do with the next message; nil passes everything on
	back  string                    // the initiator's decryptor
	first string                    // first hop of messages from initiator to responder, after the meddler
	rnd   *rand.Rand
	held  []kept // kept back, sent later
	past  []kept // all that went by
	count map[string]int
}

type kept struct {
	onward, ret routing.Route
	payload     []byte
}

func (k *meddler) HandleMessage(s *routing.Shard, m *routing.Message) {
	m.PopOnward()
	m.PushReturn(k.self)
	if k.act == nil {
		s.Deliver(m)
		return
	}
	now := kept{m.Onward.Clone(), m.Return.Clone(), slices.Clone(m.Payload())}
	k.past = append(k.past, now)
	action := k.act(m.Onward.First().Value == k.first)
	k.count[action]++
	switch action {
	case "drop":
	case "flip":
		bad := slices.Clone(now.payload)
		bad[k.rnd.IntN(len(bad))] ^= 1 << k.rnd.IntN(8)
		k.pass(s, kept{now.onward, now.ret, bad})
		if k.rnd.IntN(2) == 0 { // and the genuine one after it
			k.pass(s, now)
		}
	case "cut":
		k.pass(s, kept{now.onward, now.ret, now.payload[:k.rnd.IntN(len(now.payload))]})
	case "longer":
		k.pass(s, kept{now.onward, now.ret, append(slices.Clone(now.payload), 0)})
	case "twice":
		k.pass(s, now)
		k.pass(s, now)
	case "replay":
		k.pass(s, k.past[k.rnd.IntN(len(k.past))])
		k.pass(s, now)
	case "swap counter": // another message's counter in front of this one's ciphertext
		other := k.past[k.rnd.IntN(len(k.past))].payload
		bad := slices.Clone(now.payload)
		copy(bad[:8], other[:8])
		k.pass(s, kept{now.onward, now.ret, bad})
	case "reflect": // back to the initiator's end of the channel
		k.pass(s, kept{now.ret.WithoutFirst().Concat(routing.LocalRoute(k.back)), routing.Route{}, now.payload})
		k.pass(s, now)
	case "hold":
		if k.held = append(k.held, now); len(k.held) > 5 {
			k.release(s)
		}
	default:
		k.pass(s, now)
	}
}

// release sends what was kept back, in any order.
func (k *meddler) release(s *routing.Shard) {
	held := k.held
	k.held = nil
	k.rnd.Shuffle(len(held), func(i, j int) { held[i], held[j] = held[j], held[i] })
	for _, h := range held {
		k.pass(s, h)
	}
}

func (k *meddler) pass(s *routing.Shard, x kept) {
	m := s.NewMessage()
	m.SetRoutes(x.onward, x.ret)
	m.SetPayloadBytes(x.payload)
	s.Deliver(m)
	s.Free(m)
}

// story is an initiator, a relay with a meddler, and a responder that collects what arrives.
type story struct {
	a, b  *node
	m     *meddler
	shard *routing.Shard // of the meddler
	c     *Channel
	got   *collector
}

func newStory(t *testing.T) *story {
	t.Helper()
	a, relay, b := newNode(t, 1, nil), newNode(t, 1, nil), newNode(t, 1, nil)
	st := &story{a: a, b: b, shard: relay.router.Shards()[0], got: &collector{t: t, seen: map[uint32]bool{}}}
	toB := relay.connect(t, b)
	st.m = &meddler{self: routing.LocalAddress("mid").Wire(), first: toB.Sender.Text(), rnd: rand.New(rand.NewPCG(7, 8)), count: map[string]int{}}
	relay.serve(t, "mid", st.m, relay.ln.Flow, toB.Flow)
	b.serve(t, "collect", st.got, b.api.Flow)
	st.c = a.dial(t, a.connect(t, relay).Sender, "mid", toB.Sender.Text(), "api")
	a.through(t, st.c, []byte("open"))
	on(t, st.shard, func() { st.m.back = st.c.Decryptor.Text() })
	return st
}

func (st *story) meddle(t *testing.T, act func(forward bool) string) {
	t.Helper()
	on(t, st.shard, func() {
		st.m.act = act
		if act == nil {
			st.m.release(st.shard)
		}
	})
}

// TestHostileRelay lets the relay do everything at random: what is delivered was sent, as it was sent, and once. When the relay
// becomes honest the channel works on, unless too much was lost.
func TestHostileRelay(t *testing.T) {
	st := newStory(t)
	next := uint32(1)
	rapid.Check(t, func(rt *rapid.T) {
		actions := rapid.SliceOfN(rapid.SampledFrom([]string{"", "", "", "drop", "flip", "cut", "longer", "twice", "replay", "swap counter", "reflect", "hold"}), 1, 20).Draw(rt, "actions")
		var seen atomic.Int64
		st.meddle(t, func(forward bool) string {
			if !forward {
				return ""
			}
			return actions[int(seen.Add(1))%len(actions)]
		})
		count := uint32(len(actions))
		send(t, st.c, "collect", next, count)
		// The honest message at the end shows that all before it has been dealt with. No more than 31 may be lost in a row.
		eventually(t, "all seen by the relay", func() bool { return seen.Load() == int64(count) })
		st.meddle(t, nil)
		send(t, st.c, "collect", next+count, 1)
		eventually(t, "honest message", func() bool { return st.got.has(next + count) })
		next += count + 1
	})
	st.a.through(t, st.c, []byte("still open"))
	if n := st.a.channels.Stats.OpenFailed.Load(); n == 0 {
		t.Error("nothing was reflected")
	}
	var counts map[string]int
	on(t, st.shard, func() { counts = st.m.count })
	for _, action := range []string{"", "drop", "flip", "cut", "longer", "twice", "replay", "swap counter", "reflect", "hold"} {
		if counts[action] == 0 {
			t.Errorf("%q was never done", action)
		}
	}
	if st.b.channels.Stats.OpenFailed.Load() == 0 || st.got.count() >= int(next) {
		t.Error("the relay was not hostile")
	}
}

// TestLoss: 31 messages lost in a row do no harm; one more, and the direction is deaf (docs/protocol/01 §7.7).
func TestLoss(t *testing.T) {
	for _, tc := range []struct {
		lost uint32
		deaf bool
	}{{1, false}, {31, false}, {32, true}, {33, true}} {
		st := newStory(t)
		send(t, st.c, "collect", 0, 1)
		eventually(t, "before", func() bool { return st.got.has(0) })
		var seen atomic.Int64
		st.meddle(t, func(forward bool) string {
			if forward {
				seen.Add(1)
				return "drop"
			}
			return ""
		})
		send(t, st.c, "collect", 1, tc.lost)
		eventually(t, "lost", func() bool { return seen.Load() == int64(tc.lost) })
		st.meddle(t, nil)
		failed := st.b.channels.Stats.OpenFailed.Load()
		send(t, st.c, "collect", 100, 5)
		if tc.deaf {
			eventually(t, "refused", func() bool { return st.b.channels.Stats.OpenFailed.Load() == failed+5 })
			st.a.unanswered(t, st.c)
			continue
		}
		eventually(t, "after", func() bool { return st.got.has(104) })
		st.a.through(t, st.c, []byte("both ways"))
	}
}

// TestReorder keeps back any of 32 messages and delivers them late: each is still taken, once.
func TestReorder(t *testing.T) {
	st := newStory(t)
	var seen atomic.Int64
	for round := range uint32(10) {
		on(t, st.shard, func() {
			st.m.act = func(bool) string { seen.Add(1); return "drop" }
			st.m.past = nil
		})
		before := seen.Load()
		send(t, st.c, "collect", round*32, 32)
		eventually(t, "kept back", func() bool { return seen.Load() == before+32 })
		on(t, st.shard, func() { // in any order, and each twice
			st.m.held = append(slices.Clone(st.m.past), st.m.past...)
		})
		st.meddle(t, nil)
		eventually(t, "all there", func() bool { return st.got.count() == int(round+1)*32 })
	}
}

// TestHostileHandshake flips, repeats and drops handshake messages: a channel that opens is with the right peer and carries what is
// sent, and junk does not keep the genuine messages from being taken.
func TestHostileHandshake(t *testing.T) {
	for _, action := range []string{"twice", "replay", "flip and pass", "junk first"} {
		t.Run(action, func(t *testing.T) {
			a, relay, b := newNode(t, 1, nil), newNode(t, 1, nil), newNode(t, 1, nil)
			toB := relay.connect(t, b)
			k := &meddler{self: routing.LocalAddress("mid").Wire(), first: toB.Sender.Text(), rnd: rand.New(rand.NewPCG(1, 1)), count: map[string]int{}}
			shard := relay.router.Shards()[0]
			relay.serve(t, "mid", k, relay.ln.Flow, toB.Flow)
			on(t, shard, func() {
				k.act = func(forward bool) string {
					last := k.past[len(k.past)-1]
					switch action {
					case "flip and pass":
						if len(k.past) > 1 { // message 1 has nothing to authenticate it: flipping it only spoils the handshake
							bad := slices.Clone(last.payload)
							bad[len(bad)-1] ^= 1
							k.pass(shard, kept{last.onward, last.ret, bad})
						}
						return ""
					case "junk first":
						if len(k.past) > 1 {
							k.pass(shard, kept{last.onward, last.ret, make([]byte, 300)})
						}
						return ""
					}
					return action
				}
			})
			c := a.dial(t, a.connect(t, relay).Sender, "mid", toB.Sender.Text(), "api")
			if c.Peer.ID != b.self {
				t.Error("wrong peer")
			}
			on(t, shard, func() { k.act = nil })
			a.through(t, c, []byte("open"))
		})
	}
}
