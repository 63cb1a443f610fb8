package kafka

// Keys of requests (Kafka's protocol guide; docs/protocol/03 §5.2 says what is done with each).
const (
	keyProduce          = 0
	keyFetch            = 1
	keyMetadata         = 3
	keyFindCoordinator  = 10
	keySASLHandshake    = 17
	keyAPIVersions      = 18
	keyTxnOffsetCommit  = 28
	keyEndTxn           = 26
	keyDescribeQuorum   = 55
	keyDescribeCluster  = 60
	keyGroupHeartbeat   = 68
	keyGroupDescribe    = 69
	keyShareHeartbeat   = 76
	keyShareFetch       = 78
	keyShareAcknowledge = 79
	keyStreamsHeartbeat = 88
	keyStreamsDescribe  = 89
)

// span is a range of versions, both ends included.
type span struct{ min, max int16 }

func (s span) has(version int16) bool { return version >= s.min && version <= s.max }

// spans are the requests of clients that were looked at, up to the versions of Kafka 4.4: where they carry records or addresses the
// package reads and writes them, all others carry neither. Requests between brokers are left out, as no client sends them and some
// carry whole requests of clients. So is what is not known: later versions and requests may carry records, or lead past the inlets.
var spans = map[int16]span{
	keyProduce: {0, 13}, keyFetch: {0, 18}, 2: {0, 11}, keyMetadata: {0, 13}, 8: {0, 10}, 9: {0, 10}, keyFindCoordinator: {0, 6}, 11: {0, 9},
	12: {0, 4}, 13: {0, 5}, 14: {0, 5}, 15: {0, 6}, 16: {0, 5}, keySASLHandshake: {0, 1}, keyAPIVersions: {0, 5}, 19: {0, 7}, 20: {0, 6}, 21: {0, 2},
	22: {0, 6}, 23: {0, 4}, 24: {0, 5}, 25: {0, 4}, keyEndTxn: {0, 5}, 27: {0, 2}, keyTxnOffsetCommit: {0, 6}, 29: {0, 3}, 30: {0, 3}, 31: {0, 3},
	32: {0, 4}, 33: {0, 2}, 34: {0, 2}, 35: {0, 5}, 36: {0, 2}, 37: {0, 3}, 38: {0, 3}, 39: {0, 2}, 40: {0, 2}, 41: {0, 3}, 42: {0, 3}, 43: {0, 2},
	44: {0, 1}, 45: {0, 1}, 46: {0, 0}, 47: {0, 0}, 48: {0, 1}, 49: {0, 1}, 50: {0, 0}, 51: {0, 0},
	keyDescribeQuorum: {0, 1}, // later ones say where controllers are, which clients behind the inlet cannot reach
	57:                {0, 2}, keyDescribeCluster: {0, 2}, 61: {0, 0}, 64: {0, 0}, 65: {0, 0}, 66: {0, 2}, keyGroupHeartbeat: {0, 1}, keyGroupDescribe: {0, 1},
	71: {0, 0}, 72: {0, 0}, 74: {0, 1}, 75: {0, 0}, keyShareHeartbeat: {1, 1}, 77: {1, 1}, keyShareFetch: {1, 2}, keyShareAcknowledge: {1, 2},
	80: {0, 1}, 81: {0, 0}, keyStreamsHeartbeat: {0, 1}, keyStreamsDescribe: {0, 1}, 90: {0, 1}, 91: {0, 0}, 92: {0, 0}, 93: {0, 0}, 94: {0, 0},
}

// Records have had their present form, which alone is rewritten, since these versions (Kafka 0.11).
const (
	recordsInProduce = 3
	recordsInFetch   = 4
)

// The versions from which on responses may say where new leaders are, in a tagged field (KIP-951). Brokers do so in later ones, from Produce 10 and
// Fetch 16 on, but there are clients that read the field wherever there can be tagged fields (librdkafka).
const (
	leadersInProduce = 9
	leadersInFetch   = 12
)

// The versions from which on a topic has an id in place of its name.
const (
	idsInProduce = 13
	idsInFetch   = 13
)

// versions returns what is understood of a request, and whether it is known at all.
func versions(key int16, encrypted bool) (s span, known bool) {
	s, known = spans[key]
	switch {
	case key == keyFetch && encrypted:
		s.min = recordsInFetch
	case key == keyFetch:
		// Addresses of new leaders stand behind the records. Without them answers pass as they come, however long they are.
		s.max = leadersInFetch - 1
	}
	return s, known
}

// flexibleFrom is from which version on a request and its response are flexible.
var flexibleFrom = map[int16]int16{
	keyProduce: 9, keyFetch: 12, keyMetadata: 9, keyFindCoordinator: 3, keyAPIVersions: 3, keyDescribeCluster: 0, keyShareFetch: 0, keyShareAcknowledge: 0,
}

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
