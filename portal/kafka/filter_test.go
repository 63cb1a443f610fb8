package kafka

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"sallyport/portal/interceptor"
)

// mask is a cipher of the tests: it turns all bits over.
type mask struct {
	mu    sync.Mutex
	asked []string
	fail  error
}

func invert(b []byte) []byte {
	out := make([]byte, len(b))
	for i, c := range b {
		out[i] = ^c
	}
	return out
}

func (m *mask) Sealer(_ context.Context, topic string, partition int32) (Seal, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = append(m.asked, fmt.Sprintf("%s/%d", topic, partition))
	return func(v []byte) (string, []byte, error) { return "reader", invert(v), m.fail }, m.fail
}

func (m *mask) Open(_ context.Context, address string, ciphertext []byte) ([]byte, error) {
	if address != "reader" {
		return nil, errors.New("unknown key")
	}
	return invert(ciphertext), m.fail
}

// run gives a filter bytes in pieces and returns what it passes on.
func run(f interceptor.Filter, in []byte, piece int) (out []byte, err error) {
	var have []byte
	passing := 0
	for len(in) > 0 {
		n := min(piece, len(in))
		have, in = append(have, in[:n]...), in[n:]
	more:
		for len(have) > 0 {
			if passing > 0 {
				n := min(passing, len(have))
				out, have, passing = append(out, have[:n]...), have[n:], passing-n
				continue
			}
			step, n, err := f.Next(have)
			switch {
			case err != nil:
				return out, err
			case step == interceptor.Wait:
				break more
			case n < 1 || step == interceptor.Work && n > len(have):
				panic("no progress")
			case step == interceptor.Pass:
				passing = n
			default:
				changed, err := f.Work(context.Background(), bytes.Clone(have[:n]))
				if err != nil {
					return out, err
				}
				out, have = append(out, changed...), have[n:]
			}
		}
	}
	return out, nil
}

func newTestInlet(c Cipher) (*Inlet, *[]string) {
	var published []string
	var mu sync.Mutex
	return NewInlet(InletOptions{
		Place: func(_ context.Context, broker int32) (Place, error) { return elsewhere(broker, Place{}) },
		Publish: func(_ context.Context, topic string, partition int32) {
			mu.Lock()
			defer mu.Unlock()
			published = append(published, fmt.Sprintf("%s/%d", topic, partition))
		},
		Cipher: c, Log: slog.New(slog.DiscardHandler),
	}), &published
}

func produce(t testing.TB, version int16, acks int16, value string) []byte {
	m := kmsg.NewPtrProduceRequest()
	m.SetVersion(version)
	m.Acks = acks
	m.Topics = []kmsg.ProduceRequestTopic{{Topic: "orders", Partitions: []kmsg.ProduceRequestTopicPartition{
		{Partition: 3, Records: batch(t, []sample{{[]byte("key"), []byte(value), nil}}, compressLZ4, true, 0)}}}}
	return asRequest(m, version)
}

// TestInletConversation: a producer's and a consumer's messages, in pieces of all sizes.
func TestInletConversation(t *testing.T) {
	for _, piece := range []int{1, 5, 7, 1000, 1 << 20} {
		cipher := &mask{}
		in, published := newTestInlet(cipher)
		up, down := in.Filters()
		heartbeat := asRequest(kmsg.NewPtrHeartbeatRequest(), 3)
		sent := append(produce(t, 9, 1, "clear text"), heartbeat...)
		out, err := run(up, sent, piece)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(out, []byte("clear text")) || !bytes.Contains(out, []byte("key")) || !bytes.HasSuffix(out, heartbeat) {
			t.Fatalf("passed on: %q", out)
		}
		size := 4 + int(binary.BigEndian.Uint32(out))
		m := reread(t, kmsg.NewPtrProduceRequest(), body(t, out[:size], produce(t, 9, 1, "clear text"), reread(t, kmsg.NewPtrProduceRequest(), produce(t, 9, 1, "clear text")[22:], 9)), 9)
		stored := m.Topics[0].Partitions[0].Records
		if fmt.Sprint(cipher.asked) != "[orders/3]" {
			t.Errorf("asked for %v", cipher.asked)
		}

		fetch := kmsg.NewPtrFetchRequest()
		fetch.SetVersion(13)
		id := topicID{1, 2, 3}
		fetch.Topics = []kmsg.FetchRequestTopic{{TopicID: id, Partitions: []kmsg.FetchRequestTopicPartition{{Partition: 3}, {Partition: 4}}}}
		in.learn(id, "orders")
		if out, err = run(up, append(asRequest(fetch, 13), asRequest(fetch, 13)...), piece); err != nil || !bytes.Equal(out, append(asRequest(fetch, 13), asRequest(fetch, 13)...)) {
			t.Fatalf("a request that needs no change was changed (%v)", err)
		}
		if len(*published) != 2 {
			t.Errorf("published %v", *published)
		}
		answer := kmsg.NewPtrFetchResponse()
		answer.SetVersion(13)
		answer.Topics = []kmsg.FetchResponseTopic{{TopicID: id, Partitions: []kmsg.FetchResponseTopicPartition{{Partition: 3, RecordBatches: stored}}}}
		if out, err = run(down, asResponse(answer), piece); err != nil || !bytes.Contains(out, []byte("clear text")) {
			t.Errorf("fetched %q, %v", out, err)
		}
	}
}

// TestNeverInClear: with content encryption a value goes out encrypted, or not at all.
func TestNeverInClear(t *testing.T) {
	unknown := func(key, version int16) []byte {
		b := produce(t, 9, 1, "clear text")
		binary.BigEndian.PutUint16(b[4:], uint16(key))
		binary.BigEndian.PutUint16(b[6:], uint16(version))
		return b
	}
	for name, message := range map[string][]byte{
		"no key":        produce(t, 9, 1, "clear text"),
		"no answer":     produce(t, 9, 0, "clear text"),
		"too early":     unknown(0, 2),
		"too late":      unknown(0, 12),
		"other version": unknown(0, 8),
		"unknown key":   unknown(76, 0),
		"negative key":  unknown(-1, 0),
		"leader":        unknown(4, 0),
		"update":        unknown(6, 0),
		"too long":      {0x01, 0x00, 0x00, 0x01, 0, 0, 0, 9},
		"too short":     {0, 0, 0, 7, 0, 0, 0, 9, 0, 0, 0},
		"empty":         {0, 0, 0, 0},
	} {
		in, _ := newTestInlet(&mask{fail: errors.New("no consumer")})
		up, _ := in.Filters()
		out, err := run(up, message, len(message))
		if err == nil || len(out) > 0 {
			t.Errorf("%s: passed on %q, %v", name, out, err)
		}
	}
	in, _ := newTestInlet(nil)
	up, _ := in.Filters()
	if out, err := run(up, produce(t, 9, 1, "clear text"), 10); err != nil || !bytes.Equal(out, produce(t, 9, 1, "clear text")) {
		t.Errorf("without encryption: %q, %v", out, err)
	}
}

// TestOutletLearns: brokers are found before the client hears of them, and nothing is changed.
func TestOutletLearns(t *testing.T) {
	found := map[int32]Place{}
	var fail error
	o := &Outlet{Found: func(_ context.Context, broker int32, at Place) error {
		found[broker] = at
		return fail
	}}
	ask := asRequest(filled(t, kmsg.NewPtrMetadataRequest(), 9), 9)
	answer := kmsg.NewPtrMetadataResponse()
	answer.SetVersion(9)
	answer.Brokers = []kmsg.MetadataResponseBroker{{NodeID: 1, Host: "one", Port: 9092}, {NodeID: 2, Host: "two", Port: 9093}}
	other := finish(append(binary.BigEndian.AppendUint32(make([]byte, 4), 5), "anything"...))
	for _, piece := range []int{1, 6, 1000} {
		up, down := o.Filters()
		if out, err := run(up, append(bytes.Clone(ask), produce(t, 9, 1, "v")...), piece); err != nil || !bytes.Equal(out, append(bytes.Clone(ask), produce(t, 9, 1, "v")...)) {
			t.Fatalf("request changed, %v", err)
		}
		in := append(bytes.Clone(other), asResponse(answer)...)
		if out, err := run(down, in, piece); err != nil || !bytes.Equal(out, in) {
			t.Fatalf("response changed, %v", err)
		}
		if len(found) != 2 || found[1] != (Place{"one", 9092}) || found[2] != (Place{"two", 9093}) {
			t.Errorf("found %v", found)
		}
	}
	up, down := o.Filters()
	fail = errors.New("no outlet")
	_, _ = run(up, ask, len(ask))
	if out, err := run(down, asResponse(answer), 1000); err == nil || len(out) > 0 {
		t.Errorf("passed on %q, %v", out, err)
	}
}
