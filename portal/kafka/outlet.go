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

	mu    sync.Mutex
	asked map[int32]header // requests whose responses say where brokers are, by correlation id
}

type outletRequests outletConn

// Next implements interceptor.Filter. The message itself passes.
func (q *outletRequests) Next(b []byte) (interceptor.Step, int, error) {
	whole, err := frame(b, requestHead)
	if err != nil || whole == 0 {
		return interceptor.Wait, 0, err
	}
	h := readHeader(b[lengthSize:])
	switch h.key {
	case keyMetadata, keyFindCoordinator, keyDescribeCluster:
		if ours := spans[h.key]; !ours.has(h.version) {
			return interceptor.Wait, 0, fmt.Errorf("%w: request %d in version %d, known are %d to %d", ErrRefused, h.key, h.version, ours.min, ours.max)
		}
		q.mu.Lock()
		defer q.mu.Unlock()
		if len(q.asked) >= maxUnanswered {
			return interceptor.Wait, 0, fmt.Errorf("%w: %d requests without an answer", ErrRefused, len(q.asked))
		}
		q.asked[h.correlation] = h
	}
	return interceptor.Pass, whole, nil
}

// Work implements interceptor.Filter.
func (q *outletRequests) Work(context.Context, []byte) ([]byte, error) { return nil, ErrRefused }

type outletResponses outletConn

// Next implements interceptor.Filter.
func (q *outletResponses) Next(b []byte) (interceptor.Step, int, error) {
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
	switch h.key {
	case keyFindCoordinator:
		return coordinatorResponse(message, h, found)
	case keyDescribeCluster:
		return clusterResponse(message, h, found)
	}
	return metadataResponse(message, h, found, func(topicID, string) {})
}
