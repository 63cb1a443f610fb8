package kafka

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// offer is a broker's answer to ApiVersions.
func offer(t *testing.T, version int16, keys map[int16]span, supported, finalized map[string]span) *kmsg.ApiVersionsResponse {
	t.Helper()
	m := kmsg.NewPtrApiVersionsResponse()
	m.SetVersion(version)
	for _, key := range sorted(keys) {
		m.ApiKeys = append(m.ApiKeys, kmsg.ApiVersionsResponseApiKey{ApiKey: key, MinVersion: keys[key].min, MaxVersion: keys[key].max})
	}
	for _, name := range sorted(supported) {
		m.SupportedFeatures = append(m.SupportedFeatures, kmsg.ApiVersionsResponseSupportedFeature{Name: name, MinVersion: supported[name].min, MaxVersion: supported[name].max})
	}
	for _, name := range sorted(finalized) {
		m.FinalizedFeatures = append(m.FinalizedFeatures, kmsg.ApiVersionsResponseFinalizedFeature{Name: name, MinVersionLevel: finalized[name].min, MaxVersionLevel: finalized[name].max})
	}
	m.FinalizedFeaturesEpoch = 7
	m.ThrottleMillis = 3
	return reread(t, m, m.AppendTo(nil), version)
}

func sorted[K int16 | string, V any](m map[K]V) (keys []K) {
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// TestAPIVersions: what a broker offers is reduced to what is understood.
func TestAPIVersions(t *testing.T) {
	broker := map[int16]span{0: {0, 14}, 1: {4, 18}, 3: {14, 15}, 4: {0, 1}, 10: {0, 7}, 11: {0, 9}, 18: {0, 6}, 55: {0, 2}, 58: {0, 0}, 60: {0, 1}, 78: {1, 3}, 500: {0, 1}}
	for encrypted, want := range map[bool]map[int16]span{
		true:  {0: {0, 13}, 1: {4, 18}, 10: {0, 6}, 11: {0, 9}, 18: {0, 5}, 55: {0, 1}, 60: {0, 1}, 78: {1, 2}},
		false: {0: {0, 13}, 1: {4, 11}, 10: {0, 6}, 11: {0, 9}, 18: {0, 5}, 55: {0, 1}, 60: {0, 1}, 78: {1, 2}},
	} {
		eachVersion(t, keyAPIVersions, func(v int16) {
			m := offer(t, v, broker, nil, nil)
			in := asResponse(m)
			out, err := apiVersionsResponse(in, headOf(m, v), encrypted, false)
			if err != nil {
				t.Fatalf("version %d: %v", v, err)
			}
			compare(t, v, reread(t, m, body(t, out, in, m), v), offer(t, v, want, nil, nil))
		})
	}
	// A broker that does not know the version answers in the form of version 0.
	refusal := finish(append(binary.BigEndian.AppendUint32(make([]byte, 4), testCorrelation), 0, 35, 0, 0, 0, 0))
	if out, err := apiVersionsResponse(refusal, header{key: keyAPIVersions, version: 3}, true, false); err != nil || !bytes.Equal(out, refusal) {
		t.Errorf("%x, %v", out, err)
	}
}

// TestOldLibrdkafkaCompresses: producers with librdkafka before 2.8 compress only where Produce is offered from version 0 on (KAFKA-18659).
func TestOldLibrdkafkaCompresses(t *testing.T) {
	m := offer(t, 0, map[int16]span{0: {0, 12}}, nil, nil)
	out, err := apiVersionsResponse(asResponse(m), headOf(m, 0), true, false)
	if err != nil {
		t.Fatal(err)
	}
	if got := reread(t, m, body(t, out, asResponse(m), m), 0); got.ApiKeys[0].MinVersion != 0 {
		t.Errorf("offered from %d", got.ApiKeys[0].MinVersion)
	}
	if err := check(header{key: keyProduce, version: 2}, true); err == nil {
		t.Error("a version whose records cannot be encrypted passes")
	}
	if err := check(header{key: keyProduce, version: 2}, false); err != nil {
		t.Errorf("without encryption: %v", err)
	}
}

// TestTransactionFeature: transaction.version 2 passes only with the versions that it stands for, and so does every other feature.
func TestTransactionFeature(t *testing.T) {
	full := map[int16]span{0: {0, 13}, 26: {0, 5}, 28: {0, 6}, 68: {0, 1}, 69: {0, 1}, 76: {1, 1}, 78: {1, 2}, 79: {1, 2}}
	features := map[string]span{"transaction.version": {0, 2}, "metadata.version": {1, 29}, "group.version": {0, 1}, "share.version": {0, 2}, "new.version": {0, 1}}
	final := map[string]span{"transaction.version": {2, 2}, "metadata.version": {29, 29}, "group.version": {1, 1}, "share.version": {2, 2}, "new.version": {1, 1}}
	less := func(m map[int16]span, key, highest int16) map[int16]span {
		m = maps(m)
		if highest < 0 {
			delete(m, key)
		} else {
			m[key] = span{m[key].min, highest}
		}
		return m
	}
	for name, c := range map[string]struct {
		keys             map[int16]span
		supported, final map[string]span
	}{
		"all": {full, map[string]span{"transaction.version": {0, 2}, "metadata.version": {1, 29}, "group.version": {0, 1}, "share.version": {0, 2}},
			map[string]span{"transaction.version": {2, 2}, "metadata.version": {29, 29}, "group.version": {1, 1}, "share.version": {2, 2}}},
		"Produce 11": {less(full, 0, 11), map[string]span{"transaction.version": {0, 1}, "metadata.version": {1, 29}, "group.version": {0, 1}, "share.version": {0, 2}},
			map[string]span{"metadata.version": {29, 29}, "group.version": {1, 1}, "share.version": {2, 2}}},
		"EndTxn 4": {less(full, 26, 4), map[string]span{"transaction.version": {0, 1}, "metadata.version": {1, 29}, "group.version": {0, 1}, "share.version": {0, 2}},
			map[string]span{"metadata.version": {29, 29}, "group.version": {1, 1}, "share.version": {2, 2}}},
		"no groups, fewer shares": {less(less(full, 68, -1), 78, 1), map[string]span{"transaction.version": {0, 2}, "metadata.version": {1, 29}, "share.version": {0, 1}},
			map[string]span{"transaction.version": {2, 2}, "metadata.version": {29, 29}}},
	} {
		for v := int16(3); v <= 5; v++ {
			m := offer(t, v, c.keys, features, final)
			in := asResponse(m)
			out, err := apiVersionsResponse(in, headOf(m, v), true, false)
			if err != nil {
				t.Fatal(err)
			}
			t.Log(name)
			compare(t, v, reread(t, m, body(t, out, in, m), v), offer(t, v, c.keys, c.supported, c.final))
		}
	}
	// A level that may also be lower is lowered, not left out.
	m := offer(t, 3, less(full, 0, 11), nil, map[string]span{"transaction.version": {0, 2}})
	in := asResponse(m)
	out, err := apiVersionsResponse(in, headOf(m, 3), true, false)
	if err != nil {
		t.Fatal(err)
	}
	compare(t, 3, reread(t, m, body(t, out, in, m), 3), offer(t, 3, less(full, 0, 11), nil, map[string]span{"transaction.version": {0, 1}}))
}

func maps(m map[int16]span) map[int16]span {
	c := map[int16]span{}
	for k, v := range m {
		c[k] = v
	}
	return c
}

// TestAPIVersionsTooNew: a request in a version that is not known is answered as brokers do: with the versions that are, in the oldest form.
func TestAPIVersionsTooNew(t *testing.T) {
	for _, v := range []int16{spans[keyAPIVersions].max + 1, 100, -1} {
		m := kmsg.NewPtrApiVersionsRequest()
		m.SetVersion(3)
		m.ClientSoftwareName = "client"
		out, h, unknown, err := apiVersionsRequest(asRequest(m, v), headOf(m, v))
		if err != nil || !unknown || h.version != 0 {
			t.Fatalf("version %d: %d, %v, %v", v, h.version, unknown, err)
		}
		m.SetVersion(0)
		if want := asRequest(m, 0); !bytes.Equal(out, want) {
			t.Errorf("%x\nwant\n%x", out, want)
		}
		answer := offer(t, 0, map[int16]span{18: {0, 6}, 500: {0, 1}}, nil, nil)
		in := asResponse(answer)
		if out, err = apiVersionsResponse(in, h, true, unknown); err != nil {
			t.Fatal(err)
		}
		want := offer(t, 0, map[int16]span{18: {0, 5}}, nil, nil)
		want.ErrorCode = codeUnsupportedVersion
		compare(t, 0, reread(t, answer, body(t, out, in, answer), 0), want)
	}
	for v := spans[keyAPIVersions].min; v <= spans[keyAPIVersions].max; v++ {
		m := filled(t, kmsg.NewPtrApiVersionsRequest(), v)
		if out, h, unknown, err := apiVersionsRequest(asRequest(m, v), headOf(m, v)); err != nil || unknown || h.version != v || !bytes.Equal(out, asRequest(m, v)) {
			t.Errorf("version %d: %s", v, fmt.Sprint(h, unknown, err))
		}
	}
}
