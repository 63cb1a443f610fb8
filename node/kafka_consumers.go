//go:build !small

package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sallyport/node/admin"
	"sallyport/node/resource"
)

const (
	// consumerRelay begins the name under which a partition's consumer is found at a relay; topic and partition follow.
	consumerRelay = "consumer_"
	// publishWait is how long a consumer's first request for a partition waits for the relay to be registered.
	publishWait = 2 * time.Second
	// consumerRetryMax is the longest pause between attempts to register it: another node may be the partition's consumer for long.
	consumerRetryMax = time.Minute
)

func consumerName(topic string, partition int32) string {
	return fmt.Sprintf("%s%s_%d", consumerRelay, topic, partition)
}

// publish makes the consumer of a partition known at the relay, for as long as there is one.
func (k *kafkaPortals) publish(ctx context.Context, in *kafkaInlet, topic string, partition int32) {
	rel, err := k.register(ctx, in, consumerName(topic, partition))
	if err != nil {
		k.n.log.Error("Kafka consumer not published", "relay", consumerName(topic, partition), "err", err.Error())
	}
	if rel != nil {
		waiting, cancel := context.WithTimeout(ctx, publishWait)
		defer cancel()
		rel.session.first(waiting)
	}
}

// register adds a reader, and the relay when it is the first one; the relay is nil otherwise.
func (k *kafkaPortals) register(ctx context.Context, in *kafkaInlet, name string) (*relay, error) {
	k.publishing.Lock()
	defer k.publishing.Unlock()
	in.mu.Lock()
	closed := in.closed
	in.mu.Unlock()
	if closed {
		return nil, nil
	}
	if by := k.published[name]; by != nil {
		by[in] = true
		return nil, nil
	}
	r := resource.Relay{Name: name, At: in.request.PublishingRelay, RelayAddress: name}
	i, err := k.n.relays.CreatePart(ctx, in.request.Name, r, k.n.relayOpener(consumerRetryMax))
	if errors.Is(err, admin.ErrExists) { // somebody has made it by hand
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	k.published[name] = map[*kafkaInlet]bool{in: true}
	return i.Value, nil
}

// withdraw gives up the relay of a partition that nobody reads through an inlet any more.
func (k *kafkaPortals) withdraw(in *kafkaInlet, topic string, partition int32) {
	k.publishing.Lock()
	defer k.publishing.Unlock()
	k.unpublish(in, consumerName(topic, partition))
}

// withdrawAll is withdraw for all partitions that are read through an inlet.
func (k *kafkaPortals) withdrawAll(in *kafkaInlet) {
	k.publishing.Lock()
	defer k.publishing.Unlock()
	for _, name := range sortedKeys(k.published) {
		k.unpublish(in, name)
	}
}

// unpublish takes out a reader, and the relay when it was the last one. k.publishing is held.
func (k *kafkaPortals) unpublish(in *kafkaInlet, name string) {
	by := k.published[name]
	if delete(by, in); len(by) > 0 || by == nil {
		return
	}
	delete(k.published, name)
	if i, ok := k.n.relays.Get(name); !ok || i.Owner == "" { // somebody has deleted it meanwhile
		return
	}
	if err := k.n.relays.DeletePart(context.WithoutCancel(k.n.ctx), name); err == nil {
		k.n.log.Info("Kafka consumer is gone, its relay is given up", "relay", name)
	}
}
