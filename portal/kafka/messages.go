package kafka

import "encoding/hex"

// topicID is a topic's UUID, which takes the place of its name from Fetch 13 on.
type topicID [16]byte

func (id topicID) String() string { return hex.EncodeToString(id[:]) }

// metadataResponse rewrites where brokers are and tells the names of topics. An error of topic ends the rewriting.
func metadataResponse(message []byte, h header, place placer, topic func(topicID, string) error) ([]byte, error) {
	r := response(message, h)
	if h.version >= 3 {
		r.skip(4) // throttle time
	}
	for n := r.array(); n > 0 && r.fault == nil; n-- {
		r.broker(place)
		if h.version >= 1 {
			r.text() // rack
		}
		r.tags()
	}
	if h.version >= 10 {
		r.skipCluster()
		for n := r.array(); n > 0 && r.fault == nil; n-- {
			r.skip(2) // error
			name := string(r.text())
			var id topicID
			copy(id[:], r.take(len(id)))
			r.skip(1) // internal
			for k := r.array(); k > 0 && r.fault == nil; k-- {
				r.skip(2 + 4 + 4 + 4) // error, partition, leader and its epoch
				r.ints()              // replicas
				r.ints()              // in sync
				r.ints()              // offline
				r.tags()
			}
			r.skip(4) // what the client may do
			r.tags()
			if name != "" && id != (topicID{}) && r.fault == nil {
				r.fault = topic(id, name)
			}
		}
	}
	out, err := r.rest()
	if err != nil {
		return nil, err
	}
	return seal(out)
}

// skipCluster skips the cluster's id and its controller.
func (r *rewriter) skipCluster() {
	r.text()
	r.skip(4)
}

// coordinatorResponse rewrites where coordinators are.
func coordinatorResponse(message []byte, h header, place placer) ([]byte, error) {
	r := response(message, h)
	if h.version >= 1 {
		r.skip(4) // throttle time
	}
	if h.version < 4 {
		r.skip(2) // error
		if h.version >= 1 {
			r.text()
		}
		r.broker(place)
	} else {
		for n := r.array(); n > 0 && r.fault == nil; n-- {
			r.text() // key
			r.broker(place)
			r.skip(2) // error
			r.text()
			r.tags()
		}
	}
	r.tags()
	out, err := r.done()
	if err != nil {
		return nil, err
	}
	return seal(out)
}

// clusterResponse rewrites where brokers are in the answer to DescribeCluster.
func clusterResponse(message []byte, h header, place placer) ([]byte, error) {
	r := response(message, h)
	r.skip(4 + 2) // throttle time, error
	r.text()
	if h.version >= 1 {
		r.skip(1) // kind of endpoints
	}
	r.skipCluster()
	for n := r.array(); n > 0 && r.fault == nil; n-- {
		r.broker(place)
		r.text() // rack
		if h.version >= 2 {
			r.skip(1) // fenced
		}
		r.tags()
	}
	r.skip(4) // what the client may do
	r.tags()
	out, err := r.done()
	if err != nil {
		return nil, err
	}
	return seal(out)
}
