package cborhead

import (
	"bytes"
	"errors"
	"math"
	"testing"
)

// The forms of RFC 8949 §3 and appendix A.
func TestForms(t *testing.T) {
	for _, c := range []struct {
		major byte
		n     uint64
		want  []byte
	}{
		{Uint, 0, []byte{0x00}},
		{Uint, 23, []byte{0x17}},
		{Uint, 24, []byte{0x18, 24}},
		{Uint, 255, []byte{0x18, 0xff}},
		{Uint, 256, []byte{0x19, 1, 0}},
		{Uint, 65535, []byte{0x19, 0xff, 0xff}},
		{Uint, 65536, []byte{0x1a, 0, 1, 0, 0}},
		{Uint, math.MaxUint32, []byte{0x1a, 0xff, 0xff, 0xff, 0xff}},
		{Uint, 1 << 32, []byte{0x1b, 0, 0, 0, 1, 0, 0, 0, 0}},
		{Uint, math.MaxUint64, []byte{0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}},
		{Negative, 499, []byte{0x39, 0x01, 0xf3}}, // -500
		{Bytes, 4, []byte{0x44}},
		{Text, 0, []byte{0x60}},
		{Array, 25, []byte{0x98, 0x19}},
		{Map, 5, []byte{0xa5}},
		{Tag, 32, []byte{0xd8, 0x20}},
		{Simple, 22, []byte{0xf6}}, // null
	} {
		got := Append([]byte{1}, c.major, c.n)
		if !bytes.Equal(got[1:], c.want) || got[0] != 1 || Len(c.n) != len(c.want) {
			t.Errorf("%d of type %#x: % x, length %d, want % x", c.n, c.major, got[1:], Len(c.n), c.want)
		}
		h, size, err := Read(append(got[1:], 0x55))
		if err != nil || size != len(c.want) || h.Major != c.major || h.N != c.n || h.Indefinite || h.Info != c.want[0]&0x1f {
			t.Errorf("% x read as %+v, length %d, %v", c.want, h, size, err)
		}
		for cut := range c.want {
			if _, _, err := Read(c.want[:cut]); !errors.Is(err, ErrShort) {
				t.Errorf("% x cut to %d: %v", c.want, cut, err)
			}
		}
	}
	for _, b := range []byte{0x5f, 0x7f, 0x9f, 0xbf, Break} {
		if h, size, err := Read([]byte{b}); err != nil || size != 1 || !h.Indefinite || h.Major != b&0xe0 {
			t.Errorf("%#x: %+v, %d, %v", b, h, size, err)
		}
	}
	for b, item := range map[byte]bool{0x5f: true, 0x7f: true, 0x9f: true, 0xbf: true, 0x1f: false, 0x3f: false, 0xdf: false, Break: false} {
		if _, _, err := ReadItem([]byte{b}); (err == nil) != item || !item && !errors.Is(err, ErrReserved) {
			t.Errorf("%#x begins an item: %v, want %v", b, err, item)
		}
		if _, _, ok := Definite([]byte{b}, b&0xe0); ok {
			t.Errorf("%#x is definite", b)
		}
	}
	if n, rest, ok := Definite([]byte{0x18, 99, 7}, Uint); !ok || n != 99 || !bytes.Equal(rest, []byte{7}) {
		t.Errorf("99 and 7: %d, % x, %v", n, rest, ok)
	}
	if _, _, ok := Definite([]byte{0x18, 99}, Bytes); ok {
		t.Error("a number is taken for bytes")
	}
	for _, info := range []byte{28, 29, 30} {
		if _, _, err := Read([]byte{Array | info, 0, 0}); !errors.Is(err, ErrReserved) {
			t.Errorf("information %d: %v", info, err)
		}
	}
	// A number may be longer than it needs.
	if h, size, err := Read([]byte{0x1b, 0, 0, 0, 0, 0, 0, 0, 1}); err != nil || h.N != 1 || size != 9 {
		t.Errorf("a long form of 1: %+v, %d, %v", h, size, err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte{0x1b, 0, 0, 0, 1, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, size, err := Read(b)
		if err != nil {
			return
		}
		if size < 1 || size > len(b) {
			t.Fatalf("length %d of %d", size, len(b))
		}
		short := Append(nil, h.Major, h.N)
		if again, n, err := Read(short); !h.Indefinite && (err != nil || n != len(short) || n > size || again.N != h.N || again.Major != h.Major) {
			t.Fatalf("% x: %+v, then %+v, %v", b, h, again, err)
		}
	})
}
