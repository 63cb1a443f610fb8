package kafka

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestCutShort: a message of which the end is missing, or that goes on where it should end, does not pass.
func TestCutShort(t *testing.T) {
	keep := func(_ topicRef, _ int32, records []byte) (fetched, error) { return fetched{records: records}, nil }
	through := func(_ topicRef, _ int32, records []byte) ([]byte, error) { return records, nil }
	type rewrite func(message []byte, h header) ([]byte, error)
	check := func(name string, v int16, whole []byte, h header, from int, f rewrite) {
		t.Helper()
		if _, err := f(append([]byte(nil), whole...), h); err != nil {
			t.Errorf("%s %d: whole: %v", name, v, err)
		}
		for n := from; n < len(whole); n++ {
			if out, err := f(append([]byte(nil), whole[:n]...), h); err == nil {
				t.Errorf("%s %d: %d of %d bytes became %d", name, v, n, len(whole), len(out))
				return
			}
		}
		if _, err := f(append(append([]byte(nil), whole...), 0), h); err == nil {
			t.Errorf("%s %d: a byte too many passed", name, v)
		}
	}
	for _, c := range []struct {
		name string
		m    versioned
		from int16
		f    rewrite
	}{
		{"FindCoordinator", kmsg.NewPtrFindCoordinatorResponse(), 0, func(b []byte, h header) ([]byte, error) { return coordinatorResponse(b, h, elsewhere) }},
		{"DescribeCluster", kmsg.NewPtrDescribeClusterResponse(), 0, func(b []byte, h header) ([]byte, error) { return clusterResponse(b, h, elsewhere) }},
		{"Produce", kmsg.NewPtrProduceResponse(), 0, func(b []byte, h header) ([]byte, error) { return produceResponse(b, h, elsewhere, nil) }},
		{"Fetch", kmsg.NewPtrFetchResponse(), recordsInFetch, func(b []byte, h header) ([]byte, error) { return fetchResponse(b, h, elsewhere, keep) }},
		{"ShareFetch", kmsg.NewPtrShareFetchResponse(), 1, func(b []byte, h header) ([]byte, error) { return shareFetchResponse(b, h, elsewhere, keep) }},
		{"ShareAcknowledge", kmsg.NewPtrShareAcknowledgeResponse(), 1, func(b []byte, h header) ([]byte, error) { return shareAcknowledgeResponse(b, h, elsewhere) }},
	} {
		for v := c.from; v <= spans[c.m.Key()].max; v++ {
			m := filled(t, c.m, v)
			check(c.name, v, asResponse(m), headOf(m, v), lengthSize+responseHead, c.f)
		}
	}
	for v := int16(recordsInProduce); v <= spans[keyProduce].max; v++ {
		m := filled(t, kmsg.NewPtrProduceRequest(), v)
		check("request to produce", v, asRequest(m, v), headOf(m, v), lengthSize+requestHead, func(b []byte, h header) ([]byte, error) {
			out, _, err := produceRequest(b, h, through)
			return out, err
		})
	}
	for v := spans[keyShareFetch].min; v <= spans[keyShareFetch].max; v++ {
		m := filled(t, kmsg.NewPtrShareFetchRequest(), v)
		check("request for a share", v, asRequest(m, v), headOf(m, v), lengthSize+requestHead, func(b []byte, h header) ([]byte, error) {
			out, _, err := shareFetchRequest(b, h, 1)
			return out, err
		})
	}
	for v := spans[keyAPIVersions].min; v <= spans[keyAPIVersions].max; v++ {
		m := offer(t, v, map[int16]span{18: {0, 3}, 0: {0, 9}}, map[string]span{"metadata.version": {1, 2}}, map[string]span{"metadata.version": {1, 2}})
		m.ErrorCode = 0
		check("ApiVersions", v, asResponse(m), headOf(m, v), lengthSize+responseHead, func(b []byte, h header) ([]byte, error) { return apiVersionsResponse(b, h, true, false) })
	}
}
