package kafka

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"sallyport/portal/interceptor"
)

// stored is what a producer's inlet makes of a batch with one record.
func stored(t *testing.T, o InletOptions, topic string, partition int32, key, value []byte) []byte {
	t.Helper()
	in, _ := newTestInletWith(o)
	out, err := in.sealRecords(context.Background(), topic, partition, batch(t, []sample{{key, value, nil}}, 0, false, 0))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// moved is a stored record under another key.
func moved(t *testing.T, raw, key []byte) []byte {
	t.Helper()
	_, records := unbatch(t, raw)
	return batch(t, []sample{{key, records[0].Value, nil}}, 0, false, 0)
}

// TestBoundValues: a broker can't move a value to another topic, partition or key; a consumer with --bind-values takes no value that is not
// bound, and one without it reads both.
func TestBoundValues(t *testing.T) {
	ctx := context.Background()
	id := topicID{1}
	bound, plain := InletOptions{Cipher: &mask{}, Bind: true}, InletOptions{Cipher: &mask{}}
	key, value := []byte("key"), []byte("value")
	record := stored(t, bound, "orders", 3, key, value)
	loose := stored(t, plain, "orders", 3, key, value)
	for name, c := range map[string]struct {
		o         InletOptions
		topic     topicRef
		partition int32
		records   []byte
		want      bool
	}{
		"in its place":             {bound, topicRef{name: "orders"}, 3, record, true},
		"by id":                    {bound, topicRef{id: id}, 3, record, true},
		"reader without":           {plain, topicRef{name: "orders"}, 3, record, true},
		"other topic":              {bound, topicRef{name: "order"}, 3, record, false},
		"other topic, without":     {plain, topicRef{name: "order"}, 3, record, false},
		"other partition":          {bound, topicRef{name: "orders"}, 4, record, false},
		"other key":                {bound, topicRef{name: "orders"}, 3, moved(t, record, []byte("ke")), false},
		"no key":                   {bound, topicRef{name: "orders"}, 3, moved(t, record, nil), false},
		"empty key":                {bound, topicRef{name: "orders"}, 3, moved(t, record, []byte{}), false},
		"unknown topic":            {bound, topicRef{id: topicID{2}}, 3, record, false},
		"not bound":                {bound, topicRef{name: "orders"}, 3, loose, false},
		"not bound, without":       {plain, topicRef{name: "orders"}, 3, loose, true},
		"in clear":                 {bound, topicRef{name: "orders"}, 3, batch(t, []sample{{key, value, nil}}, 0, false, 0), false},
		"in clear, without":        {plain, topicRef{name: "orders"}, 3, batch(t, []sample{{key, value, nil}}, 0, false, 0), false},
		"without key in its place": {bound, topicRef{name: "orders"}, 3, stored(t, bound, "orders", 3, nil, value), true},
		"without key, given one":   {bound, topicRef{name: "orders"}, 3, moved(t, stored(t, bound, "orders", 3, nil, value), []byte{}), false},
	} {
		in, _ := newTestInletWith(c.o)
		in.learn(id, "orders")
		out, err := in.openRecords(ctx, c.topic, c.partition, c.records)
		if (err == nil) != c.want {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil {
			if len(out) > 0 {
				t.Errorf("%s: %q came out", name, out)
			}
		} else if _, records := unbatch(t, out); !bytes.Equal(records[0].Value, value) {
			t.Errorf("%s: %q", name, records[0].Value)
		}
	}
}

// TestBoundFields: a field can't take another one's place.
func TestBoundFields(t *testing.T) {
	o := InletOptions{Cipher: &mask{}, Bind: true, Fields: []string{"a", "b"}}
	raw := stored(t, o, "t", 1, nil, []byte(`{"a":1,"b":2,"c":3}`))
	in, _ := newTestInletWith(o)
	out, err := in.openRecords(context.Background(), topicRef{name: "t"}, 1, raw)
	if err != nil {
		t.Fatal(err)
	}
	if _, records := unbatch(t, out); string(records[0].Value) != `{"a":1,"b":2,"c":3}` {
		t.Errorf("%s", records[0].Value)
	}
	_, records := unbatch(t, raw)
	swapped := bytes.Replace(bytes.Replace(bytes.Replace(records[0].Value, []byte(`"a"`), []byte(`"x"`), 1), []byte(`"b"`), []byte(`"a"`), 1), []byte(`"x"`), []byte(`"b"`), 1)
	if _, err := in.openRecords(context.Background(), topicRef{name: "t"}, 1, batch(t, []sample{{nil, swapped, nil}}, 0, false, 0)); err == nil {
		t.Error("fields were swapped, and nobody noticed")
	}
}

// TestBindings: no two places are encoded alike.
func TestBindings(t *testing.T) {
	seen := map[string]binding{}
	for _, topic := range []string{"", "a", "ab", "a\x00"} {
		for _, number := range []int32{0, 1, 256} {
			for _, key := range [][]byte{nil, {}, {0}, []byte("b"), []byte("b\x00\x00\x00\x00")} {
				for _, field := range []string{"", "b", "\x00"} {
					b := binding{topic, number, key, field}
					if other, there := seen[string(b.data())]; there {
						t.Errorf("%+v and %+v are encoded alike", b, other)
					}
					seen[string(b.data())] = b
				}
			}
		}
	}
}

// fetchAnswer is what a consumer gets when a broker sends records of two partitions.
func fetchAnswer(t *testing.T, in *Inlet, conn [2]interceptor.Filter, one, two []byte) (codes [2]int16, records [2][]byte) {
	t.Helper()
	ask := kmsg.NewPtrFetchRequest()
	ask.SetVersion(12)
	message := asRequest(ask, 12)
	if _, err := run(conn[0], message, len(message)); err != nil {
		t.Fatal(err)
	}
	m := kmsg.NewPtrFetchResponse()
	m.Topics = []kmsg.FetchResponseTopic{{Topic: "t", Partitions: []kmsg.FetchResponseTopicPartition{kmsg.NewFetchResponseTopicPartition(), kmsg.NewFetchResponseTopicPartition()}}}
	for i, raw := range [][]byte{one, two} {
		m.Topics[0].Partitions[i].Partition, m.Topics[0].Partitions[i].RecordBatches = int32(i), raw
	}
	got := reread(t, m, answerTo(t, conn[1], m, 12), 12)
	for i := range codes {
		codes[i], records[i] = got.Topics[0].Partitions[i].ErrorCode, got.Topics[0].Partitions[i].RecordBatches
	}
	return codes, records
}

// TestUndecryptable: what cannot be decrypted never reaches a consumer, stops no other partition, and is told of when it does not pass.
func TestUndecryptable(t *testing.T) {
	good := stored(t, InletOptions{Cipher: &mask{}}, "t", 0, nil, []byte("value"))
	for name, bad := range map[string][]byte{
		"in clear":    batch(t, []sample{{nil, []byte("clear text"), nil}}, 0, false, 0),
		"empty":       batch(t, []sample{{nil, []byte{}, nil}}, 0, false, 0),
		"unknown key": batch(t, []sample{{nil, appendEnvelope(nil, "nobody", []byte("ciphertext")), nil}}, 0, false, 0),
		"malformed":   append(bytes.Clone(good[:len(good)-1]), good[len(good)-1]+1),
		"old form":    append(make([]byte, 17), "clear text"...),
	} {
		in, _ := newTestInlet(&mask{})
		in.pause, in.patience = 0, time.Hour
		up, down := in.Filters(interceptor.Conn{})
		conn := [2]interceptor.Filter{up, down}
		codes, records := fetchAnswer(t, in, conn, bad, good)
		if codes != [2]int16{} || len(records[0]) > 0 || !bytes.Contains(records[1], []byte("value")) {
			t.Errorf("%s, at first: codes %v, records %q", name, codes, records)
		}
		in.patience = 0
		codes, records = fetchAnswer(t, in, conn, bad, good)
		if codes != [2]int16{codeCorrupt, 0} || len(records[0]) > 0 || !bytes.Contains(records[1], []byte("value")) {
			t.Errorf("%s, later: codes %v, records %q", name, codes, records)
		}
		// What came before the bad batch goes on, and the consumer asks for the rest again.
		codes, records = fetchAnswer(t, in, conn, append(bytes.Clone(good), bad...), good)
		if codes != [2]int16{} || !bytes.Contains(records[0], []byte("value")) || bytes.Contains(records[0], []byte("clear text")) {
			t.Errorf("%s, behind a good one: codes %v, records %q", name, codes, records)
		}
		in.patience = time.Hour // it counts anew
		if codes, _ = fetchAnswer(t, in, conn, bad, good); codes != [2]int16{} {
			t.Errorf("%s, after a good one: codes %v", name, codes)
		}
	}
}

// TestUndecryptableCanceled: an answer that is no longer wanted is no failure of its records.
func TestUndecryptableCanceled(t *testing.T) {
	in, _ := newTestInlet(&mask{fail: errors.New("canceled")})
	up, down := in.Filters(interceptor.Conn{})
	ctx, cancel := context.WithCancel(context.Background())
	ask := kmsg.NewPtrFetchRequest()
	ask.SetVersion(12)
	message := asRequest(ask, 12)
	if _, err := up.Work(ctx, message); err != nil {
		t.Fatal(err)
	}
	m := kmsg.NewPtrFetchResponse()
	m.SetVersion(12)
	m.Topics = []kmsg.FetchResponseTopic{{Topic: "t", Partitions: []kmsg.FetchResponseTopicPartition{kmsg.NewFetchResponseTopicPartition()}}}
	m.Topics[0].Partitions[0].RecordBatches = stored(t, InletOptions{Cipher: &mask{}}, "t", 0, nil, []byte("value"))
	c := (*inletConn)(down.(*inletResponses))
	c.watched.Do(func() {}) // the end is not noticed yet
	cancel()
	if _, err := down.Work(ctx, asResponse(m)); err == nil {
		t.Error("an answer")
	}
}
