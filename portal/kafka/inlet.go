package kafka

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"sallyport/portal/interceptor"
)

// Seal encrypts one value. It returns the address that names the key to its reader, and nonce, ciphertext and tag
// (docs/protocol/03 §5.3). value is borrowed.
type Seal func(value []byte) (address string, ciphertext []byte, err error)

// Cipher encrypts values for the consumers of a partition, and decrypts what was encrypted for this node.
type Cipher interface {
	// Sealer returns what encrypts for the consumer of a partition. It may have to find the consumer first.
	Sealer(ctx context.Context, topic string, partition int32) (Seal, error)
	// Open decrypts. It may change ciphertext.
	Open(ctx context.Context, address string, ciphertext []byte) ([]byte, error)
}

// InletOptions configure an Inlet.
type InletOptions struct {
	// Place returns where clients of the inlet reach a broker; it makes an inlet for it if need be.
	Place func(ctx context.Context, broker int32) (Place, error)
	// Publish is told which partitions the clients read, once for each; nil when nobody wants to know.
	Publish func(ctx context.Context, topic string, partition int32)
	// Cipher encrypts and decrypts values; nil leaves them as they are.
	Cipher Cipher
	// Fields, if there are any, are the fields of JSON objects that are encrypted, instead of whole values.
	Fields []string
	Log    *slog.Logger
}

// Inlet intercepts on the side of the clients.
type Inlet struct {
	opts InletOptions

	mu        sync.Mutex
	topics    map[topicID]string
	published map[partition]bool
}

type partition struct {
	topic  string
	number int32
}

// What an inlet and a connection remember at most.
const (
	maxTopics     = 100_000
	maxPublished  = 100_000
	maxUnanswered = 10_000
)

// retryPause is how long a message with values that cannot be decrypted is kept: clients ask for it again at once.
const retryPause = 500 * time.Millisecond

// NewInlet makes an inlet.
func NewInlet(o InletOptions) *Inlet {
	return &Inlet{opts: o, topics: map[topicID]string{}, published: map[partition]bool{}}
}

// Filters makes the filters of one connection.
func (in *Inlet) Filters() (up, down interceptor.Filter) {
	c := &inletConn{in: in, asked: map[int32]header{}}
	return (*inletRequests)(c), (*inletResponses)(c)
}

// inletConn is one connection of a client.
type inletConn struct {
	in *Inlet

	mu    sync.Mutex
	asked map[int32]header // requests whose response has to be rewritten, by correlation id
}

// remember notes that the response to a request has to be rewritten.
func (c *inletConn) remember(h header) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.asked) >= maxUnanswered {
		return fmt.Errorf("%w: %d requests without an answer", ErrRefused, len(c.asked))
	}
	c.asked[h.correlation] = h
	return nil
}

func (c *inletConn) lookup(correlation int32, forget bool) (header, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h, known := c.asked[correlation]
	if forget {
		delete(c.asked, correlation)
	}
	return h, known
}

type inletRequests inletConn

// check refuses requests that must not pass (docs/protocol/03 §5.2).
func check(h header) error {
	if h.key < 0 || h.key > keyLast || h.key == keyLeaderAndISR || h.key == keyUpdateMetadata {
		return fmt.Errorf("%w: request %d", ErrRefused, h.key)
	}
	if ours, limited := spans[h.key]; limited && h.key != keyAPIVersions && (h.version < ours.min || h.version > ours.max) {
		return fmt.Errorf("%w: request %d in version %d, known are %d to %d", ErrRefused, h.key, h.version, ours.min, ours.max)
	}
	return nil
}

// Next implements interceptor.Filter.
func (q *inletRequests) Next(b []byte) (interceptor.Step, int, error) {
	whole, err := frame(b, requestHead)
	if err != nil || whole == 0 {
		return interceptor.Wait, 0, err
	}
	h := readHeader(b[lengthSize:])
	if err := check(h); err != nil {
		return interceptor.Wait, 0, err
	}
	o := q.in.opts
	switch h.key {
	case keyAPIVersions:
		return step(b, whole)
	case keyProduce:
		if o.Cipher != nil || h.version >= leadersInProduce {
			return step(b, whole)
		}
	case keyFetch:
		if o.Publish != nil || o.Cipher != nil || h.version >= leadersInFetch {
			return step(b, whole)
		}
	case keyMetadata, keyFindCoordinator, keyDescribeCluster:
		if err := (*inletConn)(q).remember(h); err != nil {
			return interceptor.Wait, 0, err
		}
	}
	return interceptor.Pass, whole, nil
}

// Work implements interceptor.Filter.
func (q *inletRequests) Work(ctx context.Context, message []byte) ([]byte, error) {
	c := (*inletConn)(q)
	h := readHeader(message[lengthSize:])
	switch h.key {
	case keyAPIVersions:
		out, h, err := apiVersionsRequest(message, h)
		if err != nil {
			return nil, err
		}
		return out, c.remember(h)
	case keyFetch:
		if err := c.fetch(ctx, message, h); err != nil {
			return nil, err
		}
		if c.in.opts.Cipher == nil && h.version < leadersInFetch {
			return message, nil
		}
		return message, c.remember(h)
	case keyProduce:
		return c.produce(ctx, message, h)
	}
	return nil, fmt.Errorf("%w: request %d", ErrRefused, h.key) // Next asks for no other
}

// produce encrypts the values of a request.
func (c *inletConn) produce(ctx context.Context, message []byte, h header) ([]byte, error) {
	o := c.in.opts
	out, answered, err := produceRequest(message, h, func(topic string, partition int32, records []byte) ([]byte, error) {
		if o.Cipher == nil {
			return records, nil
		}
		var seal Seal // asked for when there is a value
		return rewriteRecords(records, true, func(value []byte) ([]byte, error) {
			if seal == nil {
				var err error
				if seal, err = o.Cipher.Sealer(ctx, topic, partition); err != nil {
					return nil, fmt.Errorf("encrypt for the consumer of %s, partition %d: %w", topic, partition, err)
				}
			}
			if len(o.Fields) > 0 {
				return rewriteFields(value, o.Fields, func(f json.RawMessage) (json.RawMessage, error) { return encryptField(seal, f) })
			}
			address, ciphertext, err := seal(value)
			if err != nil {
				return nil, err
			}
			return appendEnvelope(nil, address, ciphertext), nil
		})
	})
	if err == nil && answered && h.version >= leadersInProduce {
		err = c.remember(h)
	}
	return out, err
}

// fetch publishes the consumer of the partitions that a request reads for the first time.
func (c *inletConn) fetch(ctx context.Context, message []byte, h header) error {
	in := c.in
	if in.opts.Publish == nil {
		return nil
	}
	var fresh []partition
	err := fetchRequest(message, h, func(name string, id topicID, number int32) {
		in.mu.Lock()
		defer in.mu.Unlock()
		if name == "" {
			name = in.topics[id]
		}
		p := partition{name, number}
		if name == "" {
			in.opts.Log.Warn("consumer not published: the topic's name is not known", "topic", id.String())
			return
		}
		if !in.published[p] && len(in.published) < maxPublished {
			in.published[p] = true
			fresh = append(fresh, p)
		}
	})
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	for _, p := range fresh {
		all.Go(func() { in.opts.Publish(ctx, p.topic, p.number) })
	}
	all.Wait()
	return nil
}

type inletResponses inletConn

// Next implements interceptor.Filter.
func (q *inletResponses) Next(b []byte) (interceptor.Step, int, error) {
	whole, err := frame(b, responseHead)
	if err != nil || whole == 0 {
		return interceptor.Wait, 0, err
	}
	if _, rewrite := (*inletConn)(q).lookup(int32(binary.BigEndian.Uint32(b[lengthSize:])), false); rewrite {
		return step(b, whole)
	}
	return interceptor.Pass, whole, nil
}

// Work implements interceptor.Filter.
func (q *inletResponses) Work(ctx context.Context, message []byte) ([]byte, error) {
	c := (*inletConn)(q)
	h, _ := c.lookup(int32(binary.BigEndian.Uint32(message[lengthSize:])), true)
	place := func(broker int32, _ Place) (Place, error) { return c.in.opts.Place(ctx, broker) }
	switch h.key {
	case keyAPIVersions:
		return apiVersionsResponse(message, h)
	case keyMetadata:
		return metadataResponse(message, h, place, c.in.learn)
	case keyFindCoordinator:
		return coordinatorResponse(message, h, place)
	case keyDescribeCluster:
		return clusterResponse(message, h, place)
	case keyProduce:
		return produceResponse(message, h, place)
	case keyFetch:
		return c.fetched(ctx, message, h, place)
	}
	return nil, fmt.Errorf("%w: response to request %d", ErrRefused, h.key) // no other is remembered
}

// learn remembers a topic's name.
func (in *Inlet) learn(id topicID, name string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.topics) < maxTopics {
		in.topics[id] = name
	}
}

// fetched decrypts the values of a response.
func (c *inletConn) fetched(ctx context.Context, message []byte, h header, place placer) ([]byte, error) {
	o := c.in.opts
	var rewrite func([]byte) ([]byte, error)
	if o.Cipher != nil {
		open := func(address string, ciphertext []byte) ([]byte, error) {
			return o.Cipher.Open(ctx, address, ciphertext)
		}
		rewrite = func(records []byte) ([]byte, error) {
			return rewriteRecords(records, false, func(value []byte) ([]byte, error) {
				if len(o.Fields) > 0 {
					return rewriteFields(value, o.Fields, func(f json.RawMessage) (json.RawMessage, error) { return decryptField(open, f) })
				}
				address, ciphertext, err := parseEnvelope(value)
				if err != nil {
					return nil, err
				}
				return open(address, ciphertext)
			})
		}
	}
	out, err := fetchResponse(message, h, place, rewrite)
	if err != nil && !errors.Is(err, ErrMessage) {
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
		}
	}
	return out, err
}
