package node

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"sallyport/routing"
	"sallyport/routing/control"
	"sallyport/routing/secure"
)

// dialings is how many handshakes a node begins at a time: a thousand paths that come back at once do not flood whoever they lead to.
const dialings = 256

// dialChannel opens a channel to a listener. Where a relay on the way says that nobody is registered under the name, it waits until somebody
// is: what was made so far stays, and the relay tells when that is so.
func (n *Node) dialChannel(ctx context.Context, c *connection, route routing.Route, o secure.Options) (*secure.Channel, error) {
	for again := retryAbsent; ; again = nextAbsent(again) {
		report, watched := ctx.Value(reportKey{}).(func(error))
		if !watched {
			return n.dialOnce(ctx, route, o) // a request of a person, who is told
		}
		ch, err := n.dialNamed(ctx, c, route, o)
		if errors.Is(err, errOther) {
			continue
		}
		if !errors.Is(err, secure.ErrAbsent) {
			return ch, err
		}
		report(err)
		told := isTold(ctx)
		is := n.awaitName(ctx, c, again)
		told()
		if !is {
			return nil, err
		}
	}
}

// errOther gives a handshake up: the relay's name stands for another registration than when it began, so its messages may have gone to a connection that is
// no more.
var errOther = errors.New("the relay's name has changed hands")

// answerLate is after how long without an answer a handshake through a relay's name is begun again beside the first: while nodes come back one of its messages may be
// lost on its way, and clients would wait until the attempt is given up.
const answerLate = time.Second

// dialNamed is dialOnce where the way leads through a relay's name, as long as that stands for the same registration.
func (n *Node) dialNamed(ctx context.Context, c *connection, route routing.Route, o secure.Options) (*secure.Channel, error) {
	relay, name := c.relayAt()
	if name == "" {
		if c.tcp != nil && len(c.channels) == 0 { // a node that is busy answers in its turn, and to begin anew would be to begin behind all others
			defer isTold(ctx)()
			o.Again = jitter(comebackTimeout)
		}
		return n.dialOnce(ctx, route, o)
	}
	o.Again = jitter(answerLate)
	dialing, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		f := control.Fields{Name: name}
		for dialing.Err() == nil {
			m, err := control.Ask(dialing, n.router, relay, control.OpRelay, f)
			switch {
			case err != nil || m.Code != uint64(control.StatusOK) && m.Code != uint64(control.StatusAbsent):
				return // it does not tell
			case f.Wait > 0 && m.Registration != f.Have && m.Registration != 0:
				cancel(errOther)
			}
			f.Have, f.Wait = m.Registration, 25*time.Second
		}
	}()
	ch, err := n.dialOnce(dialing, route, o)
	if err != nil && ctx.Err() == nil && errors.Is(context.Cause(dialing), errOther) {
		err = errOther
	}
	return ch, err
}

func (n *Node) dialOnce(ctx context.Context, route routing.Route, o secure.Options) (*secure.Channel, error) {
	resume := pausePatience(ctx)
	select {
	case n.dialing <- struct{}{}:
		resume()
		defer func() { <-n.dialing }()
	case <-ctx.Done():
		resume()
		return nil, context.Cause(ctx)
	}
	if n.opts.ChannelTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, n.opts.ChannelTimeout)
		defer cancel()
	}
	return n.channels.Dial(ctx, route, o)
}

// relayAt returns how the relay's node can be asked through a channel of c, and the relay's name without its prefix, if c's route so far is that of a
// relay name there.
func (c *connection) relayAt() (routing.Route, string) {
	name, ok := strings.CutPrefix(c.route.Last().Value, routing.RelayPrefix)
	if len(c.channels) == 0 || c.route.Len() != 2 || !ok {
		return routing.Route{}, ""
	}
	return c.route.WithoutLast(), name
}

// retryAbsent is the first pause before a relay that does not say when somebody is registered is asked again; each further one is twice as long, up to
// retryRefused. A relay that was upgraded has its names again a moment later.
const retryAbsent = 30 * time.Millisecond

// nextAbsent returns the pause after one of those.
func nextAbsent(again time.Duration) time.Duration { return min(2*again, retryRefused) }

// awaitName waits until somebody may be registered under the relay name that c leads to, for about again where the relay does not say. It reports false when that is of
// no use any more.
func (n *Node) awaitName(ctx context.Context, c *connection, again time.Duration) bool {
	relay, name := c.relayAt()
	ended := c.done() // c grows when this has returned
	if name != "" {
		const wait = 25 * time.Second
		asking, cancel := context.WithTimeout(ctx, wait+2*time.Second)
		defer cancel()
		go func() {
			select {
			case <-ended:
				cancel()
			case <-asking.Done():
			}
		}()
		m, err := control.Ask(asking, n.router, relay, control.OpRelay, control.Fields{Name: name, Wait: wait})
		if err == nil && m.Code == uint64(control.StatusOK) {
			return ctx.Err() == nil
		}
	}
	select { // without a channel to the relay, or busy: look from time to time
	case <-ctx.Done():
		return false
	case <-ended:
		return false
	case <-time.After(jitter(again)):
		return true
	}
}

// goodbyeTimeout bounds what a node takes to say that it stops.
const goodbyeTimeout = time.Second

// sayGoodbye tells the other ends of all channels that they have ended, through whatever lies between: they need not find out by waiting.
func (n *Node) sayGoodbye() {
	if n.channels == nil || n.router == nil {
		return
	}
	list := n.channels.List()
	if len(list) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), goodbyeTimeout)
	defer cancel()
	// The innermost first: what tells of its end goes through the others.
	slices.SortFunc(list, func(a, b *secure.Channel) int { return b.OpenedAt.Compare(a.OpenedAt) })
	for _, ch := range list {
		ch.Close()
	}
	for range 2 { // the first turn seals, and ends with a flush
		for _, s := range n.router.Shards() {
			_ = s.Do(ctx, func() {})
		}
	}
}
