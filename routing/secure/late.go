package secure

import (
	"slices"
	"time"

	"sallyport/dataplane"
	"sallyport/routing"
	"sallyport/routing/fair"
)

// Who has begun more handshakes in a second than is its part waits for the next one: a thousand nodes behind one address that come back at once are all
// answered, in their turn, and none of them waits for an answer that does not come. So does who comes when all places for handshakes are taken by those who have no more of them
// than he: whoever began first ends first, and work that was begun is not thrown away for what has come since. And so do all while this node has no key, for whoever attests it
// is away or busy.
const (
	// lateFor is how long a first message waits at most: as long as a node waits for the answer.
	lateFor = 10 * time.Second
	// undisturbed is how long a handshake keeps its place from others who have no more than it.
	undisturbed = 5 * time.Second
	// lateEvery is how often it is looked whether one may go on.
	lateEvery = 50 * time.Millisecond
	// maxFirst is the size of the largest first message that waits with the way back, in bytes. Those of the protocol have 32 (docs/protocol/01).
	maxFirst = 1 << 10
)

// firstMessage is message 1 of a handshake that somebody else begins.
type firstMessage struct {
	listener *Listener
	remote   routing.Route
	terminal routing.Terminal // what it came from
	from     fair.Source
	payload  []byte
	came     time.Time
	place    *fair.Place[*firstMessage] // while it waits
}

// lateFirsts are the first messages of a shard that wait, the oldest first. It is used on its shard alone.
type lateFirsts struct {
	cs      *Channels
	shard   *routing.Shard
	list    []*firstMessage
	sent    map[string]*firstMessage // those of list, by what was sent
	timer   *dataplane.Timer
	ticking bool
}

// lateOf returns those of a shard, on that shard.
func (cs *Channels) lateOf(s *routing.Shard) *lateFirsts {
	l, ok := cs.late.Load(s)
	if !ok {
		l, _ = cs.late.LoadOrStore(s, &lateFirsts{cs: cs, shard: s, sent: map[string]*firstMessage{}})
	}
	return l.(*lateFirsts)
}

// add has f wait. When as many wait as there may, the oldest of the source that has most gets no answer, or f if no source has more than its own.
func (l *lateFirsts) add(f *firstMessage) {
	if other := l.sent[string(f.payload)]; other != nil && other.terminal == f.terminal && !l.cs.waits.Left(other.place) {
		return // it was sent again
	}
	_, more, free := l.cs.waits.Next(f.from, 0)
	if len(f.payload)+len(f.remote.Key()) > maxFirst || !more && !free {
		l.cs.Stats.TooFast.Add(1)
		return
	}
	place, _, evicted := l.cs.waits.Take(f.from, f)
	if f.place = place; evicted { // whichever shard it waits on finds out
		l.cs.Stats.TooFast.Add(1)
		l.cs.note("secure channel handshakes refused, too many wait", l.cs.waits.Max(), f.from)
	}
	if len(l.list) >= 2*l.cs.waits.Max() { // most of them have left since it was looked last
		l.list = slices.DeleteFunc(l.list, func(f *firstMessage) bool {
			left := l.cs.waits.Left(f.place)
			if left {
				l.forget(f)
			}
			return left
		})
	}
	l.list, l.sent[string(f.payload)] = append(l.list, f), f
	l.tickLater()
}

// forget takes a message that leaves the list out of sent.
func (l *lateFirsts) forget(f *firstMessage) {
	if l.sent[string(f.payload)] == f {
		delete(l.sent, string(f.payload))
	}
}

func (l *lateFirsts) tickLater() {
	switch {
	case l.ticking:
		return
	case l.timer == nil:
		l.timer = l.shard.Loop().After(lateEvery, l.tick)
	default:
		l.timer.Reset(lateEvery)
	}
	l.ticking = true
}

// ready reports whether handshakes can be answered without asking anybody for a key.
func (l *Listener) ready() bool { return l.opts.Identities.Ready(l.opts.Self) }

// useless reports whether nobody would get an answer: f has waited too long, or what it came from or went to has ended.
func (l *lateFirsts) useless(f *firstMessage, now time.Time) bool {
	return now.Sub(f.came) > lateFor || l.shard.FirstTerminal(f.remote) != f.terminal || l.cs.FindListener(f.listener.Name) != f.listener
}

// tick answers those that may begin a handshake now, as long as there are places that nobody has to leave for that who has not had his time.
func (l *lateFirsts) tick() {
	l.ticking = false
	now, rest := time.Now(), l.list[:0]
	full := false
	for _, f := range l.list {
		switch {
		case l.cs.waits.Left(f.place): // others needed the place
			l.forget(f)
		case l.useless(f, now):
			l.forget(f)
			switch {
			case !l.cs.waits.Leave(f.place):
			case f.listener.ready():
				l.cs.Stats.TooFast.Add(1)
			default:
				l.cs.Stats.HandshakeFailed.Add(1)
			}
		default:
			full = full || l.cs.asked.Held() >= l.cs.asked.Max() && !l.cs.overdue(f.from)
			if full || !f.listener.ready() || !l.cs.rate.Take(f.from) {
				rest = append(rest, f)
				continue
			}
			if l.forget(f); l.cs.waits.Leave(f.place) {
				f.answer(l.shard)
			}
		}
	}
	clear(l.list[len(rest):])
	l.list = rest
	if len(rest) > 0 {
		l.tickLater()
	} else {
		l.list = nil
	}
}
