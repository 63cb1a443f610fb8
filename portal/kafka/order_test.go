package kafka

import (
	"errors"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"sallyport/portal/interceptor"
)

// TestFirstBatchRefused: while an idempotent producer's batch is to come again, those behind it that were under way do not pass: a broker that
// does not know the producer would take them, and then refuse the first for ever.
func TestFirstBatchRefused(t *testing.T) {
	cipher := &mask{fail: errors.New("no consumer yet")}
	in, _ := newTestInletWith(InletOptions{Cipher: cipher})
	in.pause = 0
	up, down := in.Filters(interceptor.Conn{})
	send := func(producer int64, epoch int16, sequence int32) int16 {
		t.Helper()
		raw := batch(t, []sample{{nil, []byte("value"), nil}}, 0, false, 0)
		var b kmsg.RecordBatch
		if err := b.ReadFrom(raw); err != nil {
			t.Fatal(err)
		}
		b.ProducerID, b.ProducerEpoch, b.FirstSequence = producer, epoch, sequence
		m := kmsg.NewPtrProduceRequest()
		m.SetVersion(9)
		m.Acks = -1
		m.Topics = []kmsg.ProduceRequestTopic{{Topic: "orders", Partitions: []kmsg.ProduceRequestTopicPartition{{Records: resum(b.AppendTo(nil))}}}}
		message := asRequest(m, 9)
		if _, err := run(up, message, len(message)); err != nil {
			t.Fatal(err)
		}
		r := kmsg.NewPtrProduceResponse()
		r.SetVersion(9)
		answer := asResponse(r)
		out, err := run(down, answer, len(answer))
		if err != nil {
			t.Fatal(err)
		}
		if r = reread(t, r, body(t, out, answer, r), 9); len(r.Topics) == 0 {
			return 0
		}
		return r.Topics[0].Partitions[0].ErrorCode
	}
	const again = codeNotEnoughReplicas
	if code := send(7, 0, 0); code != again {
		t.Fatalf("without a consumer: %d", code)
	}
	cipher.mu.Lock()
	cipher.fail = nil
	cipher.mu.Unlock()
	for i, step := range []struct {
		producer int64
		epoch    int16
		sequence int32
		want     int16
	}{
		{7, 0, 1, again}, {7, 0, 2, again}, // under way behind it
		{8, 0, 5, 0}, {7, 1, 0, 0}, {-1, -1, -1, 0}, {-1, -1, -1, 0}, // others
		{7, 0, 0, 0}, {7, 0, 1, 0}, {7, 0, 2, 0}, // in their order
	} {
		if code := send(step.producer, step.epoch, step.sequence); code != step.want {
			t.Errorf("step %d: %d, want %d", i, code, step.want)
		}
	}
}
