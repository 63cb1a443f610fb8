package kafka

import "encoding/binary"

// Keys of requests (Kafka's protocol guide; docs/protocol/03 §5.2 says what is done with each).
const (
	keyProduce         = 0
	keyFetch           = 1
	keyListOffsets     = 2
	keyMetadata        = 3
	keyLeaderAndISR    = 4
	keyUpdateMetadata  = 6
	keyFindCoordinator = 10
	keyAPIVersions     = 18
	keyCreateTopics    = 19
	keyDescribeCluster = 60
	// keyLast is the last one known. Later ones may carry records, or lead past the inlets.
	keyLast = 75
)

// span is a range of versions, both ends included.
type span struct{ min, max int16 }

// spans are the versions that the package reads and writes. A broker's offer is reduced to them. Records have had their present form, which
// alone is rewritten, since Produce 3 and Fetch 4 (Kafka 0.11).
var spans = map[int16]span{
	keyProduce: {3, 11}, keyFetch: {4, 16}, keyListOffsets: {0, 8}, keyMetadata: {0, 12}, keyFindCoordinator: {0, 5},
	keyAPIVersions: {0, 3}, keyCreateTopics: {0, 7}, keyDescribeCluster: {0, 1},
}

// The versions from which on responses may say where new leaders are (KIP-951).
const (
	leadersInProduce = 10
	leadersInFetch   = 16
)

// flexibleFrom is from which version on a request and its response are flexible.
var flexibleFrom = map[int16]int16{keyProduce: 9, keyFetch: 12, keyMetadata: 9, keyFindCoordinator: 3, keyAPIVersions: 3, keyDescribeCluster: 0}

func (h header) flexible() bool {
	from, known := flexibleFrom[h.key]
	return known && h.version >= from
}

// request begins to read a request, a whole message with its length, behind the header.
func request(message []byte, h header) *rewriter {
	r := &rewriter{in: message, at: lengthSize + requestHead}
	r.text() // the client's id has a wide length in all versions
	r.flex = h.flexible()
	r.tags()
	return r
}

// response begins to read the response to a request with the header h, behind the response's own header.
func response(message []byte, h header) *rewriter {
	r := &rewriter{in: message, at: lengthSize + responseHead, flex: h.flexible()}
	if h.key != keyAPIVersions { // whose header has stayed what it was, so that any client can read it
		r.tags()
	}
	return r
}

// Place is where a broker can be reached.
type Place struct {
	Host string
	Port uint16
}

// placer finds the place that clients get to see for a broker. An error ends the rewriting.
type placer func(broker int32, at Place) (Place, error)

// broker rewrites an id, a host and a port. Ids below zero stand for no broker.
func (r *rewriter) broker(place placer) {
	id := r.int32()
	from := r.at
	at := Place{Host: string(r.text())}
	port := r.int32()
	at.Port = uint16(port)
	if r.fault != nil || id < 0 {
		return
	}
	if port < 0 || port > 65535 {
		r.fail("port %d of broker %d", port, id)
		return
	}
	to, err := place(id, at)
	if err != nil {
		r.fault = err
		return
	}
	if to != at {
		r.replace(from, binary.BigEndian.AppendUint32(r.appendText(nil, to.Host), uint32(to.Port)))
	}
}

// endpoints rewrites the tagged field that tells a client of new leaders (KIP-951).
func (r *rewriter) endpoints(place placer) {
	r.eachTag(func(tag uint32, content []byte) ([]byte, bool) {
		if tag != 0 {
			return nil, false
		}
		inner := &rewriter{in: content, flex: true}
		for n := inner.array(); n > 0 && inner.fault == nil; n-- {
			inner.broker(place)
			inner.text() // rack
			inner.tags()
		}
		b, err := inner.done()
		if err != nil {
			r.fault = err
		}
		return b, true
	})
}
