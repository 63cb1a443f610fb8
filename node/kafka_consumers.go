package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sallyport/node/admin"
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

// publishConsumer makes the consumer of a partition known at the relay, for as long as there is one.
func (n *Node) publishConsumer(ctx context.Context, in *kafkaInlet, topic string, partition int32) {
	name := consumerName(topic, partition)
	n.mu.Lock()
	var rel *relay
	var err error
	if n.kafka.inlets[in.request.Name] == in {
		rel, err = n.openRelay(ctx, admin.RelayRequest{Name: name, At: in.request.PublishingRelay, RelayAddress: name}, in.request.Name)
		if by := n.kafka.published[name]; by != nil {
			by[in] = true
		} else if rel != nil {
			n.kafka.published[name] = map[*kafkaInlet]bool{in: true}
		}
	}
	n.mu.Unlock()
	if err != nil && !errors.Is(err, admin.ErrExists) {
		n.log.Error("Kafka consumer not published", "relay", name, "err", err.Error())
	}
	if rel != nil {
		waiting, cancel := context.WithTimeout(ctx, publishWait)
		defer cancel()
		rel.session.first(waiting)
	}
}

// withdrawConsumer gives up the relay of a partition that nobody reads through an inlet any more.
func (n *Node) withdrawConsumer(in *kafkaInlet, topic string, partition int32) {
	n.mu.Lock()
	rel := n.unpublish(in, consumerName(topic, partition))
	n.mu.Unlock()
	if rel != nil {
		rel.session.stop()
		n.log.Info("Kafka consumer is gone, its relay is given up", "relay", rel.request.Name)
	}
}

// withdrawConsumers is withdrawConsumer for all partitions that are read through an inlet; the caller stops the relays that it returns.
// n.mu is held.
func (n *Node) withdrawConsumers(in *kafkaInlet) (relays []*relay) {
	for _, name := range sortedKeys(n.kafka.published) {
		if rel := n.unpublish(in, name); rel != nil {
			relays = append(relays, rel)
		}
	}
	return relays
}

// unpublish takes out a reader, and the relay when it was the last one. n.mu is held.
func (n *Node) unpublish(in *kafkaInlet, name string) *relay {
	by := n.kafka.published[name]
	if delete(by, in); len(by) > 0 || by == nil {
		return nil
	}
	delete(n.kafka.published, name)
	rel := n.relays[name]
	if rel == nil || rel.owner == "" { // somebody has deleted it meanwhile
		return nil
	}
	delete(n.relays, name)
	return rel
}
