//go:build !small

package node

import (
	"testing"
	"time"

	"sallyport/node/admin"
)

// TestKafkaConsumerWithdrawn: the relay of a partition is there for as long as an inlet reads it, and no longer.
func TestKafkaConsumerWithdrawn(t *testing.T) {
	ctx := within(t)
	relay, producer, consumer := newMember(t), newMember(t), newMember(t)
	at := relay.route() + "/secure/api"
	writer := producer.kafkaInlet(admin.KafkaInletRequest{To: at, ConsumerRelay: at, AllowConsumer: only(consumer)})
	reader := consumer.kafkaInlet(admin.KafkaInletRequest{To: at, ConsumerRelay: at, PublishingRelay: at, AllowProducer: only(producer)})
	reader.k.publish(ctx, reader, "orders", 3)
	reader.k.publish(ctx, reader, "orders", 4)
	reader.k.withdraw(reader, "orders", 5) // which nobody has read
	if got := consumer.Relays(); len(got) != 2 {
		t.Fatalf("relays %+v", got)
	}
	eventually(t, func() error {
		_, err := writer.sealers.Sealer(ctx, "orders", 3)
		return err
	})
	reader.k.withdraw(reader, "orders", 4)
	if got := consumer.Relays(); len(got) != 1 || got[0].Name != "consumer_orders_3" {
		t.Errorf("relays %+v", got)
	}
	if _, err := writer.sealers.Sealer(shortly(t), "orders", 4); err == nil {
		t.Error("a key for a partition that nobody reads any more")
	}
	reader.k.publish(ctx, reader, "orders", 4) // read again
	if got := consumer.Relays(); len(got) != 2 {
		t.Errorf("relays %+v", got)
	}
	if err := consumer.kafkaInlets().Delete(ctx, "kafka_inlet"); err != nil {
		t.Fatal(err)
	}
	if got := consumer.Relays(); len(got) != 0 || len(reader.k.published) != 0 {
		t.Errorf("relays left: %+v", got)
	}
	reader.k.publish(ctx, reader, "orders", 3) // a request that was on its way
	if got := consumer.Relays(); len(got) != 0 {
		t.Errorf("relays of a deleted inlet: %+v", got)
	}
}

// TestKafkaConsumersOfTwoInlets: a partition's relay stays while one of the inlets that read it does.
func TestKafkaConsumersOfTwoInlets(t *testing.T) {
	ctx := within(t)
	m := newMember(t)
	k := &kafkaPortals{n: m.Node, published: map[string]map[*kafkaInlet]bool{}}
	a := &kafkaInlet{k: k, request: admin.KafkaInletRequest{Name: "a", PublishingRelay: m.route()}}
	b := &kafkaInlet{k: k, request: admin.KafkaInletRequest{Name: "b", PublishingRelay: m.route()}}
	k.publish(ctx, a, "orders", 1)
	k.publish(ctx, b, "orders", 1)
	k.withdraw(a, "orders", 1)
	if got := m.Relays(); len(got) != 1 {
		t.Fatalf("relays %+v", got)
	}
	if i, _ := m.relays.Get("consumer_orders_1"); i.Value.session.longest != consumerRetryMax || consumerRetryMax <= 5*time.Second {
		t.Error("a refused consumer asks as often as a relay that somebody has ordered")
	}
	k.withdraw(b, "orders", 1)
	if got := m.Relays(); len(got) != 0 {
		t.Errorf("relays left: %+v", got)
	}
}

// TestKafkaPlainNotPublished: without content encryption nobody looks for consumers, so none is published.
func TestKafkaPlainNotPublished(t *testing.T) {
	m := newMember(t)
	in := m.kafkaInlet(admin.KafkaInletRequest{To: m.route(), ConsumerRelay: m.route(), PublishingRelay: m.route(), NoContentEncryption: true})
	if in.filter.Publishes() {
		t.Error("consumers would be published")
	}
	if err := m.kafkaInlets().Delete(within(t), "kafka_inlet"); err != nil {
		t.Fatal(err)
	}
	if in = m.kafkaInlet(admin.KafkaInletRequest{To: m.route(), ConsumerRelay: m.route(), PublishingRelay: m.route()}); !in.filter.Publishes() {
		t.Error("with encryption consumers have to be found")
	}
	if err := m.kafkaInlets().Delete(within(t), "kafka_inlet"); err != nil {
		t.Fatal(err)
	}
	if in = m.kafkaInlet(admin.KafkaInletRequest{To: m.route(), ConsumerRelay: m.route()}); in.filter.Publishes() {
		t.Error("--no-publishing was not obeyed")
	}
}
