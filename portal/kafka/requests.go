package kafka

import (
	"context"
	"fmt"
	"time"

	"sallyport/portal/interceptor"
)

// How many bytes a consumer may ask for at once. Brokers send at least one batch, however little was asked for.
const (
	mostFetched  = 8 << 20
	leastFetched = 64 << 10
	// fetchShare is which part of the room that is left one answer may take.
	fetchShare = 8
)

// retryPause is how long a message is kept when it holds something that cannot be encrypted or decrypted: clients ask again at once.
const retryPause = 500 * time.Millisecond

// sealPatience is how long a request to produce waits for keys. What has none then is answered, and keys are agreed on meanwhile: a partition that
// nobody reads does not hold up the others.
const sealPatience = 5 * time.Second

type inletRequests inletConn

// check refuses requests that must not pass (docs/protocol/03 §5.2).
func check(h header, encrypted bool) error {
	ours, known := versions(h.key, encrypted)
	if !known {
		return fmt.Errorf("%w: request %d", ErrRefused, h.key)
	}
	if h.key == keyProduce && encrypted {
		ours.min = recordsInProduce // offered all the same, see apiVersionsResponse
	}
	if h.key != keyAPIVersions && !ours.has(h.version) {
		return fmt.Errorf("%w: request %d in version %d, known are %d to %d", ErrRefused, h.key, h.version, ours.min, ours.max)
	}
	return nil
}

// Next implements interceptor.Filter.
func (q *inletRequests) Next(b []byte) (interceptor.Step, int, error) {
	if step, n, taken, err := q.login.pass(b, true); taken {
		return step, n, err
	}
	whole, err := frame(b, requestHead)
	if err != nil || whole == 0 {
		return interceptor.Wait, 0, err
	}
	c := (*inletConn)(q)
	h := readHeader(b[lengthSize:])
	encrypted := c.in.opts.Cipher != nil
	if err := check(h, encrypted); err != nil {
		return interceptor.Wait, 0, err
	}
	switch {
	case h.key == keySASLHandshake && h.version == 0, h.key == keyAPIVersions, h.key == keyFetch, h.key == keyShareFetch, h.key == keyProduce && encrypted:
		return step(b, whole, c.in.collected())
	case h.key == keyProduce:
		answered, known := produceAcks(b[:min(len(b), whole)], h)
		switch {
		case !known && len(b) < whole:
			return interceptor.Wait, 0, nil
		case !known:
			return interceptor.Wait, 0, fmt.Errorf("%w: request to produce", ErrMessage)
		case answered:
			err = c.remember(question{header: h, passes: h.version < leadersInProduce})
		}
	case h.key == keyMetadata, h.key == keyFindCoordinator, h.key == keyDescribeCluster, h.key == keyShareAcknowledge:
		err = c.remember(question{header: h})
	default:
		err = c.remember(question{header: h, passes: true})
	}
	if err != nil {
		return interceptor.Wait, 0, err
	}
	return interceptor.Pass, whole, nil
}

// Work implements interceptor.Filter.
func (q *inletRequests) Work(ctx context.Context, message []byte) ([]byte, error) {
	c := (*inletConn)(q)
	c.watch(ctx)
	h := readHeader(message[lengthSize:])
	switch h.key {
	case keyAPIVersions:
		out, h, unknown, err := apiVersionsRequest(message, h)
		if err != nil {
			return nil, err
		}
		return out, c.remember(question{header: h, unknown: unknown})
	case keySASLHandshake:
		if err := c.login.handshake(message, h); err != nil {
			return nil, err
		}
		return message, c.remember(question{header: h})
	case keyFetch, keyShareFetch:
		return c.fetch(ctx, message, h)
	case keyProduce:
		return c.produce(ctx, message, h)
	}
	return nil, fmt.Errorf("%w: request %d", ErrRefused, h.key) // Next asks for no other
}

// produce encrypts the values of a request. Partitions for which that is not possible are left out, and answered here; without an answer
// the connection ends, as with brokers.
func (c *inletConn) produce(ctx context.Context, message []byte, h header) ([]byte, error) {
	answered, known := produceAcks(message, h)
	if !known {
		return nil, fmt.Errorf("%w: request to produce", ErrMessage)
	}
	around, err := aroundRecords(message, h)
	if err != nil {
		return nil, err
	}
	sum, pause := around, false // sum is the request's length so far
	sealing, cancel := context.WithTimeout(ctx, c.in.sealing)
	defer cancel()
	out, refused, err := produceRequest(message, h, func(t topicRef, partition int32, records []byte) ([]byte, error) {
		topic := c.in.nameOf(t)
		if topic == "" { // which the client then asks for
			return nil, coded(codeUnknownTopicID, "%w: no client has asked for the topic's name, id %s", ErrRefused, t.id)
		}
		part := fetchPart{topicRef{name: topic}, partition}
		if c.in.order.behind(part, records) {
			return nil, coded(codeNotEnoughReplicas, "%w: an earlier batch has to come first", ErrRefused)
		}
		with, err := c.in.sealRecords(sealing, topic, partition, records)
		switch {
		case err != nil:
			pause = pause || produceCode(err) == codeNotEnoughReplicas
		case h.sizeOfRecords(with) > c.in.opts.MaxMessage-around:
			err = fmt.Errorf("%w: requests have at most %d bytes when they are encrypted (--max-message-size)", ErrTooLarge, c.in.opts.MaxMessage)
		case h.sizeOfRecords(with) > c.in.opts.MaxMessage-sum:
			// Each is short enough, together they are not: the client sends the rest again.
			err = coded(codeNotEnoughReplicas, "%w: requests have at most %d bytes when they are encrypted (--max-message-size)", ErrRefused, c.in.opts.MaxMessage)
		default:
			sum += h.sizeOfRecords(with)
			c.in.order.passed(part, records)
			return with, nil
		}
		if produceCode(err) == codeNotEnoughReplicas {
			c.in.order.refused(part, records)
		}
		c.in.opts.Log.Warn("records not sent on", "topic", topic, "partition", partition, "answered", answered, "err", err)
		return nil, err
	})
	if err == nil && len(refused) > 0 && !answered {
		err = fmt.Errorf("%w: %s", ErrRefused, refused[0].text)
	}
	if pause {
		sleep(ctx, c.in.pause)
	}
	if err == nil && answered {
		err = c.remember(question{header: h, passes: h.version < leadersInProduce && len(refused) == 0, refused: refused})
	}
	return out, err
}

// sleep waits, or for the end of ctx.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// fetch asks for no more than there is room for, and publishes the consumer of the partitions that are read for the first time.
func (c *inletConn) fetch(ctx context.Context, message []byte, h header) ([]byte, error) {
	o := c.in.opts
	rewritten := o.Cipher != nil || h.key == keyShareFetch
	most := mostFetched
	if rewritten {
		most = min(max(o.Budget.Left()/fetchShare, leastFetched), mostFetched)
	}
	parse := fetchRequest
	if h.key == keyShareFetch {
		parse = shareFetchRequest
	}
	out, ask, err := parse(message, h, int32(most))
	if err != nil {
		return nil, err
	}
	if o.Publish != nil {
		c.reads(ctx, ask)
	}
	if !rewritten {
		return out, c.remember(question{header: h, passes: true})
	}
	return out, c.remember(question{header: h, room: most})
}
