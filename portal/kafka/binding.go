package kafka

import (
	"encoding/binary"

	"sallyport/internal/cborhead"
)

// bindingForm names the way in which a value is bound, in its envelope and in what is authenticated.
const bindingForm = 1

// binding is where a value belongs. It is authenticated with the value's ciphertext (RFC 5116, associated data), so that brokers can't move
// a value to another topic, partition, key or field without its reader noticing.
type binding struct {
	topic     string
	partition int32
	key       []byte // nil for a record without one
	field     string // of a JSON object; empty for a whole value
}

// data is the encoding of a binding: no two have the same.
func (b binding) data() []byte {
	d := append([]byte("sallyport kafka value "), bindingForm)
	d = appendSized(d, []byte(b.topic))
	d = binary.BigEndian.AppendUint32(d, uint32(b.partition))
	if b.key == nil {
		d = append(d, 0)
	} else {
		d = appendSized(append(d, 1), b.key)
	}
	return appendSized(d, []byte(b.field))
}

func appendSized(d, b []byte) []byte {
	return append(binary.BigEndian.AppendUint32(d, uint32(len(b))), b...)
}

// appendBoundEnvelope appends what stands for a bound value: [[0, address], ciphertext, form], the address and the ciphertext as bytes. The
// reference does not know it.
func appendBoundEnvelope(b []byte, address string, ciphertext []byte) []byte {
	b = append(b, cborTriple, cborPair, 0)
	b = append(cborhead.Append(b, cborhead.Bytes, uint64(len(address))), address...)
	b = append(cborhead.Append(b, cborhead.Bytes, uint64(len(ciphertext))), ciphertext...)
	return append(b, bindingForm)
}
