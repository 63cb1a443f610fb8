package routing

import (
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
)

// FuzzSkipItem holds this package's CBOR reader against a library: an item that the library takes is taken here too and ends at the same byte,
// unless it is nested more deeply than is read here. What the library refuses beyond that (chunks of another type, short forms of simple values)
// may be skipped here: nothing is made of it.
func FuzzSkipItem(f *testing.F) {
	for _, c := range captures(f) {
		f.Add(c.body)
	}
	for _, text := range []string{"9f9f9f004161ff8200416200ffff9fff40ff", "a201020304", "bf01ff", "c1fb3ff0000000000000", "5f414141ff", "7f6161ff", "f97e00", "f8ff", "1bffffffffffffffff",
		"9bffffffffffffffff", "5b7fffffffffffffff00", "d9d9f7820102", "818181818181818181818181818181818181818100"} {
		f.Add(unhex(f, text))
	}
	library, err := cbor.DecOptions{
		MaxNestedLevels: 4 * maxSkipDepth, UTF8: cbor.UTF8DecodeInvalid, IndefLength: cbor.IndefLengthAllowed, TagsMd: cbor.TagsAllowed,
		MaxArrayElements: 1 << 20, MaxMapPairs: 1 << 20,
	}.DecMode()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<16 {
			return
		}
		end, ours := SkipItem(b, 0)
		var item cbor.RawMessage
		rest, theirs := library.UnmarshalFirst(b, &item)
		if theirs != nil {
			return
		}
		switch {
		case ours != nil && strings.Contains(ours.Error(), "too deeply"):
		case ours != nil:
			t.Fatalf("%x: the library reads an item of %d bytes, here: %v", b, len(item), ours)
		case end != len(b)-len(rest):
			t.Fatalf("%x: the item ends at %d for the library, and at %d here", b, len(b)-len(rest), end)
		}
	})
}
