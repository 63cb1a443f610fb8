package kafka

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"

	"sallyport/portal/interceptor"
)

// Outlet intercepts on the side of the brokers: it learns from what they say where each of them is. Nothing is changed.
type Outlet struct {
	// Found is told a broker's id and place before a client hears of it. An error ends the connection.
	Found func(ctx context.Context, broker int32, at Place) error
}

// Filters makes the filters of one connection.
func (o *Outlet) Filters(interceptor.Conn) (up, down interceptor.Filter) {
	c := &outletConn{outlet: o, asked: map[int32]header{}}
	return (*outletRequests)(c), (*outletResponses)(c)
}

type outletConn struct {
	outlet *Outlet
	login  tokens

	mu    sync.Mutex
	asked map[int32]header // requests whose responses say where brokers are, by correlation id
}

type outletRequests outletConn

// Next implements interceptor.Filter. The message itself passes.
func (q *outletRequests) Next(b []byte) (interceptor.Step, int, error) {
	if step, n, taken, err := q.login.pass(b, true); taken {
		return step, n, err
	}
	whole, err := frame(b, requestHead)
	if err != nil || whole == 0 {
		return interceptor.Wait, 0, err
	}
	h := readHeader(b[lengthSize:])
	switch known := spans[h.key].has(h.version); {
	case h.key == keySASLHandshake && h.version == 0:
		return step(b, whole, DefaultMaxMessage)
	case h.key == keyMetadata && !known:
		return interceptor.Wait, 0, fmt.Errorf("%w: request for metadata in version %d, known are %d to %d", ErrRefused, h.version, spans[h.key].min, spans[h.key].max)
	case h.key == keyMetadata, h.key == keyFindCoordinator && known, h.key == keyDescribeCluster && known:
		if err := (*outletConn)(q).remember(h); err != nil {
			return interceptor.Wait, 0, err
		}
	}
	return interceptor.Pass, whole, nil
}

// Work implements interceptor.Filter.
func (q *outletRequests) Work(_ context.Context, message []byte) ([]byte, error) {
	h := readHeader(message[lengthSize:])
	if err := q.login.handshake(message, h); err != nil {
		return nil, err
	}
	return message, (*outletConn)(q).remember(h)
}

func (c *outletConn) remember(h header) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.asked) >= maxUnanswered {
		return fmt.Errorf("%w: %d requests without an answer", ErrRefused, len(c.asked))
	}
	c.asked[h.correlation] = h
	return nil
}

type outletResponses outletConn

// Next implements interceptor.Filter.
func (q *outletResponses) Next(b []byte) (interceptor.Step, int, error) {
	if step, n, taken, err := q.login.pass(b, false); taken {
		return step, n, err
	}
	whole, err := frame(b, responseHead)
	if err != nil || whole == 0 {
		return interceptor.Wait, 0, err
	}
	q.mu.Lock()
	_, read := q.asked[int32(binary.BigEndian.Uint32(b[lengthSize:]))]
	q.mu.Unlock()
	if read {
		return step(b, whole, DefaultMaxMessage)
	}
	return interceptor.Pass, whole, nil
}

// Work implements interceptor.Filter.
func (q *outletResponses) Work(ctx context.Context, message []byte) ([]byte, error) {
	correlation := int32(binary.BigEndian.Uint32(message[lengthSize:]))
	q.mu.Lock()
	h := q.asked[correlation]
	delete(q.asked, correlation)
	q.mu.Unlock()
	found := func(broker int32, at Place) (Place, error) { return at, q.outlet.Found(ctx, broker, at) }
	var err error
	switch h.key {
	case keySASLHandshake:
		err = q.login.accepted(message, h)
	case keyFindCoordinator:
		_, err = coordinatorResponse(message, h, found)
	case keyDescribeCluster:
		_, err = clusterResponse(message, h, found)
	default:
		_, err = metadataResponse(message, h, found, func(topicID, string) {})
	}
	return message, err
}
