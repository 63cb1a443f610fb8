package kafka

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// Kinds of compression, as a batch's flags name them.
const (
	compressNone = iota
	compressGzip
	compressSnappy
	compressLZ4
	compressZstd
)

// zstdWindow is how far back clients' compressors look at most, in bytes: level 22 of the usual library, the highest that Kafka allows
// (compression.zstd.level), and what that library reads unless it is told otherwise. Up to so much is decompressed where the limit is lower.
const zstdWindow = 128 << 20

// decompress returns the records of a batch. What would be longer than limit is refused before it takes the memory.
func decompress(kind int, b []byte, limit int) ([]byte, error) {
	var out []byte
	var err error
	switch kind {
	case compressNone:
		return b, nil
	case compressGzip:
		var z *gzip.Reader
		if z, err = gzip.NewReader(bytes.NewReader(b)); err == nil {
			out, err = readBounded(z, limit)
		}
	case compressSnappy:
		out, err = decompressSnappy(b, limit)
	case compressLZ4:
		out, err = readBounded(lz4.NewReader(bytes.NewReader(b)), limit)
	case compressZstd:
		var z *zstd.Decoder
		if z, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(uint64(max(limit, zstdWindow))), zstd.WithDecoderLowmem(true)); err == nil {
			out, err = z.DecodeAll(b, nil) // a stream would take the memory for a whole window, however little comes
			z.Close()
		}
		if len(out) > limit {
			err = tooLong(limit)
		}
	default:
		return nil, coded(codeCompression, "%w: unknown compression %d", ErrRefused, kind)
	}
	if errors.Is(err, zstd.ErrDecoderSizeExceeded) {
		err = tooLong(limit)
	}
	if errors.Is(err, ErrTooLarge) {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("%w: compressed records: %w", ErrMessage, err)
	}
	return out, nil
}

func tooLong(limit int) error {
	return fmt.Errorf("%w: records of more than %d bytes when they are not compressed", ErrTooLarge, limit)
}

// readBounded reads all of r.
func readBounded(r io.Reader, limit int) ([]byte, error) {
	out, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if len(out) > limit {
		return nil, tooLong(limit)
	}
	return out, err
}

// xerial is how the blocks of Java clients begin: a name, a version and the lowest version that can read them.
var xerial = []byte{0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0}

// xerialHead is the length of that beginning.
const xerialHead = 16

// decompressSnappy reads one block, or Java's sequence of blocks, each with its length in front.
func decompressSnappy(b []byte, limit int) ([]byte, error) {
	if !bytes.HasPrefix(b, xerial) {
		return snappyBlock(nil, b, limit)
	}
	if len(b) < xerialHead {
		return nil, io.ErrUnexpectedEOF
	}
	var out []byte
	for b = b[xerialHead:]; len(b) > 0; {
		if len(b) < 4 {
			return nil, io.ErrUnexpectedEOF
		}
		n := binary.BigEndian.Uint32(b)
		if uint64(n) > uint64(len(b)-4) {
			return nil, io.ErrUnexpectedEOF
		}
		var err error
		if out, err = snappyBlock(out, b[4:4+n], limit); err != nil {
			return nil, err
		}
		b = b[4+n:]
	}
	return out, nil
}

// snappyBlock appends one block to out. Its length is checked before memory is taken for it.
func snappyBlock(out, b []byte, limit int) ([]byte, error) {
	n, err := snappy.DecodedLen(b)
	if err != nil {
		return nil, err
	}
	if n > limit-len(out) {
		return nil, tooLong(limit)
	}
	block, err := snappy.Decode(nil, b)
	if err != nil {
		return nil, err
	}
	return append(out, block...), nil
}
