package kafka

import (
	"bytes"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestEndpointsAmongTags: of the tagged fields only the one with addresses is rewritten; what is not known stays.
func TestEndpointsAmongTags(t *testing.T) {
	m := kmsg.NewPtrProduceResponse()
	m.SetVersion(10)
	m.Brokers = []kmsg.ProduceResponseBroker{{NodeID: 5, Host: "inside", Port: 9092}}
	m.UnknownTags.Set(1, []byte("first"))
	m.UnknownTags.Set(9, []byte{})
	in := asResponse(m)
	out, err := produceResponse(in, headOf(m, 10), elsewhere, nil)
	if err != nil {
		t.Fatal(err)
	}
	m.Brokers[0].Host, m.Brokers[0].Port = "127.0.0.1", 20005
	if want := asResponse(m); !bytes.Equal(out, want) {
		t.Errorf("%x\nwant %x", out, want)
	}
}

// TestBrokerRefused: a broker at a port that cannot be, and a list that is cut short, do not pass; who is no broker is nowhere.
func TestBrokerRefused(t *testing.T) {
	for _, port := range []int32{-2, 65536, 1 << 30} {
		m := kmsg.NewPtrMetadataResponse()
		m.SetVersion(9)
		m.Brokers = []kmsg.MetadataResponseBroker{{NodeID: 5, Host: "inside", Port: port}}
		if _, err := metadataResponse(asResponse(m), headOf(m, 9), elsewhere, nil); err == nil {
			t.Errorf("port %d passed", port)
		}
	}
	for id, host := range map[int32]string{-1: "", -2: "", 0: "127.0.0.1"} {
		m := kmsg.NewPtrFindCoordinatorResponse()
		m.SetVersion(3)
		m.NodeID, m.Host, m.Port = id, "inside", 1
		in := asResponse(m)
		out, err := coordinatorResponse(in, headOf(m, 3), elsewhere)
		if err != nil {
			t.Fatal(err)
		}
		if got := reread(t, m, body(t, out, in, m), 3); got.Host != host || id < 0 && got.Port != -1 {
			t.Errorf("broker %d is at %q, port %d, want %q", id, got.Host, got.Port, host)
		}
	}
	content := (&kmsg.ProduceResponse{Version: 10, Brokers: []kmsg.ProduceResponseBroker{{NodeID: 5, Host: "inside", Port: 9092}}}).AppendTo(nil)
	whole := append(make([]byte, lengthSize+responseHead), append([]byte{0}, content...)...)
	for n := lengthSize + responseHead; n < len(whole); n++ {
		if _, err := produceResponse(whole[:n:n], header{key: keyProduce, version: 10}, elsewhere, nil); err == nil {
			t.Errorf("%d of %d bytes passed", n, len(whole))
		}
	}
}
