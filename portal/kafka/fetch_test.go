package kafka

import (
	"bytes"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

const mostInTest = 50

// fetchedIn is what a request reads, by the other codec.
func fetchedIn(topic string, id topicID, numbers []int32) (list []fetchPart) {
	for _, n := range numbers {
		list = append(list, fetchPart{topicRef{topic, id}, n})
	}
	return list
}

func TestFetchRequest(t *testing.T) {
	eachVersion(t, keyFetch, func(v int16) {
		for _, asked := range []int32{mostInTest - 1, mostInTest, mostInTest + 1, 1<<31 - 1} {
			m := filled(t, kmsg.NewPtrFetchRequest(), v)
			if v >= 3 {
				m.MaxBytes = asked
			}
			in := asRequest(m, v)
			out, ask, err := fetchRequest(in, headOf(m, v), mostInTest)
			if err != nil {
				t.Fatalf("version %d: %v", v, err)
			}
			want := reread(t, m, m.AppendTo(nil), v)
			wanted := fetchAsk{epoch: -1}
			if v >= 3 {
				want.MaxBytes = min(asked, mostInTest)
			}
			if v >= 7 {
				wanted.epoch = m.SessionEpoch
			}
			for _, topic := range m.Topics {
				for _, p := range topic.Partitions {
					wanted.listed = append(wanted.listed, fetchedIn(topic.Topic, topic.TopicID, []int32{p.Partition})...)
				}
			}
			for _, topic := range m.ForgottenTopics {
				wanted.gone = append(wanted.gone, fetchedIn(topic.Topic, topic.TopicID, topic.Partitions)...)
			}
			compare(t, v, reread(t, m, body(t, out, in, m), v), want)
			compare(t, v, ask, wanted)
		}
	})
}

func TestShareFetchRequest(t *testing.T) {
	eachVersion(t, keyShareFetch, func(v int16) {
		m := filled(t, kmsg.NewPtrShareFetchRequest(), v)
		m.MaxBytes = 1 << 30
		in := asRequest(m, v)
		out, ask, err := shareFetchRequest(in, headOf(m, v), mostInTest)
		if err != nil {
			t.Fatalf("version %d: %v", v, err)
		}
		want := reread(t, m, m.AppendTo(nil), v)
		want.MaxBytes = mostInTest
		wanted := fetchAsk{epoch: m.ShareSessionEpoch}
		for _, topic := range m.Topics {
			for _, p := range topic.Partitions {
				wanted.listed = append(wanted.listed, fetchedIn("", topic.TopicID, []int32{p.Partition})...)
			}
		}
		for _, topic := range m.ForgottenTopicsData {
			wanted.gone = append(wanted.gone, fetchedIn("", topic.TopicID, topic.Partitions)...)
		}
		compare(t, v, reread(t, m, body(t, out, in, m), v), want)
		compare(t, v, ask, wanted)
	})
}

// opened is the opener of the tests: partitions with an even number are at fault.
func opened(_ topicRef, partition int32, records []byte) (fetched, error) {
	if partition%2 == 0 {
		return fetched{code: codeCorrupt}, nil
	}
	return fetched{records: append([]byte("new "), records...)}, nil
}

func stay(_ int32, at Place) (Place, error) { return at, nil }
func untouched(_ topicRef, _ int32, records []byte) (fetched, error) {
	return fetched{records: records}, nil
}
func expected(partition int32, code int16, records []byte) (int16, []byte, bool) {
	if len(records) == 0 {
		return code, records, false
	}
	with, _ := opened(topicRef{}, partition, records)
	if with.code != 0 {
		return with.code, []byte{}, true
	}
	return code, with.records, true
}

func TestFetchResponse(t *testing.T) {
	eachVersion(t, keyFetch, func(v int16) {
		if v < recordsInFetch {
			return // never rewritten
		}
		r := filled(t, kmsg.NewPtrFetchResponse(), v)
		r.Topics[0].Partitions[1].RecordBatches = nil
		r.Topics[0].Partitions[0].Partition, r.Topics[1].Partitions[0].Partition, r.Topics[1].Partitions[1].Partition = 1, 2, 3
		in := asResponse(r)
		out, err := fetchResponse(in, headOf(r, v), elsewhere, opened)
		if err != nil {
			t.Fatalf("version %d: %v", v, err)
		}
		answer := reread(t, r, r.AppendTo(nil), v)
		for i := range answer.Topics {
			for k := range answer.Topics[i].Partitions {
				p := &answer.Topics[i].Partitions[k]
				p.ErrorCode, p.RecordBatches, _ = expected(p.Partition, p.ErrorCode, p.RecordBatches)
			}
		}
		for i := range answer.Brokers {
			answer.Brokers[i].Host, answer.Brokers[i].Port = "127.0.0.1", 20000+answer.Brokers[i].NodeID
		}
		compare(t, v, reread(t, r, body(t, out, in, r), v), answer)
		if out, err = fetchResponse(in, headOf(r, v), stay, untouched); err != nil || !bytes.Equal(out, in) {
			t.Errorf("version %d: what needs no change was changed (%v)", v, err)
		}
	})
}

func TestShareFetchResponse(t *testing.T) {
	eachVersion(t, keyShareFetch, func(v int16) {
		r := filled(t, kmsg.NewPtrShareFetchResponse(), v)
		r.Topics[0].Partitions[0].Partition, r.Topics[0].Partitions[1].Partition = 1, 2
		in := asResponse(r)
		out, err := shareFetchResponse(in, headOf(r, v), elsewhere, opened)
		if err != nil {
			t.Fatalf("version %d: %v", v, err)
		}
		answer := reread(t, r, r.AppendTo(nil), v)
		for i := range answer.Topics {
			for k := range answer.Topics[i].Partitions {
				p := &answer.Topics[i].Partitions[k]
				p.ErrorCode, p.Records, _ = expected(p.Partition, p.ErrorCode, p.Records)
			}
		}
		for i := range answer.NodeEndpoints {
			answer.NodeEndpoints[i].Host, answer.NodeEndpoints[i].Port = "127.0.0.1", 20000+answer.NodeEndpoints[i].NodeID
		}
		compare(t, v, reread(t, r, body(t, out, in, r), v), answer)
		if out, err = shareFetchResponse(in, headOf(r, v), stay, untouched); err != nil || !bytes.Equal(out, in) {
			t.Errorf("version %d: what needs no change was changed (%v)", v, err)
		}
	})
}

func TestShareAcknowledgeResponse(t *testing.T) {
	eachVersion(t, keyShareAcknowledge, func(v int16) {
		r := filled(t, kmsg.NewPtrShareAcknowledgeResponse(), v)
		in := asResponse(r)
		out, err := shareAcknowledgeResponse(in, headOf(r, v), elsewhere)
		if err != nil {
			t.Fatalf("version %d: %v", v, err)
		}
		answer := reread(t, r, r.AppendTo(nil), v)
		for i := range answer.NodeEndpoints {
			answer.NodeEndpoints[i].Host, answer.NodeEndpoints[i].Port = "127.0.0.1", 20000+answer.NodeEndpoints[i].NodeID
		}
		compare(t, v, reread(t, r, body(t, out, in, r), v), answer)
	})
}
