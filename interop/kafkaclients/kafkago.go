package main

import (
	"context"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
)

// kafkaGo is a client with segmentio's kafka-go. It has no transactions.
type kafkaGo struct {
	bootstrap string
	extra     map[string]string
}

func (k *kafkaGo) mechanism() sasl.Mechanism {
	if user := k.extra["sasl.username"]; user != "" {
		return plain.Mechanism{Username: user, Password: k.extra["sasl.password"]}
	}
	return nil
}

func (k *kafkaGo) writer(topic string) *kafka.Writer {
	return &kafka.Writer{Addr: kafka.TCP(k.bootstrap), Topic: topic, RequiredAcks: kafka.RequireAll, BatchTimeout: 20 * time.Millisecond, MaxAttempts: 60, BatchBytes: 200_000_000, WriteTimeout: time.Minute, ReadTimeout: time.Minute,
		WriteBackoffMax: time.Second, Balancer: &kafka.Hash{}, Transport: &kafka.Transport{SASL: k.mechanism(), TLS: authorities(k.extra)}}
}

func (k *kafkaGo) produce(topic string, n, size int, compression string) error {
	w := k.writer(topic)
	defer w.Close()
	w.Compression = map[string]kafka.Compression{"gzip": kafka.Gzip, "snappy": kafka.Snappy, "lz4": kafka.Lz4, "zstd": kafka.Zstd}[compression]
	list := make([]kafka.Message, n)
	for i := range list {
		list[i] = kafka.Message{Key: fmt.Append(nil, "key", i), Value: value(compression, i, size)}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 160*time.Second)
	defer cancel()
	if err := w.WriteMessages(ctx, list...); err != nil {
		return err
	}
	fmt.Println("produced", n)
	return nil
}

func (k *kafkaGo) paced(topic string, n int) error {
	w := k.writer(topic)
	w.BatchTimeout = time.Millisecond
	ctx, cancel := context.WithTimeout(context.Background(), 160*time.Second)
	defer cancel()
	for i := range n {
		if err := w.WriteMessages(ctx, kafka.Message{Key: fmt.Append(nil, "key", i), Value: value("paced", i, 50)}); err != nil {
			return err
		}
		time.Sleep(pace)
	}
	fmt.Println("produced", n)
	return w.Close()
}

func (k *kafkaGo) consume(topic string, n int, group string) error {
	r := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{k.bootstrap}, Topic: topic, GroupID: group, StartOffset: kafka.FirstOffset, MaxBytes: 50_000_000, IsolationLevel: kafka.ReadCommitted, ReadBatchTimeout: time.Minute, CommitInterval: time.Second,
		Dialer: &kafka.Dialer{Timeout: 10 * time.Second, DualStack: true, SASLMechanism: k.mechanism(), TLS: authorities(k.extra)}})
	defer r.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 160*time.Second)
	defer cancel()
	var s seen
	for len(s.values) < n && ctx.Err() == nil {
		m, err := r.ReadMessage(ctx)
		if err != nil { // such as that of a coordinator that has moved
			fmt.Println("error", err)
			continue
		}
		s.add(m.Value)
	}
	return s.report(n)
}

func (k *kafkaGo) transact(string, int) error { return unsupported{} }

func (k *kafkaGo) large(topic string, size int) error {
	w := k.writer(topic)
	w.MaxAttempts = 1
	defer w.Close()
	began := time.Now()
	if err := w.WriteMessages(context.Background(), kafka.Message{Key: []byte("key"), Value: value("large", 0, size)}); err != nil {
		fmt.Printf("refused %v after %.0f s\n", err, time.Since(began).Seconds())
		return nil
	}
	fmt.Println("produced", size)
	return nil
}

func (k *kafkaGo) admin(topic, host string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c := &kafka.Client{Addr: kafka.TCP(k.bootstrap), Timeout: 30 * time.Second, Transport: &kafka.Transport{SASL: k.mechanism(), TLS: authorities(k.extra)}}
	made, err := c.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{Topic: topic, NumPartitions: 3, ReplicationFactor: 3}}})
	if err != nil {
		return err
	}
	if err := made.Errors[topic]; err != nil {
		return err
	}
	meta, err := c.Metadata(ctx, &kafka.MetadataRequest{})
	if err != nil {
		return err
	}
	for _, b := range meta.Brokers {
		if b.Host != host {
			return fmt.Errorf("a broker at %s", b.Host)
		}
	}
	gone, err := c.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{topic}})
	if err != nil {
		return err
	}
	if err := gone.Errors[topic]; err != nil {
		return err
	}
	fmt.Println("brokers", len(meta.Brokers))
	return nil
}
