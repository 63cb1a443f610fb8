package kafka

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"reflect"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"sallyport/portal/interceptor"
)

const brokersHost = "broker.internal"

// setHosts puts a host wherever a message has one with a port. (Those without are hosts of access control lists.)
func setHosts(v reflect.Value, host string) {
	switch v.Kind() {
	case reflect.Struct:
		port := v.FieldByName("Port").IsValid()
		for i := range v.NumField() {
			if f := v.Field(i); port && v.Type().Field(i).Name == "Host" {
				f.SetString(host)
			} else {
				setHosts(f, host)
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			setHosts(v.Index(i), host)
		}
	case reflect.Pointer:
		if !v.IsNil() {
			setHosts(v.Elem(), host)
		}
	}
}

// TestNoBrokersAddressPasses: of all answers in all versions that clients can ask for, those that say where a broker is say where its inlet is.
func TestNoBrokersAddressPasses(t *testing.T) {
	for _, encrypted := range []bool{true, false} {
		told := map[int16]bool{}
		for _, key := range sorted(spans) {
			for v := spans[key].min; v <= spans[key].max; v++ {
				if check(header{key: key, version: v}, encrypted) != nil {
					continue
				}
				asks := kmsg.RequestForKey(key)
				if asks == nil {
					t.Fatalf("request %d is not one of kmsg's", key)
				}
				var cipher Cipher
				if encrypted {
					cipher = &mask{}
				}
				in, _ := newTestInlet(cipher)
				t.Cleanup(in.Close)
				in.pause = 0
				up, down := in.Filters(interceptor.Conn{})
				switch asks := asks.(type) {
				case *kmsg.ProduceRequest:
					asks.Acks = -1 // without, brokers do not answer
				case *kmsg.SASLHandshakeRequest:
					asks.Mechanism = "PLAIN"
				}
				asks.SetVersion(v)
				if _, err := run(up, asRequest(asks.(versioned), v), 1<<20); err != nil {
					t.Fatalf("request %d in version %d: %v", key, v, err)
				}
				answer := asks.ResponseKind()
				seed := 1
				fill(reflect.ValueOf(answer).Elem(), &seed)
				setHosts(reflect.ValueOf(answer), brokersHost)
				answer.SetVersion(v) // kmsg writes new leaders in every flexible version: brokers have them in later ones, clients read them in any
				message := asResponse(answer.(versioned))
				out, err := run(down, message, 1<<20)
				if err != nil || len(out) < lengthSize || int(binary.BigEndian.Uint32(out)) != len(out)-lengthSize {
					t.Fatalf("answer %d in version %d: %d bytes, %v", key, v, len(out), err)
				}
				if key == keyStreamsHeartbeat || key == keyStreamsDescribe {
					continue // hosts there are where applications ask each other (application.server), not brokers
				}
				if bytes.Contains(message, []byte(brokersHost)) {
					told[key] = true
					if bytes.Contains(out, []byte(brokersHost)) || !bytes.Contains(out, []byte("127.0.0.1")) {
						t.Errorf("answer %d in version %d passes with the address of a broker", key, v)
					}
				}
			}
		}
		want := []int16{keyProduce, keyFetch, keyMetadata, keyFindCoordinator, keyDescribeCluster, keyShareFetch, keyShareAcknowledge}
		if !encrypted { // versions with addresses are not offered
			want = slices.DeleteFunc(want, func(key int16) bool { return key == keyFetch })
		}
		if got := sorted(told); !slices.Equal(got, want) {
			t.Errorf("encrypted %v: answers with addresses are %v, not %v: is one of them new?", encrypted, got, want)
		}
	}
}

// TestAnswersToNothing: what a broker sends before it was asked, or twice, does not wait in a client's buffer for the question whose number it
// bears: it would pass as it is, with the addresses of brokers and values that nobody has encrypted.
func TestAnswersToNothing(t *testing.T) {
	metadata := kmsg.NewPtrMetadataResponse()
	metadata.SetVersion(9)
	metadata.Brokers = []kmsg.MetadataResponseBroker{{NodeID: 1, Host: brokersHost, Port: 9092}}
	fetched := kmsg.NewPtrFetchResponse()
	fetched.SetVersion(11)
	heartbeat := kmsg.NewPtrHeartbeatResponse()
	heartbeat.SetVersion(3)
	produced := kmsg.NewPtrProduceResponse()
	produced.SetVersion(8)
	for _, cipher := range []Cipher{&mask{}, nil} {
		for _, answer := range []versioned{metadata, fetched, heartbeat, produced} {
			v := answer.(interface{ GetVersion() int16 }).GetVersion()
			message := asResponse(answer)
			asks := kmsg.RequestForKey(answer.Key())
			asks.SetVersion(v)
			request := asRequest(asks.(versioned), v)
			if answer == versioned(produced) {
				request = produce(t, v, 1, "value")
			}
			for _, piece := range []int{7, 1 << 20} {
				start := func() (up, down interceptor.Filter) {
					in, _ := newTestInlet(cipher)
					t.Cleanup(in.Close)
					return in.Filters(interceptor.Conn{})
				}
				_, down := start()
				if out, err := run(down, message, piece); !errors.Is(err, ErrRefused) || len(out) > 0 {
					t.Errorf("answer %d that nobody asked for, encrypted %v: %d bytes pass, %v", answer.Key(), cipher != nil, len(out), err)
				}
				up, down := start()
				if _, err := run(up, request, piece); err != nil {
					t.Fatal(err)
				}
				out, err := run(down, message, piece)
				if err != nil || len(out) == 0 {
					t.Errorf("answer %d, encrypted %v: %d bytes pass, %v", answer.Key(), cipher != nil, len(out), err)
				}
				if out, err := run(down, message, piece); !errors.Is(err, ErrRefused) || len(out) > 0 {
					t.Errorf("second answer %d, encrypted %v: %d bytes pass, %v", answer.Key(), cipher != nil, len(out), err)
				}
			}
		}
		// To a request without acknowledgements there is no answer.
		in, _ := newTestInlet(cipher)
		t.Cleanup(in.Close)
		up, down := in.Filters(interceptor.Conn{})
		if _, err := run(up, produce(t, 8, 0, "value"), 1<<20); err != nil {
			t.Fatal(err)
		}
		if out, err := run(down, asResponse(produced), 1<<20); !errors.Is(err, ErrRefused) || len(out) > 0 {
			t.Errorf("answer to acks=0, encrypted %v: %d bytes pass, %v", cipher != nil, len(out), err)
		}
	}
}

// TestBoundsOfVersions: requests pass in the versions that are known and in no other, whatever their numbers.
func TestBoundsOfVersions(t *testing.T) {
	for key := int16(-2); key < 130; key++ {
		for _, encrypted := range []bool{true, false} {
			ours, known := spans[key]
			switch {
			case key == keyProduce && encrypted:
				ours.min = 3
			case key == keyFetch && encrypted:
				ours.min = 4
			case key == keyFetch:
				ours.max = 11
			}
			for _, v := range []int16{math.MinInt16, -1, 0, ours.min - 1, ours.min, ours.max, ours.max + 1, 99, math.MaxInt16} {
				want := known && (v >= ours.min && v <= ours.max || key == keyAPIVersions) // which is answered in any version
				if got := check(header{key: key, version: v}, encrypted) == nil; got != want {
					t.Errorf("request %d in version %d, encrypted %v: passes %v", key, v, encrypted, got)
				}
			}
		}
	}
}

// TestStrangeOffers: whatever a broker lists in its answer to ApiVersions, what is passed on is well-formed, offers nothing that is refused, and no request twice.
func TestStrangeOffers(t *testing.T) {
	for name, list := range map[string][]kmsg.ApiVersionsResponseApiKey{
		"twice":         {{ApiKey: 3, MaxVersion: 5}, {ApiKey: 18, MaxVersion: 3}, {ApiKey: 3, MaxVersion: 12}},
		"twice, others": {{ApiKey: 0, MinVersion: 3, MaxVersion: 20}, {ApiKey: 0, MinVersion: -5, MaxVersion: 1}, {ApiKey: 0, MinVersion: 9, MaxVersion: 8}},
		"negative":      {{ApiKey: -1, MaxVersion: 5}, {ApiKey: 3, MinVersion: -7, MaxVersion: -2}, {ApiKey: 18, MinVersion: -32768, MaxVersion: 32767}},
		"backwards":     {{ApiKey: 3, MinVersion: 9, MaxVersion: 2}, {ApiKey: 18, MaxVersion: 3}},
		"unknown":       {{ApiKey: 5, MaxVersion: 5}, {ApiKey: 500, MaxVersion: 5}, {ApiKey: 32767, MaxVersion: 32767}},
		"nothing":       nil,
	} {
		eachVersion(t, keyAPIVersions, func(v int16) {
			m := offer(t, v, nil, map[string]span{"transaction.version": {0, 2}, "made.up": {1, 3}}, map[string]span{"transaction.version": {2, 2}})
			m.ApiKeys = list
			out, err := apiVersionsResponse(asResponse(m), headOf(m, v), true, false)
			if err != nil {
				t.Fatalf("%s, version %d: %v", name, v, err)
			}
			got := reread(t, m, body(t, out, asResponse(m), m), v)
			seen := map[int16]bool{}
			for _, k := range got.ApiKeys {
				ours, known := versions(k.ApiKey, true)
				if seen[k.ApiKey] || !known || k.MinVersion > k.MaxVersion || k.MinVersion < ours.min || k.MaxVersion > ours.max {
					t.Errorf("%s, version %d: %+v is offered", name, v, k)
				}
				seen[k.ApiKey] = true
			}
			for _, f := range got.SupportedFeatures {
				if f.Name == "made.up" || f.MaxVersion > 1 { // level 2 needs versions that are not offered here
					t.Errorf("%s, version %d: feature %+v", name, v, f)
				}
			}
			if v >= 3 && got.ThrottleMillis != m.ThrottleMillis {
				t.Errorf("%s, version %d: what stands behind the list is read as something else", name, v)
			}
		})
	}
}

// TestStrangeFrames: lengths that cannot be, and messages that end before their header does.
func TestStrangeFrames(t *testing.T) {
	for name, b := range map[string][]byte{
		"negative length": {0xff, 0xff, 0xff, 0xff, 0, 3, 0, 1, 0, 0, 0, 1}, "largest length": {0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 1, 0, 0, 0, 1},
		"no length": {0, 0, 0, 0, 0, 3, 0, 1}, "shorter than its head": {0, 0, 0, 3, 0, 3, 0, 1},
		"client's id beyond the end": {0, 0, 0, 10, 0, 1, 0, 11, 0, 0, 0, 1, 0x7f, 0xff}, "negative client's id": {0, 0, 0, 10, 0, 1, 0, 11, 0, 0, 0, 1, 0x80, 0},
		"tags without end":             {0, 0, 0, 15, 0, 78, 0, 1, 0, 0, 0, 1, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f},
		"a request of ours, then none": append(asRequest(kmsg.NewPtrApiVersionsRequest(), 0), 0xff, 0xff, 0xff, 0xff),
	} {
		for _, piece := range []int{1, 1 << 10} {
			in, _ := newTestInlet(&mask{})
			up, _ := in.Filters(interceptor.Conn{})
			if out, err := run(up, b, piece); err == nil {
				t.Errorf("%s, in pieces of %d: passes as %x", name, piece, out)
			}
			in.Close()
		}
	}
	// What has not come yet is waited for, and nothing is made of it.
	in, _ := newTestInlet(&mask{})
	defer in.Close()
	up, down := in.Filters(interceptor.Conn{})
	whole := asRequest(kmsg.NewPtrMetadataRequest(), 0)
	for cut := range whole {
		for _, f := range []interceptor.Filter{up, down} {
			if f == down && cut >= lengthSize+responseHead {
				continue // an answer that nobody has asked for is refused
			}
			if out, err := run(f, whole[:min(cut, 7)], 1<<10); err != nil || len(out) > 0 {
				t.Fatalf("%d bytes: %x, %v", cut, out, err)
			}
		}
	}
}

// TestFilledToTheByte: a request may be as long as a message when its records are encrypted, and not a byte longer.
func TestFilledToTheByte(t *testing.T) {
	records := batch(t, []sample{{nil, bytes.Repeat([]byte{1}, 300), nil}}, 0, false, 0)
	wide, _ := newTestInletWith(InletOptions{Cipher: &mask{}})
	t.Cleanup(wide.Close)
	sealed, err := wide.sealRecords(t.Context(), "orders", 1, records)
	if err != nil {
		t.Fatal(err)
	}
	m := kmsg.NewPtrProduceRequest()
	m.SetVersion(9)
	m.Acks = 1
	m.Topics = []kmsg.ProduceRequestTopic{{Topic: "orders", Partitions: []kmsg.ProduceRequestTopicPartition{{Partition: 1, Records: records}, {Partition: 2, Records: records}}}}
	message := asRequest(m, 9)
	up, _ := wide.Filters(interceptor.Conn{})
	whole, err := run(up, bytes.Clone(message), len(message))
	if err != nil {
		t.Fatal(err)
	}
	both, one := len(whole)-lengthSize, len(whole)-lengthSize-headOf(m, 9).sizeOfRecords(sealed)
	for most, want := range map[int]int{both: 2, both - 1: 1, one: 1, one - 1: 0} {
		in, _ := newTestInletWith(InletOptions{Cipher: &mask{}, MaxMessage: most})
		t.Cleanup(in.Close)
		in.pause = 0
		up, _ := in.Filters(interceptor.Conn{})
		out, err := run(up, message, len(message))
		if err != nil {
			t.Fatal(err)
		}
		got := 0
		for _, topic := range reread(t, m, out[len(message)-len(m.AppendTo(nil)):], 9).Topics {
			got += len(topic.Partitions)
		}
		if got != want {
			t.Errorf("%d bytes may be sent, %d for each partition: %d are sent, not %d", most, len(sealed), got, want)
		}
	}
}
