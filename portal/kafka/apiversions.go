package kafka

import "encoding/binary"

// Tagged fields of the answer to ApiVersions (KIP-584).
const (
	tagSupported = 0
	tagFinalized = 2
)

// apiVersionsRequest makes a request of a version that is not understood one of version 0, which has no body. refused tells so: its answer
// becomes the one that brokers give to a version that they do not know, on which clients ask again.
func apiVersionsRequest(message []byte, h header) (out []byte, _ header, refused bool, err error) {
	if spans[keyAPIVersions].has(h.version) {
		return message, h, false, nil
	}
	r := &rewriter{in: message, at: lengthSize + requestHead}
	r.text() // the client's id
	if r.fault != nil {
		return nil, h, false, r.fault
	}
	h.version = 0
	out = message[:r.at]
	binary.BigEndian.PutUint16(out[lengthSize+versionAt:], 0)
	out, err = seal(out)
	return out, h, true, err
}

// apiVersionsResponse reduces what a broker offers to what is understood here: versions, and the features that clients must not use without
// versions that are not offered. refused makes it the answer to a version that is not known.
func apiVersionsResponse(message []byte, h header, encrypted, refused bool) ([]byte, error) {
	r := response(message, h)
	at := r.at
	if r.int16() != 0 {
		return r.rest() // an error comes in the form of version 0
	}
	if refused {
		r.replace(at, binary.BigEndian.AppendUint16(nil, codeUnsupportedVersion))
	}
	from := r.at
	var list []byte
	offered := map[int16]span{}
	for n := r.array(); n > 0 && r.fault == nil; n-- {
		key, offer := r.int16(), span{r.int16(), r.int16()}
		tagsFrom := r.at
		r.tags()
		ours, known := versions(key, encrypted)
		offer.min, offer.max = max(offer.min, ours.min), min(offer.max, ours.max)
		if _, twice := offered[key]; twice || !known || offer.min > offer.max || r.fault != nil {
			continue
		}
		for _, v := range []int16{key, offer.min, offer.max} {
			list = binary.BigEndian.AppendUint16(list, uint16(v))
		}
		list = append(list, r.in[tagsFrom:r.at]...)
		offered[key] = offer
	}
	r.replace(from, append(r.appendCount(nil, len(offered)), list...))
	if h.version >= 1 {
		r.skip(4) // throttle time
	}
	r.eachTag(func(tag uint32, content []byte) ([]byte, bool) {
		if tag != tagSupported && tag != tagFinalized {
			return nil, false
		}
		with, err := reduceFeatures(content, tag == tagFinalized, offered)
		if err != nil {
			r.fault = err
		}
		return with, true
	})
	out, err := r.done()
	if err != nil {
		return nil, err
	}
	return seal(out)
}
