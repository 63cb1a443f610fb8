package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sallyport/routing"
	"sallyport/routing/bare"
	"sallyport/routing/control"
	"sallyport/routing/secure"
)

var (
	errPathClosed = errors.New("connection closed")
	errNoPing     = errors.New("peer does not answer")
	errMoved      = errors.New("the node behind the relay's name has changed or gone, and does not answer")
)

// pinger asks the node behind a connection for answers: its echo service and, as long as that has not answered, its uppercase service too,
// since policies may forbid the one and never forbid the other (docs/protocol/01 §5.4).
type pinger struct {
	box    *routing.Mailbox
	route  routing.Route
	echoes bool
}

func (s *session) ping(ctx context.Context, c *connection) (p *pinger, err error) {
	p = &pinger{route: c.pingRoute()}
	if p.box, err = s.router.OpenMailbox(ctx, p.route); err != nil {
		return nil, err
	}
	return p, nil
}

// answer returns what a reply of the mailbox is: an answer to a ping, with the ping's number or 0 where it has none, or an error, which is what a relay on the way has said:
// nobody is there who could answer. It is neither where ok is not set.
func (p *pinger) answer(reply routing.Reply) (number uint64, ok bool, err error) {
	if notice, is := routing.ParseNotice(reply.Payload); is { // which is nobody's answer
		if notice.Kind == routing.NoticeAbsent && p.leadsThrough(reply.Return) {
			return 0, false, unproven{fmt.Errorf("%w: %s: %s", secure.ErrAbsent, notice.Name, notice.Kind)}
		}
		return 0, false, nil
	}
	number = pingNumber(reply.Payload)
	p.echoes = p.echoes || number != 0
	return number, true, nil
}

// unproven is what nobody has proved to have said: it may have come over a path without a channel.
type unproven struct{ error }

func (e unproven) Unwrap() error { return e.error }

// leadsThrough reports whether a message that came back over ret is from a relay's name that the pings go through.
func (p *pinger) leadsThrough(ret routing.Route) bool {
	if ret.Len() == 0 || !strings.HasPrefix(ret.Last().Value, routing.RelayPrefix) {
		return false
	}
	return slices.Contains(p.route.Addresses(), ret.Last())
}

func (p *pinger) close() { p.box.Close() }

// send asks once and returns the number of the ping.
func (p *pinger) send(also bool) uint64 {
	number, payload := newPing()
	p.box.Send(p.route.Concat(routing.LocalRoute(routing.EchoService)), payload)
	if also && !p.echoes {
		p.box.Send(p.route.Concat(routing.LocalRoute(routing.UppercaseService)), bare.AppendString(nil, "ping"))
	}
	return number
}

// newPing makes a ping, a CBOR integer as the reference sends (docs/protocol/03 §2.3).
func newPing() (number uint64, payload []byte) {
	number = max(randomNumber(), 1<<32)
	return number, binary.BigEndian.AppendUint64([]byte{0x1b}, number)
}

func pingNumber(b []byte) uint64 {
	if len(b) != 9 || b[0] != 0x1b {
		return 0
	}
	return binary.BigEndian.Uint64(b[1:])
}

// firstAnswer waits until the node behind a new path has answered: an initiator's handshake has ended when its last message was sent, which
// shows nothing.
func (s *session) firstAnswer(ctx context.Context, c *connection) error {
	p, err := s.ping(ctx, c)
	if err != nil {
		return err
	}
	defer p.close()
	tick := time.NewTicker(pingInterval)
	defer tick.Stop()
	p.send(false)
	for {
		select {
		case reply := <-p.box.Replies():
			if _, ok, err := p.answer(reply); ok || err != nil {
				return err
			}
		case <-c.done():
			return errPathClosed
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", errNoPing, ctx.Err())
		case <-tick.C:
			p.send(true)
		}
	}
}

// watch returns when the path has ended, or the node behind it has gone, or another path is there in place of one that is silent.
func (s *session) watch(ctx context.Context, c *connection) (next *connection, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p, err := s.ping(ctx, c)
	if err != nil {
		return nil, err
	}
	defer p.close()
	moved := s.watchName(ctx, c)
	var gone <-chan struct{}
	if s.watched != nil {
		gone = s.watched(ctx, c)
	}
	failed := s.checks(ctx, c)
	now := time.Now()
	l, signs := newLiveness(now), c.signs()
	if s.live != nil {
		l = s.live.again(now, s.gaveUp)
	}
	s.live, s.gaveUp = l, false
	var suspect time.Time // when the name was said to have moved
	var other *standby    // while the path is silent
	held := false         // what can be resumed has left the path, since it is silent
	left := false         // the path is there, and another member is to get new connections
	defer func() { other.stop() }()
	l.sent(p.send(true), now)
	look := time.NewTimer(tickInterval)
	defer look.Stop()
	for {
		look.Reset(time.Until(l.due))
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-c.done():
			return nil, errPathClosed
		case err := <-failed:
			return nil, err
		case reply := <-p.box.Replies():
			number, ok, err := p.answer(reply)
			if err != nil {
				return nil, err
			}
			if !ok {
				continue
			}
			now := time.Now()
			l.answered(number, now)
			s.mu.Lock()
			s.rtt = l.rtt
			s.mu.Unlock()
			if !suspect.IsZero() && number != 0 {
				suspect = time.Time{}
			}
			l.plan(now, other != nil || held || !suspect.IsZero())
		case next := <-other.path():
			return next, nil
		case <-gone:
			return nil, errGone
		case mv := <-moved: // away, or back: a path to whoever comes is begun at once
			if mv.elsewhere != 0 {
				if mv.elsewhere != s.followed {
					s.followed, left = mv.elsewhere, true
					other.stop() // it may have begun before
					other = s.beside(ctx)
				}
				continue
			}
			suspect = time.Now()
			l.sent(p.send(true), suspect)
			l.plan(suspect, true)
			if other == nil {
				other = s.beside(ctx)
			}
		case now := <-look.C:
			l.sign(signs.fresh(ctx, now, len(l.pings) > 0))
			ask, lost := l.tick(now)
			if !suspect.IsZero() && now.Sub(suspect) > max(movedAfter, 4*(l.rtt+4*l.spread)) {
				return nil, errMoved
			}
			if lost {
				s.gaveUp = true
				return nil, errNoPing
			}
			switch s.atSilence(now.Sub(l.heard), left || !suspect.IsZero(), other != nil, held) {
			case leaveBeside:
				other.stop()
				other, held = nil, false
			case makeBeside:
				other = s.beside(ctx)
			case countAsLost:
				held = true
				s.silent(c, l.lostAt())
			}
			if ask {
				l.sent(p.send(len(l.pings) > 0), now)
			}
			l.plan(now, other != nil || held || !suspect.IsZero())
		}
	}
}

// what is done about a path that is silent, or is not any more.
type silenceStep uint8

const (
	goOn        silenceStep = iota
	leaveBeside             // the path is well: no other one is made
	makeBeside              // another path is made beside it
	countAsLost             // what can be resumed leaves it
)

// atSilence decides what is done about a path that has been silent for so long. suspected: its other end is said to have moved, or leaves; beside: another one is being made;
// held: what can be resumed has left it.
func (s *session) atSilence(silent time.Duration, suspected, beside, held bool) silenceStep {
	switch {
	case silent < besideAfter && !suspected:
		return leaveBeside
	case !beside && !s.slow:
		return makeBeside
	case silent >= holdAfter && !held && s.silent != nil:
		return countAsLost
	}
	return goOn
}

// movedAfter is how long the node behind a relay's name may leave a question open when the name is said to have moved: as long as the relay takes to say that the
// process has ended, and a little more.
const movedAfter = 2 * time.Second

// signs are what tells of a peer's life besides answers: messages that came through the innermost channel, which nobody but the peer can
// make, and that the line takes bytes while a ping still waits behind them.
type signs struct {
	c     *connection
	heard time.Time
	taken uint64 // by the line
	asked uint64 // bytes sent, about, before the oldest ping without an answer; 0 if that is not known, or there is none
}

func (c *connection) signs() *signs {
	g := &signs{c: c}
	if k := len(c.channels); k > 0 {
		g.heard = c.channels[k-1].Heard()
	}
	return g
}

// fresh returns when the last sign was, if there was one since the last time; now is the time. waits tells that a ping has no answer yet.
func (g *signs) fresh(ctx context.Context, now time.Time, waits bool) (at time.Time) {
	if k := len(g.c.channels); k > 0 {
		if heard := g.c.channels[k-1].Heard(); heard.After(g.heard) {
			at, g.heard = heard, heard
		}
	}
	switch {
	case g.c.tcp == nil:
	case !waits:
		g.asked = 0
	case g.asked == 0: // most answers come before this, and the line is not asked
		g.asked, g.taken = g.c.tcp.Line(ctx)
	case g.taken < g.asked: // else all of it has been taken
		_, taken := g.c.tcp.Line(ctx)
		if taken > g.taken && taken < g.asked {
			at = now
		}
		g.taken = taken
	}
	return at
}

// move is what a relay tells of its name.
type move struct {
	// elsewhere is the registration of another member that is to get new connections, though the one that the path leads to may be well; 0 if the name
	// stands for something else than it did.
	elsewhere uint64
}

// way returns the way of the channel of c that leads through a relay's name; empty if none does.
func (c *connection) way(ctx context.Context) (way routing.Route) {
	if c.name == "" || len(c.channels) == 0 {
		return way
	}
	return c.channels[len(c.channels)-1].Way(ctx)
}

// via returns the address of the relay's worker through which c leads to its node; empty if it leads through none.
func (c *connection) via(ctx context.Context) string {
	way := c.way(ctx)
	if way.Len() < 3 {
		return ""
	}
	return way.WithoutFirst().First().Value
}

// watchName is told by the relay that the path leads through when its name stands for another node, or none. The channel gets one value for each change. A relay of
// the reference tells nothing.
func (s *session) watchName(ctx context.Context, c *connection) <-chan move {
	moved := make(chan move, 1)
	if c.name == "" {
		return moved
	}
	go func() {
		f := control.Fields{Name: c.name}
		for ctx.Err() == nil {
			limit := 5 * time.Second
			if f.Wait > 0 {
				limit += f.Wait
			}
			asking, cancel := context.WithTimeout(ctx, limit)
			m, err := control.Ask(asking, s.router, c.relay, control.OpRelay, f)
			cancel()
			known := err == nil && (m.Code == uint64(control.StatusOK) || m.Code == uint64(control.StatusAbsent))
			switch {
			case !known && f.Wait == 0:
				return // it has no such service, or does not tell us
			case !known:
				select { // busy, or lost
				case <-ctx.Done():
				case <-time.After(jitter(2 * time.Second)):
				}
				continue
			case m.Way != "" && c.via(ctx) != "" && c.via(ctx) != m.Way:
				select {
				case moved <- move{elsewhere: m.Registration}:
				case <-ctx.Done():
				}
			case f.Wait > 0 && m.Registration != f.Have || f.Wait == 0 && m.Registration == 0:
				select {
				case moved <- move{}:
				default:
				}
			}
			f.Have, f.Wait = m.Registration, 50*time.Second
		}
	}()
	return moved
}

// checks runs the session's check from time to time; the channel gets the error that ends the path.
func (s *session) checks(ctx context.Context, c *connection) <-chan error {
	failed := make(chan error, 1)
	if s.check == nil {
		return failed
	}
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(jitter(checkInterval)):
			}
			if err := s.check(ctx, c); err != nil && ctx.Err() == nil {
				failed <- err
				return
			}
		}
	}()
	return failed
}

// checkInterval is how often a session looks whether what it made is still there.
const checkInterval = 8 * time.Second
