package proxyproto

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

var (
	four      = netip.MustParseAddrPort("192.0.2.1:1234")
	fourAlso  = netip.MustParseAddrPort("198.51.100.7:443")
	sixSource = netip.MustParseAddrPort("[2001:db8::1]:65535")
)

// The bytes are those of the protocol's description, section 2.1 and 2.2.
func TestWritten(t *testing.T) {
	for _, c := range []struct {
		v    Version
		h    Header
		want string
	}{
		{V1, Header{Source: four, Destination: fourAlso}, "PROXY TCP4 192.0.2.1 198.51.100.7 1234 443\r\n"},
		{V1, Header{Source: sixSource, Destination: netip.MustParseAddrPort("[::2]:1")}, "PROXY TCP6 2001:db8::1 ::2 65535 1\r\n"},
		{V1, Header{Source: sixSource, Destination: fourAlso}, "PROXY TCP6 2001:db8::1 ::ffff:198.51.100.7 65535 443\r\n"},
		{V1, Header{Source: four}, "PROXY TCP4 192.0.2.1 0.0.0.0 1234 0\r\n"},
		{V1, Header{}, "PROXY UNKNOWN\r\n"},
		{V2, Header{Source: four, Destination: fourAlso}, "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x07\x04\xd2\x01\xbb"},
		{V2, Header{TLVs: []TLV{{TypeIdentifier, []byte("I1")}}}, "\r\n\r\n\x00\r\nQUIT\n\x21\x00\x00\x05\xe0\x00\x02I1"},
		{V2, Header{Local: true, Source: four}, "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"},
	} {
		if got := string(Append(nil, c.v, c.h)); got != c.want {
			t.Errorf("version %d of %+v\n got %q\nwant %q", c.v, c.h, got, c.want)
		}
	}
}

func TestReadBack(t *testing.T) {
	for _, v := range []Version{V1, V2} {
		for _, from := range []netip.AddrPort{four, sixSource} {
			for _, to := range []netip.AddrPort{fourAlso, sixSource} {
				h := Header{Source: from, Destination: to}
				if v == V2 {
					h.TLVs = []TLV{{TypeAttribute, []byte("role=admin")}, {0x05, nil}}
				}
				b := append(Append(nil, v, h), "GET /"...)
				for k := range len(b) - len("GET /") {
					if _, _, err := Parse(b[:k]); !errors.Is(err, ErrShort) {
						t.Fatalf("%q: %v, want ErrShort", b[:k], err)
					}
				}
				got, n, err := Parse(b)
				if err != nil || string(b[n:]) != "GET /" || got.Source != from || got.Destination != to || len(got.TLVs) != len(h.TLVs) {
					t.Fatalf("%q: %+v %d %v", b, got, n, err)
				}
				for i, tlv := range got.TLVs {
					if tlv.Type != h.TLVs[i].Type || !bytes.Equal(tlv.Value, h.TLVs[i].Value) {
						t.Errorf("TLV %d: %+v", i, tlv)
					}
				}
			}
		}
	}
}

func TestRefused(t *testing.T) {
	v2 := func(rest string) string { return "\r\n\r\n\x00\r\nQUIT\n" + rest }
	for _, text := range []string{
		"GET / HTTP/1.1\r\n\r\n", "PROXX", "PROXY TCP4 192.0.2.1 198.51.100.7 1234\r\n", "PROXY TCP4 2001:db8::1 198.51.100.7 1 2\r\n",
		"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", "PROXY TCP4 192.0.2.1 198.51.100.7 1 65536\r\n", "PROXY TCP4 192.0.2.1 198.51.100.7 +1 2\r\n",
		"PROXY UDP4 192.0.2.1 198.51.100.7 1 2\r\n", "PROXY TCP4  192.0.2.1 198.51.100.7 1 2\r\n", "PROXY " + strings.Repeat("x", 200),
		v2("\x11\x11\x00\x00"), v2("\x22\x11\x00\x00"), v2("\x21\x11\x00\x04abcd"), v2("\x21\x11\xff\xff"), v2("\x21\x00\x00\x02\xe0\x00"),
		v2("\x21\x00\x00\x04\xe0\x00\x02x"), v2("\x21\x00\x00\x07\x03\x00\x04abcd"), v2("\x21\x00\x00\x04\x03\x00\x01a"),
	} {
		if h, n, err := Parse([]byte(text)); !errors.Is(err, ErrNone) || n != 0 {
			t.Errorf("%q: %+v, %d, %v", text, h, n, err)
		}
	}
}

// TestUnixSockets: addresses that mean nothing here are skipped, and the TLVs behind them read.
func TestUnixSockets(t *testing.T) {
	b := append([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x31\x00\xdd"), make([]byte, 216)...)
	b = append(b, "\xe0\x00\x02I1"...)
	h, n, err := Parse(b)
	if err != nil || n != len(b) || h.Source.IsValid() || len(h.TLVs) != 1 {
		t.Fatal(h, n, err)
	}
}

func TestTooManyTLVs(t *testing.T) {
	h := Header{Source: four}
	for i := range 1000 {
		h.TLVs = append(h.TLVs, TLV{TypeAttribute, fmt.Appendf(nil, "name%d=%0100d", i, i)})
	}
	b := Append(nil, V2, h)
	if _, n, err := Parse(b); err != nil || n != len(b) || n > maxAppended {
		t.Fatal(n, err)
	}
}

// FuzzParse: nothing panics, what is read is within the bytes, and what is written of it is read again as the same.
func FuzzParse(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.1 198.51.100.7 1234 443\r\n"))
	f.Add(Append(nil, V2, Header{Source: sixSource, Destination: four, TLVs: []TLV{{TypeAttribute, []byte("a=b")}}}))
	f.Add([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x00\x00\x07\x03\x00\x04abcd"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, n, err := Parse(b)
		if err != nil {
			if n != 0 || !errors.Is(err, ErrShort) && !errors.Is(err, ErrNone) {
				t.Fatal(n, err)
			}
			return
		}
		if n <= 0 || n > len(b) {
			t.Fatalf("%d of %d bytes", n, len(b))
		}
		h.TLVs = nil
		for _, v := range []Version{V1, V2} {
			again, _, err := Parse(Append(nil, v, h))
			if err != nil || !h.Local && again.Source != h.Source {
				t.Fatalf("%+v became %+v: %v", h, again, err)
			}
		}
	})
}
