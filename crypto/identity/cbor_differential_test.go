package identity

import (
	"bytes"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
)

// FuzzCBORReader holds the reader of signed objects against a library: what is signed must not mean one thing here and another elsewhere. An
// item that the library takes ends at the same byte here, and numbers, byte strings and arrays are the same.
func FuzzCBORReader(f *testing.F) {
	for _, b := range [][]byte{
		{0x00}, {0x18, 0x18}, {0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, {0x58, 2, 1, 2}, {0x5f, 0x41, 1, 0xff}, {0x82, 1, 0x41, 2}, {0x9f, 1, 2, 0xff},
		{0xa1, 1, 2}, {0xbf, 1, 2, 0xff}, {0xc1, 0x18, 0x64}, {0xf4}, {0xf6}, {0xfb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0}, {0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
	} {
		f.Add(b)
	}
	library, err := cbor.DecOptions{
		MaxNestedLevels: 4 * maxDepth, UTF8: cbor.UTF8DecodeInvalid, IndefLength: cbor.IndefLengthAllowed, TagsMd: cbor.TagsAllowed,
		MaxArrayElements: 1 << 20, MaxMapPairs: 1 << 20,
	}.DecMode()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<16 {
			return
		}
		var item cbor.RawMessage
		rest, theirs := library.UnmarshalFirst(b, &item)
		if theirs != nil {
			return
		}
		r := reader{b: b}
		r.skip()
		switch {
		case r.err != nil && strings.Contains(r.err.Error(), "too deeply"):
			return
		case r.err != nil:
			t.Fatalf("%x: the library reads an item of %d bytes, here: %v", b, len(item), r.err)
		case r.at != len(b)-len(rest):
			t.Fatalf("%x: the item ends at %d for the library, and at %d here", b, len(b)-len(rest), r.at)
		}
		var n uint64
		if u := (reader{b: b}); library.Unmarshal(item, &n) == nil && b[0]>>5 == 0 {
			if got := u.uint(^uint64(0)); u.err != nil || got != n {
				t.Fatalf("%x: %d for the library, %d here, %v", b, n, got, u.err)
			}
		}
		var data []byte
		if u := (reader{b: b}); b[0]>>5 == 2 && b[0] != 0x5f && library.Unmarshal(item, &data) == nil {
			if got := u.bytes(-1); u.err != nil || !bytes.Equal(got, data) {
				t.Fatalf("%x: %x for the library, %x here, %v", b, data, got, u.err)
			}
		}
		var list []cbor.RawMessage
		if u := (reader{b: b}); b[0]>>5 == 4 && library.Unmarshal(item, &list) == nil {
			var got [][]byte
			u.array(func(int) { got = append(got, u.raw()) })
			same := u.err == nil && len(got) == len(list)
			for i := 0; same && i < len(list); i++ {
				same = bytes.Equal(got[i], list[i])
			}
			if !same {
				t.Fatalf("%x: %d items for the library, %d here, %v", b, len(list), len(got), u.err)
			}
		}
	})
}
