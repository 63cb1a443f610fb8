package kafka

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"sallyport/portal/interceptor"
)

// failPatience is for how long records that cannot be decrypted are held back before their consumer is told: keys and credentials may
// still be on their way.
const failPatience = 10 * time.Second

// maxFailures is how many partitions a connection remembers as failing.
const maxFailures = 10_000

// failures are since when the records of partitions cannot be decrypted.
type failures map[fetchPart]time.Time

type inletResponses inletConn

// Next implements interceptor.Filter. What nobody has asked for does not pass: a client would take it for the answer to its next question
// if it bears that number, which can be guessed.
func (q *inletResponses) Next(b []byte) (interceptor.Step, int, error) {
	if step, n, taken, err := q.login.pass(b, false); taken {
		return step, n, err
	}
	whole, err := frame(b, responseHead)
	if err != nil || whole == 0 {
		return interceptor.Wait, 0, err
	}
	c := (*inletConn)(q)
	correlation := int32(binary.BigEndian.Uint32(b[lengthSize:]))
	switch asked, known := c.answered(correlation, false); {
	case !known:
		return interceptor.Wait, 0, fmt.Errorf("%w: answer %d to no request", ErrRefused, correlation)
	case !asked.passes:
		return step(b, whole, c.in.collected())
	}
	c.answered(correlation, true)
	return interceptor.Pass, whole, nil
}

// Work implements interceptor.Filter.
func (q *inletResponses) Work(ctx context.Context, message []byte) ([]byte, error) {
	c := (*inletConn)(q)
	c.watch(ctx)
	asked, _ := c.answered(int32(binary.BigEndian.Uint32(message[lengthSize:])), true)
	h := asked.header
	place := func(broker int32, _ Place) (Place, error) { return c.in.opts.Place(ctx, broker, c.reached) }
	switch h.key {
	case keyAPIVersions:
		return apiVersionsResponse(message, h, c.in.opts.Cipher != nil, asked.unknown)
	case keySASLHandshake:
		return message, c.login.accepted(message, h)
	case keyMetadata:
		return metadataResponse(message, h, place, c.in.learn)
	case keyFindCoordinator:
		return coordinatorResponse(message, h, place)
	case keyDescribeCluster:
		return clusterResponse(message, h, place)
	case keyProduce:
		return produceResponse(message, h, place, asked.refused)
	case keyShareAcknowledge:
		return shareAcknowledgeResponse(message, h, place)
	case keyFetch:
		return c.fetched(ctx, message, h, place, fetchResponse)
	case keyShareFetch:
		return c.fetched(ctx, message, h, place, shareFetchResponse)
	}
	return nil, fmt.Errorf("%w: response to request %d", ErrRefused, h.key) // no other is remembered
}

// fetched decrypts the values of a response. What cannot be decrypted does not pass, and does not stop other partitions: it is held back,
// and after a while the consumer is told that it is corrupt.
func (c *inletConn) fetched(ctx context.Context, message []byte, h header, place placer,
	rewrite func([]byte, header, placer, opener) ([]byte, error)) ([]byte, error) {
	failed := false
	out, err := rewrite(message, h, place, func(t topicRef, partition int32, records []byte) (fetched, error) {
		if c.in.opts.Cipher == nil {
			return fetched{records: records}, nil
		}
		with, err := c.in.openRecords(ctx, t, partition, records)
		if err == nil || len(with) > 0 && h.key == keyFetch {
			c.works(fetchPart{t, partition})
			return fetched{records: with}, nil
		}
		if ctx.Err() != nil {
			return fetched{}, err
		}
		failed = true
		// Records for a share group are locked for its consumer, who has to be told at once.
		if since := c.fails(fetchPart{t, partition}); since < c.in.patience && h.key == keyFetch {
			c.in.opts.Log.Warn("records held back: they cannot be decrypted", "topic", c.in.nameOf(t), "partition", partition, "err", err)
			return fetched{}, nil
		}
		c.in.opts.Log.Error("consumer told of corrupt records: they cannot be decrypted", "topic", c.in.nameOf(t), "partition", partition, "err", err)
		return fetched{code: codeCorrupt}, nil
	})
	if failed {
		sleep(ctx, c.in.pause)
	}
	return out, err
}

// fails notes that a partition's records cannot be decrypted and returns for how long that has been so.
func (c *inletConn) fails(p fetchPart) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failing == nil {
		c.failing = failures{}
	}
	since, known := c.failing[p]
	if !known && len(c.failing) < maxFailures {
		since = time.Now()
		c.failing[p] = since
	}
	return time.Since(since)
}

// works notes that a partition's records can be decrypted.
func (c *inletConn) works(p fetchPart) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.failing, p)
}
