package kafka

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"strings"
	"testing"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// sample is a record of the tests.
type sample struct {
	key, value []byte
	headers    []kmsg.Header
}

func samples() []sample {
	return []sample{
		{[]byte("k1"), []byte("first value"), []kmsg.Header{{Key: "h", Value: []byte("v")}}},
		{nil, []byte{}, nil},
		{[]byte("tombstone"), nil, nil},
		{[]byte{}, bytes.Repeat([]byte("long "), 1000), []kmsg.Header{{Key: "", Value: nil}, {Key: "x", Value: []byte{}}}},
	}
}

// compressed compresses as clients do; xerial is how Java frames snappy.
func compressed(t testing.TB, kind int, b []byte, java bool) []byte {
	t.Helper()
	var out bytes.Buffer
	switch kind {
	case compressNone:
		return b
	case compressGzip:
		z := gzip.NewWriter(&out)
		_, _ = z.Write(b)
		_ = z.Close()
	case compressSnappy:
		if !java {
			return snappy.Encode(nil, b)
		}
		out.Write(append(bytes.Clone(xerial), 0, 0, 0, 1, 0, 0, 0, 1))
		for len(b) > 0 {
			block := snappy.Encode(nil, b[:min(len(b), 512)])
			b = b[min(len(b), 512):]
			out.Write(binary.BigEndian.AppendUint32(nil, uint32(len(block))))
			out.Write(block)
		}
	case compressLZ4:
		z := lz4.NewWriter(&out)
		_, _ = z.Write(b)
		_ = z.Close()
	case compressZstd:
		z, err := zstd.NewWriter(&out)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = z.Write(b)
		_ = z.Close()
	}
	return out.Bytes()
}

// batch encodes records with the other codec.
func batch(t testing.TB, list []sample, kind int, java bool, flags int16) []byte {
	t.Helper()
	var records []byte
	for i, s := range list {
		r := kmsg.Record{TimestampDelta64: int64(3 * i), OffsetDelta: int32(i), Key: s.key, Value: s.value, Headers: s.headers}
		body := r.AppendTo(nil)[1:] // behind the length, which is 0 so far
		r.Length = int32(len(body))
		records = r.AppendTo(records)
	}
	b := kmsg.RecordBatch{
		FirstOffset: 1234, PartitionLeaderEpoch: 5, Magic: 2, Attributes: int16(kind) | flags, LastOffsetDelta: int32(len(list)) - 1, FirstTimestamp: 1_700_000_000_000,
		MaxTimestamp: 1_700_000_000_009, ProducerID: 99, ProducerEpoch: 3, FirstSequence: 17, NumRecords: int32(len(list)), Records: compressed(t, kind, records, java),
	}
	raw := b.AppendTo(nil)
	return resum(raw)
}

// resum puts length and checksum of a batch right.
func resum(raw []byte) []byte {
	binary.BigEndian.PutUint32(raw[8:], uint32(len(raw)-12))
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	return raw
}

// unbatch decodes with the other codec.
func unbatch(t testing.TB, raw []byte) (kmsg.RecordBatch, []kmsg.Record) {
	t.Helper()
	var b kmsg.RecordBatch
	if err := b.ReadFrom(raw); err != nil {
		t.Fatal(err)
	}
	if want := crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)); int(b.Length) != len(raw)-12 || uint32(b.CRC) != want {
		t.Fatalf("length %d of %d, checksum %08x, want %08x", b.Length, len(raw)-12, uint32(b.CRC), want)
	}
	var records []kmsg.Record
	for rest := b.Records; len(rest) > 0; {
		size, n := binary.Varint(rest)
		var r kmsg.Record
		if err := r.ReadFrom(rest[:n+int(size)]); err != nil {
			t.Fatal(err)
		}
		records, rest = append(records, r), rest[n+int(size):]
	}
	if len(records) != int(b.NumRecords) {
		t.Fatalf("%d records of %d", len(records), b.NumRecords)
	}
	return b, records
}

func shout(v []byte) ([]byte, error) { return append(bytes.ToUpper(v), '!'), nil }

func TestRecords(t *testing.T) {
	for kind, name := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		for _, java := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s java=%v", name, java), func(t *testing.T) {
				list := samples()
				one, two := batch(t, list, kind, java, 0x10), batch(t, list[:1], compressNone, false, 0)
				out, err := rewriteRecords(append(bytes.Clone(one), two...), true, shout)
				if err != nil {
					t.Fatal(err)
				}
				size := 12 + int(binary.BigEndian.Uint32(out[8:]))
				b, records := unbatch(t, out[:size])
				if b.FirstOffset != 1234 || b.Attributes != 0x10 || b.ProducerID != 99 || b.ProducerEpoch != 3 || b.FirstSequence != 17 || b.LastOffsetDelta != 3 ||
					b.FirstTimestamp != 1_700_000_000_000 || b.MaxTimestamp != 1_700_000_000_009 || b.PartitionLeaderEpoch != 5 {
					t.Errorf("batch %+v", b)
				}
				for i, r := range records {
					s := list[i]
					want := append(bytes.ToUpper(s.value), '!')
					if s.value == nil {
						want = nil
					}
					if !bytes.Equal(r.Value, want) || (r.Value == nil) != (want == nil) || !bytes.Equal(r.Key, s.key) || len(r.Headers) != len(s.headers) ||
						r.OffsetDelta != int32(i) || r.TimestampDelta64 != int64(3*i) {
						t.Errorf("record %d: %+v", i, r)
					}
				}
				if _, records = unbatch(t, out[size:]); len(records) != 1 || string(records[0].Value) != "FIRST VALUE!" {
					t.Errorf("second batch: %+v", records)
				}
			})
		}
	}
}

// TestRecordsKept: markers of transactions and empty batches stay as they are, a batch cut short at the end is left out.
func TestRecordsKept(t *testing.T) {
	marker := batch(t, []sample{{[]byte{0, 0, 0, 1}, []byte{0, 0, 0, 0, 0, 9}, nil}}, compressNone, false, 0x30)
	empty := batch(t, nil, compressNone, false, 0)
	whole := append(bytes.Clone(marker), empty...)
	out, err := rewriteRecords(append(bytes.Clone(whole), marker[:40]...), false, shout)
	if err != nil || !bytes.Equal(out, whole) {
		t.Errorf("%x, %v\nwant %x", out, err, whole)
	}
	if _, err := rewriteRecords(append(bytes.Clone(whole), marker[:40]...), true, shout); !errors.Is(err, ErrMessage) {
		t.Errorf("cut short: %v", err)
	}
}

// TestRecordsRefused: nothing that was not understood passes.
func TestRecordsRefused(t *testing.T) {
	good := batch(t, samples(), compressNone, false, 0)
	change := func(f func(b []byte)) []byte {
		b := bytes.Clone(good)
		f(b)
		return b
	}
	bomb := batch(t, []sample{{nil, make([]byte, maxRecords), nil}}, compressZstd, false, 0)
	for name, b := range map[string][]byte{
		"checksum":         change(func(b []byte) { b[len(b)-1]++ }),
		"magic 1":          change(func(b []byte) { b[16] = 1 }),
		"length":           change(func(b []byte) { binary.BigEndian.PutUint32(b[8:], 20) }),
		"negative":         change(func(b []byte) { binary.BigEndian.PutUint32(b[8:], 0xfffffff0) }),
		"more records":     resum(change(func(b []byte) { binary.BigEndian.PutUint32(b[57:], 5) })),
		"fewer records":    resum(change(func(b []byte) { binary.BigEndian.PutUint32(b[57:], 3) })),
		"negative records": resum(change(func(b []byte) { binary.BigEndian.PutUint32(b[57:], 0xffffffff) })),
		"compression 5":    resum(change(func(b []byte) { b[22] = 5 })),
		"not gzip":         resum(change(func(b []byte) { b[22] = compressGzip })),
		"bomb":             bomb,
		"bomb, gzip":       batch(t, []sample{{nil, make([]byte, maxRecords), nil}}, compressGzip, false, 0),
		"bomb, snappy":     batch(t, []sample{{nil, make([]byte, maxRecords), nil}}, compressSnappy, true, 0),
	} {
		if _, err := rewriteRecords(b, true, shout); !errors.Is(err, ErrMessage) && !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := rewriteRecords(batch(t, []sample{{nil, []byte("v"), nil}}, 0, false, 0), true, func([]byte) ([]byte, error) { return make([]byte, MaxMessage), nil }); !errors.Is(err, ErrRefused) {
		t.Errorf("grown too long: %v", err)
	}
}

// TestEnvelopeVectors holds envelopes against those of the notes.
func TestEnvelopeVectors(t *testing.T) {
	raw, err := os.ReadFile("../../docs/protocol/vectors/03-kafka.json")
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		Envelope []struct {
			Address string `json:"decryptor_address"`
			Content string `json:"content_hex"`
			Hex     string `json:"hex"`
			Field   string `json:"field_mode_json_string"`
		} `json:"envelope"`
		Versions map[string][2]int16 `json:"api_versions"`
	}
	if err := json.Unmarshal(raw, &v); err != nil || len(v.Envelope) == 0 {
		t.Fatalf("%d envelopes, %v", len(v.Envelope), err)
	}
	for _, e := range v.Envelope {
		content, _ := hex.DecodeString(e.Content)
		want, _ := hex.DecodeString(e.Hex)
		if got := appendEnvelope(nil, e.Address, content); !bytes.Equal(got, want) {
			t.Errorf("%x\nwant %x", got, want)
		}
		address, back, err := parseEnvelope(want)
		if err != nil || address != e.Address || !bytes.Equal(back, content) {
			t.Errorf("%q, %x, %v", address, back, err)
		}
		field, err := encryptField(func([]byte) (string, []byte, error) { return e.Address, content, nil }, json.RawMessage(`{"a": 1}`))
		if err != nil || string(field) != `"`+e.Field+`"` {
			t.Errorf("%s, %v", field, err)
		}
	}
	// The last versions are the reference's; the first ones are later here, see spans.
	if spans[keyProduce].max != v.Versions["Produce"][1] || spans[keyFetch].max != v.Versions["Fetch"][1] {
		t.Errorf("versions %v, the reference's %v", spans, v.Versions)
	}
}

func TestEnvelopeRefused(t *testing.T) {
	for _, text := range []string{"", "82", "8282", "828200", "82820044616263", "828201446d6f636b80", "828200446d6f636b", "828200446d6f636b8101ff", "828200446d6f636b8218",
		"828200446d6f636b8118", "828200446d6f636b9a7fffffff01", "828200446d6f636b9f01", "828200446d6f636b811901ff", "828200446d6f636b4101", "68656c6c6f"} {
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := parseEnvelope(b); !errors.Is(err, ErrEnvelope) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if address, content, err := parseEnvelope([]byte("\x82\x82\x00\x41a\x9f\x01\x18\x20\xff")); err != nil || address != "a" || string(content) != "\x01\x20" {
		t.Errorf("endless array: %q, %x, %v", address, content, err)
	}
}

func TestFields(t *testing.T) {
	seal := func(v []byte) (string, []byte, error) { return "addr", append([]byte("sealed "), v...), nil }
	value := []byte(` {"name":"<Ann>","salary": 12345678901234567890.50, "nested":{"b":[1, 2],"a":null},"open":true}`)
	names := []string{"salary", "nested", "missing"}
	out, err := rewriteFields(value, names, func(f json.RawMessage) (json.RawMessage, error) { return encryptField(seal, f) })
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(out), "12345678901234567890") || !strings.Contains(string(out), `"name":"<Ann>"`) || strings.Contains(string(out), "missing") {
		t.Errorf("%s", out)
	}
	back, err := rewriteFields(out, names, func(f json.RawMessage) (json.RawMessage, error) {
		return decryptField(func(_ string, c []byte) ([]byte, error) { return bytes.TrimPrefix(c, []byte("sealed ")), nil }, f)
	})
	if want := `{"name":"<Ann>","nested":{"b":[1,2],"a":null},"open":true,"salary":12345678901234567890.50}`; err != nil || string(back) != want {
		t.Errorf("%s, %v\nwant %s", back, err, want)
	}
	for _, bad := range []string{"", "null", "[1]", `"text"`, "12", "{", `{"a":1}x`} {
		if _, err := rewriteFields([]byte(bad), names, nil); !errors.Is(err, ErrRefused) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for _, bad := range []string{`1`, `"zz"`, `"00"`} {
		if _, err := decryptField(func(string, []byte) ([]byte, error) { return nil, nil }, json.RawMessage(bad)); !errors.Is(err, ErrEnvelope) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
