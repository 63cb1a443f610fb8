package kafka

import "encoding/binary"

// topicRef is how a message names a topic: by name, or by id in versions that have it.
type topicRef struct {
	name string
	id   topicID
}

// topic reads a topic's name, or its id from the version ids on.
func (r *rewriter) topic(h header, ids int16) (t topicRef) {
	if h.version >= ids {
		copy(t.id[:], r.take(len(t.id)))
		return t
	}
	t.name = string(r.text())
	return t
}

// refusal is a partition that was taken out of a Produce request, and what its client is told in the response.
type refusal struct {
	topic     topicRef
	partition int32
	code      int16
	text      string
}

// produceAcks reads whether a client waits for an answer from the beginning of a request; known is false while too little of it has come.
func produceAcks(b []byte, h header) (answered, known bool) {
	r := request(b, h)
	if h.version >= recordsInProduce {
		r.text() // transaction
	}
	acks := r.int16()
	return acks != 0, r.fault == nil
}

// aroundRecords returns how long a request is, in bytes without its length, but for its records and their lengths.
func aroundRecords(message []byte, h header) (int, error) {
	n := len(message) - lengthSize
	r := request(message, h)
	r.text()      // transaction
	r.skip(2 + 4) // acknowledgements, timeout
	for t := r.array(); t > 0 && r.fault == nil; t-- {
		r.topic(h, idsInProduce)
		for k := r.array(); k > 0 && r.fault == nil; k-- {
			r.skip(4) // partition
			from := r.at
			r.skip(max(r.length(4), 0))
			n -= r.at - from
			r.tags()
		}
		r.tags()
	}
	return n, r.fault
}

// sizeOfRecords returns how many bytes records take in a request, with their length.
func (h header) sizeOfRecords(records []byte) int {
	if !h.flexible() {
		return 4 + len(records)
	}
	return len(binary.AppendUvarint(nil, uint64(len(records))+1)) + len(records)
}

// produceRequest rewrites the records of each partition. A partition for which rewrite fails is left out and returned, with rewrite's
// error in its text.
func produceRequest(message []byte, h header, rewrite func(t topicRef, partition int32, records []byte) ([]byte, error)) (out []byte, refused []refusal, err error) {
	r := request(message, h)
	r.text()  // transaction
	r.skip(2) // acknowledgements
	r.skip(4) // timeout
	from := r.at
	topics, list := 0, []byte(nil)
	for n := r.array(); n > 0 && r.fault == nil; n-- {
		start := r.at
		topic := r.topic(h, idsInProduce)
		name := r.in[start:r.at]
		partitions, entries := 0, []byte(nil)
		for k := r.array(); k > 0 && r.fault == nil; k-- {
			partition := r.int32()
			var records []byte
			if size := r.length(4); size >= 0 {
				records = r.take(size)
			}
			start = r.at
			r.tags()
			tags := r.in[start:r.at]
			if r.fault != nil {
				break
			}
			if records != nil {
				with, err := rewrite(topic, partition, records)
				if err != nil {
					refused = append(refused, refusal{topic, partition, produceCode(err), err.Error()})
					continue
				}
				records = with
			}
			entries = binary.BigEndian.AppendUint32(entries, uint32(partition))
			entries = append(r.appendBytes(entries, records), tags...)
			partitions++
		}
		start = r.at
		r.tags()
		if partitions > 0 {
			list = append(r.appendCount(append(list, name...), partitions), entries...)
			list = append(list, r.in[start:r.at]...)
			topics++
		}
	}
	r.replace(from, append(r.appendCount(nil, topics), list...))
	r.tags()
	if out, err = r.done(); err == nil {
		out, err = seal(out)
	}
	return out, refused, err
}

// maxText is how much of an error's text a client is told, in bytes.
const maxText = 1000

// produceResponse rewrites where new leaders are, and tells of the partitions that were refused.
func produceResponse(message []byte, h header, place placer, refused []refusal) ([]byte, error) {
	r := response(message, h)
	of := map[topicRef][]refusal{}
	var order []topicRef
	for _, f := range refused {
		if of[f.topic] == nil {
			order = append(order, f.topic)
		}
		of[f.topic] = append(of[f.topic], f)
	}
	from := r.at
	topics, list := 0, []byte(nil)
	for n := r.array(); n > 0 && r.fault == nil; n-- {
		start := r.at
		topic := r.topic(h, idsInProduce)
		name := r.in[start:r.at]
		partitions := r.array()
		start = r.at
		for k := partitions; k > 0 && r.fault == nil; k-- {
			r.produced(h)
		}
		entries := r.in[start:r.at]
		start = r.at
		r.tags()
		list = append(r.appendCount(append(list, name...), partitions+len(of[topic])), entries...)
		list = append(r.appendRefusals(list, h, of[topic]), r.in[start:r.at]...)
		delete(of, topic)
		topics++
	}
	for _, topic := range order {
		if of[topic] == nil {
			continue
		}
		if h.version >= idsInProduce {
			list = append(list, topic.id[:]...)
		} else {
			list = r.appendText(list, topic.name)
		}
		list = r.appendRefusals(r.appendCount(list, len(of[topic])), h, of[topic])
		if r.flex {
			list = append(list, 0)
		}
		topics++
	}
	r.replace(from, append(r.appendCount(nil, topics), list...))
	if h.version >= 1 {
		r.skip(4) // throttle time
	}
	r.endpoints(place)
	out, err := r.done()
	if err != nil {
		return nil, err
	}
	return seal(out)
}

// produced skips what a response says of one partition.
func (r *rewriter) produced(h header) {
	r.skip(4 + 2 + 8) // partition, error, offset
	if h.version >= 2 {
		r.skip(8) // time
	}
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

// appendRefusals appends what is said of a topic's refused partitions.
func (r *rewriter) appendRefusals(b []byte, h header, refused []refusal) []byte {
	for _, f := range refused {
		b = binary.BigEndian.AppendUint32(b, uint32(f.partition))
		b = binary.BigEndian.AppendUint16(b, uint16(f.code))
		b = appendNone(b) // no offset
		if h.version >= 2 {
			b = appendNone(b) // no time
		}
		if h.version >= 5 {
			b = appendNone(b) // no first offset
		}
		if h.version >= 8 {
			b = r.appendText(r.appendCount(b, 0), f.text[:min(len(f.text), maxText)])
		}
		if r.flex {
			b = append(b, 0)
		}
	}
	return b
}

// appendNone appends -1 as an int64.
func appendNone(b []byte) []byte { return binary.BigEndian.AppendUint64(b, 1<<64-1) }
