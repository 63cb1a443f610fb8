package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"
)

// franz is a client with franz-go.
type franz struct {
	bootstrap string
	extra     map[string]string
}

func (f *franz) client(opts ...kgo.Opt) (*kgo.Client, error) {
	opts = append(opts, kgo.SeedBrokers(strings.Split(f.bootstrap, ",")...), kgo.RecordDeliveryTimeout(2*time.Minute))
	if user := f.extra["sasl.username"]; user != "" {
		opts = append(opts, kgo.SASL(plain.Auth{User: user, Pass: f.extra["sasl.password"]}.AsMechanism()))
	}
	if config := authorities(f.extra); config != nil {
		opts = append(opts, kgo.DialTLSConfig(config))
	}
	return kgo.NewClient(opts...)
}

func codec(name string) kgo.CompressionCodec {
	switch name {
	case "gzip":
		return kgo.GzipCompression()
	case "snappy":
		return kgo.SnappyCompression()
	case "lz4":
		return kgo.Lz4Compression()
	case "zstd":
		return kgo.ZstdCompression()
	}
	return kgo.NoCompression()
}

func (f *franz) produce(topic string, n, size int, compression string) error {
	c, err := f.client(kgo.ProducerBatchCompression(codec(compression)), kgo.ProducerLinger(20*time.Millisecond))
	if err != nil {
		return err
	}
	defer c.Close()
	for i := range n {
		c.Produce(context.Background(), &kgo.Record{Topic: topic, Key: fmt.Append(nil, "key", i), Value: value(compression, i, size)}, func(_ *kgo.Record, e error) {
			if e != nil {
				err = e
			}
		})
	}
	if e := c.Flush(context.Background()); e != nil {
		return e
	}
	fmt.Println("produced", n)
	return err
}

func (f *franz) paced(topic string, n int) error {
	c, err := f.client(kgo.ProducerLinger(0))
	if err != nil {
		return err
	}
	defer c.Close()
	for i := range n {
		c.Produce(context.Background(), &kgo.Record{Topic: topic, Key: fmt.Append(nil, "key", i), Value: value("paced", i, 50)}, func(_ *kgo.Record, e error) {
			if e != nil {
				err = e
			}
		})
		time.Sleep(pace)
	}
	if e := c.Flush(context.Background()); e != nil {
		return e
	}
	fmt.Println("produced", n)
	return err
}

func (f *franz) consume(topic string, n int, group string) error {
	c, err := f.client(kgo.ConsumeTopics(topic), kgo.ConsumerGroup(group), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 160*time.Second)
	defer cancel()
	var s seen
	for len(s.values) < n && ctx.Err() == nil {
		fetches := c.PollFetches(ctx)
		fetches.EachError(func(_ string, _ int32, e error) { fmt.Println("error", e) })
		fetches.EachRecord(func(r *kgo.Record) { s.add(r.Value) })
		if e := fetches.Err(); errors.Is(e, kerr.TopicAuthorizationFailed) {
			return e
		}
	}
	return s.report(n)
}

func (f *franz) transact(topic string, n int) error {
	c, err := f.client(kgo.TransactionalID("probe-"+topic), kgo.ProducerBatchCompression(kgo.Lz4Compression()))
	if err != nil {
		return err
	}
	defer c.Close()
	ctx := context.Background()
	for _, tag := range []string{"kept", "dropped", "kept2"} {
		if err := c.BeginTransaction(); err != nil {
			return err
		}
		for i := range n {
			c.Produce(ctx, &kgo.Record{Topic: topic, Key: fmt.Append(nil, "key", i), Value: value(tag, i, 100)}, func(_ *kgo.Record, e error) {
				if e != nil {
					err = e
				}
			})
		}
		if e := c.Flush(ctx); e != nil || err != nil {
			return errors.Join(e, err)
		}
		if err := c.EndTransaction(ctx, kgo.TransactionEndTry(tag != "dropped")); err != nil {
			return err
		}
	}
	fmt.Println("committed", 2*n)
	return nil
}

func (f *franz) large(topic string, size int) error {
	c, err := f.client(kgo.ProducerBatchMaxBytes(200_000_000), kgo.BrokerMaxWriteBytes(300_000_000), kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		return err
	}
	defer c.Close()
	began := time.Now()
	if err := c.ProduceSync(context.Background(), &kgo.Record{Topic: topic, Key: []byte("key"), Value: value("large", 0, size)}).FirstErr(); err != nil {
		fmt.Printf("refused %v after %.0f s\n", err, time.Since(began).Seconds())
		return nil
	}
	fmt.Println("produced", size)
	return nil
}

func (f *franz) admin(topic, host string) error {
	c, err := f.client()
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	a := kadm.NewClient(c)
	if _, err := a.CreateTopic(ctx, 3, 3, nil, topic); err != nil {
		return err
	}
	brokers, err := a.ListBrokers(ctx)
	if err != nil {
		return err
	}
	for _, b := range brokers {
		if b.Host != host {
			return fmt.Errorf("a broker at %s", b.Host)
		}
	}
	if _, err := a.DescribeTopicConfigs(ctx, topic); err != nil {
		return err
	}
	if _, err := a.DeleteTopic(ctx, topic); err != nil {
		return err
	}
	fmt.Println("brokers", len(brokers))
	return nil
}

// look is what the suite itself asks of a cluster: make a topic of n partitions, print the codec of each of its batches, print the leader of
// partition n, or fail unless all its partitions have n replicas in sync, or n records together.
func (f *franz) look(action, topic string, n int) error {
	c, err := f.client(kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	a := kadm.NewClient(c)
	if action == "topic" {
		if _, err := a.CreateTopic(ctx, int32(n), 3, nil, topic); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			return err
		}
		for {
			d, err := a.ListTopics(ctx, topic)
			if err == nil && len(d[topic].Partitions) == n && d[topic].Err == nil {
				return nil
			}
			if ctx.Err() != nil {
				return fmt.Errorf("topic %s: %w", topic, ctx.Err())
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	d, err := a.ListTopics(ctx, topic)
	if err != nil {
		return err
	}
	switch action {
	case "grown":
		ends, err := a.ListEndOffsets(ctx, topic)
		if err != nil {
			return err
		}
		sum := int64(0)
		ends.Each(func(o kadm.ListedOffset) { sum += o.Offset })
		if sum < int64(n) {
			return fmt.Errorf("%d records", sum)
		}
	case "leader":
		fmt.Println(d[topic].Partitions[int32(n)].Leader)
	case "settled":
		for _, p := range d[topic].Partitions {
			if len(p.ISR) != n {
				return fmt.Errorf("partition %d: %v of %v in sync", p.Partition, p.ISR, p.Replicas)
			}
		}
	case "codecs":
		codecs := map[string]bool{}
		for last := time.Now(); time.Since(last) < 3*time.Second; {
			wait, cancel := context.WithTimeout(ctx, time.Second)
			c.PollFetches(wait).EachRecord(func(r *kgo.Record) {
				last = time.Now()
				codecs[[]string{"none", "gzip", "snappy", "lz4", "zstd"}[r.Attrs.CompressionType()]] = true
			})
			cancel()
		}
		for name := range codecs {
			fmt.Println(name)
		}
	default:
		return unsupported{}
	}
	return nil
}
