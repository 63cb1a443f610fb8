package kafka

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"sallyport/portal/interceptor"
)

// kmsg is another's codec of the same messages: everything here is held against it, in every version.

// fill gives every field a value that is not its default, lists two elements.
func fill(v reflect.Value, seed *int) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			switch v.Type().Field(i).Name {
			case "Version", "UnknownTags":
			default:
				fill(v.Field(i), seed)
			}
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), seed)
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes(fmt.Appendf(nil, "bytes %d", *seed))
			break
		}
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), seed)
		fill(v.Index(1), seed)
	case reflect.Array:
		for i := range v.Len() {
			v.Index(i).SetUint(uint64(*seed + i))
		}
	case reflect.String:
		v.SetString(fmt.Sprintf("text %d", *seed))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(int64(*seed%100 + 1))
	case reflect.Uint16:
		v.SetUint(uint64(*seed%100 + 1))
	case reflect.Float64:
		v.SetFloat(float64(*seed) + 0.5)
	default:
		panic(v.Kind().String())
	}
	*seed++
}

// versioned is a request or a response.
type versioned interface {
	Key() int16
	SetVersion(int16)
	IsFlexible() bool
	AppendTo([]byte) []byte
	ReadFrom([]byte) error
}

// filled makes a message of a version with all that the version can hold.
func filled[M versioned](t *testing.T, m M, version int16) M {
	t.Helper()
	seed := 1
	fill(reflect.ValueOf(m).Elem(), &seed)
	m.SetVersion(version)
	return reread(t, m, m.AppendTo(nil), version)
}

// reread decodes a body.
func reread[M versioned](t *testing.T, like M, body []byte, version int16) M {
	t.Helper()
	m := reflect.New(reflect.TypeOf(like).Elem()).Interface().(M)
	m.SetVersion(version)
	if err := m.ReadFrom(body); err != nil {
		t.Fatalf("version %d: %v", version, err)
	}
	return m
}

const testCorrelation = 77

// asRequest and asResponse put length and header in front of a body, cut takes them off again.
func asRequest(m versioned, version int16) []byte {
	b := binary.BigEndian.AppendUint16(make([]byte, 4), uint16(m.Key()))
	b = binary.BigEndian.AppendUint16(b, uint16(version))
	b = binary.BigEndian.AppendUint32(b, testCorrelation)
	b = append(b, 0, 3, 'c', 'l', 'i')
	if m.IsFlexible() {
		b = append(b, 1, 9, 2, 'x', 'y') // an unknown tag
	}
	return finish(m.AppendTo(b))
}

func asResponse(m versioned) []byte {
	b := binary.BigEndian.AppendUint32(make([]byte, 4), testCorrelation)
	if m.IsFlexible() && m.Key() != keyAPIVersions {
		b = append(b, 0)
	}
	return finish(m.AppendTo(b))
}

func finish(b []byte) []byte {
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

func headOf(m versioned, version int16) header {
	return header{key: m.Key(), version: version, correlation: testCorrelation}
}

// body takes length and header off, which must be what they were in before.
func body(t *testing.T, out, before []byte, m versioned) []byte {
	t.Helper()
	n := len(before) - len(m.AppendTo(nil))
	if len(out) < n || !bytes.Equal(out[4:n], before[4:n]) || int(binary.BigEndian.Uint32(out)) != len(out)-4 {
		t.Fatalf("header %x, was %x", out[:min(n, len(out))], before[:n])
	}
	return out[n:]
}

// elsewhere is where brokers of the tests are put.
func elsewhere(broker int32, at Place) (Place, error) {
	return Place{Host: "127.0.0.1", Port: uint16(20000 + broker)}, nil
}

func compare(t *testing.T, version int16, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("version %d:\ngot  %+v\nwant %+v", version, got, want)
	}
}

func eachVersion(t *testing.T, key int16, f func(v int16)) {
	t.Helper()
	for v := spans[key].min; v <= spans[key].max; v++ {
		f(v)
	}
}

func TestMetadataResponse(t *testing.T) {
	eachVersion(t, keyMetadata, func(v int16) {
		m := filled(t, kmsg.NewPtrMetadataResponse(), v)
		in := asResponse(m)
		topics := map[topicID]string{}
		out, err := metadataResponse(in, headOf(m, v), elsewhere, func(id topicID, name string) error {
			topics[id] = name
			return nil
		})
		if err != nil {
			t.Fatalf("version %d: %v", v, err)
		}
		want := reread(t, m, m.AppendTo(nil), v)
		names := map[topicID]string{}
		for i := range want.Brokers {
			b := &want.Brokers[i]
			b.Host, b.Port = "127.0.0.1", 20000+b.NodeID
		}
		for _, topic := range want.Topics {
			if v >= 10 {
				names[topic.TopicID] = *topic.Topic
			}
		}
		compare(t, v, reread(t, m, body(t, out, in, m), v), want)
		compare(t, v, topics, names)
	})
}

func TestCoordinatorResponse(t *testing.T) {
	eachVersion(t, keyFindCoordinator, func(v int16) {
		m := filled(t, kmsg.NewPtrFindCoordinatorResponse(), v)
		if v >= 4 {
			m.Coordinators[1].NodeID, m.Coordinators[1].Host, m.Coordinators[1].Port = -1, "", -1 // none was found
		}
		in := asResponse(m)
		out, err := coordinatorResponse(in, headOf(m, v), elsewhere)
		if err != nil {
			t.Fatalf("version %d: %v", v, err)
		}
		want := reread(t, m, m.AppendTo(nil), v)
		if v >= 4 {
			want.Coordinators[0].Host, want.Coordinators[0].Port = "127.0.0.1", 20000+want.Coordinators[0].NodeID
		} else {
			want.Host, want.Port = "127.0.0.1", 20000+want.NodeID
		}
		compare(t, v, reread(t, m, body(t, out, in, m), v), want)
	})
}

func TestClusterResponse(t *testing.T) {
	eachVersion(t, keyDescribeCluster, func(v int16) {
		m := filled(t, kmsg.NewPtrDescribeClusterResponse(), v)
		in := asResponse(m)
		out, err := clusterResponse(in, headOf(m, v), elsewhere)
		if err != nil {
			t.Fatalf("version %d: %v", v, err)
		}
		want := reread(t, m, m.AppendTo(nil), v)
		for i := range want.Brokers {
			want.Brokers[i].Host, want.Brokers[i].Port = "127.0.0.1", 20000+want.Brokers[i].NodeID
		}
		compare(t, v, reread(t, m, body(t, out, in, m), v), want)
	})
}

// TestTopicsLearned: a topic that has no name or no id in an answer is not taken for one that has; nor is one that was cut short.
func TestTopicsLearned(t *testing.T) {
	m := filled(t, kmsg.NewPtrMetadataResponse(), 12)
	m.Topics[0].Topic, m.Topics[1].TopicID = nil, topicID{}
	learned := map[topicID]string{}
	learn := func(id topicID, name string) error {
		learned[id] = name
		return nil
	}
	if _, err := metadataResponse(asResponse(m), headOf(m, 12), elsewhere, learn); err != nil || len(learned) > 0 {
		t.Errorf("learned %v, %v", learned, err)
	}
	m = filled(t, kmsg.NewPtrMetadataResponse(), 12)
	m.Topics = m.Topics[:1]
	whole := asResponse(m)
	for n := lengthSize + responseHead; n < len(whole)-10; n++ { // the topic's last fields are missing
		if _, err := metadataResponse(whole[:n:n], headOf(m, 12), elsewhere, learn); err == nil || len(learned) > 0 {
			t.Fatalf("%d of %d bytes: learned %v, %v", n, len(whole), learned, err)
		}
	}
}

// TestPlaceFails: without a place for a broker the message does not pass.
func TestPlaceFails(t *testing.T) {
	none := errors.New("no port is left")
	m := filled(t, kmsg.NewPtrMetadataResponse(), 12)
	if _, err := metadataResponse(asResponse(m), headOf(m, 12), func(int32, Place) (Place, error) { return Place{}, none }, func(topicID, string) error { return nil }); !errors.Is(err, none) {
		t.Error(err)
	}
}

// TestTopicRenamed: a broker that gives a known topic's id to another topic is not believed, and its client hears nothing of it. A topic that was deleted and made again
// has another id.
func TestTopicRenamed(t *testing.T) {
	in, _ := newTestInlet(&mask{})
	up, down := in.Filters(interceptor.Conn{})
	says := func(topics ...kmsg.MetadataResponseTopic) error {
		ask := asRequest(filled(t, kmsg.NewPtrMetadataRequest(), 12), 12)
		if _, err := run(up, ask, len(ask)); err != nil {
			t.Fatal(err)
		}
		m := kmsg.NewPtrMetadataResponse()
		m.SetVersion(12)
		m.Topics = topics
		answer := asResponse(m)
		out, err := run(down, answer, len(answer))
		if err != nil && len(out) > 0 {
			t.Errorf("%d bytes pass: %v", len(out), err)
		}
		return err
	}
	topic := func(id byte, name string) kmsg.MetadataResponseTopic {
		return kmsg.MetadataResponseTopic{TopicID: topicID{id}, Topic: &name}
	}
	for range 2 {
		if err := says(topic(1, "orders"), topic(2, "payments")); err != nil {
			t.Fatal(err)
		}
	}
	if err := says(topic(3, "orders")); err != nil {
		t.Errorf("a topic that was made again: %v", err)
	}
	if err := says(topic(1, "payments")); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), `"orders"`) || !strings.Contains(err.Error(), `"payments"`) {
		t.Errorf("a topic that was renamed: %v", err)
	}
	if got := in.nameOf(topicRef{id: topicID{1}}); got != "orders" {
		t.Errorf("the topic is %q", got)
	}
}
