package kafka

import "encoding/binary"

// Place is where a broker can be reached.
type Place struct {
	Host string
	Port uint16
}

// placer finds the place that clients get to see for a broker. An error ends the rewriting.
type placer func(broker int32, at Place) (Place, error)

// broker rewrites an id, a host and a port. Ids below zero stand for no broker, which is nowhere.
func (r *rewriter) broker(place placer) {
	id := r.int32()
	from := r.at
	at := Place{Host: string(r.text())}
	port := r.int32()
	at.Port = uint16(port)
	if id < 0 && at.Host != "" {
		r.replace(from, binary.BigEndian.AppendUint32(r.appendText(nil, ""), 1<<32-1))
	}
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

// nodes rewrites an array of brokers with their racks.
func (r *rewriter) nodes(place placer) {
	for n := r.array(); n > 0 && r.fault == nil; n-- {
		r.broker(place)
		r.text() // rack
		r.tags()
	}
}

// endpoints rewrites the tagged field that tells a client of new leaders (KIP-951).
func (r *rewriter) endpoints(place placer) {
	r.eachTag(func(tag uint32, content []byte) ([]byte, bool) {
		if tag != 0 {
			return nil, false
		}
		inner := &rewriter{in: content, flex: true}
		inner.nodes(place)
		b, err := inner.done()
		if err != nil {
			r.fault = err
		}
		return b, true
	})
}
