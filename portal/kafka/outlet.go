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

// mostWithRecords is how long an answer that may carry records may be, in bytes, to be collected for the new leaders that it names. It names them
// for partitions that it has no records of.
const mostWithRecords = 64 << 10

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
		err = (*outletConn)(q).remember(h)
	case h.key == keyProduce && known && h.version >= leadersInProduce:
		answered, read := produceAcks(b[:min(len(b), whole)], h)
		if !read && len(b) < whole {
			return interceptor.Wait, 0, nil
		}
		if answered && read {
			err = (*outletConn)(q).remember(h)
		}
	case h.key == keyFetch && known && h.version >= leadersInFetch, h.key == keyShareFetch && known, h.key == keyShareAcknowledge && known:
		err = (*outletConn)(q).remember(h)
	}
	if err != nil {
		return interceptor.Wait, 0, err
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
	correlation := int32(binary.BigEndian.Uint32(b[lengthSize:]))
	q.mu.Lock()
	defer q.mu.Unlock()
	h, read := q.asked[correlation]
	if read && (h.key == keyFetch || h.key == keyShareFetch) && whole > mostWithRecords {
		delete(q.asked, correlation)
		read = false
	}
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
	same := func(_ topicRef, _ int32, records []byte) (fetched, error) { return fetched{records: records}, nil }
	var err error
	switch h.key {
	case keySASLHandshake:
		err = q.login.accepted(message, h)
	case keyFindCoordinator:
		_, err = coordinatorResponse(message, h, found)
	case keyDescribeCluster:
		_, err = clusterResponse(message, h, found)
	case keyProduce:
		_, err = produceResponse(message, h, found, nil)
	case keyFetch:
		_, err = fetchResponse(message, h, found, same)
	case keyShareFetch:
		_, err = shareFetchResponse(message, h, found, same)
	case keyShareAcknowledge:
		_, err = shareAcknowledgeResponse(message, h, found)
	default:
		_, err = metadataResponse(message, h, found, func(topicID, string) error { return nil })
	}
	return message, err
}
