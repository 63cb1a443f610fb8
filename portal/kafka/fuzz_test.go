package kafka

import (
	"bytes"
	"context"
	"encoding/binary"
	"log/slog"
	"net/netip"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"sallyport/portal/interceptor"
)

// FuzzInlet: whatever clients and brokers send, an inlet neither fails nor passes on a message whose length is wrong.
func FuzzInlet(f *testing.F) {
	f.Add(produce(f, 9, 1, "v"), []byte{}, int16(0), int16(9))
	for _, m := range []versioned{kmsg.NewPtrMetadataResponse(), kmsg.NewPtrFetchResponse(), kmsg.NewPtrFindCoordinatorResponse(), kmsg.NewPtrApiVersionsResponse(),
		kmsg.NewPtrDescribeClusterResponse(), kmsg.NewPtrProduceResponse(), kmsg.NewPtrShareFetchResponse(), kmsg.NewPtrShareAcknowledgeResponse()} {
		for _, v := range []int16{spans[m.Key()].min, spans[m.Key()].max} {
			m.SetVersion(v)
			f.Add([]byte{}, asResponse(m), m.Key(), v)
		}
	}
	// New leaders in answers that come before there are any (KIP-951), and a place for who is no broker.
	f.Add([]byte{}, asResponse(&kmsg.ProduceResponse{Version: 9, Brokers: []kmsg.ProduceResponseBroker{{NodeID: 1, Host: brokersHost, Port: 9092}}}), int16(keyProduce), int16(9))
	f.Add([]byte{}, asResponse(&kmsg.FetchResponse{Version: 12, Brokers: []kmsg.FetchResponseBroker{{NodeID: 1, Host: brokersHost, Port: 9092}}}), int16(keyFetch), int16(12))
	f.Add([]byte{}, asResponse(&kmsg.FindCoordinatorResponse{Version: 3, NodeID: -2, Host: brokersHost, Port: 9092}), int16(keyFindCoordinator), int16(3))
	for _, m := range []versioned{kmsg.NewPtrMetadataRequest(), kmsg.NewPtrFetchRequest(), kmsg.NewPtrApiVersionsRequest(), kmsg.NewPtrShareFetchRequest(), kmsg.NewPtrProduceRequest()} {
		m.SetVersion(spans[m.Key()].max)
		f.Add(asRequest(m, spans[m.Key()].max), []byte{}, m.Key(), spans[m.Key()].max)
	}
	f.Fuzz(func(t *testing.T, requests, responses []byte, key, version int16) {
		in := NewInlet(InletOptions{
			Place:   func(_ context.Context, broker int32, _ netip.Addr) (Place, error) { return elsewhere(broker, Place{}) },
			Publish: func(context.Context, string, int32) {}, Cipher: &mask{}, MaxMessage: limited, Log: slog.New(slog.DiscardHandler),
		})
		defer in.Close()
		in.pause = 0
		up, down := in.Filters(interceptor.Conn{})
		if out, _ := run(down, responses, 1<<20); len(out) > 0 {
			t.Errorf("%x passes, which nobody has asked for", out)
		}
		out, err := run(up, requests, 1<<20)
		for ; err == nil && len(out) > 4; out = out[min(len(out), 4+int(binary.BigEndian.Uint32(out))):] {
		}
		h := header{key: key, version: version, correlation: testCorrelation}
		if check(h, true) != nil {
			return
		}
		_ = (*inletConn)(up.(*inletRequests)).remember(question{header: h, refused: []refusal{{topicRef{name: "t"}, 1, codeTooLarge, "text"}}})
		_, _ = run(down, responses, 1<<20)
		o := &Outlet{Found: func(context.Context, int32, Place) error { return nil }}
		up, down = o.Filters(interceptor.Conn{})
		up.(*outletRequests).asked[testCorrelation] = header{key: [...]int16{keyMetadata, keyFindCoordinator, keyDescribeCluster}[uint16(key)%3], version: version & 7, correlation: testCorrelation}
		if out, err := run(down, responses, 1<<20); err == nil && !bytes.HasPrefix(responses, out) {
			t.Errorf("an outlet changed %x to %x", responses, out)
		}
	})
}

// FuzzRecords: what is rewritten can be read again, and the same values are in it.
func FuzzRecords(f *testing.F) {
	for kind := range 5 {
		f.Add(batch(f, samples(), kind, true, 0), true)
	}
	f.Fuzz(func(t *testing.T, b []byte, right bool) {
		if right && len(b) >= batchHeadSize { // checksums are not found by chance
			resum(b)
		}
		var first, again [][]byte
		out, err := rewriteRecords(b, false, limited, func(r record) ([]byte, error) {
			first = append(first, bytes.Clone(r.value))
			return invert(r.value), nil
		})
		if err != nil {
			return
		}
		if _, err := rewriteRecords(out, false, limited, func(r record) ([]byte, error) {
			again = append(again, invert(r.value))
			return r.value, nil
		}); err != nil {
			t.Fatalf("not read again: %v", err)
		}
		if len(first) != len(again) {
			t.Fatalf("%d values, then %d", len(first), len(again))
		}
		for i := range first {
			if !bytes.Equal(first[i], again[i]) {
				t.Errorf("value %d: %x, then %x", i, first[i], again[i])
			}
		}
	})
}

func FuzzEnvelope(f *testing.F) {
	f.Add(appendEnvelope(nil, "mock", []byte("content")))
	f.Add(appendBoundEnvelope(nil, "mock", []byte("content")))
	f.Add([]byte("\x82\x82\x00\x41a\x9f\x01\x18\x20\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := parseEnvelope(b)
		if err != nil {
			return
		}
		again := appendEnvelope(nil, e.address, e.ciphertext)
		if e.bound {
			again = appendBoundEnvelope(nil, e.address, e.ciphertext)
		}
		if a, err := parseEnvelope(again); err != nil || a.address != e.address || a.bound != e.bound || !bytes.Equal(a.ciphertext, e.ciphertext) {
			t.Errorf("%+v, then %+v, %v", e, a, err)
		}
	})
}
