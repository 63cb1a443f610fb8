package kafka

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"sallyport/portal/interceptor"
)

// asked is how many bytes a broker is asked for when a consumer asks for want.
func asked(t *testing.T, in *Inlet, up interceptor.Filter, version int16, correlation byte, want int32) int32 {
	t.Helper()
	m := kmsg.NewPtrFetchRequest()
	m.SetVersion(version)
	m.MaxBytes = want
	message := asRequest(m, version)
	message[lengthSize+correlationAt+3] = correlation
	out, err := run(up, message, len(message))
	if err != nil {
		t.Fatal(err)
	}
	got := kmsg.NewPtrFetchRequest()
	return reread(t, got, out[len(message)-len(m.AppendTo(nil)):], version).MaxBytes
}

// TestLaggingConsumer: a consumer that asks for all it may have gets answers that can be taken, fewer the more are under way. With the answers,
// and with the end of the connection, there is room again.
func TestLaggingConsumer(t *testing.T) {
	const standard = 52428800 // fetch.max.bytes
	in, _ := newTestInlet(&mask{})
	up, down := in.Filters(interceptor.Conn{})
	ctx, cancel := context.WithCancel(context.Background())
	(*inletConn)(up.(*inletRequests)).watch(ctx)
	budget := in.opts.Budget
	sum, last := 0, int32(mostFetched)
	for i := range byte(200) {
		got := asked(t, in, up, 12, i, standard)
		if got > last || got < leastFetched {
			t.Fatalf("request %d asks for %d bytes, the one before for %d", i, got, last)
		}
		last = got
		sum += int(got)
		if got == leastFetched {
			break
		}
	}
	if last != leastFetched || budget.Left() != max(interceptor.BudgetSize-sum, 0) || budget.Left() > interceptor.BudgetSize/4 {
		t.Errorf("last %d, %d of %d left", last, budget.Left(), interceptor.BudgetSize)
	}
	before := budget.Left()
	m := kmsg.NewPtrFetchResponse()
	m.SetVersion(12)
	answer := asResponse(m)
	answer[lengthSize+3] = 0 // to the first
	if _, err := run(down, answer, len(answer)); err != nil {
		t.Fatal(err)
	}
	if got := budget.Left(); got != before+mostFetched {
		t.Errorf("%d left after an answer, %d before", got, before)
	}
	cancel()
	for budget.Left() != interceptor.BudgetSize { // the end is noticed on a goroutine
		select {
		case <-t.Context().Done():
			t.Fatal("room is lost")
		default:
		}
	}
	if got := asked(t, in, func() interceptor.Filter { up, _ := in.Filters(interceptor.Conn{}); return up }(), 12, 0, 1000); got != 1000 {
		t.Errorf("a modest consumer's request asks for %d", got)
	}
}

// TestPlainLaggingConsumer: without encryption answers pass as they come, and no room is kept for them.
func TestPlainLaggingConsumer(t *testing.T) {
	in, _ := newTestInlet(nil)
	up, down := in.Filters(interceptor.Conn{})
	if got := asked(t, in, up, 11, 0, 1<<30); got != mostFetched || in.opts.Budget.Left() != interceptor.BudgetSize {
		t.Errorf("asks for %d, %d left", got, in.opts.Budget.Left())
	}
	// The beginning of an answer of more than any message that is looked at.
	long := []byte{0x70, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3}
	if out, err := run(down, long, len(long)); err != nil || !bytes.Equal(out, long) {
		t.Errorf("passed on %x, %v", out, err)
	}
	if out, err := run(up, append([]byte{0x70, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1, 0, 1, 'c', 0}, 0, 0, 0, 1), 100); err != nil || len(out) != 20 {
		t.Errorf("a long request to produce: passed on %x, %v", out, err)
	}
}

// TestOneBatchAtLeast: brokers send a batch that is longer than what was asked for, and it passes up to the limit.
func TestOneBatchAtLeast(t *testing.T) {
	in, _ := newTestInletWith(InletOptions{Cipher: &mask{}, MaxMessage: 3 * mostFetched})
	up, down := in.Filters(interceptor.Conn{})
	asked(t, in, up, 12, testCorrelation, 52428800)
	m := kmsg.NewPtrFetchResponse()
	m.SetVersion(12)
	m.Topics = []kmsg.FetchResponseTopic{{Topic: "t", Partitions: []kmsg.FetchResponseTopicPartition{kmsg.NewFetchResponseTopicPartition()}}}
	value := bytes.Repeat([]byte{1}, mostFetched+100)
	m.Topics[0].Partitions[0].RecordBatches = stored(t, InletOptions{Cipher: &mask{}}, "t", 0, nil, value)
	answer := asResponse(m)
	out, err := run(down, answer, len(answer))
	if err != nil || !bytes.Contains(out, value) {
		t.Errorf("%d bytes, %v", len(out), err)
	}
	asked(t, in, up, 12, testCorrelation, 52428800)
	if _, err := run(down, append([]byte{0x7f, 0, 0, 0}, answer[4:20]...), 100); !errors.Is(err, ErrTooLarge) {
		t.Errorf("an answer that is too long to be looked at: %v", err)
	}
}

// TestRequestAtTheLimit: a request goes on if it is as long as it may be, with all that is around its records; one that is longer does not, and its producer is told that
// the batch is too large.
func TestRequestAtTheLimit(t *testing.T) {
	for _, version := range []int16{8, 9} {
		send := func(value int, limit int) (length int, code int16) {
			in, _ := newTestInletWith(InletOptions{Cipher: &mask{}, MaxMessage: limit})
			up, down := in.Filters(interceptor.Conn{})
			message := produce(t, version, 1, strings.Repeat("v", value))
			out, err := run(up, message, len(message))
			if err != nil {
				t.Fatal(err)
			}
			r := kmsg.NewPtrProduceResponse()
			r.SetVersion(version)
			told := reread(t, r, answerTo(t, down, r, version), version)
			for _, topic := range told.Topics {
				code = topic.Partitions[0].ErrorCode
			}
			return len(out) - lengthSize, code
		}
		for _, value := range []int{100, 1000, 70_000} {
			whole, code := send(value, DefaultMaxMessage)
			if code != 0 {
				t.Fatalf("told %d", code)
			}
			if length, code := send(value, whole); code != 0 || length != whole {
				t.Errorf("version %d, a request of %d bytes, as long as it may be: %d go on, told %d", version, whole, length, code)
			}
			if length, code := send(value, whole-1); code != codeTooLarge {
				t.Errorf("version %d, a request of %d bytes where %d are allowed: %d go on, told %d", version, whole, whole-1, length, code)
			}
		}
	}
}
