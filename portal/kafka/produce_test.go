package kafka

import (
	"errors"
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// produceVersions are those in which records are rewritten.
func produceVersions(f func(v int16)) {
	for v := int16(recordsInProduce); v <= spans[keyProduce].max; v++ {
		f(v)
	}
}

func TestProduceRequest(t *testing.T) {
	produceVersions(func(v int16) {
		m := filled(t, kmsg.NewPtrProduceRequest(), v)
		m.Topics[1].Partitions[1].Records = nil
		in := asRequest(m, v)
		if answered, known := produceAcks(in, headOf(m, v)); !answered || !known {
			t.Errorf("version %d: answered %v, known %v", v, answered, known)
		}
		if _, known := produceAcks(in[:20], headOf(m, v)); known {
			t.Errorf("version %d: known too early", v)
		}
		out, refused, err := produceRequest(in, headOf(m, v), func(topic topicRef, partition int32, records []byte) ([]byte, error) {
			return fmt.Appendf(nil, "%v/%d/%s", topic, partition, records), nil
		})
		if err != nil || len(refused) > 0 {
			t.Fatalf("version %d: refused %v, %v", v, refused, err)
		}
		want := reread(t, m, m.AppendTo(nil), v)
		for i := range want.Topics {
			for k := range want.Topics[i].Partitions {
				if p := &want.Topics[i].Partitions[k]; p.Records != nil {
					p.Records = fmt.Appendf(nil, "%v/%d/%s", topicRef{want.Topics[i].Topic, want.Topics[i].TopicID}, p.Partition, p.Records)
				}
			}
		}
		compare(t, v, reread(t, m, body(t, out, in, m), v), want)
	})
}

// TestProduceAnswered: a partition whose records cannot be sent on is left out of the request and told of in the response.
func TestProduceAnswered(t *testing.T) {
	produceVersions(func(v int16) {
		m := filled(t, kmsg.NewPtrProduceRequest(), v)
		m.Topics[0].Partitions[0].Partition, m.Topics[0].Partitions[1].Partition = 1, 2
		m.Topics[1].Partitions[0].Partition, m.Topics[1].Partitions[1].Partition = 3, 4
		all := m.Topics
		in := asRequest(m, v)
		for name, refuse := range map[string]map[int32]int16{
			"one": {2: codeTooLarge}, "a topic": {1: codeInvalidRecord, 2: codeTooLarge}, "across": {2: codeOldFormat, 3: codeNotEnoughReplicas}, "all": {1: 10, 2: 10, 3: 10, 4: 10},
		} {
			out, refused, err := produceRequest(in, headOf(m, v), func(_ topicRef, partition int32, records []byte) ([]byte, error) {
				if code := refuse[partition]; code != 0 {
					return nil, coded(code, "no")
				}
				return records, nil
			})
			if err != nil || len(refused) != len(refuse) {
				t.Fatalf("version %d, %s: %v, %v", v, name, refused, err)
			}
			want := reread(t, m, m.AppendTo(nil), v)
			want.Topics = nil
			answer := filled(t, kmsg.NewPtrProduceResponse(), v)
			answer.Topics = nil
			told := reread(t, answer, answer.AppendTo(nil), v)
			var late []kmsg.ProduceResponseTopic
			for _, topic := range all {
				kept, answered := topic, kmsg.ProduceResponseTopic{Topic: topic.Topic, TopicID: topic.TopicID}
				kept.Partitions = nil
				var no []kmsg.ProduceResponseTopicPartition
				for _, p := range topic.Partitions {
					r := kmsg.NewProduceResponseTopicPartition()
					r.Partition = p.Partition
					if code := refuse[p.Partition]; code == 0 {
						kept.Partitions = append(kept.Partitions, p)
						r.BaseOffset = 5
						if v >= 2 {
							r.LogAppendTime = 6
						}
						if v >= 5 {
							r.LogStartOffset = 7
						}
						answered.Partitions = append(answered.Partitions, r)
					} else {
						r.ErrorCode, r.BaseOffset, r.LogAppendTime = code, -1, -1
						if v >= 8 {
							r.ErrorMessage = kmsg.StringPtr("no")
						}
						no = append(no, r)
					}
				}
				if len(kept.Partitions) > 0 {
					want.Topics = append(want.Topics, kept)
					answer.Topics = append(answer.Topics, answered)
					answered.Partitions = append(answered.Partitions, no...)
					told.Topics = append(told.Topics, answered)
				} else {
					answered.Partitions = no
					late = append(late, answered)
				}
			}
			told.Topics = append(told.Topics, late...)
			got := reread(t, m, body(t, out, in, m), v)
			compare(t, v, got.AppendTo(nil), want.AppendTo(nil))
			raw := asResponse(answer)
			if out, err = produceResponse(raw, headOf(m, v), func(_ int32, at Place) (Place, error) { return at, nil }, refused); err != nil {
				t.Fatalf("version %d, %s: %v", v, name, err)
			}
			compare(t, v, reread(t, answer, body(t, out, raw, answer), v).AppendTo(nil), told.AppendTo(nil))
		}
	})
}

func TestProduceResponse(t *testing.T) {
	eachVersion(t, keyProduce, func(v int16) {
		r := filled(t, kmsg.NewPtrProduceResponse(), v)
		in := asResponse(r)
		out, err := produceResponse(in, headOf(r, v), elsewhere, nil)
		if err != nil {
			t.Fatalf("version %d: %v", v, err)
		}
		answer := reread(t, r, r.AppendTo(nil), v)
		for i := range answer.Brokers {
			answer.Brokers[i].Host, answer.Brokers[i].Port = "127.0.0.1", 20000+answer.Brokers[i].NodeID
		}
		compare(t, v, reread(t, r, body(t, out, in, r), v), answer)
	})
}

// TestProduceCodes: clients are told whether it makes sense to try again.
func TestProduceCodes(t *testing.T) {
	for code, err := range map[int16]error{
		codeTooLarge: fmt.Errorf("x: %w", ErrTooLarge), codeCorrupt: fmt.Errorf("x: %w", ErrMessage), codeNotEnoughReplicas: errors.New("no consumer"),
		codeOldFormat: fmt.Errorf("x: %w", coded(codeOldFormat, "%w: old", ErrRefused)),
	} {
		if got := produceCode(err); got != code {
			t.Errorf("%v: %d, want %d", err, got, code)
		}
	}
}
