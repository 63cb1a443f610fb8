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
	"math"
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

func shout(r record) ([]byte, error) { return append(bytes.ToUpper(r.value), '!'), nil }

// limited is a limit that is not reached.
const limited = 1 << 20

func TestRecords(t *testing.T) {
	for kind, name := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		for _, java := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s java=%v", name, java), func(t *testing.T) {
				list := samples()
				one, two := batch(t, list, kind, java, 0x10), batch(t, list[:1], compressNone, false, 0)
				out, err := rewriteRecords(append(bytes.Clone(one), two...), true, limited, shout)
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
	out, err := rewriteRecords(append(bytes.Clone(whole), marker[:40]...), false, limited, shout)
	if err != nil || !bytes.Equal(out, whole) {
		t.Errorf("%x, %v\nwant %x", out, err, whole)
	}
	if _, err := rewriteRecords(append(bytes.Clone(empty), empty[:40]...), true, limited, shout); !errors.Is(err, ErrMessage) {
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
	bomb := batch(t, []sample{{nil, make([]byte, limited), nil}}, compressZstd, false, 0)
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
		"bomb, gzip":       batch(t, []sample{{nil, make([]byte, limited), nil}}, compressGzip, false, 0),
		"bomb, snappy":     batch(t, []sample{{nil, make([]byte, limited), nil}}, compressSnappy, true, 0),
	} {
		out, err := rewriteRecords(append(bytes.Clone(good), b...), true, 2*limited, shout)
		if strings.HasPrefix(name, "bomb") {
			out, err = rewriteRecords(append(bytes.Clone(good), b...), true, limited, shout)
			if !errors.Is(err, ErrTooLarge) || produceCode(err) != codeTooLarge {
				t.Errorf("%s: %v", name, err)
			}
		} else if !errors.Is(err, ErrMessage) && !errors.Is(err, ErrRefused) || errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
		if _, records := unbatch(t, out); len(records) != len(samples()) {
			t.Errorf("%s: %d records before the one at fault", name, len(records))
		}
	}
	for _, strict := range []bool{true, false} { // no records at all, which is no reason to look for any
		empty := resum(batch(t, nil, compressNone, false, 0))
		empty[22] |= compressGzip // whose bytes would have to begin with a head of their own
		empty = resum(empty)
		if out, err := rewriteRecords(empty, strict, limited, shout); err != nil || !bytes.Equal(out, empty) {
			t.Errorf("an empty batch: %x, %v", out, err)
		}
	}
	for name, b := range map[string][]byte{
		"marker":                batch(t, samples(), compressNone, false, flagControl),
		"no records, but bytes": resum(append(batch(t, nil, compressNone, false, 0), "in clear"...)),
	} {
		if out, err := rewriteRecords(b, true, limited, shout); err == nil || len(out) > 0 {
			t.Errorf("%s: %q, %v", name, out, err)
		}
	}
	one := batch(t, []sample{{nil, []byte("v"), nil}}, 0, false, 0)
	for size, want := range map[int]error{limited - 100: nil, limited: ErrTooLarge} {
		if _, err := rewriteRecords(one, true, limited, func(record) ([]byte, error) { return make([]byte, size), nil }); !errors.Is(err, want) {
			t.Errorf("grown to %d: %v, want %v", size, err, want)
		}
	}
	// Blocks that are short enough, and together are not.
	list := []sample{{nil, make([]byte, limited/2), nil}, {nil, make([]byte, limited/2), nil}}
	if _, err := decompress(compressSnappy, unbatched(t, batch(t, list, compressSnappy, true, 0)), limited); !errors.Is(err, ErrTooLarge) {
		t.Errorf("blocks of snappy: %v", err)
	}
	if _, err := decompress(compressSnappy, unbatched(t, batch(t, list, compressSnappy, true, 0)), 2*limited); err != nil {
		t.Errorf("blocks of snappy: %v", err)
	}
}

// TestRecordCutShort: a record that ends before its value does is refused, wherever that is, and so is one that says to be longer than what there is.
func TestRecordCutShort(t *testing.T) {
	body := []byte{0, 2, 4, 6, 'k', 'e', 'y', 10, 'v', 'a', 'l', 'u', 'e', 0}
	encoded := func(length int, body []byte) *reader {
		return &reader{b: append(binary.AppendVarint(nil, int64(length)), body...)}
	}
	same := func(r record) ([]byte, error) { return r.value, nil }
	whole := encoded(len(body), body).b
	if out, err := appendRecord(nil, encoded(len(body), body), limited, same); err != nil || !bytes.Equal(out, whole) {
		t.Errorf("the whole: %x, %v", out, err)
	}
	for cut := range body[:len(body)-1] { // without the number of its headers it is the client's to refuse
		if out, err := appendRecord(nil, encoded(cut, body[:cut]), limited, same); !errors.Is(err, ErrMessage) || len(out) > 0 {
			t.Errorf("cut to %d bytes: %x, %v", cut, out, err)
		}
		if out, err := appendRecord(nil, encoded(len(body), body[:cut]), limited, same); !errors.Is(err, ErrMessage) || len(out) > 0 {
			t.Errorf("%d bytes of %d: %x, %v", cut, len(body), out, err)
		}
	}
	for _, length := range []int{-1, len(body) + 1, math.MaxInt} {
		if out, err := appendRecord(nil, encoded(length, body), limited, same); !errors.Is(err, ErrMessage) || len(out) > 0 {
			t.Errorf("%d bytes long: %x, %v", length, out, err)
		}
	}
	worse := bytes.Clone(body)
	worse[7] = 3 // a value of -2 bytes
	if out, err := appendRecord(nil, encoded(len(worse), worse), limited, same); !errors.Is(err, ErrMessage) || len(out) > 0 {
		t.Errorf("a negative value: %x, %v", out, err)
	}
}

// unbatched returns the compressed records of a batch.
func unbatched(t *testing.T, raw []byte) []byte {
	t.Helper()
	var b kmsg.RecordBatch
	if err := b.ReadFrom(raw); err != nil {
		t.Fatal(err)
	}
	return b.Records
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
		if size := envelopeSize(e.Address, content); size < len(want) || size > len(want)+16 {
			t.Errorf("size %d of %d", size, len(want))
		}
		if got := appendEnvelope(nil, e.Address, content); !bytes.Equal(got, want) {
			t.Errorf("%x\nwant %x", got, want)
		}
		back, err := parseEnvelope(want)
		if err != nil || back.address != e.Address || back.bound || !bytes.Equal(back.ciphertext, content) {
			t.Errorf("%+v, %v", back, err)
		}
		field, err := encryptField(func([]byte) ([]byte, error) { return want, nil }, json.RawMessage(`{"a": 1}`))
		if err != nil || string(field) != `"`+e.Field+`"` {
			t.Errorf("%s, %v", field, err)
		}
	}
	// The reference's inlets ask for no later version than ours offer.
	if spans[keyProduce].max < v.Versions["Produce"][1] || spans[keyFetch].max < v.Versions["Fetch"][1] {
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
		if _, err := parseEnvelope(b); !errors.Is(err, ErrEnvelope) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if e, err := parseEnvelope([]byte("\x82\x82\x00\x41a\x9f\x01\x18\x20\xff")); err != nil || e.address != "a" || string(e.ciphertext) != "\x01\x20" {
		t.Errorf("endless array: %+v, %v", e, err)
	}
	// A head that promises fewer bytes than follow, and one that promises more.
	long := appendEnvelope(nil, strings.Repeat("a", maxAddress+1), []byte("content"))
	if _, err := parseEnvelope(long); !errors.Is(err, ErrEnvelope) {
		t.Errorf("a long address: %v", err)
	}
	if e, err := parseEnvelope(appendEnvelope(nil, strings.Repeat("a", maxAddress), []byte("content"))); err != nil || len(e.address) != maxAddress {
		t.Errorf("an address that is long enough: %v", err)
	}
	for _, text := range []string{"82820041618101" + "02", "8282004161820118"} {
		b, _ := hex.DecodeString(text)
		if _, err := parseEnvelope(b); !errors.Is(err, ErrEnvelope) {
			t.Errorf("%s: %v", text, err)
		}
	}
	bound := appendBoundEnvelope(nil, "a", []byte("content"))
	if e, err := parseEnvelope(bound); err != nil || !e.bound || e.address != "a" || string(e.ciphertext) != "content" {
		t.Errorf("bound: %+v, %v", e, err)
	}
	for _, b := range [][]byte{bound[:len(bound)-1], append(bytes.Clone(bound), 1), append(bytes.Clone(bound[:len(bound)-1]), bindingForm+1), append([]byte{cborPair}, bound[1:]...)} {
		if _, err := parseEnvelope(b); !errors.Is(err, ErrEnvelope) {
			t.Errorf("%x: %v", b, err)
		}
	}
}

func TestFields(t *testing.T) {
	seal := func(v []byte) ([]byte, error) { return append([]byte("sealed "), v...), nil }
	var asked []string
	value := []byte(` {"name":"<Ann>","salary": 12345678901234567890.50, "nested":{"b":[1, 2],"a":null},"open":true}`)
	names := []string{"salary", "nested", "missing"}
	out, err := rewriteFields(value, names, func(name string, f json.RawMessage) (json.RawMessage, error) {
		asked = append(asked, name)
		return encryptField(seal, f)
	})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(out), "12345678901234567890") || !strings.Contains(string(out), `"name":"<Ann>"`) || strings.Contains(string(out), "missing") {
		t.Errorf("%s", out)
	}
	if fmt.Sprint(asked) != "[salary nested]" {
		t.Errorf("fields asked for: %v", asked)
	}
	back, err := rewriteFields(out, names, func(_ string, f json.RawMessage) (json.RawMessage, error) {
		return decryptField(func(c []byte) ([]byte, error) { return bytes.TrimPrefix(c, []byte("sealed ")), nil }, f)
	})
	if want := `{"name":"<Ann>","nested":{"b":[1,2],"a":null},"open":true,"salary":12345678901234567890.50}`; err != nil || string(back) != want {
		t.Errorf("%s, %v\nwant %s", back, err, want)
	}
	for _, bad := range []string{"", "null", "[1]", `"text"`, "12", "{", `{"a":1}x`} {
		if _, err := rewriteFields([]byte(bad), names, nil); !errors.Is(err, ErrRefused) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for _, bad := range []string{`1`, `"zz"`, `"0"`} {
		if _, err := decryptField(func(b []byte) ([]byte, error) { return []byte("1"), nil }, json.RawMessage(bad)); !errors.Is(err, ErrEnvelope) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := decryptField(func([]byte) ([]byte, error) { return []byte("no JSON"), nil }, json.RawMessage(`"00"`)); !errors.Is(err, ErrRefused) {
		t.Errorf("what is no JSON: %v", err)
	}
}
