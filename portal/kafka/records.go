package kafka

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// Where the parts of a record batch are (KIP-98). The checksum covers what is behind it.
const (
	batchLengthAt = 8
	batchMagicAt  = 16
	batchSumAt    = 17
	batchFlagsAt  = 21
	batchCountAt  = 57
	batchHeadSize = 61
	// batchPrefix is what the batch's length does not count.
	batchPrefix = 12
)

// Flags of a batch.
const (
	flagCompression = 0x07
	flagControl     = 0x20
)

const magicNow = 2

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// rewriteRecords gives every value of a sequence of record batches to value, and puts what it returns in its place. Batches come out
// uncompressed (docs/protocol/03 §5.3); keys, headers, offsets, times and what belongs to transactions stay. Null values stay null, and
// so do the markers of transactions. A batch that is cut short at the end, as brokers send them, is left out; when strict is set
// it is an error.
func rewriteRecords(b []byte, strict bool, value func([]byte) ([]byte, error)) ([]byte, error) {
	out := make([]byte, 0, len(b)+len(b)/4)
	for len(b) > 0 {
		size := 0
		if len(b) >= batchPrefix {
			size = int(int32(binary.BigEndian.Uint32(b[batchLengthAt:])))
			if size < 0 {
				return nil, fmt.Errorf("%w: record batch of %d bytes", ErrMessage, size)
			}
			size += batchPrefix
		}
		if size == 0 || size > len(b) {
			if strict {
				return nil, fmt.Errorf("%w: record batch is cut short", ErrMessage)
			}
			break
		}
		batch := b[:size]
		b = b[size:]
		if len(batch) <= batchMagicAt || batch[batchMagicAt] != magicNow {
			return nil, fmt.Errorf("%w: records in a form from before Kafka 0.11", ErrRefused)
		}
		if len(batch) < batchHeadSize {
			return nil, fmt.Errorf("%w: record batch of %d bytes", ErrMessage, len(batch))
		}
		if crc32.Checksum(batch[batchFlagsAt:], castagnoli) != binary.BigEndian.Uint32(batch[batchSumAt:]) {
			return nil, fmt.Errorf("%w: checksum of a record batch", ErrMessage)
		}
		var err error
		if out, err = appendBatch(out, batch, value); err != nil {
			return nil, err
		}
		if len(out) > MaxMessage {
			return nil, fmt.Errorf("%w: records of more than %d bytes after rewriting", ErrRefused, MaxMessage)
		}
	}
	return out, nil
}

// appendBatch appends one batch, rewritten.
func appendBatch(out, batch []byte, value func([]byte) ([]byte, error)) ([]byte, error) {
	flags := binary.BigEndian.Uint16(batch[batchFlagsAt:])
	count := int(int32(binary.BigEndian.Uint32(batch[batchCountAt:])))
	if flags&flagControl != 0 || count == 0 {
		return append(out, batch...), nil
	}
	records, err := decompress(int(flags&flagCompression), batch[batchHeadSize:])
	if err != nil {
		return nil, err
	}
	start := len(out)
	out = append(out, batch[:batchHeadSize]...)
	in := &reader{b: records}
	for range count {
		if out, err = appendRecord(out, in, value); err != nil {
			return nil, err
		}
		if len(out) > MaxMessage {
			return nil, fmt.Errorf("%w: records of more than %d bytes after rewriting", ErrRefused, MaxMessage)
		}
	}
	if len(in.b) > 0 || count < 0 {
		return nil, fmt.Errorf("%w: %d records, and %d bytes too many", ErrMessage, count, len(in.b))
	}
	done := out[start:]
	binary.BigEndian.PutUint32(done[batchLengthAt:], uint32(len(done)-batchPrefix))
	binary.BigEndian.PutUint16(done[batchFlagsAt:], flags&^flagCompression)
	binary.BigEndian.PutUint32(done[batchSumAt:], crc32.Checksum(done[batchFlagsAt:], castagnoli))
	return out, nil
}

// appendRecord appends one record with another value: a zigzag length, then attributes, time and offset relative to the batch's, key, value
// and headers.
func appendRecord(out []byte, in *reader, value func([]byte) ([]byte, error)) ([]byte, error) {
	body := &reader{b: in.take(in.varint())}
	whole := body.b
	body.take(1)
	body.varint() // time
	body.varint() // offset
	if n := body.varint(); n > 0 {
		body.take(n) // key
	}
	before := len(whole) - len(body.b)
	n := body.varint()
	old := body.take(max(n, 0))
	if in.bad || body.bad || n < -1 {
		return nil, fmt.Errorf("%w: record", ErrMessage)
	}
	if n < 0 {
		return append(binary.AppendVarint(out, int64(len(whole))), whole...), nil
	}
	with, err := value(old)
	if err != nil {
		return nil, err
	}
	size := before + varintLen(len(with)) + len(with) + len(body.b)
	out = binary.AppendVarint(out, int64(size))
	out = append(out, whole[:before]...)
	out = binary.AppendVarint(out, int64(len(with)))
	out = append(out, with...)
	return append(out, body.b...), nil
}

func varintLen(n int) int {
	var b [binary.MaxVarintLen64]byte
	return binary.PutVarint(b[:], int64(n))
}

// reader reads a record. After a mistake it is bad and reads nothing.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.b, r.bad = nil, true
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) varint() int {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.b, r.bad = nil, true
		return 0
	}
	r.b = r.b[n:]
	return int(v)
}
