package policy

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
)

func TestDecodeTolerance(t *testing.T) {
	for _, c := range []struct{ name, hex, want string }{
		{"indefinite containers", "9f079f9f8205816161" + "8204" + "9ff5ff" + "ffffff", "(a true)"},
		{"unknown field", "820482f583011903e8a10261", ""},
		{"unknown field of many kinds", "820487f5" + "830120f6" + "a1026161" + "c11a00000001" + "5f41004101ff" + "fb3ff0000000000000" + "bf0102ff", "true"},
		{"half float", "820381f93e00", "1.5"},
		{"half float small", "820381f90001", "5.960464477539063e-8"},
		{"half float infinity", "820381f9fc00", "-inf"},
		{"half float nan", "820381f97e00", "nan"},
		{"single float", "820381fa3fc00000", "1.5"},
		{"long integer", "8202811b0000000000000001", "1"},
		{"smallest integer", "8202813b7fffffffffffffff", "-9223372036854775808"},
	} {
		e, rest, err := DecodeExpr(unhex(t, c.hex))
		if c.want == "" {
			if err == nil {
				t.Errorf("%s accepted", c.name)
			}
			continue
		}
		if err != nil || e.String() != c.want || len(rest) != 0 {
			t.Errorf("%s: %v %v %x", c.name, e, err, rest)
		}
	}
}

func TestDecodeMalformed(t *testing.T) {
	for name, hex := range map[string]string{
		"empty":                      "",
		"no array":                   "04",
		"one element":                "8104",
		"three elements":             "830481f504",
		"no payload":                 "820480",
		"payload no array":           "8204f5",
		"number for an array":        "020481f5",
		"map for an array":           "a20481f5",
		"number for a payload":       "820401f5",
		"text for a payload":         "820461f5",
		"number for a sequence":      "82068101820281" + "01",
		"variant 0":                  "820081f5",
		"variant 8":                  "820881f5",
		"variant 256+4":              "8219010481f5",
		"negative variant":           "822481f5",
		"boolean null":               "820481f6",
		"boolean one":                "82048101",
		"integer too large":          "8202811b8000000000000000",
		"integer too small":          "8202813b8000000000000000",
		"integer as text":            "8202816131",
		"float as integer":           "82038101",
		"float simple":               "820381f5",
		"number as half float":       "820381193c00",
		"number as float":            "8203811a3f800000",
		"number as double":           "8203811b3ff0000000000000",
		"text as float":              "8203817a00000000",
		"text not UTF-8":             "82018161ff",
		"text as bytes":              "8201814161",
		"text too long":              "8201817a7fffffff61",
		"text of huge length":        "8201817bffffffffffffffff61",
		"array of huge length":       "8206819bffffffffffffffff",
		"identifier empty":           "82058160",
		"identifier injection":       "82058165612920286f",
		"identifier true":            "8205816474727565",
		"identifier inf":             "82058163696e66",
		"identifier with blank":      "820581636120 62",
		"identifier with $":          "820581622461",
		"identifier with comma":      "82058163612c62",
		"sequence of mixed types":    "82068182820281018204" + "81f5",
		"reserved head":              "82041c",
		"break":                      "82ff",
		"unfinished indefinite list": "8207819f8204",
	} {
		if e, _, err := DecodeExpr(unhex(t, strings.ReplaceAll(hex, " ", ""))); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, %v", name, e, err)
		}
	}
	for name, hex := range map[string]string{
		"variant 2":                 "820281820481f5",
		"no payload":                "820080",
		"boolean variant 7":         "820181820780",
		"boolean empty, no fields":  "8201818106",
		"boolean empty, a third":    "820181830680f6",
		"boolean name empty":        "82018182008160",
		"boolean name invalid":      "82018182008163612062",
		"boolean name with a digit": "8201818200816131",
		"boolean identifier short":  "82018182028162" + "4930",
		"boolean or with one":       "8201818203818200816161",
		"boolean not without":       "820181820580",
		"name value without value":  "8201818201816161",
	} {
		if p, _, err := DecodePolicyExpression(unhex(t, hex)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, %v", name, p, err)
		}
	}
}

func TestDecodeDepth(t *testing.T) {
	build := func(open string, n int, leaf string) []byte {
		return append(bytes.Repeat(unhex(t, open), n), unhex(t, leaf)...)
	}
	if _, _, err := DecodeExpr(build("82078181", MaxDepth, "820481f5")); err != nil {
		t.Errorf("deepest list: %v", err)
	}
	if _, _, err := DecodeExpr(build("82078181", MaxDepth+1, "820481f5")); !errors.Is(err, ErrLimit) {
		t.Errorf("too deep: %v", err)
	}
	if _, _, err := DecodeExpr(build("82068181", 1<<18, "")); !errors.Is(err, ErrLimit) {
		t.Errorf("very deep: %v", err)
	}
	not := append(unhex(t, "820181"), build("820581", MaxDepth-1, "8200816161")...)
	p, _, err := DecodePolicyExpression(not)
	if err != nil {
		t.Fatalf("deepest boolean: %v", err)
	}
	if _, err := ParseFull(p.Expr().String()); err != nil {
		t.Errorf("deepest boolean expanded: %v", err)
	}
	not = append(unhex(t, "820181"), build("820581", MaxDepth, "8200816161")...)
	if _, _, err := DecodePolicyExpression(not); !errors.Is(err, ErrLimit) {
		t.Errorf("too deep boolean: %v", err)
	}
	long := Str(strings.Repeat("a", MaxText)).AppendCBOR(nil)
	if _, _, err := DecodeExpr(long); !errors.Is(err, ErrLimit) {
		t.Errorf("too long: %v", err)
	}
	for n, ok := range map[int]bool{MaxText - len(`""`): true, MaxText - len(`""`) + 1: false} {
		if _, _, err := DecodeExpr(Str(strings.Repeat("a", n)).AppendCBOR(nil)); (err == nil) != ok || err != nil && !errors.Is(err, ErrLimit) {
			t.Errorf("a string of %d bytes: %v", n, err)
		}
	}
	// Whatever an unknown item nests counts as a level.
	for name, ends := range map[string][2]string{"tags": {"c1", ""}, "arrays": {"81", ""}, "maps": {"a100", ""}, "arrays without a length": {"9f", "ff"}} {
		for n, ok := range map[int]bool{maxSkipDepth: true, maxSkipDepth + 1: false} {
			r := &reader{b: unhex(t, strings.Repeat(ends[0], n)+"00"+strings.Repeat(ends[1], n))}
			if r.skip(0); (r.err == nil) != ok || ok && len(r.b) != 0 {
				t.Errorf("%d %s: %v, %d bytes left", n, name, r.err, len(r.b))
			}
		}
	}
	// A skipped unknown field may not nest without end.
	deepField := append(unhex(t, "820482f5"), bytes.Repeat([]byte{0x81}, 1<<16)...)
	if _, _, err := DecodeExpr(deepField); !errors.Is(err, ErrMalformed) {
		t.Errorf("deep unknown field: %v", err)
	}
}

func TestBooleanEmpty(t *testing.T) {
	b := unhex(t, "820181820680")
	p, rest, err := DecodePolicyExpression(b)
	if err != nil || len(rest) != 0 || p.Expr().String() != "()" || p.Expr().Allows(Env{}) {
		t.Errorf("%v %v", p, err)
	}
	if got := p.AppendCBOR(nil); !bytes.Equal(got, b) {
		t.Errorf("encoded %x", got)
	}
}

func TestResourceCodec(t *testing.T) {
	for _, c := range []struct {
		r   Resource
		hex string
	}{
		{ByType(TCPOutlet), "820182f602"}, {ByType(Lessor), "820182f607"}, {ByName("db"), "820282f6626462"}, {ByName("relay"), "820282f66572656c6179"},
	} {
		b := unhex(t, c.hex)
		if got := c.r.AppendCBOR(nil); !bytes.Equal(got, b) {
			t.Errorf("%v: encoded %x", c.r, got)
		}
		if got, rest, err := DecodeResource(append(b, 9)); err != nil || got != c.r || len(rest) != 1 {
			t.Errorf("%v: decoded %v, %v", c.r, got, err)
		}
	}
	for _, hex := range []string{"", "820182f600", "820182f608", "8201810 2", "820382f602", "820282f602", "820180", "8201f6"} {
		if r, _, err := DecodeResource(unhex(t, strings.ReplaceAll(hex, " ", ""))); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: %v, %v", hex, r, err)
		}
	}
}

// A general CBOR decoder reads policies inside other bodies, if it is told how deep they may be.
func TestInsideCBOR(t *testing.T) {
	type entry struct {
		Resource Resource `cbor:"1,keyasint"`
		Action   Action   `cbor:"2,keyasint"`
		Expr     *Expr    `cbor:"3,keyasint"`
	}
	mode, err := cbor.DecOptions{MaxNestedLevels: 4 * MaxDepth}.DecMode()
	if err != nil {
		t.Fatal(err)
	}
	deep := mustFull(t, strings.Repeat("(and ", MaxDepth)+"true"+strings.Repeat(")", MaxDepth))
	for _, want := range []entry{{ByName("db"), HandleMessage, deep}, {ByType(Relay), HandleMessage, DefaultExpr()}} {
		b, err := cbor.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got entry
		if err := mode.Unmarshal(b, &got); err != nil {
			t.Fatal(err)
		}
		if got.Resource != want.Resource || got.Action != want.Action || !Equal(got.Expr, want.Expr) {
			t.Errorf("got %v", got)
		}
		var p PolicyExpression
		if b, err = NewPolicyExpression(want.Expr).MarshalCBOR(); err != nil {
			t.Fatal(err)
		}
		if err := p.UnmarshalCBOR(b); err != nil || !Equal(p.Expr(), want.Expr) || p.Expr().Kind() != KindList {
			t.Errorf("got %v, %v", p, err)
		}
		if text, err := want.Expr.MarshalText(); err != nil || string(text) != want.Expr.String() {
			t.Errorf("text %s, %v", text, err)
		}
	}
	var e Expr
	if e.UnmarshalCBOR([]byte{0x80}) == nil || new(PolicyExpression).UnmarshalCBOR([]byte{0x80}) == nil || new(Resource).UnmarshalCBOR([]byte{0x80}) == nil {
		t.Error("an empty array is accepted")
	}
}

// TestDecodeBooleanFields: fields that a later version adds are passed over, those that are known are not.
func TestDecodeBooleanFields(t *testing.T) {
	const a = "820081" + "6161" // the name a
	for hex, want := range map[string]string{
		"8201" + "81" + a:                            "a",
		"8201" + "81" + "820082" + "6161" + "6162":   "a",
		"8201" + "81" + "820182" + "6161" + "6162":   "a=b",
		"8201" + "81" + "820183" + "6161" + "6162f6": "a=b",
		"8201" + "81" + "820181" + "6161":            "", // a value that is not there
		"8201" + "81" + "820481" + a:                 "", // half of a pair
		"8201" + "81" + "820482" + a + a:             "a and a",
		"8201" + "81" + "820483" + a + a + a:         "a and a",
		"8201" + "81" + "820581" + a:                 "not a",
		"8201" + "81" + "820582" + a + "f5":          "not a",
		"8201" + "82" + a + a:                        "a",
		"8201" + "81" + "820781" + a:                 "",
		"8201" + "80":                                "",
	} {
		p, rest, err := DecodePolicyExpression(unhex(t, hex))
		if got := p.String(); err == nil && (got != want || len(rest) != 0) || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %x, %v; want %q", hex, got, rest, err, want)
		}
	}
}
