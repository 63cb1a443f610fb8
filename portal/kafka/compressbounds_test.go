package kafka

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// javaBlocks is how Java clients write snappy: a beginning, and blocks with their lengths in front.
func javaBlocks(blocks ...[]byte) []byte {
	b := append(bytes.Clone(xerial), 0, 0, 0, 1, 0, 0, 0, 1)
	for _, one := range blocks {
		packed := snappy.Encode(nil, one)
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(packed))), packed...)
	}
	return b
}

// TestLargestWhenNotCompressed: records as long as they may be are read, longer ones are refused as too large, in every kind of compression; what is cut short or
// is none is malformed.
func TestLargestWhenNotCompressed(t *testing.T) {
	const limit = 1000
	text := bytes.Repeat([]byte("0123456789"), 101)
	kinds := map[int]func(b []byte) []byte{
		compressGzip: func(b []byte) []byte {
			var out bytes.Buffer
			z := gzip.NewWriter(&out)
			_, _ = z.Write(b)
			_ = z.Close()
			return out.Bytes()
		},
		compressSnappy: func(b []byte) []byte { return snappy.Encode(nil, b) },
		compressLZ4: func(b []byte) []byte {
			var out bytes.Buffer
			z := lz4.NewWriter(&out)
			_, _ = z.Write(b)
			_ = z.Close()
			return out.Bytes()
		},
		compressZstd: func(b []byte) []byte {
			z, _ := zstd.NewWriter(nil)
			return z.EncodeAll(b, nil)
		},
		compressSnappy + 100: func(b []byte) []byte { return javaBlocks(b[:len(b)/2], b[len(b)/2:]) },
	}
	for kind, pack := range kinds {
		for n, ok := range map[int]bool{0: true, 1: true, limit - 1: true, limit: true, limit + 1: false} {
			got, err := decompress(kind%100, pack(text[:n]), limit)
			if (err == nil) != ok || ok && !bytes.Equal(got, text[:n]) || !ok && !errors.Is(err, ErrTooLarge) {
				t.Errorf("kind %d, %d bytes: %d, %v", kind, n, len(got), err)
			}
		}
		packed := pack(text[:500])
		for _, bad := range [][]byte{packed[:len(packed)-1], packed[:len(packed)/2], []byte("no records")} {
			if _, err := decompress(kind%100, bad, limit); !errors.Is(err, ErrMessage) || errors.Is(err, ErrTooLarge) {
				t.Errorf("kind %d, %d of %d bytes: %v", kind, len(bad), len(packed), err)
			}
		}
	}
	if got, err := decompress(compressNone, text, 1); err != nil || !bytes.Equal(got, text) {
		t.Errorf("not compressed: %d, %v", len(got), err)
	}
	if _, err := decompress(compressZstd+1, text, limit); !errors.Is(err, ErrRefused) {
		t.Errorf("unknown: %v", err)
	}
	whole := javaBlocks([]byte("ab"))
	for n := len(xerial); n < len(whole); n++ {
		got, err := decompressSnappy(whole[:n], limit)
		if ends := n == xerialHead; (err == nil) != ends || len(got) != 0 {
			t.Errorf("%d of %d bytes: %q, %v", n, len(whole), got, err)
		}
	}
	longer := bytes.Clone(whole)
	longer[xerialHead+3]++
	if _, err := decompressSnappy(longer, limit); err == nil {
		t.Error("a block that is longer than what is there")
	}
}

// TestOrderIsForgotten: a batch that was refused holds back later ones of the same producer, epoch and partition, until it has passed, or for so long; so many
// are remembered.
func TestOrderIsForgotten(t *testing.T) {
	records := func(producer int64, epoch int16, sequence int32) []byte {
		b := make([]byte, batchHeadSize)
		binary.BigEndian.PutUint64(b[batchProducerAt:], uint64(producer))
		binary.BigEndian.PutUint16(b[batchEpochAt:], uint16(epoch))
		binary.BigEndian.PutUint32(b[batchSequenceAt:], uint32(sequence))
		return b
	}
	part, other := fetchPart{number: 1}, fetchPart{number: 2}
	for name, c := range map[string]struct {
		first  []byte
		part   fetchPart
		then   []byte
		behind bool
	}{
		"the next":                    {records(7, 1, 5), part, records(7, 1, 6), true},
		"the same":                    {records(7, 1, 5), part, records(7, 1, 5), false},
		"an earlier one":              {records(7, 1, 5), part, records(7, 1, 4), false},
		"behind the largest":          {records(7, 1, 1<<31-1), part, records(7, 1, 0), true},
		"before the largest":          {records(7, 1, 0), part, records(7, 1, 1<<31-1), false},
		"of another epoch":            {records(7, 1, 5), part, records(7, 2, 6), false},
		"of another producer":         {records(7, 1, 5), part, records(8, 1, 6), false},
		"of another partition":        {records(7, 1, 5), other, records(7, 1, 6), false},
		"of one that does not count":  {records(-1, 1, 5), part, records(-1, 1, 6), false},
		"without a number":            {records(7, 1, -1), part, records(7, 1, 6), false},
		"no batch":                    {records(7, 1, 5), part, records(7, 1, 6)[:batchHeadSize-1], false},
		"the first producer there is": {records(0, 0, 0), part, records(0, 0, 1), true},
	} {
		var o order
		o.refused(part, c.first)
		if got := o.behind(c.part, c.then); got != c.behind {
			t.Errorf("%s: behind %v", name, got)
		}
		o.passed(part, c.first)
		if o.behind(c.part, c.then) || len(o.held) != 0 {
			t.Errorf("%s: held when it has passed", name)
		}
	}
	var o order
	o.passed(part, records(7, 1, 5)) // nothing was refused
	o.refused(part, records(7, 1, 5))
	o.refused(part, records(7, 1, 6)) // behind it
	if o.behind(part, records(7, 1, 5)) {
		t.Error("the first is held by a later one")
	}
	o.refused(part, records(7, 1, 4)) // an earlier one takes its place
	if !o.behind(part, records(7, 1, 5)) {
		t.Error("not behind the earlier one")
	}
	w, _, _ := writerOf(part, records(7, 1, 4))
	// The last one is forgotten, so nothing is held afterwards.
	for _, ago := range []time.Duration{heldFor - time.Minute, heldFor + time.Second} {
		o.held[w] = heldBatch{4, time.Now().Add(-ago)}
		if got := o.behind(part, records(7, 1, 5)); got != (ago < heldFor) {
			t.Errorf("refused %v ago: behind %v", ago, got)
		}
	}
	if len(o.held) != 0 {
		t.Errorf("%d are held", len(o.held))
	}
	for i := range maxHeld {
		o.held[writer{part, int64(i), 0}] = heldBatch{1, time.Now()}
	}
	o.refused(part, records(-2+1<<40, 0, 0))
	if len(o.held) != maxHeld || o.behind(part, records(-2+1<<40, 0, 1)) {
		t.Errorf("%d are held", len(o.held))
	}
	for i := range 10 {
		o.held[writer{part, int64(i), 0}] = heldBatch{1, time.Now().Add(-heldFor - time.Second)}
	}
	o.refused(part, records(-2+1<<40, 0, 0))
	if len(o.held) != maxHeld-9 || !o.behind(part, records(-2+1<<40, 0, 1)) {
		t.Errorf("%d are held when old ones are forgotten", len(o.held))
	}
}

// zstdFrame is a frame of one block that is not compressed, of a compressor that looks back as far as 2^window bytes (RFC 8878 3.1.1).
func zstdFrame(window int, content []byte) []byte {
	b := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, byte(window-10) << 3}
	head := uint32(len(content))<<3 | 1
	return append(append(b, byte(head), byte(head>>8), byte(head>>16)), content...)
}

// TestZstdWindow: records of every level that Kafka allows are read, up to 22 (compression.zstd.level) with windows of 2^27 bytes; a window alone takes no such memory.
func TestZstdWindow(t *testing.T) {
	for window, ok := range map[int]bool{20: true, 23: true, 25: true, 27: true, 28: false} {
		packed := zstdFrame(window, []byte("records"))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got, err := decompress(compressZstd, packed, 1000)
		runtime.ReadMemStats(&after)
		if (err == nil) != ok || ok && string(got) != "records" {
			t.Errorf("a window of 2^%d: %q, %v", window, got, err)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 16<<20 {
			t.Errorf("a window of 2^%d takes %d bytes for %d", window, took, len(packed))
		}
	}
	var long bytes.Buffer
	z, err := zstd.NewWriter(&long, zstd.WithWindowSize(zstdWindow), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true))
	if err != nil {
		t.Fatal(err)
	}
	text := bytes.Repeat([]byte("0123456789"), 1<<17)
	_, _ = z.Write(text)
	_ = z.Close()
	if got, err := decompress(compressZstd, long.Bytes(), len(text)); err != nil || !bytes.Equal(got, text) {
		t.Errorf("%d of %d bytes, %v", len(got), len(text), err)
	}
	if _, err := decompress(compressZstd, long.Bytes(), len(text)-1); !errors.Is(err, ErrTooLarge) {
		t.Errorf("records that are too long behind a wide window: %v", err)
	}
}
