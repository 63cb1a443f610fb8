package kafka

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

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
	return func(v, data []byte) (string, []byte, error) {
		return "reader", append(invert(v), invert(data)...), m.fail
	}, m.fail
}

func (m *mask) Open(_ context.Context, address string, ciphertext, data []byte) ([]byte, error) {
	if address != "reader" {
		return nil, errors.New("unknown key")
	}
	if !bytes.HasSuffix(ciphertext, invert(data)) {
		return nil, errors.New("other data")
	}
	return invert(ciphertext[:len(ciphertext)-len(data)]), m.fail
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

func newTestInlet(c Cipher) (*Inlet, *[]string) { return newTestInletWith(InletOptions{Cipher: c}) }

// newTestInletWith completes the options.
func newTestInletWith(o InletOptions) (*Inlet, *[]string) {
	var published []string
	var mu sync.Mutex
	o.Log = slog.New(slog.DiscardHandler)
	o.Place = func(_ context.Context, broker int32, _ netip.Addr) (Place, error) { return elsewhere(broker, Place{}) }
	o.Publish = func(_ context.Context, topic string, partition int32) {
		mu.Lock()
		defer mu.Unlock()
		published = append(published, fmt.Sprintf("%s/%d", topic, partition))
	}
	return NewInlet(o), &published
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
		up, down := in.Filters(interceptor.Conn{})
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
		fetch.MaxBytes = mostFetched
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

// answerTo is what clients see of a broker's response to a request in version v.
func answerTo(t *testing.T, down interceptor.Filter, m versioned, v int16) []byte {
	t.Helper()
	m.SetVersion(v)
	in := asResponse(m)
	out, err := run(down, in, len(in))
	if err != nil {
		t.Fatal(err)
	}
	return body(t, out, in, m)
}

// whyNever is the reason for which TestNeverInClear expects a request to be refused, "" for any.
func whyNever(name string) string {
	switch {
	case strings.HasSuffix(name, "too late"), strings.HasSuffix(name, "too early"), name == "negative":
		return "known are"
	case strings.HasPrefix(name, "unknown"), name == "negative key":
		return "request"
	}
	return ""
}

// TestNeverInClear: with content encryption a value goes out encrypted, or not at all. Clients are told of it, or closed.
func TestNeverInClear(t *testing.T) {
	clear := []byte("clear text")
	as := func(key, version int16) []byte {
		b := produce(t, 9, 1, string(clear))
		binary.BigEndian.PutUint16(b[4:], uint16(key))
		binary.BigEndian.PutUint16(b[6:], uint16(version))
		return b
	}
	closed := map[string][]byte{
		"no answer":                produce(t, 9, 0, string(clear)),
		"too early":                as(0, 2),
		"too late":                 as(0, spans[keyProduce].max+1),
		"negative":                 as(0, -1),
		"other version":            as(0, 8),
		"negative key":             as(-1, 0),
		"too long":                 {0x80, 0x00, 0x00, 0x01, 0, 0, 0, 9},
		"too long to be looked at": {0x10, 0x00, 0x00, 0x01, 0, 0, 0, 9, 0, 0, 0, 0},
		"too short":                {0, 0, 0, 7, 0, 0, 0, 9, 0, 0, 0},
		"empty":                    {0, 0, 0, 0},
	}
	for key := range int16(200) {
		ours, known := versions(key, true)
		switch {
		case !known:
			closed[fmt.Sprintf("unknown %d", key)] = as(key, 0)
		case key != keyAPIVersions:
			closed[fmt.Sprintf("%d too late", key)] = as(key, ours.max+1)
			closed[fmt.Sprintf("%d too early", key)] = as(key, ours.min-1)
		}
	}
	for name, message := range closed {
		in, _ := newTestInlet(&mask{fail: errors.New("no consumer")})
		in.pause = 0
		up, _ := in.Filters(interceptor.Conn{})
		out, err := run(up, message, len(message))
		if err == nil || len(out) > 0 {
			t.Errorf("%s: passed on %q, %v", name, out, err)
		}
		// What would be refused for what is in it as well must be refused for its version or kind.
		if reason := whyNever(name); reason != "" && (!errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), reason)) {
			t.Errorf("%s: %v, want the reason %q", name, err, reason)
		}
	}
	for v := int16(recordsInProduce); v <= spans[keyProduce].max; v++ {
		for name, c := range map[string]struct {
			o       InletOptions
			code    int16
			records []byte
			unknown bool
		}{
			"no key":       {InletOptions{Cipher: &mask{fail: errors.New("no consumer")}}, codeNotEnoughReplicas, batch(t, []sample{{nil, clear, nil}}, 0, false, 0), false},
			"too large":    {InletOptions{Cipher: &mask{}, MaxMessage: 80}, codeTooLarge, batch(t, []sample{{nil, clear, nil}}, 0, false, 0), false},
			"no JSON":      {InletOptions{Cipher: &mask{}, Fields: []string{"f"}}, codeInvalidRecord, batch(t, []sample{{nil, clear, nil}}, 0, false, 0), false},
			"marker":       {InletOptions{Cipher: &mask{}}, codeInvalidRecord, batch(t, []sample{{nil, clear, nil}}, 0, false, flagControl), false},
			"bytes behind": {InletOptions{Cipher: &mask{}}, codeCorrupt, resum(append(batch(t, nil, 0, false, 0), clear...)), false},
			"no batch":     {InletOptions{Cipher: &mask{}}, codeCorrupt, clear, false},
			"old form":     {InletOptions{Cipher: &mask{}}, codeOldFormat, append(make([]byte, 17), clear...), false},
			"unknown":      {InletOptions{Cipher: &mask{}}, codeUnknownTopicID, batch(t, []sample{{nil, clear, nil}}, 0, false, 0), true},
		} {
			in, _ := newTestInletWith(c.o)
			in.pause = 0
			id := topicID{1}
			if c.unknown && v < idsInProduce {
				continue
			} else if !c.unknown {
				in.learn(id, "orders")
			}
			up, down := in.Filters(interceptor.Conn{})
			m := kmsg.NewPtrProduceRequest()
			m.SetVersion(v)
			m.Acks = -1
			m.Topics = []kmsg.ProduceRequestTopic{{Topic: "orders", TopicID: id, Partitions: []kmsg.ProduceRequestTopicPartition{{Partition: 3, Records: c.records}}}}
			message := asRequest(m, v)
			out, err := run(up, message, len(message))
			if err != nil || bytes.Contains(out, clear) {
				t.Errorf("version %d, %s: passed on %q, %v", v, name, out, err)
			}
			r := reread(t, kmsg.NewPtrProduceResponse(), answerTo(t, down, kmsg.NewPtrProduceResponse(), v), v)
			if len(r.Topics) != 1 || len(r.Topics[0].Partitions) != 1 || r.Topics[0].Partitions[0].Partition != 3 || r.Topics[0].Partitions[0].ErrorCode != c.code {
				t.Errorf("version %d, %s: answered %+v, want code %d", v, name, r, c.code)
			}
			m.Acks = 0 // nobody waits for an answer
			message = asRequest(m, v)
			if out, err := run(up, message, len(message)); err == nil || len(out) > 0 {
				t.Errorf("version %d, %s, without an answer: passed on %q, %v", v, name, out, err)
			}
		}
	}
	in, _ := newTestInlet(nil)
	up, _ := in.Filters(interceptor.Conn{})
	if out, err := run(up, produce(t, 9, 1, "clear text"), 10); err != nil || !bytes.Equal(out, produce(t, 9, 1, "clear text")) {
		t.Errorf("without encryption: %q, %v", out, err)
	}
}

// TestOneOfTwoSent: what can be encrypted is sent on though another partition of the request cannot.
func TestOneOfTwoSent(t *testing.T) {
	in, _ := newTestInletWith(InletOptions{Cipher: &mask{}, MaxMessage: 1000})
	in.pause = time.Hour // is for what may be better in a moment
	up, down := in.Filters(interceptor.Conn{})
	m := kmsg.NewPtrProduceRequest()
	m.SetVersion(9)
	m.Acks = 1
	short, long := batch(t, []sample{{nil, []byte("short"), nil}}, 0, false, 0), batch(t, []sample{{nil, make([]byte, 2000), nil}}, 0, false, 0)
	half := batch(t, []sample{{nil, bytes.Repeat([]byte{1}, 300), nil}}, 0, false, 0)
	m.Topics = []kmsg.ProduceRequestTopic{{Topic: "orders", Partitions: []kmsg.ProduceRequestTopicPartition{{Partition: 1, Records: short}, {Partition: 2, Records: long},
		{Partition: 3, Records: half}, {Partition: 4, Records: half}}}}
	message := asRequest(m, 9)
	out, err := run(up, message, len(message))
	if err != nil {
		t.Fatal(err)
	}
	sent := reread(t, m, out[len(message)-len(m.AppendTo(nil)):], 9)
	if p := sent.Topics[0].Partitions; len(p) != 2 || p[0].Partition != 1 || p[1].Partition != 3 {
		t.Errorf("sent %+v", sent)
	}
	r := kmsg.NewPtrProduceResponse()
	one, three := kmsg.NewProduceResponseTopicPartition(), kmsg.NewProduceResponseTopicPartition()
	one.Partition, three.Partition = 1, 3
	r.Topics = []kmsg.ProduceResponseTopic{{Topic: "orders", Partitions: []kmsg.ProduceResponseTopicPartition{one, three}}}
	told := reread(t, r, answerTo(t, down, r, 9), 9)
	codes := map[int32]int16{}
	for _, p := range told.Topics[0].Partitions {
		codes[p.Partition] = p.ErrorCode
	}
	// The third and the fourth are too long together, so the fourth has to come again.
	if want := (map[int32]int16{1: 0, 2: codeTooLarge, 3: 0, 4: codeNotEnoughReplicas}); len(told.Topics) != 1 || fmt.Sprint(codes) != fmt.Sprint(want) {
		t.Errorf("told %v in %d topics, want %v", codes, len(told.Topics), want)
	}
}

// lonely is a cipher without a consumer for one topic.
type lonely struct{ mask }

func (l *lonely) Sealer(ctx context.Context, topic string, partition int32) (Seal, error) {
	if topic == "lonely" {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return l.mask.Sealer(ctx, topic, partition)
}

// TestNobodyReadsOne: a partition that nobody reads does not hold up the others of its request.
func TestNobodyReadsOne(t *testing.T) {
	in, _ := newTestInletWith(InletOptions{Cipher: &lonely{}})
	in.pause, in.sealing = 50*time.Millisecond, time.Millisecond
	began := time.Now()
	up, down := in.Filters(interceptor.Conn{})
	m := kmsg.NewPtrProduceRequest()
	m.SetVersion(9)
	m.Acks = 1
	records := batch(t, []sample{{nil, []byte("value"), nil}}, 0, false, 0)
	m.Topics = []kmsg.ProduceRequestTopic{{Topic: "lonely", Partitions: []kmsg.ProduceRequestTopicPartition{{Records: records}}}, {Topic: "orders", Partitions: []kmsg.ProduceRequestTopicPartition{{Records: records}}}}
	message := asRequest(m, 9)
	out, err := run(up, message, len(message))
	if err != nil || bytes.Contains(out, []byte("lonely")) || !bytes.Contains(out, []byte("orders")) {
		t.Errorf("sent on %q, %v", out, err)
	}
	if time.Since(began) < in.pause {
		t.Error("the client may ask again at once, for ever")
	}
	r := reread(t, kmsg.NewPtrProduceResponse(), answerTo(t, down, kmsg.NewPtrProduceResponse(), 9), 9)
	if len(r.Topics) != 1 || r.Topics[0].Topic != "lonely" || r.Topics[0].Partitions[0].ErrorCode != codeNotEnoughReplicas {
		t.Errorf("told %+v", r)
	}
}

// TestUnanswered: a client that has asked very often without an answer is cut off, not remembered without end.
func TestUnanswered(t *testing.T) {
	in, _ := newTestInlet(nil)
	up, _ := in.Filters(interceptor.Conn{})
	ask := asRequest(kmsg.NewPtrMetadataRequest(), 0)
	for i := range maxUnanswered + 1 {
		binary.BigEndian.PutUint32(ask[lengthSize+correlationAt:], uint32(i))
		out, err := run(up, ask, len(ask))
		if want := i < maxUnanswered; (err == nil && bytes.Equal(out, ask)) != want {
			t.Fatalf("request %d: %v", i, err)
		}
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
		up, down := o.Filters(interceptor.Conn{})
		if out, err := run(up, append(bytes.Clone(ask), produce(t, 9, 0, "v")...), piece); err != nil || !bytes.Equal(out, append(bytes.Clone(ask), produce(t, 9, 0, "v")...)) {
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
	up, down := o.Filters(interceptor.Conn{})
	fail = errors.New("no outlet")
	_, _ = run(up, ask, len(ask))
	if out, err := run(down, asResponse(answer), 1000); err == nil || len(out) > 0 {
		t.Errorf("passed on %q, %v", out, err)
	}
}

// TestOutletLearnsNewLeaders: brokers that an answer names as new leaders (KIP-951) are found before the client hears of them, and nothing is changed. A request that
// gets no answer is not waited for, and an answer with many records passes as it comes.
func TestOutletLearnsNewLeaders(t *testing.T) {
	found := map[int32]Place{}
	o := &Outlet{Found: func(_ context.Context, broker int32, at Place) error {
		found[broker] = at
		return nil
	}}
	fetch := kmsg.NewPtrFetchResponse()
	fetch.Brokers = []kmsg.FetchResponseBroker{{NodeID: 1, Host: "new", Port: 9001}}
	made := kmsg.NewPtrProduceResponse()
	made.Brokers = []kmsg.ProduceResponseBroker{{NodeID: 2, Host: "new", Port: 9002}}
	shared := kmsg.NewPtrShareFetchResponse()
	shared.NodeEndpoints = []kmsg.ShareFetchResponseNodeEndpoint{{NodeID: 3, Host: "new", Port: 9003}}
	taken := kmsg.NewPtrShareAcknowledgeResponse()
	taken.NodeEndpoints = []kmsg.ShareAcknowledgeResponseNodeEndpoint{{NodeID: 4, Host: "new", Port: 9004}}
	for _, c := range []struct {
		ask     versioned
		answer  versioned
		version int16
		broker  int32
	}{
		{kmsg.NewPtrFetchRequest(), fetch, 16, 1}, {kmsg.NewPtrProduceRequest(), made, 10, 2}, {kmsg.NewPtrShareFetchRequest(), shared, 1, 3},
		{kmsg.NewPtrShareAcknowledgeRequest(), taken, 1, 4},
	} {
		c.answer.SetVersion(c.version)
		ask, answer := asRequest(filled(t, c.ask, c.version), c.version), asResponse(c.answer)
		for _, piece := range []int{1, 7, 1000} {
			clear(found)
			up, down := o.Filters(interceptor.Conn{})
			if out, err := run(up, ask, piece); err != nil || !bytes.Equal(out, ask) {
				t.Fatalf("request %d changed: %v", c.ask.Key(), err)
			}
			if out, err := run(down, answer, piece); err != nil || !bytes.Equal(out, answer) {
				t.Fatalf("answer to request %d changed: %v", c.ask.Key(), err)
			}
			if len(found) != 1 || found[c.broker] != (Place{"new", uint16(9000 + c.broker)}) {
				t.Errorf("request %d: found %v", c.ask.Key(), found)
			}
			if left := len(up.(*outletRequests).asked); left != 0 {
				t.Errorf("request %d: %d answers are waited for", c.ask.Key(), left)
			}
		}
	}

	up, down := o.Filters(interceptor.Conn{})
	silent := produce(t, 10, 0, "v")
	if out, err := run(up, silent, 1); err != nil || !bytes.Equal(out, silent) || len(up.(*outletRequests).asked) != 0 {
		t.Errorf("a request without an answer: %v, %d are waited for", err, len(up.(*outletRequests).asked))
	}
	ask := asRequest(filled(t, kmsg.NewPtrFetchRequest(), 16), 16)
	if _, err := run(up, ask, len(ask)); err != nil {
		t.Fatal(err)
	}
	long := finish(append(asResponse(fetch), make([]byte, mostWithRecords)...))
	if step, n, err := down.Next(long[:100]); step != interceptor.Pass || n != len(long) || err != nil || len(up.(*outletRequests).asked) != 0 {
		t.Errorf("a long answer: step %d, %d bytes, %v", step, n, err)
	}
}
