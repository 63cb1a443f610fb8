package routing

import (
	"context"
	"fmt"

	"sallyport/dataplane"
)

// Reply is an answer to a Request, copied: it is the caller's.
type Reply struct {
	Onward, Return Route
	Payload        []byte
	// Peer is who sent it, if it came through a secure channel.
	Peer *Peer
}

// Mailbox is a temporary worker that hands what it receives to a goroutine. What arrives while its queue is full is dropped.
type Mailbox struct {
	router  *Router
	shard   *Shard
	address WireAddress
	replies chan Reply
}

// mailboxSize is how many messages wait in a mailbox, as many as in the reference (docs/protocol/01 §5.2).
const mailboxSize = 8

// OpenMailbox starts a mailbox that replies over route can reach: it consumes the flow of route's first hop. Not on a shard.
func (r *Router) OpenMailbox(ctx context.Context, route Route) (*Mailbox, error) {
	b := &Mailbox{router: r, shard: r.shardFor(route), replies: make(chan Reply, mailboxSize)}
	err := b.shard.Do(ctx, func() {
		b.address = b.shard.Start(WorkerFunc(b.handle))
		if t := b.shard.FirstTerminal(route); t != nil && t.TerminalProducer() != nil {
			b.shard.AddConsumer(b.address.Text(), t.TerminalProducer().Own)
		}
	})
	if err != nil {
		return nil, err
	}
	return b, nil
}

func (b *Mailbox) handle(s *Shard, m *Message) {
	reply := Reply{Onward: m.Onward.Clone(), Return: m.Return.Clone(), Payload: append([]byte(nil), m.Payload()...), Peer: m.Peer}
	select {
	case b.replies <- reply:
	default:
		s.Drops.Overflow.Add(1)
	}
}

// Address returns the mailbox's own address.
func (b *Mailbox) Address() Address { return b.address.Address() }

// Send sends a message from the mailbox. The payload is kept until it was delivered.
func (b *Mailbox) Send(onward Route, payload []byte) {
	b.shard.loop.Post(dataplane.TaskFunc(func() {
		m := b.shard.NewMessage()
		m.Onward, m.Return = onward, Route{b: b.address.b, n: 1}
		m.SetPayloadBytes(payload)
		b.shard.Deliver(m)
		b.shard.Free(m)
	}))
}

// Replies returns what messages come from, for those who wait for something else too.
func (b *Mailbox) Replies() <-chan Reply { return b.replies }

// Receive waits for the next message.
func (b *Mailbox) Receive(ctx context.Context) (Reply, error) {
	select {
	case reply := <-b.replies:
		return reply, nil
	case <-ctx.Done():
		return Reply{}, ctx.Err()
	}
}

// Close stops the mailbox.
func (b *Mailbox) Close() {
	b.shard.loop.Post(dataplane.TaskFunc(func() { b.shard.Stop(b.address) }))
}

// Request sends payload to route and waits for one answer. Not on a shard.
func (r *Router) Request(ctx context.Context, route Route, payload []byte) (Reply, error) {
	b, err := r.OpenMailbox(ctx, route)
	if err != nil {
		return Reply{}, err
	}
	defer b.Close()
	b.Send(route, payload)
	reply, err := b.Receive(ctx)
	if err != nil {
		return Reply{}, fmt.Errorf("no answer from %s: %w", route, err)
	}
	return reply, nil
}
