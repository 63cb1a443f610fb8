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

// record is what identifies a record to those who may change its value. Both are borrowed; a key may be nil, which is not the same as empty.
type record struct{ key, value []byte }

// recordRewriter returns another value for a record's.
type recordRewriter func(r record) ([]byte, error)

// rewriteRecords gives every record of a sequence of record batches to value, and puts what it returns in place of the record's value.
// Batches come out uncompressed (docs/protocol/03 §5.3); keys, headers, offsets, times and what belongs to transactions stay. Null values
// stay null. Neither the records of one batch nor all that comes out may have more than limit bytes. On an error it returns the batches
// before the one at fault.
//
// For a producer (strict) every byte has to be understood. For a consumer the markers of transactions stay, and a batch that is cut short
// at the end, as brokers send them, is left out.
func rewriteRecords(b []byte, strict bool, limit int, value recordRewriter) ([]byte, error) {
	out := make([]byte, 0, min(len(b)+len(b)/4, limit))
	for len(b) > 0 {
		size := 0
		if len(b) >= batchPrefix {
			size = int(int32(binary.BigEndian.Uint32(b[batchLengthAt:])))
			if size < 0 {
				return out, fmt.Errorf("%w: record batch of %d bytes", ErrMessage, size)
			}
			size += batchPrefix
		}
		if size == 0 || size > len(b) {
			if strict {
				return out, fmt.Errorf("%w: record batch is cut short", ErrMessage)
			}
			break
		}
		batch := b[:size]
		b = b[size:]
		whole := len(out)
		err := checkBatch(batch, strict)
		if err == nil {
			out, err = appendBatch(out, batch, limit, value)
		}
		if err != nil {
			return out[:whole], err
		}
	}
	return out, nil
}

// checkBatch looks at what surrounds the records of a batch.
func checkBatch(batch []byte, strict bool) error {
	if len(batch) <= batchMagicAt || batch[batchMagicAt] != magicNow {
		return coded(codeOldFormat, "%w: records in a form from before Kafka 0.11", ErrRefused)
	}
	if len(batch) < batchHeadSize {
		return fmt.Errorf("%w: record batch of %d bytes", ErrMessage, len(batch))
	}
	if crc32.Checksum(batch[batchFlagsAt:], castagnoli) != binary.BigEndian.Uint32(batch[batchSumAt:]) {
		return fmt.Errorf("%w: checksum of a record batch", ErrMessage)
	}
	if strict && binary.BigEndian.Uint16(batch[batchFlagsAt:])&flagControl != 0 {
		return coded(codeInvalidRecord, "%w: a transaction's marker from a client", ErrRefused)
	}
	return nil
}

// appendBatch appends one batch, rewritten. On an error what it appended means nothing.
func appendBatch(out, batch []byte, limit int, value recordRewriter) ([]byte, error) {
	flags := binary.BigEndian.Uint16(batch[batchFlagsAt:])
	count := int(int32(binary.BigEndian.Uint32(batch[batchCountAt:])))
	if flags&flagControl != 0 || count == 0 && len(batch) == batchHeadSize {
		return append(out, batch...), nil
	}
	records, err := decompress(int(flags&flagCompression), batch[batchHeadSize:], limit)
	if err != nil {
		return out, err
	}
	start := len(out)
	out = append(out, batch[:batchHeadSize]...)
	in := &reader{b: records}
	for range count {
		if out, err = appendRecord(out, in, limit, value); err != nil {
			return out, err
		}
	}
	if len(in.b) > 0 || count < 0 {
		return out, fmt.Errorf("%w: %d records, and %d bytes too many", ErrMessage, count, len(in.b))
	}
	done := out[start:]
	binary.BigEndian.PutUint32(done[batchLengthAt:], uint32(len(done)-batchPrefix))
	binary.BigEndian.PutUint16(done[batchFlagsAt:], flags&^flagCompression)
	binary.BigEndian.PutUint32(done[batchSumAt:], crc32.Checksum(done[batchFlagsAt:], castagnoli))
	return out, nil
}

func tooLarge(limit int) error {
	return fmt.Errorf("%w: records of more than %d bytes when they are rewritten", ErrTooLarge, limit)
}

// appendRecord appends one record with another value: a zigzag length, then attributes, time and offset relative to the batch's, key, value
// and headers. out becomes no longer than limit.
func appendRecord(out []byte, in *reader, limit int, value recordRewriter) ([]byte, error) {
	body := &reader{b: in.take(in.varint())}
	whole := body.b
	body.take(1)
	body.varint() // time
	body.varint() // offset
	var key []byte
	if n := body.varint(); n >= 0 {
		if key = body.take(n); key == nil {
			key = []byte{}
		}
	}
	before := len(whole) - len(body.b)
	n := body.varint()
	old := body.take(max(n, 0))
	if in.bad || body.bad || n < -1 {
		return out, fmt.Errorf("%w: record", ErrMessage)
	}
	size := len(whole)
	var with []byte
	if n >= 0 {
		var err error
		if with, err = value(record{key, old}); err != nil {
			return out, err
		}
		size = before + varintLen(len(with)) + len(with) + len(body.b)
	}
	if size+varintLen(size) > limit-len(out) {
		return out, tooLarge(limit)
	}
	if n < 0 {
		return append(binary.AppendVarint(out, int64(len(whole))), whole...), nil
	}
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
