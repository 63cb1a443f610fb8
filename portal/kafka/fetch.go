package kafka

import "encoding/binary"

// fetchAsk is what a client reads with a request.
type fetchAsk struct {
	epoch  int32 // of the fetch session (KIP-227): 0 begins one, -1 is without
	listed []fetchPart
	gone   []fetchPart // that the session has no longer
}

type fetchPart struct {
	topic  topicRef
	number int32
}

// lower puts at most most in place of the number of bytes that is read, which the client would take.
func (r *rewriter) lower(most int32) {
	from := r.at
	if asked := r.int32(); r.fault == nil && asked > most {
		r.replace(from, binary.BigEndian.AppendUint32(nil, uint32(most)))
	}
}

// fetchRequest lowers how many bytes a client wants to have, and tells what it reads.
func fetchRequest(message []byte, h header, most int32) (out []byte, ask fetchAsk, err error) {
	r := request(message, h)
	ask.epoch = -1
	if h.version < 15 {
		r.skip(4) // replica
	}
	r.skip(4 + 4) // wait, least
	if h.version >= 3 {
		r.lower(most)
	}
	if h.version >= 4 {
		r.skip(1) // isolation
	}
	if h.version >= 7 {
		r.skip(4) // session
		ask.epoch = r.int32()
	}
	for n := r.array(); n > 0 && r.fault == nil; n-- {
		topic := r.topic(h, idsInFetch)
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
			r.skip(4) // most of this partition
			r.tags()
			ask.listed = append(ask.listed, fetchPart{topic, number})
		}
		r.tags()
	}
	if h.version >= 7 {
		ask.gone = r.forgotten(h, idsInFetch)
	}
	if out, err = r.rest(); err == nil {
		out, err = seal(out)
	}
	return out, ask, err
}

// forgotten reads which partitions a session has no longer.
func (r *rewriter) forgotten(h header, ids int16) (list []fetchPart) {
	for n := r.array(); n > 0 && r.fault == nil; n-- {
		topic := r.topic(h, ids)
		for k := r.array(); k > 0 && r.fault == nil; k-- {
			list = append(list, fetchPart{topic, r.int32()})
		}
		r.tags()
	}
	return list
}

// shareFetchRequest is fetchRequest for a share group (KIP-932).
func shareFetchRequest(message []byte, h header, most int32) (out []byte, ask fetchAsk, err error) {
	r := request(message, h)
	r.text() // group
	r.text() // member
	ask.epoch = r.int32()
	r.skip(4 + 4) // wait, least
	r.lower(most)
	r.skip(4 + 4) // records, batch
	if h.version >= 2 {
		r.skip(1 + 1) // mode of acquiring, renewal
	}
	for n := r.array(); n > 0 && r.fault == nil; n-- {
		topic := r.topic(h, 0)
		for k := r.array(); k > 0 && r.fault == nil; k-- {
			number := r.int32()
			for a := r.array(); a > 0 && r.fault == nil; a-- { // acknowledged
				r.skip(8 + 8)
				r.skip(r.array())
				r.tags()
			}
			r.tags()
			ask.listed = append(ask.listed, fetchPart{topic, number})
		}
		r.tags()
	}
	ask.gone = r.forgotten(h, 0)
	r.tags()
	if out, err = r.done(); err == nil {
		out, err = seal(out)
	}
	return out, ask, err
}

// fetched is what becomes of a partition's records: others in their place, or an error's code.
type fetched struct {
	records []byte
	code    int16
}

// opener rewrites the records of a partition. An error ends the connection.
type opener func(t topicRef, partition int32, records []byte) (fetched, error)

// fetchResponse rewrites the records of each partition, and where new leaders are.
func fetchResponse(message []byte, h header, place placer, open opener) ([]byte, error) {
	r := response(message, h)
	r.skip(4) // throttle time
	if h.version >= 7 {
		r.skip(2 + 4) // error, session
	}
	for n := r.array(); n > 0 && r.fault == nil; n-- {
		topic := r.topic(h, idsInFetch)
		for k := r.array(); k > 0 && r.fault == nil; k-- {
			partition := r.int32()
			from := r.at
			r.skip(2)     // error
			r.skip(8 + 8) // offsets
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
			if err := r.records(topic, partition, from, open); err != nil {
				return nil, err
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

// records rewrites what a response has of a partition's records. The partition's error is at the offset errorAt.
func (r *rewriter) records(topic topicRef, partition int32, errorAt int, open opener) error {
	start := r.at
	size := r.length(4)
	old := r.take(max(size, 0))
	if r.fault != nil || size <= 0 {
		return nil
	}
	with, err := open(topic, partition, old)
	if err != nil {
		return err
	}
	if with.code != 0 {
		end := r.at
		r.at = errorAt + 2
		r.replace(errorAt, binary.BigEndian.AppendUint16(nil, uint16(with.code)))
		r.at = end
	}
	if with.records == nil {
		with.records = []byte{} // none, which is not null
	}
	r.replaceBytes(start, with.records)
	return nil
}

// shareFetchResponse is fetchResponse for a share group.
func shareFetchResponse(message []byte, h header, place placer, open opener) ([]byte, error) {
	r := response(message, h)
	r.skip(4 + 2) // throttle time, error
	r.text()
	r.skip(4) // how long records are locked
	for n := r.array(); n > 0 && r.fault == nil; n-- {
		topic := r.topic(h, 0)
		for k := r.array(); k > 0 && r.fault == nil; k-- {
			partition := r.int32()
			from := r.at
			r.skip(2) // error
			r.text()
			r.acknowledged()
			if err := r.records(topic, partition, from, open); err != nil {
				return nil, err
			}
			for a := r.array(); a > 0 && r.fault == nil; a-- { // acquired
				r.skip(8 + 8 + 2)
				r.tags()
			}
			r.tags()
		}
		r.tags()
	}
	return r.shared(place)
}

// acknowledged skips the error of an acknowledgement and the current leader.
func (r *rewriter) acknowledged() {
	r.skip(2)
	r.text()
	r.leader()
}

// leader skips the current leader and its epoch.
func (r *rewriter) leader() {
	r.skip(4 + 4)
	r.tags()
}

// shared rewrites what answers for share groups end with.
func (r *rewriter) shared(place placer) ([]byte, error) {
	r.nodes(place)
	r.tags()
	out, err := r.done()
	if err != nil {
		return nil, err
	}
	return seal(out)
}

// shareAcknowledgeResponse rewrites where new leaders are.
func shareAcknowledgeResponse(message []byte, h header, place placer) ([]byte, error) {
	r := response(message, h)
	r.skip(4 + 2) // throttle time, error
	r.text()
	if h.version >= 2 {
		r.skip(4) // how long records are locked
	}
	for n := r.array(); n > 0 && r.fault == nil; n-- {
		r.topic(h, 0)
		for k := r.array(); k > 0 && r.fault == nil; k-- {
			r.skip(4 + 2) // partition, error
			r.text()
			r.leader()
			r.tags()
		}
		r.tags()
	}
	return r.shared(place)
}
