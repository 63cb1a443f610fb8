package kafka

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"sallyport/portal/interceptor"
)

// InletOptions configure an Inlet.
type InletOptions struct {
	// Place returns where a client that reached the inlet at an address reaches a broker; it makes an inlet for it if need be.
	Place func(ctx context.Context, broker int32, reached netip.Addr) (Place, error)
	// Publish is told of a partition when the first client begins to read it, Withdraw when the last one is gone. With the first one nil
	// nobody wants to know.
	Publish  func(ctx context.Context, topic string, partition int32)
	Withdraw func(topic string, partition int32)
	// Linger is how long a partition counts as read when its last client has gone, Idle when a client that stays asks for it no more. 0 means
	// DefaultLinger and DefaultIdle.
	Linger, Idle time.Duration
	// Cipher encrypts and decrypts values; nil leaves them as they are.
	Cipher Cipher
	// Bind binds values to topic, partition and key. Consumers then refuse values that are not bound.
	Bind bool
	// Fields, if there are any, are the fields of JSON objects that are encrypted, instead of whole values.
	Fields []string
	// MaxMessage is how long a message, and a partition's records, may be after rewriting, in bytes. 0 means DefaultMaxMessage.
	MaxMessage int
	// Budget is the node's; nil is one of the inlet's own.
	Budget *interceptor.Budget
	Log    *slog.Logger
}

// Inlet intercepts on the side of the clients.
type Inlet struct {
	opts    InletOptions
	readers *readers
	order   order
	// pause is retryPause, patience failPatience, sealing sealPatience, other than in tests.
	pause, patience, sealing time.Duration

	mu     sync.Mutex
	topics map[topicID]string
}

// What an inlet and a connection remember at most.
const (
	maxTopics     = 100_000
	maxPublished  = 100_000
	maxUnanswered = 10_000
)

// NewInlet makes an inlet. Close ends what it began.
func NewInlet(o InletOptions) *Inlet {
	if o.MaxMessage <= 0 {
		o.MaxMessage = DefaultMaxMessage
	}
	if o.Budget == nil {
		o.Budget = &interceptor.Budget{}
	}
	return &Inlet{opts: o, readers: newReaders(o), pause: retryPause, patience: failPatience, sealing: sealPatience, topics: map[topicID]string{}}
}

// Close forgets the readers; nothing is withdrawn any more. Connections are not closed.
func (in *Inlet) Close() { in.readers.close() }

// Publishes tells whether anybody is told of what clients read.
func (in *Inlet) Publishes() bool { return in.opts.Publish != nil }

// collected is how long a message may be that is collected to be rewritten. What is longer than MaxMessage can still be answered.
func (in *Inlet) collected() int { return max(in.opts.MaxMessage, DefaultMaxMessage) }

// Filters makes the filters of one connection.
func (in *Inlet) Filters(p interceptor.Conn) (up, down interceptor.Filter) {
	c := &inletConn{in: in, reached: p.Reached.Addr(), asked: map[int32]question{}}
	return (*inletRequests)(c), (*inletResponses)(c)
}

// learn remembers a topic's name. It never changes: topics cannot be renamed, and the id of one that was deleted is not used again. A broker that says otherwise
// would have one topic's values taken for another's.
func (in *Inlet) learn(id topicID, name string) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	switch is, known := in.topics[id]; {
	case known && is != name:
		return fmt.Errorf("%w: a broker gives topic %q the id %s, which is that of topic %q", ErrRefused, name, id, is)
	case !known && len(in.topics) < maxTopics:
		in.topics[id] = name
	}
	return nil
}

// nameOf returns a topic's name; empty if it is not known.
func (in *Inlet) nameOf(t topicRef) string {
	if t.name != "" {
		return t.name
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.topics[t.id]
}

// inletConn is one connection of a client.
type inletConn struct {
	in      *Inlet
	reached netip.Addr
	watched sync.Once
	login   tokens

	mu      sync.Mutex
	asked   map[int32]question // that have no answer yet, by correlation id
	reading readings
	failing failures
	ended   bool
}

// question is a request that gets a response.
type question struct {
	header
	passes  bool      // the response passes as it comes
	unknown bool      // ApiVersions in a version that is not understood
	refused []refusal // partitions of a Produce request
	room    int       // bytes reserved for the response
}

// watch sees to it that the end of the connection is noticed: that of ctx.
func (c *inletConn) watch(ctx context.Context) {
	c.watched.Do(func() { context.AfterFunc(ctx, c.end) })
}

// end gives back what the connection holds.
func (c *inletConn) end() {
	c.mu.Lock()
	c.ended = true
	for _, q := range c.asked {
		c.in.opts.Budget.Reserve(-q.room)
	}
	clear(c.asked)
	read := c.reading.all()
	c.mu.Unlock()
	for _, p := range read {
		c.in.readers.end(c, p)
	}
}

// remember notes that a request waits for its response, and reserves room for it.
func (c *inletConn) remember(q question) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return context.Canceled
	}
	if len(c.asked) >= maxUnanswered {
		return fmt.Errorf("%w: %d requests without an answer", ErrRefused, len(c.asked))
	}
	c.in.opts.Budget.Reserve(q.room - c.asked[q.correlation].room)
	c.asked[q.correlation] = q
	return nil
}

// answered returns what a response answers; forget gives back the room for it, as it has come.
func (c *inletConn) answered(correlation int32, forget bool) (question, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q, known := c.asked[correlation]
	if forget && known {
		c.in.opts.Budget.Reserve(-q.room)
		delete(c.asked, correlation)
	}
	return q, known
}
