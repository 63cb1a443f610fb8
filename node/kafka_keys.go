//go:build !small

package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"sallyport/crypto/channel"
	"sallyport/crypto/identity"
	"sallyport/portal"
	"sallyport/portal/kafka"
	"sallyport/routing"
	"sallyport/routing/multiaddr"
	"sallyport/routing/secure"
)

const (
	// exchangeTimeout bounds the way to a consumer and the agreement on keys.
	exchangeTimeout = 30 * time.Second
	// firstPatience is how long the first attempt to agree on keys waits for an answer.
	firstPatience = time.Second
	// maxKeys is how many decryption keys are kept in memory.
	maxKeys = 10_000
	// rejoinPause is the least time between attempts to reach a consumer again whose channel was lost.
	rejoinPause = 10 * time.Second
)

// keyring holds the keys that decrypt what producers wrote for this node, and accepts new ones.
type keyring struct {
	n *Node
	k *kafkaPortals

	mu   sync.Mutex
	keys map[string]*readKey
}

// readKey decrypts what one producer wrote.
type readKey struct {
	peer identity.Identifier

	mu     sync.Mutex
	opener channel.Opener
}

// keyring returns the node's keyring. The first time it starts to accept keys.
func (k *kafkaPortals) keyring(ctx context.Context) (*keyring, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.keys != nil {
		return k.keys, nil
	}
	n := k.n
	keys := &keyring{n: n, k: k, keys: map[string]*readKey{}}
	o := n.channelOptions(n.opts.Self, nil)
	o.Exchanged = keys.exchanged
	if _, err := n.channels.Listen(ctx, routing.KeyService, o, false, append(n.listenerFlows(), n.api.Flow)...); err != nil {
		return nil, existsError(err)
	}
	k.keys = keys
	// Connections that this node opened before can be used by producers too.
	var sessions []*session
	for _, i := range n.inlets.List() {
		if i.IsOpen {
			sessions = append(sessions, i.Value.session)
		}
	}
	for _, i := range n.relays.List() {
		if i.IsOpen {
			sessions = append(sessions, i.Value.session)
		}
	}
	for _, s := range sessions {
		if up, c, _ := s.state(); up {
			if err := n.router.AddConsumer(ctx, routing.KeyService, c.flow); err != nil {
				return nil, err
			}
		}
	}
	return keys, nil
}

// exchanged keeps a key that a producer agreed on with this node, if one of the inlets reads what the producer writes. A stranger must not
// fill the disk.
func (k *keyring) exchanged(e secure.Exchanged) {
	defer e.Keys.Wipe()
	n := k.n
	if !k.k.readsFrom(e.Peer) {
		n.log.Warn("keys of a Kafka producer refused", "peer", e.Peer.String(), "reason", "no policy of a Kafka inlet allows it as a producer (--allow-producer)")
		return
	}
	stored := ExchangedKey{Address: e.Own, Self: e.Self, Peer: e.Peer, Key: e.Keys.Receive}
	defer clear(stored.Key[:])
	if r := n.access.record(e.Peer); r != nil {
		stored.Attributes, stored.AttestedBy, stored.Expires = r.attributes, &r.attestedBy, r.expires
	}
	ctx, cancel := context.WithTimeout(n.ctx, exchangeTimeout)
	defer cancel()
	if err := n.opts.Store.PutExchangedKey(ctx, stored); err != nil {
		// The producer goes on to write; it can be read until this node stops.
		n.log.Error("key of a Kafka producer not stored: its records cannot be read after a restart", "peer", e.Peer.String(), "err", err.Error())
	}
	k.put(e.Own, e.Peer, &e.Keys.Receive)
	n.log.Info("keys agreed on with a Kafka producer", "peer", e.Peer.String(), "key", e.Own)
}

// readsFrom tells whether one of the Kafka inlets reads what a producer writes.
func (k *kafkaPortals) readsFrom(peer identity.Identifier) bool {
	for _, i := range k.inlets.List() {
		if i.IsOpen && i.Value.producers.Grant((*[32]byte)(&peer)).Allowed() {
			return true
		}
	}
	return false
}

func (k *keyring) put(address string, peer identity.Identifier, key *[32]byte) *readKey {
	r := &readKey{peer: peer}
	r.opener.InitKeyExchangeOnly(key)
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.keys) >= maxKeys {
		for other := range k.keys { // any one: it is read again when it is needed
			delete(k.keys, other)
			break
		}
	}
	k.keys[address] = r
	return r
}

// find returns the key with an address, from memory or from the store.
func (k *keyring) find(ctx context.Context, address string) (*readKey, error) {
	k.mu.Lock()
	r := k.keys[address]
	k.mu.Unlock()
	if r != nil {
		return r, nil
	}
	stored, err := k.n.opts.Store.ExchangedKey(ctx, address)
	if err != nil {
		return nil, err
	}
	if stored == nil {
		return nil, fmt.Errorf("this node has no key %q: the record was written for another consumer", address)
	}
	defer clear(stored.Key[:])
	if stored.AttestedBy != nil {
		k.n.access.recall(stored.Peer, &record{attributes: stored.Attributes, expires: stored.Expires, attestedBy: *stored.AttestedBy})
	}
	return k.put(address, stored.Peer, &stored.Key), nil
}

// sealers encrypt for consumers, one key for each partition, or one for all with --consumer. They implement kafka.Cipher.
type sealers struct {
	n    *Node
	in   *kafkaInlet
	keys *keyring

	mu     sync.Mutex
	list   map[string]*sealer
	closed bool
}

var _ kafka.Cipher = (*sealers)(nil)

// sealer encrypts for one consumer.
type sealer struct {
	ready chan struct{} // closed when the rest is set
	err   error
	to    multiaddr.Addr
	peer  identity.Identifier
	grant *portal.Grant

	mu       sync.Mutex
	address  string
	sealer   channel.Sealer
	conn     *connection // keeps this side's credential fresh at the consumer
	rejoined time.Time   // when it was last opened
}

// newSealers makes the sealers of an inlet.
func newSealers(n *Node, in *kafkaInlet, keys *keyring) *sealers {
	return &sealers{n: n, in: in, keys: keys, list: map[string]*sealer{}}
}

// Sealer implements kafka.Cipher: it agrees on a key with the consumer of a partition when it is first needed.
func (s *sealers) Sealer(ctx context.Context, topic string, partition int32) (kafka.Seal, error) {
	key := fmt.Sprintf("%s_%d", topic, partition)
	if s.in.request.Consumer != "" {
		key = "" // one consumer for everything
	}
	for {
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			return nil, errKafkaDeleted
		}
		e := s.list[key]
		if e == nil {
			e = &sealer{ready: make(chan struct{})}
			s.list[key] = e
			go s.agree(e, key)
		}
		s.mu.Unlock()
		select {
		case <-e.ready:
		default:
			select {
			case <-e.ready:
			case <-ctx.Done():
				return nil, fmt.Errorf("no keys were agreed on yet: %w", ctx.Err())
			}
		}
		if e.err == nil && !e.grant.Allowed() {
			s.forget(key, e) // agree anew, with a fresh credential; the policy decides again
			continue
		}
		if e.err != nil {
			s.forget(key, e)
			return nil, e.err
		}
		s.keepFresh(e)
		return e.seal, nil
	}
}

// forget drops a sealer that is of no use any more.
func (s *sealers) forget(key string, e *sealer) {
	s.mu.Lock()
	current := s.list[key] == e
	if current {
		delete(s.list, key)
	}
	s.mu.Unlock()
	if current {
		e.close()
	}
}

// close forgets all keys.
func (s *sealers) close() {
	s.mu.Lock()
	s.closed = true
	list := s.list
	s.list = nil
	s.mu.Unlock()
	for _, e := range list {
		go func() {
			<-e.ready
			e.close()
		}()
	}
}

func (e *sealer) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.sealer.Wipe()
	if e.conn != nil {
		e.conn.close()
	}
}

// seal encrypts one value: counter, ciphertext and tag.
func (e *sealer) seal(value, data []byte) (address string, ciphertext []byte, err error) {
	out := make([]byte, len(value)+channel.Overhead)
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.sealer.SealData(out, value, data); err != nil {
		return "", nil, err
	}
	return e.address, out, nil
}

// agree finds the consumer and agrees on a key with it.
func (s *sealers) agree(e *sealer, key string) {
	defer close(e.ready)
	ctx, cancel := context.WithTimeout(s.n.ctx, exchangeTimeout)
	defer cancel()
	if e.to, e.err = s.consumerRoute(key); e.err != nil {
		return
	}
	if e.err = s.exchange(ctx, e); e.err != nil {
		e.err = fmt.Errorf("consumer at %s: %w", e.to, e.err)
	}
}

// consumerRoute is the way to a consumer's node (docs/protocol/03 §5.4).
func (s *sealers) consumerRoute(key string) (multiaddr.Addr, error) {
	if r := s.in.request; r.Consumer != "" {
		to, err := multiaddr.Parse(r.Consumer)
		if k := len(to) - 1; err == nil && k >= 0 && to[k].Protocol == multiaddr.Secure && to[k].Text == routing.ChannelService {
			to = to[:k]
		}
		return to, err
	}
	return multiaddr.Parse(s.in.request.ConsumerRelay + "/service/" + routing.RelayPrefix + consumerRelay + key)
}

// exchange agrees on a key, and opens a channel on which this node's credential is kept fresh at the consumer.
func (s *sealers) exchange(ctx context.Context, e *sealer) (err error) {
	n := s.n
	c := &connection{router: n.router, closed: make(chan struct{})}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	o := connectOptions{self: n.opts.Self}
	if err := n.follow(ctx, c, e.to, o); err != nil {
		return err
	}
	got, err := n.exchangeKeys(ctx, c)
	if err != nil {
		return err
	}
	defer got.Keys.Wipe()
	e.grant = s.in.consumers.Grant((*[32]byte)(&got.Peer))
	if !e.grant.Allowed() {
		return fmt.Errorf("%s may not read: the policy of consumers does not allow it (--allow-consumer)", got.Peer)
	}
	if err := n.openChannel(ctx, c, routing.ChannelService, o, []identity.Identifier{got.Peer}); err != nil {
		return err
	}
	e.peer, e.address = got.Peer, got.Theirs
	e.sealer.InitKeyExchangeOnly(&got.Keys.Send)
	e.conn, e.rejoined = c, time.Now()
	n.log.Info("keys agreed on with a Kafka consumer", "peer", got.Peer.String(), "key", got.Theirs, "route", e.to.String())
	return nil
}

// exchangeKeys agrees on keys with the node at the end of c. What is sent to a consumer that is not there yet vanishes without an answer,
// so the first attempts are given up early.
func (n *Node) exchangeKeys(ctx context.Context, c *connection) (secure.Exchanged, error) {
	for patience := firstPatience; ; patience *= 2 {
		limited, cancel := context.WithTimeout(ctx, min(patience, n.opts.ChannelTimeout))
		got, err := n.channels.Exchange(limited, c.route.Concat(routing.LocalRoute(routing.KeyService)), n.channelOptions(n.opts.Self, nil))
		cancel()
		if !errors.Is(err, secure.ErrTimeout) || patience >= n.opts.ChannelTimeout || ctx.Err() != nil {
			return got, err
		}
		select {
		case <-c.done():
			return got, errPathClosed
		default:
		}
	}
}

// keepFresh opens the channel to a consumer again when it was lost. Values are encrypted meanwhile: their key is still the
// consumer's.
func (s *sealers) keepFresh(e *sealer) {
	e.mu.Lock()
	defer e.mu.Unlock()
	select {
	case <-e.conn.done():
	default:
		return
	}
	if time.Since(e.rejoined) < rejoinPause {
		return
	}
	e.rejoined = time.Now()
	old := e.conn
	go func() {
		ctx, cancel := context.WithTimeout(s.n.ctx, exchangeTimeout)
		defer cancel()
		c := &connection{router: s.n.router, closed: make(chan struct{})}
		o := connectOptions{self: s.n.opts.Self}
		err := s.n.follow(ctx, c, e.to, o)
		if err == nil {
			err = s.n.openChannel(ctx, c, routing.ChannelService, o, []identity.Identifier{e.peer})
		}
		if err != nil {
			c.close()
			s.n.log.Warn("channel to a Kafka consumer not opened again", "peer", e.peer.String(), "err", err.Error())
			return
		}
		old.close()
		e.mu.Lock()
		e.conn = c
		e.mu.Unlock()
		s.mu.Lock()
		closed := s.closed
		s.mu.Unlock()
		if closed {
			c.close()
		}
	}()
}

// Open implements kafka.Cipher.
func (s *sealers) Open(ctx context.Context, address string, ciphertext, data []byte) ([]byte, error) {
	key, err := s.keys.find(ctx, address)
	if err != nil {
		return nil, err
	}
	if !s.in.producers.Grant((*[32]byte)(&key.peer)).Allowed() {
		return nil, fmt.Errorf("%s wrote a record, and the policy of producers does not allow it now (--allow-producer)", key.peer)
	}
	key.mu.Lock()
	defer key.mu.Unlock()
	plain, err := key.opener.OpenData(ciphertext, data)
	if err != nil {
		return nil, fmt.Errorf("record of %s: %w", key.peer, err)
	}
	return plain, nil
}
