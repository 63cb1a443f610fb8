// Package secure runs secure channels between two layers of routing (docs/protocol/01 §7): a channel is a pair of workers on
// each node, an encryptor and a decryptor, so a channel's route may itself lead through channels, to any depth.
//
// A channel lives on the shard of its route's first hop. Public-key work of a handshake is done on other goroutines; data
// messages are sealed and opened in place on the shard.
package secure

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/crypto/identity"
	"sallyport/internal/histogram"
	"sallyport/routing"
	"sallyport/routing/fair"
)

var (
	// ErrTimeout reports a handshake that did not finish: the route leads nowhere, or one side refused the other, which the
	// protocol does not tell.
	ErrTimeout = errors.New("secure channel: no answer in time (no route, or the peer refused us)")
	// ErrRefused reports that this side refused the peer.
	ErrRefused = errors.New("secure channel: peer refused")
	// ErrClosed reports a channel that has ended.
	ErrClosed = errors.New("secure channel: closed")
	// ErrAbsent reports that a relay on the way has nobody under the name that the route leads to.
	ErrAbsent = errors.New("secure channel: nobody is registered at the relay")
	// ErrBusy reports that too many handshakes are under way, most of them from the same source.
	ErrBusy = errors.New("secure channel: too many handshakes under way")
	errGone = errors.New("secure channel: the connection that the handshake went over has ended")
)

// Options say who this side is and whom it accepts.
type Options struct {
	// Identities holds and checks identities.
	Identities *identity.Manager
	// Self is this side's identity; it must have its keys in Identities' vault.
	Self identity.Identifier
	// Trust decides whether the peer may have a channel; nil accepts everybody. It runs on a goroutine of its own.
	Trust func(peer identity.Identifier) error
	// Credential returns the credential to present, raw, or nil for none; an error fails the handshake, as in the
	// reference (docs/protocol/02 §4.4). nil presents none.
	Credential func(ctx context.Context) ([]byte, error)
	// Accept is given the peer's credentials, raw and unverified: it verifies them and keeps their attributes. A bad
	// credential does not end a channel (docs/protocol/01 §7.8). nil ignores credentials.
	Accept func(ctx context.Context, peer identity.Identifier, credentials [][]byte)
	// Known decides, if set, whether the peer is accepted once its credentials are known; an error refuses it as one of Trust does.
	Known func(peer identity.Identifier) error
	// Exchanged, if set on both sides, makes a channel that is used for its keys only: nothing can be sent through it. It is told the
	// outcome, a listener's on a goroutine of its own (docs/protocol/01 §7.11).
	Exchanged func(Exchanged)
	// Again, if set, is after how long without an answer Dial sends its first message again, then twice as late each time: where other nodes are on the way,
	// a message or its answer may be lost without a word.
	Again time.Duration
}

// Stats counts what happened to channels, for metrics.
type Stats struct {
	Opened, Closed, HandshakeFailed, OpenFailed atomic.Uint64
	// Refused are handshakes that had to make room for others, of sources that had fewer under way, TooFast those that were not begun because
	// of their rate, also not some seconds later.
	Refused, TooFast atomic.Uint64
	// Evicted are channels that had to make room for others, TooMany those that ended because their peer had too many, Silent those whose peer had
	// gone without a word.
	Evicted, TooMany, Silent atomic.Uint64
	// Untrusted are handshakes that failed because the peer is not one of those that are accepted, Late those that took too long, Absent those that this
	// node began and nobody was there. HandshakeFailed counts the first of them too.
	Untrusted, Late, Absent atomic.Uint64
	// Rekeys are keys that were replaced, each after 32 messages that were sent.
	Rekeys atomic.Uint64
	// Initiated and Responded are how long handshakes took that this node began, or answered.
	Initiated, Responded *histogram.Histogram
	// Gaps are messages that came out of order, which shows that others were lost.
	Gaps atomic.Uint64
}

// Limits bound what others may have of a node's secure channels. A field that is zero has its default.
type Limits struct {
	// Handshakes is how many handshakes that others began are under way; default 1024.
	Handshakes int
	// PerSecond is how many of them begin in a second; default 5000.
	PerSecond int
	// Channels is how many channels that others opened are open, and ChannelsPerPeer how many of them one identity has; default 65,536
	// and 4096.
	Channels, ChannelsPerPeer int
}

func (l Limits) withDefaults() Limits {
	for p, v := range map[*int]int{&l.Handshakes: 1024, &l.PerSecond: 5000, &l.Channels: 1 << 16, &l.ChannelsPerPeer: 4096} {
		if *p == 0 {
			*p = v
		}
	}
	return l
}

// responderTimeout is how long a responder waits for message 3; the reference waits for ever.
const responderTimeout = 30 * time.Second

// opened is what one peer has opened: how many channels are open, and when the last one was.
type opened struct {
	open   int
	latest time.Time
}

// Channels is all secure channels of one node.
type Channels struct {
	router *routing.Router
	log    *slog.Logger
	work   *fair.Turns                 // public-key work
	asked  *fair.Shares[*handshake]    // handshakes under way that others began
	rate   *fair.Rate                  // of handshakes that others begin
	waits  *fair.Shares[*firstMessage] // first messages that wait for that
	late   sync.Map                    // *routing.Shard: its *lateFirsts
	opened *fair.Shares[*Channel]      // channels that others opened
	// goneAfter is the constant of the name, except in tests.
	goneAfter time.Duration
	perPeer   int          // how many of them one identity may have
	open      atomic.Int64 // handshakes under way
	kept      atomic.Int64 // bytes that they keep
	noted     atomic.Int64 // when the log last said that places are short, in Unix seconds
	// Stats counts events.
	Stats Stats
	// Opened, if set, is told of every channel that somebody else has opened, on its shard. Set it before the first Listen.
	Opened func(*Channel)

	mu        sync.Mutex
	channels  map[string]*Channel // by encryptor address
	peers     map[[32]byte]opened // what each peer has opened
	listeners map[string]*Listener
	stop      chan struct{}
	once      sync.Once
}

// New makes the channels of a node; work is how many handshakes compute at one time. Limits that are 0 have their defaults.
func New(r *routing.Router, work int, l Limits, log *slog.Logger) *Channels {
	l = l.withDefaults()
	cs := &Channels{
		router: r, log: log, work: fair.NewTurns(max(work, 1)),
		channels: map[string]*Channel{}, peers: map[[32]byte]opened{}, listeners: map[string]*Listener{}, stop: make(chan struct{}),
		asked: fair.NewShares[*handshake](l.Handshakes), opened: fair.NewShares[*Channel](l.Channels), perPeer: l.ChannelsPerPeer,
		rate: fair.NewRate(l.PerSecond), waits: fair.NewShares[*firstMessage](l.PerSecond), goneAfter: goneAfter,
	}
	cs.Stats.Initiated, cs.Stats.Responded = histogram.New(histogram.Setup), histogram.New(histogram.Setup)
	go cs.sweep()
	return cs
}

// Held returns how many handshakes that others began are under way, and how many channels that others opened are open.
func (cs *Channels) Held() (handshakes, channels int) { return cs.asked.Held(), cs.opened.Held() }

// HandshakeRate returns how many handshakes others began in the last whole second.
func (cs *Channels) HandshakeRate() int { return cs.rate.Used() }

// MostOfPeer returns how many open channels the peer has that opened most.
func (cs *Channels) MostOfPeer() (most int) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for _, n := range cs.peers {
		most = max(most, n.open)
	}
	return most
}

// Stop ends the housekeeping; channels stay until they are closed.
func (cs *Channels) Stop() { cs.once.Do(func() { close(cs.stop) }) }

// UnderWay returns how many handshakes are under way. Any goroutine.
func (cs *Channels) UnderWay() int64 { return cs.open.Load() }

// List returns the open channels.
func (cs *Channels) List() []*Channel {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	list := make([]*Channel, 0, len(cs.channels))
	for _, c := range cs.channels {
		list = append(list, c)
	}
	return list
}

// Find returns the open channel with an encryptor address, or nil.
func (cs *Channels) Find(encryptor string) *Channel {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return cs.channels[encryptor]
}

// Listener accepts secure channels at a named address.
type Listener struct {
	// Name is the listener's address.
	Name string
	// Flow is the spawner flow: its consumers can be reached through every channel accepted here.
	Flow *routing.Flow

	cs   *Channels
	opts Options
}

// Options returns what the listener was made with.
func (l *Listener) Options() Options { return l.opts }

// Listen starts a listener at name. It can be reached by producers of flows, and from its own channels when own is true, so
// that channels may run inside channels.
func (cs *Channels) Listen(ctx context.Context, name string, o Options, own bool, flows ...*routing.Flow) (*Listener, error) {
	l := &Listener{Name: name, Flow: routing.NewFlow(), cs: cs, opts: o}
	if own {
		flows = append(flows[:len(flows):len(flows)], l.Flow)
	}
	if err := cs.router.StartNamed(ctx, name, func(*routing.Shard) routing.Worker { return l }, flows...); err != nil {
		return nil, err
	}
	cs.router.RegisterFlow(l.Flow)
	cs.mu.Lock()
	cs.listeners[name] = l
	cs.mu.Unlock()
	return l, nil
}

// Close stops the listener; its channels stay.
func (l *Listener) Close(ctx context.Context) error {
	l.cs.mu.Lock()
	delete(l.cs.listeners, l.Name)
	l.cs.mu.Unlock()
	l.cs.router.ForgetFlow(l.Flow)
	return l.cs.router.StopNamed(ctx, l.Name)
}

// Listeners returns the listeners.
func (cs *Channels) Listeners() []*Listener {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	list := make([]*Listener, 0, len(cs.listeners))
	for _, l := range cs.listeners {
		list = append(list, l)
	}
	return list
}

// FindListener returns the listener with a name, or nil.
func (cs *Channels) FindListener(name string) *Listener {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return cs.listeners[name]
}

// HandleMessage begins a handshake with whoever sent m.
func (l *Listener) HandleMessage(s *routing.Shard, m *routing.Message) {
	if len(m.Payload()) < 32 {
		s.Drops.Malformed.Add(1)
		return
	}
	newResponder(s, l, m)
}

func describe(id identity.Identifier) slog.Attr { return slog.String("peer", id.String()) }

// note writes to the log that places are short, at most once in ten seconds.
func (cs *Channels) note(msg string, limit int, from fair.Source) {
	now := time.Now().Unix()
	if last := cs.noted.Load(); now-last >= 10 && cs.noted.CompareAndSwap(last, now) {
		cs.log.Warn(msg, "limit", limit, "source", from.String())
	}
}
