package kafka

import (
	"encoding/binary"
	"encoding/hex"
)

// topicID is a topic's UUID, which takes the place of its name from Fetch 13 on.
type topicID [16]byte

func (id topicID) String() string { return hex.EncodeToString(id[:]) }

// apiVersionsRequest makes a request of a version above 3 one of version 3, which begins with the same two texts.
func apiVersionsRequest(message []byte, h header) ([]byte, header, error) {
	last := spans[keyAPIVersions].max
	if h.version <= last {
		return message, h, nil
	}
	h.version = last
	r := request(message, h)
	r.text()
	r.text()
	from := r.at
	r.at = len(r.in)
	r.replace(from, []byte{0})
	out, err := r.done()
	if err != nil {
		return nil, h, err
	}
	binary.BigEndian.PutUint16(out[lengthSize+versionAt:], uint16(last))
	out, err = seal(out)
	return out, h, err
}

// apiVersionsResponse reduces what a broker offers to what is understood here.
func apiVersionsResponse(message []byte, h header) ([]byte, error) {
	r := response(message, h)
	if r.int16() != 0 {
		return r.rest() // an error comes in the form of version 0
	}
	from := r.at
	var list []byte
	kept := 0
	for n := r.array(); n > 0 && r.fault == nil; n-- {
		key, offer := r.int16(), span{r.int16(), r.int16()}
		tagsFrom := r.at
		r.tags()
		if key < 0 || key > keyLast || key == keyLeaderAndISR || key == keyUpdateMetadata {
			continue
		}
		if ours, limited := spans[key]; limited {
			offer.min, offer.max = max(offer.min, ours.min), min(offer.max, ours.max)
			if offer.min > offer.max {
				continue
			}
		}
		for _, v := range []int16{key, offer.min, offer.max} {
			list = binary.BigEndian.AppendUint16(list, uint16(v))
		}
		list = append(list, r.in[tagsFrom:r.at]...)
		kept++
	}
	var head []byte
	if r.flex {
		head = binary.AppendUvarint(nil, uint64(kept)+1)
	} else {
		head = binary.BigEndian.AppendUint32(nil, uint32(kept))
	}
	r.replace(from, append(head, list...))
	out, err := r.rest()
	if err != nil {
		return nil, err
	}
	return seal(out)
}

// metadataResponse rewrites where brokers are and tells the names of topics.
func metadataResponse(message []byte, h header, place placer, topic func(topicID, string)) ([]byte, error) {
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
				topic(id, name)
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

// produceRequest rewrites the records of each partition. It tells whether the client waits for an answer.
func produceRequest(message []byte, h header, rewrite func(topic string, partition int32, records []byte) ([]byte, error)) (out []byte, answered bool, err error) {
	r := request(message, h)
	r.text() // transaction
	answered = r.int16() != 0
	r.skip(4) // timeout
	for n := r.array(); n > 0 && r.fault == nil; n-- {
		topic := string(r.text())
		for k := r.array(); k > 0 && r.fault == nil; k-- {
			partition := r.int32()
			from := r.at
			if size := r.length(4); size >= 0 {
				records := r.take(size)
				if r.fault == nil {
					with, err := rewrite(topic, partition, records)
					if err != nil {
						return nil, answered, err
					}
					r.replace(from, r.appendBytes(nil, with))
				}
			}
			r.tags()
		}
		r.tags()
	}
	r.tags()
	if out, err = r.done(); err == nil {
		out, err = seal(out)
	}
	return out, answered, err
}

// produceResponse rewrites where new leaders are.
func produceResponse(message []byte, h header, place placer) ([]byte, error) {
	r := response(message, h)
	for n := r.array(); n > 0 && r.fault == nil; n-- {
		r.text() // topic
		for k := r.array(); k > 0 && r.fault == nil; k-- {
			r.skip(4 + 2 + 8 + 8) // partition, error, offset, time
			if h.version >= 5 {
				r.skip(8) // first offset
			}
			if h.version >= 8 {
				for e := r.array(); e > 0 && r.fault == nil; e-- {
					r.skip(4)
					r.text()
					r.tags()
				}
				r.text()
			}
			r.tags()
		}
		r.tags()
	}
	r.skip(4) // throttle time
	r.endpoints(place)
	out, err := r.done()
	if err != nil {
		return nil, err
	}
	return seal(out)
}

// fetchRequest tells which partitions a client reads. The name is empty where the topic has an id.
func fetchRequest(message []byte, h header, partition func(name string, id topicID, partition int32)) error {
	r := request(message, h)
	if h.version < 15 {
		r.skip(4) // replica
	}
	r.skip(4 + 4 + 4 + 1) // wait, least, most, isolation
	if h.version >= 7 {
		r.skip(4 + 4) // session
	}
	for n := r.array(); n > 0 && r.fault == nil; n-- {
		name, id := r.topic(h)
		for k := r.array(); k > 0 && r.fault == nil; k-- {
			number := r.int32()
			if h.version >= 9 {
				r.skip(4) // leader's epoch
			}
			r.skip(8) // offset
			if h.version >= 12 {
				r.skip(4) // epoch
			}
			if h.version >= 5 {
				r.skip(8) // first offset
			}
			r.skip(4) // most
			r.tags()
			if r.fault == nil {
				partition(name, id, number)
			}
		}
		r.tags()
	}
	_, err := r.rest()
	return err
}

// topic reads a topic's name, or its id in versions that have it.
func (r *rewriter) topic(h header) (name string, id topicID) {
	if h.version >= 13 {
		copy(id[:], r.take(len(id)))
		return "", id
	}
	return string(r.text()), id
}

// fetchResponse rewrites the records of each partition, and where new leaders are.
func fetchResponse(message []byte, h header, place placer, rewrite func(records []byte) ([]byte, error)) ([]byte, error) {
	r := response(message, h)
	r.skip(4) // throttle time
	if h.version >= 7 {
		r.skip(2 + 4) // error, session
	}
	for n := r.array(); n > 0 && r.fault == nil; n-- {
		r.topic(h)
		for k := r.array(); k > 0 && r.fault == nil; k-- {
			r.skip(4 + 2 + 8 + 8) // partition, error, offsets
			if h.version >= 5 {
				r.skip(8)
			}
			for a := r.array(); a > 0 && r.fault == nil; a-- { // aborted transactions
				r.skip(8 + 8)
				r.tags()
			}
			if h.version >= 11 {
				r.skip(4) // replica to read from
			}
			from := r.at
			if size := r.length(4); size > 0 && rewrite != nil {
				records := r.take(size)
				if r.fault == nil {
					with, err := rewrite(records)
					if err != nil {
						return nil, err
					}
					r.replace(from, r.appendBytes(nil, with))
				}
			} else {
				r.skip(max(size, 0))
			}
			r.tags()
		}
		r.tags()
	}
	r.endpoints(place)
	out, err := r.done()
	if err != nil {
		return nil, err
	}
	return seal(out)
}
