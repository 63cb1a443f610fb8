package multiaddr

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
)

type addrVector struct{ Text, Canonical, Hex, CBOR string }

type inletCase struct {
	To, Via, Result string
	Error           bool
}

type vectors struct {
	Multiaddr []addrVector `json:"multiaddr"`
	Binary    []addrVector `json:"multiaddr_binary_derived"`
	Codes     map[string]struct {
		Code   uint32
		Varint string
	} `json:"multiaddr_codes"`
	Inlet struct {
		DefaultProject string      `json:"default_project"`
		Cases          []inletCase `json:"cases"`
		Quirk          []inletCase `json:"derived_quirk"`
	} `json:"tcp_inlet_to_expansion_from_tests"`
	Node []struct {
		In, Result string
		Error      bool
	} `json:"node_placeholder_from_tests"`
}

func load(t testing.TB) (v vectors) {
	t.Helper()
	for _, name := range []string{"01-transport-routing-api.json", "03-cli-parsing.json"} {
		text, err := os.ReadFile("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &v); err != nil {
			t.Fatal(name, err)
		}
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

func TestVectors(t *testing.T) {
	all := load(t)
	if len(all.Multiaddr) < 7 || len(all.Binary) < 5 {
		t.Fatal("vectors missing")
	}
	for _, v := range append(all.Multiaddr, all.Binary...) {
		a, err := Parse(v.Text)
		if err != nil {
			t.Error(err)
			continue
		}
		want := v.Text
		if v.Canonical != "" {
			want = v.Canonical
		}
		if a.String() != want {
			t.Errorf("%s prints as %s", want, a)
		}
		b, err := a.Bytes()
		if err != nil || hex.EncodeToString(b) != v.Hex {
			t.Errorf("%s: %x, %v; want %s", want, b, err, v.Hex)
		}
		back, err := FromBytes(b)
		if err != nil || !slices.Equal(back, a) {
			t.Errorf("%s: FromBytes = %v, %v", want, back, err)
		}
		coded, err := cbor.Marshal(a)
		if err != nil || (v.CBOR != "" && hex.EncodeToString(coded) != v.CBOR) {
			t.Errorf("%s: CBOR %x, %v; want %s", want, coded, err, v.CBOR)
		}
		var fromCBOR, fromJSON Addr
		if err := cbor.Unmarshal(coded, &fromCBOR); err != nil || !slices.Equal(fromCBOR, a) {
			t.Errorf("%s: from CBOR %v, %v", want, fromCBOR, err)
		}
		text, err := json.Marshal(map[string]Addr{"a": a})
		if err != nil || string(text) != `{"a":"`+want+`"}` {
			t.Errorf("%s: JSON %s, %v", want, text, err)
		}
		if err := json.Unmarshal([]byte(`"`+v.Text+`"`), &fromJSON); err != nil || !slices.Equal(fromJSON, a) {
			t.Errorf("%s: from JSON %v, %v", want, fromJSON, err)
		}
	}
	for name, c := range all.Codes {
		p, known := protocolByName(name)
		if !known || uint32(p) != c.Code || p.String() != name {
			t.Errorf("%s: %d, want %d", name, p, c.Code)
		}
	}
	if len(all.Codes) != 11 {
		t.Errorf("%d codes", len(all.Codes))
	}
}

func TestParseRules(t *testing.T) {
	for in, want := range map[string]string{
		"service/echo":           "/service/echo", // the first slash may be missing
		"/service":               "/service",
		"/ip4/127.0.0.1/tcp/080": "/ip4/127.0.0.1/tcp/80",
		"/ip6/0:0::1/tcp/0":      "/ip6/::1/tcp/0",
		"/service/self":          "/service/self",
		"/tcp/65535":             "/tcp/65535",
		"/service/a b#ü":         "/service/a b#ü",
	} {
		a, err := Parse(in)
		if err != nil || a.String() != want {
			t.Errorf("Parse(%q) = %q, %v; want %q", in, a, err, want)
		}
	}
	for in, want := range map[string]struct {
		offset int
		err    error
	}{
		"":                          {0, ErrEmpty},
		"/":                         {1, ErrSlash},
		"//service/a":               {1, ErrSlash},
		"/service/a/":               {11, ErrSlash},
		"/service//secure/api":      {9, ErrSlash},
		"/service/":                 {9, ErrSlash},
		"/alice/service":            {1, ErrUnknownProtocol},
		"/service/a/bob/c":          {11, ErrUnknownProtocol},
		"/tcp":                      {1, ErrMissingValue},
		"/dnsaddr/h/tcp":            {11, ErrMissingValue},
		"/tcp/65536":                {5, ErrInvalidValue},
		"/tcp/-1":                   {5, ErrInvalidValue},
		"/tcp/+1":                   {5, ErrInvalidValue},
		"/udp/x":                    {5, ErrInvalidValue},
		"/ip4/::1":                  {5, ErrInvalidValue},
		"/ip4/127.0.0.256/tcp/1":    {5, ErrInvalidValue},
		"/ip6/127.0.0.1":            {5, ErrInvalidValue},
		"/ip6/fe80::1%eth0/tcp/1":   {5, ErrInvalidValue},
		"/Service/a":                {1, ErrUnknownProtocol},
		"/service/\xff":             {9, ErrInvalidValue},
		"/dnsaddr/h/tcp/1/service/": {25, ErrSlash},
		// What may not stand in a request.
		"/ws/http-path/p%0d%0aX-Evil:%201": {14, ErrInvalidValue},
		"/ws/http-path/a%09b":              {14, ErrInvalidValue},
		"/ws/http-path/a%7fb":              {14, ErrInvalidValue},
		"/ws/http-path/a\nb":               {14, ErrInvalidValue},
		"/ws/sni/a\r\nX-Evil: 1":           {8, ErrInvalidValue},
		"/ws/sni/a b":                      {8, ErrInvalidValue},
		"/ws/sni/a\x7fb":                   {8, ErrInvalidValue},
		"/ws/sni/a?b":                      {8, ErrInvalidValue},
		"/dnsaddr/a\r\nX-Evil: 1/tcp/1":    {9, ErrInvalidValue},
		"/dnsaddr/a b/tcp/1":               {9, ErrInvalidValue},
		"/dnsaddr/user@a/tcp/1":            {9, ErrInvalidValue},
	} {
		a, err := Parse(in)
		var e *Error
		if a != nil || !errors.As(err, &e) || !errors.Is(err, want.err) || e.Offset != want.offset || e.Input != in {
			t.Errorf("Parse(%q) = %v, %v; want %v at %d", in, a, err, want.err, want.offset)
		}
	}
}

func TestBinaryRules(t *testing.T) {
	for in, want := range map[string]struct {
		offset int
		err    error
	}{
		"80":                         {0, ErrTruncated},
		"8600":                       {0, ErrVarint}, // tcp, not minimal
		"8000":                       {0, ErrVarint},
		"ffffffff1f":                 {0, ErrVarint}, // more than 32 bits
		"80808080808001":             {0, ErrVarint}, // more than 5 bytes
		"05":                         {0, ErrUnknownProtocol},
		"06":                         {0, ErrTruncated},
		"0601":                       {0, ErrTruncated},
		"060001047f0000":             {3, ErrTruncated},
		"29" + "000102":              {0, ErrTruncated},
		"bee803":                     {0, ErrTruncated},
		"bee80302":                   {0, ErrTruncated},
		"bee803026f":                 {0, ErrTruncated},
		"bee803816100":               {0, ErrTruncated}, // 12417 bytes
		"bee8038100":                 {0, ErrVarint},    // length not minimal
		"bee80301ff":                 {0, ErrInvalidValue},
		"bee80303612f62":             {0, ErrInvalidValue}, // a slash would change the address when printed
		"bee803ffffffffffffffffff01": {0, ErrTruncated},
		"e10303610d0a":               {0, ErrInvalidValue}, // http-path a CR LF
		"c10303610d0a":               {0, ErrInvalidValue}, // sni
		"3803612062":                 {0, ErrInvalidValue}, // dnsaddr "a b"
	} {
		a, err := FromBytes(unhex(t, in))
		var e *Error
		if a != nil || !errors.As(err, &e) || !errors.Is(err, want.err) || e.Offset != want.offset {
			t.Errorf("FromBytes(%s) = %v, %v; want %v at %d", in, a, err, want.err, want.offset)
		}
	}
	if a, err := FromBytes(nil); a != nil || err != nil {
		t.Errorf("empty: %v, %v", a, err)
	}
	for _, in := range []string{"", "f6", "8104", "6120", "41", "4205", "5f4104ff", "a0", "4105"} {
		var a Addr
		if err := a.UnmarshalCBOR(unhex(t, in)); err == nil {
			t.Errorf("CBOR %s = %v", in, a)
		}
	}
	for _, a := range []Addr{{{TCP, "x"}}, {{Service, "a/b"}}, {{99, "a"}}, {{IP4, "::1"}}, {{IP6, "1.2.3.4"}}, {{HTTPPath, "a%0Ab"}}, {{SNI, "a\nb"}}} {
		if b, err := a.Bytes(); err == nil {
			t.Errorf("%v encodes as %x", a, b)
		}
		if b, err := json.Marshal(a); err == nil {
			t.Errorf("%v encodes as %s", a, b)
		}
	}
}

// TestBracketsInHost: an IPv6 address in brackets is meant as one where a host's name may stand; other brackets are left as they are.
func TestBracketsInHost(t *testing.T) {
	for in, want := range map[string]string{
		"/dnsaddr/[::1]/tcp/4000/service/echo": "[::1]:4000",
		"/dnsaddr/::1/tcp/4000":                "[::1]:4000",
		"/dnsaddr/[fe80::1%eth0]/udp/53":       "[fe80::1%eth0]:53",
		"/dnsaddr/[127.0.0.1]/tcp/4000":        "[127.0.0.1]:4000",
		"/dnsaddr/[relay]/tcp/4000":            "[relay]:4000",
		"/dnsaddr/[::1/tcp/4000":               "[[::1]:4000",
		"/dnsaddr/::1]/tcp/4000":               "[::1]]:4000",
		"/dnsaddr/[]/tcp/4000":                 "[]:4000",
	} {
		a, err := Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		if _, address, _, ok := a.HostPort(); !ok || address != want {
			t.Errorf("%s: %s, not %s", in, address, want)
		}
	}
}

func TestHostPort(t *testing.T) {
	for in, want := range map[string]struct {
		network, address string
		at               int
	}{
		"/dnsaddr/localhost/tcp/4000/service/echo": {"tcp", "localhost:4000", 0},
		"/service/a/ip4/1.2.3.4/udp/5":             {"udp", "1.2.3.4:5", 1},
		"/ip6/::1/tcp/53":                          {"tcp", "[::1]:53", 0},
		"/ip4/1.2.3.4/service/a":                   {},
		"/tcp/4000":                                {},
		"/service/a":                               {},
	} {
		a, err := Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		network, address, at, ok := a.HostPort()
		if network != want.network || address != want.address || at != want.at || ok != (want.address != "") {
			t.Errorf("%s: %s %s %d %v", in, network, address, at, ok)
		}
		if !ok {
			continue
		}
		back, err := FromHostPort(network, address)
		if err != nil || !slices.Equal(back, a[at:at+2]) {
			t.Errorf("FromHostPort(%s, %s) = %v, %v", network, address, back, err)
		}
	}
	if _, _, _, ok := (Addr{{DNSAddr, ""}, {TCP, "1"}}).HostPort(); ok {
		t.Error("an empty host was accepted")
	}
	for _, in := range [][2]string{{"tcp", "h"}, {"tcp", ":1"}, {"unix", "h:1"}, {"tcp", "h:99999"}, {"tcp", "a/b:1"}, {"service", "h:1"}} {
		if a, err := FromHostPort(in[0], in[1]); err == nil {
			t.Errorf("FromHostPort(%q) = %v", in, a)
		}
	}
}

func TestExpandInletTo(t *testing.T) {
	v := load(t)
	resolve := func(name string) (Addr, error) {
		if name != "NAME" {
			return nil, errors.New("not found")
		}
		return FromHostPort("tcp", "127.0.0.1:4321")
	}
	cases := append(v.Inlet.Cases, v.Inlet.Quirk...)
	if len(cases) < 11 {
		t.Fatal("vectors missing")
	}
	cases = append(cases,
		inletCase{To: "/service/postgres", Via: "r", Result: "/service/postgres"},
		inletCase{To: "self", Result: "/secure/api"},
		inletCase{To: "service", Result: "/project/p1/service/forward_to_default/secure/api/service/service"},
		inletCase{To: "self", Via: "r", Error: true},
		inletCase{To: "a", Via: "b/c", Error: true},
	)
	for _, c := range cases {
		a, err := ExpandInletTo(c.To, c.Via, v.Inlet.DefaultProject)
		if err == nil {
			a, err = a.ReplaceNode(resolve)
		}
		if (err != nil) != c.Error {
			t.Errorf("--to %q --via %q: %v, %v", c.To, c.Via, a, err)
			continue
		}
		if want := strings.ReplaceAll(c.Result, "PORT", "4321"); err == nil && a.String() != want {
			t.Errorf("--to %q --via %q = %s, want %s", c.To, c.Via, a, want)
		}
	}
	if _, err := ExpandInletTo("db", "", ""); !errors.Is(err, ErrNoProject) {
		t.Errorf("no project: %v", err)
	}
	if _, err := ExpandInletTo("/node/n/service/a", "r", "p"); !errors.Is(err, ErrViaWithAddress) {
		t.Errorf("address and via: %v", err)
	}
	if a, err := ExpandInletTo("/node/n/service/a", "", ""); err != nil || len(a) != 2 {
		t.Errorf("a full address needs no project: %v, %v", a, err)
	}
}

func TestReplaceNode(t *testing.T) {
	cases := load(t).Node
	if len(cases) < 5 {
		t.Fatal("vectors missing")
	}
	for _, c := range cases {
		a, err := Parse(c.In)
		if err != nil {
			t.Fatal(err)
		}
		before := slices.Clone(a)
		b, err := a.ReplaceNode(func(name string) (Addr, error) {
			if name != "n1" {
				return nil, errors.New("not found")
			}
			return Parse("/ip4/127.0.0.0/tcp/4000")
		})
		if (err != nil) != c.Error || (err == nil && b.String() != c.Result) {
			t.Errorf("%s: %v, %v; want %s", c.In, b, err, c.Result)
		}
		if !slices.Equal(a, before) {
			t.Errorf("%s was changed to %s", before, a)
		}
	}
}

func FuzzParse(f *testing.F) {
	v := load(f)
	for _, x := range append(v.Multiaddr, v.Binary...) {
		f.Add(x.Text)
	}
	f.Add("/service//a")
	f.Fuzz(func(t *testing.T, text string) {
		a, err := Parse(text)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Offset < 0 || e.Offset > len(text) {
				t.Fatalf("Parse(%q): %v", text, err)
			}
			return
		}
		again, err := Parse(a.String())
		if err != nil || !slices.Equal(a, again) {
			t.Fatalf("Parse(%q) = %v, printed and read again %v, %v", text, a, again, err)
		}
		b, err := a.Bytes()
		if err != nil {
			t.Fatalf("Parse(%q) = %v, which does not encode: %v", text, a, err)
		}
		if back, err := FromBytes(b); err != nil || !slices.Equal(a, back) {
			t.Fatalf("Parse(%q) = %v, decoded again %v, %v", text, a, back, err)
		}
	})
}

func FuzzFromBytes(f *testing.F) {
	v := load(f)
	for _, x := range append(v.Multiaddr, v.Binary...) {
		f.Add(unhex(f, x.Hex))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := FromBytes(b)
		if err != nil {
			return
		}
		again, err := a.Bytes()
		if err != nil || !bytes.Equal(b, again) {
			t.Fatalf("FromBytes(%x) = %v, encoded again %x, %v", b, a, again, err)
		}
		text, err := a.MarshalText()
		if empty := slices.IndexFunc(a, func(v Value) bool { return v.Protocol.named() && v.Text == "" }); empty >= 0 && empty < len(a)-1 {
			if err == nil {
				t.Fatalf("%v has a text form: %s", a, text)
			}
			return
		}
		var back Addr
		if err == nil {
			err = back.UnmarshalText(text)
		}
		if err != nil || !slices.Equal(a, back) {
			t.Fatalf("%v printed and read again: %v, %v", a, back, err)
		}
		a.HostPort()
	})
}
