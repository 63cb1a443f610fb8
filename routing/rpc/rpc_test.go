package rpc

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func load(t testing.TB, name string, v any) {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, v); err != nil {
		t.Fatal(name, err)
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// requests and responses of all vectors and captures, in hex.
func payloads(t testing.TB) (requests, responses []string) {
	var first struct {
		API []struct{ Name, Hex string } `json:"api"`
	}
	load(t, "01-transport-routing-api.json", &first)
	for _, v := range first.API {
		if strings.HasPrefix(v.Name, "request") {
			requests = append(requests, v.Hex)
		} else {
			responses = append(responses, v.Hex)
		}
	}
	var second struct{ Vectors []map[string]string }
	load(t, "02-authority-api.json", &second)
	for _, v := range second.Vectors {
		for key, value := range v {
			switch {
			case key == "payload_hex" && strings.HasSuffix(v["name"], "response"), strings.HasSuffix(key, "response_payload_hex"):
				responses = append(responses, value)
			case key == "payload_hex":
				requests = append(requests, value)
			}
		}
	}
	var captures map[string][]struct{ Request, Response string }
	load(t, "captures.json", &captures)
	for _, exchanges := range captures {
		for _, x := range exchanges {
			requests = append(requests, x.Request)
			if x.Response != "" {
				responses = append(responses, x.Response)
			}
		}
	}
	if len(requests) < 35 || len(responses) < 35 {
		t.Fatalf("only %d requests, %d responses", len(requests), len(responses))
	}
	slices.Sort(requests)
	slices.Sort(responses)
	return requests, responses
}

// Everything seen on the wire decodes and encodes to the same bytes.
func TestVectorsRoundTrip(t *testing.T) {
	requests, responses := payloads(t)
	for _, s := range requests {
		r, err := DecodeRequest(unhex(t, s))
		if err != nil {
			t.Errorf("%s: %v", s, err)
		} else if got := hex.EncodeToString(r.Encode()); got != s {
			t.Errorf("%+v encodes as\n%s, want\n%s", r, got, s)
		}
	}
	refusals := 0
	for _, s := range responses {
		r, err := DecodeResponse(unhex(t, s))
		if err != nil {
			t.Errorf("%s: %v", s, err)
			continue
		}
		if got := hex.EncodeToString(r.Encode()); got != s {
			t.Errorf("%+v encodes as\n%s, want\n%s", r, got, s)
		}
		if r.Status != OK {
			refusals++
			if e := DecodeError(r.Body); e.Message == "" || !bytes.Equal(e.Encode(), r.Body) {
				t.Errorf("error %+v encodes as %x, want %x", e, e.Encode(), r.Body)
			}
		}
	}
	if refusals < 8 {
		t.Errorf("only %d refusals among the vectors", refusals)
	}
}

func TestVectorsByName(t *testing.T) {
	get := &Request{ID: 1, Path: "/", Method: Get}
	bad := &Response{ID: 2, Re: 1, Status: BadRequest, HasBody: true}
	bad.Body = (&Error{Path: "/x", Method: Get, Message: "unknown path"}).Encode()
	nobody := ErrorResponse(nil, BadRequest, "secure channel required")
	nobody.ID = 14
	again := ErrorResponse(&Request{ID: 7, Path: "/", Method: Post}, Forbidden, "Already a member")
	again.ID = 9
	for want, got := range map[string][]byte{
		"0aa4010102612f030004f4":                                                       get.Encode(),
		"1aa4011a01020304026d2f6e6f64652f776f726b657273030104f5":                       (&Request{ID: 0x01020304, Path: "/node/workers", Method: Post, HasBody: true}).Encode(),
		"0aa4010202010318c804f4":                                                       (&Response{ID: 2, Re: 1, Status: OK}).Encode(),
		"0da4010202010318c804f5026869":                                                 (&Response{ID: 2, Re: 1, Status: OK, HasBody: true, Body: []byte("\x02hi")}).Encode(),
		"20a4010202010319019004f5a301622f780200036c756e6b6e6f776e2070617468":           bad.Encode(),
		"25a4010e02000319019004f5a10377736563757265206368616e6e656c207265717569726564": nobody.Encode(),
		"23a4010902070319019304f5a301612f02010370416c72656164792061206d656d626572":     again.Encode(),
	} {
		if hex.EncodeToString(got) != want {
			t.Errorf("%x, want %s", got, want)
		}
	}
}

func TestDecodeTolerance(t *testing.T) {
	want := &Request{ID: 1, Path: "/", Method: Get, Body: []byte{}}
	for name, s := range map[string]string{
		"plain":               "0aa4010102612f030004f4",
		"type tag":            "10a5001a0073c0e6010102612f030004f4",
		"indefinite map":      "0bbf010102612f030004f4ff",
		"wide numbers":        "10a4011a0000000102612f0319000004f4",
		"unknown text key":    "0ea5617881f6010102612f030004f4",
		"keys in other order": "0aa404f4030002612f0101",
		"after the envelope":  "0aa4010102612f030004f4ffff",
	} {
		r, err := DecodeRequest(unhex(t, s))
		if err != nil || !reflect.DeepEqual(r, want) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	for name, s := range map[string]string{"absent": "08a3010102612f04f4", "unknown": "0aa4010102612f030904f4"} {
		if r, err := DecodeRequest(unhex(t, s)); err != nil || r.Method != NoMethod {
			t.Errorf("%s method: %+v, %v", name, r, err)
		}
	}
	for name, s := range map[string]string{
		"empty":           "",
		"no content":      "00",
		"short":           "0ba4010102612f030004f4",
		"array":           "0584010203f4",
		"null":            "01f6",
		"no id":           "08a302612f030004f4",
		"no path":         "07a30101030004f4",
		"no has_body":     "08a3010102612f0300",
		"id too wide":     "12a4011b000000010000000002612f030004f4",
		"path not text":   "0aa4010102412f030004f4",
		"path not UTF-8":  "0aa401010261ff030004f4",
		"map too long":    "0bbb00ffffffffffffff0101",
		"text too long":   "0aa40101027b7fffffffff",
		"deeply nested":   "28a501010a" + strings.Repeat("81", 35) + "01",
		"varint too long": "ffffffffffffffffff02a4",
	} {
		if r, err := DecodeRequest(unhex(t, s)); !errors.Is(err, ErrMalformed) {
			t.Errorf("request, %s: %+v, %v", name, r, err)
		}
		if r, err := DecodeResponse(unhex(t, s)); !errors.Is(err, ErrMalformed) {
			t.Errorf("response, %s: %+v, %v", name, r, err)
		}
	}
	r, err := DecodeResponse(unhex(t, "07a30102020104f4"))
	if err != nil || r.Status != 0 || r.Err() == nil {
		t.Errorf("no status: %+v, %v", r, err)
	}
}

func TestErr(t *testing.T) {
	if err := (&Response{Status: OK}).Err(); err != nil {
		t.Error(err)
	}
	cause := &Error{Path: "/x", Method: Delete, Message: "outer", Cause: &Error{Method: NoMethod, Message: "inner"}}
	for body, want := range map[string]string{
		"":                                 "404 NotFound",
		"6568656c6c6f":                     "404 NotFound: hello", // text, as Elixir peers send it
		"4568656c6c6f":                     "404 NotFound: hello",
		"41ff":                             "404 NotFound",
		"a0":                               "404 NotFound",
		"83010203":                         "404 NotFound",
		"ff":                               "404 NotFound",
		"a10365610a1b5b62":                 "404 NotFound: a\ufffd\ufffd[b",
		hex.EncodeToString(cause.Encode()): "404 NotFound for DELETE /x: outer: inner",
		"a20209036161":                     "404 NotFound: a",
	} {
		err := (&Response{Status: NotFound, Body: unhex(t, body)}).Err()
		var status *StatusError
		if !errors.As(err, &status) || status.Status != NotFound || err.Error() != want {
			t.Errorf("%s: %v, want %s", body, err, want)
		}
	}
	if e := DecodeError(cause.Encode()); !reflect.DeepEqual(e, cause) {
		t.Errorf("%+v", e)
	}
	if err := (&Response{Status: 599}).Err(); err.Error() != "599 599" {
		t.Error(err)
	}
}

func TestSegments(t *testing.T) {
	for path, want := range map[string][]string{
		"":               {""},
		"/":              {""},
		"///":            {""},
		"/a":             {"a"},
		"a/b":            {"a", "b"},
		"//a//b":         {"a", "", "b"},
		"/a/":            {"a", ""},
		"/1/2/3/4/5/6/7": {"1", "2", "3", "4", "5/6/7"},
	} {
		if got := Segments(path, 5); !slices.Equal(got, want) {
			t.Errorf("Segments(%q) = %q, want %q", path, got, want)
		}
	}
}

func TestNewRequestAndResponse(t *testing.T) {
	a, b := NewRequest(Post, "/", nil), NewRequest(Post, "/", []byte{})
	if a.ID == 0 || a.ID == b.ID || a.HasBody || !b.HasBody {
		t.Errorf("%+v %+v", a, b)
	}
	if r := NewResponse(a, OK, nil); r.Re != a.ID || r.ID == 0 || r.HasBody {
		t.Errorf("%+v", r)
	}
}

func FuzzDecode(f *testing.F) {
	requests, responses := payloads(f)
	for _, s := range append(requests, responses...) {
		f.Add(unhex(f, s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := DecodeRequest(b); err == nil {
			again, err := DecodeRequest(r.Encode())
			if err != nil || !reflect.DeepEqual(r, again) {
				t.Fatalf("%+v, encoded and read again %+v, %v", r, again, err)
			}
		}
		if r, err := DecodeResponse(b); err == nil {
			again, err := DecodeResponse(r.Encode())
			if err != nil || !reflect.DeepEqual(r, again) {
				t.Fatalf("%+v, encoded and read again %+v, %v", r, again, err)
			}
			if err := r.Err(); err != nil && err.Error() == "" {
				t.Fatal("an error without text")
			}
		}
		e := DecodeError(b)
		if again := DecodeError(e.Encode()); !reflect.DeepEqual(e, again) {
			t.Fatalf("%+v, encoded and read again %+v", e, again)
		}
	})
}
