package bare

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
)

type vectors struct {
	Uleb128 []struct{ Value, Hex string } `json:"uleb128"`
	Varint  []struct {
		Value uint64 `json:"value"`
		Hex   string `json:"hex"`
	} `json:"bare_varint"`
	Invalid []string `json:"bare_varint_invalid"`
}

func load(t testing.TB, name string) (v vectors) {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestUvarintVectors(t *testing.T) {
	type pair struct {
		value uint64
		hex   string
	}
	var all []pair
	for _, v := range load(t, "03-portal-messages.json").Uleb128 {
		n, err := strconv.ParseUint(v.Value, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, pair{n, v.Hex})
	}
	first := load(t, "01-transport-routing-api.json")
	for _, v := range first.Varint {
		all = append(all, pair{v.Value, v.Hex})
	}
	if len(all) < 20 {
		t.Fatalf("only %d vectors", len(all))
	}
	for _, p := range all {
		want := unhex(t, p.hex)
		if got := AppendUvarint(nil, p.value); !bytes.Equal(got, want) {
			t.Errorf("AppendUvarint(%d) = %x, want %x", p.value, got, want)
		}
		if got := UvarintSize(p.value); got != len(want) {
			t.Errorf("UvarintSize(%d) = %d, want %d", p.value, got, len(want))
		}
		v, n, err := Uvarint(append(want, 0xff))
		if v != p.value || n != len(want) || err != nil {
			t.Errorf("Uvarint(%x) = %d, %d, %v", want, v, n, err)
		}
	}
	if len(first.Invalid) == 0 {
		t.Fatal("no invalid vectors")
	}
	for _, s := range first.Invalid {
		if v, n, err := Uvarint(unhex(t, s)); !errors.Is(err, ErrMalformed) || v != 0 || n != 0 {
			t.Errorf("Uvarint(%s) = %d, %d, %v", s, v, n, err)
		}
	}
}

func TestUvarintRules(t *testing.T) {
	for in, want := range map[string]struct {
		v  uint64
		n  int
		ok bool
	}{
		"":                       {},
		"80":                     {},
		"ffffffffffffffffff":     {},
		"8000":                   {0, 2, true}, // not minimal, accepted
		"80808080808080808001":   {1 << 63, 10, true},
		"80808080808080808000":   {}, // the tenth byte must be 1
		"8080808080808080808001": {},
	} {
		v, n, err := Uvarint(unhex(t, in))
		if v != want.v || n != want.n || (err == nil) != want.ok {
			t.Errorf("Uvarint(%q) = %d, %d, %v", in, v, n, err)
		}
	}
}

func TestData(t *testing.T) {
	if got := AppendString(nil, "hello"); hex.EncodeToString(got) != "0568656c6c6f" {
		t.Errorf("AppendString(hello) = %x", got)
	}
	long := strings.Repeat("a", 200)
	got := AppendString(nil, long)
	if hex.EncodeToString(got[:3]) != "c80161" || !bytes.Equal(got, AppendBytes(nil, []byte(long))) {
		t.Errorf("200 bytes: %x", got[:3])
	}
	data, n, err := Bytes(append(got, 7))
	if string(data) != long || n != len(got) || err != nil {
		t.Errorf("Bytes: %d bytes, n %d, %v", len(data), n, err)
	}
	if cap(data) != len(data) {
		t.Error("an append to the result would overwrite what follows")
	}
	for _, in := range []string{"", "01", "0561", "ffffffffffffffffff01", "ffffffff0f61"} {
		if data, n, err := Bytes(unhex(t, in)); !errors.Is(err, ErrMalformed) || data != nil || n != 0 {
			t.Errorf("Bytes(%q) = %x, %d, %v", in, data, n, err)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	buffer := make([]byte, 0, 64)
	if n := testing.AllocsPerRun(100, func() {
		b := AppendString(AppendUvarint(buffer, 1<<40), "text")
		_, k, err := Uvarint(b)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err = Bytes(b[k:]); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzUvarint holds the decoder against the standard library's, which follows the same rules but for the tenth byte.
func FuzzUvarint(f *testing.F) {
	v := load(f, "01-transport-routing-api.json")
	for _, x := range v.Varint {
		f.Add(unhex(f, x.Hex))
	}
	for _, x := range v.Invalid {
		f.Add(unhex(f, x))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, n, err := Uvarint(b)
		want, k := binary.Uvarint(b)
		if k == MaxVarint && b[9] == 0 {
			k = 0
		}
		if (k > 0) != (err == nil) {
			t.Fatalf("Uvarint(%x) = %d, %d, %v; standard library %d, %d", b, v, n, err, want, k)
		}
		if err != nil {
			return
		}
		if v != want || n != k {
			t.Fatalf("Uvarint(%x) = %d, %d; standard library %d, %d", b, v, n, want, k)
		}
		data, end, err := Bytes(b)
		if (err == nil) != (v <= uint64(len(b)-n)) {
			t.Fatalf("Bytes(%x): %v", b, err)
		}
		if err == nil && (uint64(len(data)) != v || end != n+len(data)) {
			t.Fatalf("Bytes(%x) = %x, %d", b, data, end)
		}
	})
}
