package kafka

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// maxRecords is how many bytes the records of one batch may have when they are no longer compressed.
const maxRecords = MaxMessage

// Kinds of compression, as a batch's flags name them.
const (
	compressNone = iota
	compressGzip
	compressSnappy
	compressLZ4
	compressZstd
)

// decompress returns the records of a batch. What would be longer than maxRecords is refused before it takes the memory.
func decompress(kind int, b []byte) ([]byte, error) {
	var out []byte
	var err error
	switch kind {
	case compressNone:
		return b, nil
	case compressGzip:
		var z *gzip.Reader
		if z, err = gzip.NewReader(bytes.NewReader(b)); err == nil {
			out, err = readBounded(z)
		}
	case compressSnappy:
		out, err = decompressSnappy(b)
	case compressLZ4:
		out, err = readBounded(lz4.NewReader(bytes.NewReader(b)))
	case compressZstd:
		var z *zstd.Decoder
		if z, err = zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxRecords), zstd.WithDecoderLowmem(true)); err == nil {
			out, err = readBounded(z)
			z.Close()
		}
	default:
		return nil, fmt.Errorf("%w: unknown compression %d", ErrRefused, kind)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: compressed records: %w", ErrMessage, err)
	}
	return out, nil
}

// readBounded reads all of r.
func readBounded(r io.Reader) ([]byte, error) {
	out, err := io.ReadAll(io.LimitReader(r, maxRecords+1))
	if len(out) > maxRecords {
		return nil, fmt.Errorf("more than %d bytes", maxRecords)
	}
	return out, err
}

// xerial is how the blocks of Java clients begin: a name, a version and the lowest version that can read them.
var xerial = []byte{0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0}

// xerialHead is the length of that beginning.
const xerialHead = 16

// decompressSnappy reads one block, or Java's sequence of blocks, each with its length in front.
func decompressSnappy(b []byte) ([]byte, error) {
	if !bytes.HasPrefix(b, xerial) {
		return snappyBlock(nil, b)
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
		if out, err = snappyBlock(out, b[4:4+n]); err != nil {
			return nil, err
		}
		b = b[4+n:]
	}
	return out, nil
}

// snappyBlock appends one block to out. Its length is checked before memory is taken for it.
func snappyBlock(out, b []byte) ([]byte, error) {
	n, err := snappy.DecodedLen(b)
	if err != nil {
		return nil, err
	}
	if n > maxRecords-len(out) {
		return nil, fmt.Errorf("more than %d bytes", maxRecords)
	}
	block, err := snappy.Decode(nil, b)
	if err != nil {
		return nil, err
	}
	return append(out, block...), nil
}
