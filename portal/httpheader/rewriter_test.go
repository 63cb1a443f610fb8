package httpheader

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math/rand"
	"net/http"
	"strings"
	"testing"
)

var set = []Field{{"X-User", "alice"}, {"Host", "db.example"}}

func fields() []Field { return set }

// rewrite passes pieces through a new Rewriter.
func rewrite(o Options, pieces ...string) (string, error) {
	if o.Fields == nil {
		o.Fields = fields
	}
	r := New(o)
	var out []byte
	for _, p := range pieces {
		for b := []byte(p); len(b) > 0; {
			if n := min(r.Pass(), int64(len(b))); n > 0 && len(p)%2 == 0 { // either way must do
				out = append(out, b[:n]...)
				r.Passed(int(n))
				b = b[n:]
				continue
			}
			var n int
			var err error
			if out, n, err = r.Rewrite(out, b); err != nil {
				return string(out), err
			}
			if b = b[n:]; n == 0 {
				return string(out), nil // held
			}
		}
	}
	return string(out), nil
}

const setLines = "X-User: alice\r\nHost: db.example\r\n"

var accepted = []struct{ name, in, out string }{
	{"no body", "GET /a?b HTTP/1.1\r\nAccept: */*\r\n\r\n", "GET /a?b HTTP/1.1\r\n" + setLines + "Accept: */*\r\n\r\n"},
	{"replaced", "GET / HTTP/1.0\r\nhOst: a\r\nx-uSer: mallory\r\nX_User: mallory\r\nA:1\r\n\r\n", "GET / HTTP/1.0\r\n" + setLines + "A: 1\r\n\r\n"},
	{"bare LF", "GET / HTTP/1.1\nA: 1\n\n", "GET / HTTP/1.1\r\n" + setLines + "A: 1\r\n\r\n"},
	{"empty lines before", "\r\n\nGET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\n" + setLines + "\r\n"},
	{"length", "POST / HTTP/1.1\r\nContent-Length: 27\r\n\r\nGET / HTTP/1.1\r\nX-User: b\r\nGET /2 HTTP/1.1\r\n\r\n",
		"POST / HTTP/1.1\r\n" + setLines + "Content-Length: 27\r\n\r\nGET / HTTP/1.1\r\nX-User: b\r\nGET /2 HTTP/1.1\r\n" + setLines + "\r\n"},
	{"chunks", "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n4\r\nWiki\r\nA;x=\"1\"\r\npedia in\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
		"POST / HTTP/1.1\r\n" + setLines + "Transfer-Encoding: gzip, chunked\r\n\r\n4\r\nWiki\r\nA;x=\"1\"\r\npedia in\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n" + setLines + "\r\n"},
	{"trailers", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-user: b\r\nSum: 1\r\n\r\nGET / HTTP/1.1\r\n\r\n",
		"POST / HTTP/1.1\r\n" + setLines + "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nSum: 1\r\n\r\nGET / HTTP/1.1\r\n" + setLines + "\r\n"},
	{"connection options", "GET / HTTP/1.1\r\nConnection: close, X-USER\r\nConnection: x-user\r\n\r\n", "GET / HTTP/1.1\r\n" + setLines + "Connection: close\r\n\r\n"},
	{"host in the target", "GET http://evil.example/a?b HTTP/1.1\r\n\r\nGET HTTPS://evil.example?x HTTP/1.1\r\n\r\nOPTIONS http://evil HTTP/1.1\r\n\r\nOPTIONS * HTTP/1.1\r\n\r\n",
		"GET /a?b HTTP/1.1\r\n" + setLines + "\r\nGET /?x HTTP/1.1\r\n" + setLines + "\r\nOPTIONS / HTTP/1.1\r\n" + setLines + "\r\nOPTIONS * HTTP/1.1\r\n" + setLines + "\r\n"},
	{"no HTTP/2", "GET / HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAM\r\n\r\nGET / HTTP/1.1\r\n\r\n",
		"GET / HTTP/1.1\r\n" + setLines + "\r\nGET / HTTP/1.1\r\n" + setLines + "\r\n"},
	{"held after an upgrade", "GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nGET / HTTP/1.1\r\n\r\n",
		"GET / HTTP/1.1\r\n" + setLines + "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"},
}

func TestRewrite(t *testing.T) {
	for _, c := range accepted {
		if out, err := rewrite(Options{}, c.in); out != c.out || err != nil {
			t.Errorf("%s:\n%q, %v, want\n%q", c.name, out, err, c.out)
		}
	}
}

// However a stream is cut, the same comes out.
func TestSplits(t *testing.T) {
	var in, want strings.Builder
	for _, c := range accepted[:len(accepted)-1] {
		in.WriteString(c.in)
		want.WriteString(c.out)
	}
	check := func(pieces ...string) {
		t.Helper()
		if out, err := rewrite(Options{}, pieces...); out != want.String() || err != nil {
			t.Fatalf("cut into %q:\n%q, %v", pieces, out, err)
		}
	}
	text := in.String()
	for i := range text {
		check(text[:i], text[i:])
	}
	check(strings.Split(text, "")...)
	random := rand.New(rand.NewSource(1))
	for range 300 {
		var pieces []string
		for rest := text; rest != ""; {
			n := min(1+random.Intn(60), len(rest))
			pieces, rest = append(pieces, rest[:n]), rest[n:]
		}
		check(pieces...)
	}
}

func TestRefused(t *testing.T) {
	long := strings.Repeat("a", MaxHead)
	for name, c := range map[string]struct{ reason, in string }{
		"TLS":                         {"this is not HTTP", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\r\n"},
		"HTTP/2":                      {"only HTTP/1.0 and HTTP/1.1 are understood", "PRI * HTTP/2.0\r\n\r\n"},
		"no version":                  {"the first line is no HTTP request line", "GET /\r\n\r\n"},
		"two spaces":                  {"the first line is no HTTP request line", "GET  / HTTP/1.1\r\n\r\n"},
		"white space in target":       {"the first line is no HTTP request line", "GET /\t HTTP/1.1\r\n\r\n"},
		"folded":                      {"a header line is folded", "GET / HTTP/1.1\r\nA: 1\r\n b\r\n\r\n"},
		"space before the colon":      {"a header line has no name", "GET / HTTP/1.1\r\nX-User : b\r\n\r\n"},
		"no name":                     {"a header line has no name", "GET / HTTP/1.1\r\n: b\r\n\r\n"},
		"carriage return":             {"a header has control characters", "GET / HTTP/1.1\r\nA: 1\rX-User: b\r\n\r\n"},
		"NUL":                         {"a header has control characters", "GET / HTTP/1.1\r\nA: \x00\r\n\r\n"},
		"target without a path":       {"neither a path nor an http URL", "GET evil.example HTTP/1.1\r\n\r\n"},
		"two hosts":                   {"more than one Host", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"},
		"two lengths":                 {"Content-Length is not one number", "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"},
		"list of lengths":             {"Content-Length is not one number", "POST / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n"},
		"signed length":               {"Content-Length is not one number", "POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n"},
		"length in hex":               {"Content-Length is not one number", "POST / HTTP/1.1\r\nContent-Length: 0x1\r\n\r\n"},
		"huge length":                 {"Content-Length is not one number", "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n"},
		"length and chunks":           {"both Content-Length and Transfer-Encoding", "POST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"},
		"disguised name":              {"a length is spelled with _", "POST / HTTP/1.1\r\nContent_Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"},
		"disguised length":            {"a length is spelled with _", "POST / HTTP/1.1\r\nContent_Length: 26\r\n\r\nGET / HTTP/1.1\r\nX-User: b\r\n\r\n"},
		"disguised chunks":            {"a length is spelled with _", "POST / HTTP/1.1\r\nTransfer_Encoding: chunked\r\n\r\n0\r\n\r\n"},
		"disguised coding":            {"Transfer-Encoding does not end in chunked", "POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n"},
		"quoted coding":               {"Transfer-Encoding is not clear", "POST / HTTP/1.1\r\nTransfer-Encoding: \"chunked\"\r\n\r\n"},
		"chunked twice":               {"Transfer-Encoding is not clear", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked, chunked\r\n\r\n"},
		"chunked not last":            {"Transfer-Encoding is not clear", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked, identity\r\n\r\n"},
		"chunks in HTTP/1.0":          {"Transfer-Encoding in HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"},
		"chunk ends in LF":            {"a chunk has no size", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\na\r\n"},
		"chunk without size":          {"a chunk has no size", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n;a\r\n"},
		"chunk longer than size":      {"a chunk is longer than its size", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n"},
		"chunk size overflows":        {"a chunk has no size", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000001\r\n"},
		"chunk line too long":         {"the line before a chunk is too long", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;" + long[:maxChunkLine] + "\r\n"},
		"length in trailer":           {"a trailer says where the request ends", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n"},
		"head too long":               {"the header is longer than 65536 bytes", "GET / HTTP/1.1\r\nA: " + long + "\r\n\r\n"},
		"head without end":            {"the header is longer than 65536 bytes", "GET / HTTP/1.1\r\n" + strings.Repeat("A: 1\r\n", MaxHead/6)},
		"line without end":            {"the header is longer than 65536 bytes", "GET /" + long},
		"body in CONNECT request":     {"CONNECT is not supported here", "CONNECT a:1 HTTP/1.1\r\nContent-Length: 1\r\n\r\n"},
		"text behind a chunk":         {"a chunk is longer than its size", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na0\r\n\r\n"},
		"a chunk's end in LF":         {"a chunk is longer than its size", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\n0\r\n\r\n"},
		"a chunk's end in CR":         {"a chunk is longer than its size", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\rX0\r\n\r\n"},
		"coding in trailer":           {"a trailer says where the request ends", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nTransfer-encoding: chunked\r\n\r\n"},
		"disguised length in trailer": {"a trailer says where the request ends", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent_Length: 5\r\n\r\n"},
		"folded trailer":              {"a header line is folded", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: 1\r\n b\r\n\r\n"},
		"chunks in CONNECT request":   {"CONNECT is not supported here", "CONNECT a:1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"},
		"delete in target":            {"the first line is no HTTP request line", "GET /\x7f HTTP/1.1\r\n\r\n"},
		"no target":                   {"the first line is no HTTP request line", "GET  HTTP/1.1\r\n\r\n"},
		"method that is no token":     {"the first line is no HTTP request line", "GE(T / HTTP/1.1\r\n\r\n"},
		"another scheme":              {"neither a path nor an http URL", "GET ftp://a/ HTTP/1.1\r\n\r\n"},
	} {
		for _, pieces := range [][]string{{c.in}, strings.Split(c.in, "")} {
			out, err := rewrite(Options{}, pieces...)
			var refused *Error
			if !errors.As(err, &refused) || !strings.Contains(refused.Reason, c.reason) {
				t.Errorf("%s: %q, %v, want %q", name, out, err, c.reason)
			} else if answer := New(Options{}).Refusal(err); !bytes.Contains(answer, []byte(refused.Reason)) {
				t.Errorf("%s: answer %q", name, answer)
			}
		}
	}
}

// TestTrailerWithoutAHostOfOurs: a host behind the body is refused where none is set, too; what is set is left out, and the rest passes.
func TestTrailerWithoutAHostOfOurs(t *testing.T) {
	user := Options{Fields: func() []Field { return set[:1] }}
	const head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
	_, err := rewrite(user, head+"hOst: a\r\n\r\n")
	if e := (&Error{}); !errors.As(err, &e) || e.Reason != "a trailer says where the request ends" {
		t.Error(err)
	}
	out, err := rewrite(user, head+"X-User: mallory\r\nx_user: mallory\r\nSum: 1\r\n\r\n")
	if err != nil || !strings.HasSuffix(out, "\r\n0\r\nSum: 1\r\n\r\n") || strings.Contains(out, "mallory") {
		t.Errorf("%q, %v", out, err)
	}
}

func TestNotKnownYet(t *testing.T) {
	_, err := rewrite(Options{Fields: func() []Field { return nil }}, "GET / HTTP/1.1\r\n\r\n")
	if e := (&Error{}); !errors.As(err, &e) || e.Status != 503 {
		t.Error(err)
	}
}

func TestNoUpgrade(t *testing.T) {
	out, err := rewrite(Options{NoUpgrade: true}, "GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nGET / HTTP/1.1\r\n\r\n")
	if want := strings.Repeat("GET / HTTP/1.1\r\n"+setLines+"\r\n", 2); out != want || err != nil {
		t.Errorf("%q, %v", out, err)
	}
	if _, err := rewrite(Options{NoUpgrade: true}, "CONNECT a:1 HTTP/1.1\r\n\r\n"); err == nil {
		t.Error("CONNECT went through")
	}
}

// feed gives r all of in, as far as it takes it, and returns what came out and what was left.
func feed(t *testing.T, r *Rewriter, in string) (out, left string) {
	t.Helper()
	b, n, err := r.Rewrite(nil, []byte(in))
	if err != nil {
		t.Fatal(err)
	}
	return string(b), in[n:]
}

const upgradeRequest = "GET /chat HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

func TestUpgrade(t *testing.T) {
	head := "GET / HTTP/1.1\r\n\r\nHEAD / HTTP/1.1\r\n\r\n"
	before := "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nHTTP/\r\n0\r\n\r\n" + "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"
	const raw = "\x81\x05hello X-User: mallory\r\n\r\n"
	for _, c := range []struct {
		name, answer string
		tunnel       bool
	}{
		{"accepted", before + "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x00", true},
		{"refused", before + "HTTP/1.1 403 Forbidden\r\nContent-Length: 37\r\n\r\nHTTP/1.1 101 Switching Protocols\r\n\r\nx", false},
		{"in a body only", "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nHTTP/1.1 101 Switching Protocols\r\n\r\n", false},
	} {
		for _, step := range []int{1, 7, len(c.answer)} {
			r := New(Options{Fields: fields})
			_, left := feed(t, r, head+upgradeRequest+raw)
			if left != raw || !r.Held() {
				t.Fatalf("%s: %q left, held %v", c.name, left, r.Held())
			}
			for i := 0; i < len(c.answer); i += step {
				r.Answer([]byte(c.answer[i:min(i+step, len(c.answer))]))
			}
			out, _, err := r.Rewrite(nil, []byte(raw))
			if c.tunnel != (string(out) == raw && err == nil) || (!c.tunnel && len(out) > 0) {
				t.Errorf("%s, by %d: %q, %v", c.name, step, out, err)
			}
		}
	}
}

// TestConnectAnsweredAsAnyRequest: a server that does not know CONNECT and answers it as any other request goes on in HTTP, and what follows is set
// as before. Only 200 without a length makes a tunnel.
func TestConnectAnsweredAsAnyRequest(t *testing.T) {
	const request = "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n"
	const next = "GET /2 HTTP/1.1\r\nHost: a\r\nX-User: mallory\r\n\r\n"
	for answer, tunnel := range map[string]bool{
		"HTTP/1.1 200 OK\r\n\r\n": true,
		"HTTP/1.0 200 Connection established\r\nProxy-Agent: a\r\n\r\n":  true,
		"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n":                   false,
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok":                 false,
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n": false,
		"HTTP/1.1 204 No Content\r\n\r\n":                                false,
		"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n":   false,
	} {
		r := New(Options{Fields: fields})
		_, left := feed(t, r, request+next)
		if left != next {
			t.Fatalf("%q left", left)
		}
		r.Answer([]byte(answer))
		if out, _ := feed(t, r, next); (out == next) != tunnel || !tunnel && strings.Contains(out, "mallory") {
			t.Errorf("%q: %q", answer, out)
		}
	}
	r := New(Options{Fields: fields})
	_, left := feed(t, r, request+next)
	r.Answer([]byte("HTTP/1.1 202 Accepted\r\n\r\n")) // up to the end of the connection, or nobody knows
	if out, _, err := r.Rewrite(nil, []byte(left)); err == nil || len(out) > 0 {
		t.Errorf("%q, %v", out, err)
	}
}

func TestUpgradeRefusedThenNext(t *testing.T) {
	r := New(Options{Fields: fields})
	_, left := feed(t, r, upgradeRequest+"GET /2 HTTP/1.1\r\n\r\n")
	r.Answer([]byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	if out, _ := feed(t, r, left); out != "GET /2 HTTP/1.1\r\n"+setLines+"\r\n" {
		t.Errorf("%q", out)
	}
}

// Nothing passes after an answer that could be read in two ways.
func TestAnswersLost(t *testing.T) {
	for name, answer := range map[string]string{
		"conflicting lengths": "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n",
		"no HTTP":             "SSH-2.0-x\r\n\r\n",
		"up to the end":       "HTTP/1.0 200 OK\r\n\r\n",
		"101 unasked":         "HTTP/1.1 101 Switching Protocols\r\n\r\n",
		"endless head":        "HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", 20<<10),
	} {
		r := New(Options{Fields: fields})
		_, left := feed(t, r, "GET / HTTP/1.1\r\n\r\n"+upgradeRequest+"raw")
		r.Answer([]byte(answer + "HTTP/1.1 101 Switching Protocols\r\n\r\n"))
		if out, _, err := r.Rewrite(nil, []byte(left)); err == nil || len(out) > 0 {
			t.Errorf("%s: %q passed", name, out)
		}
	}
}

func TestManyOutstanding(t *testing.T) {
	r := New(Options{Fields: fields})
	request := []byte("GET / HTTP/1.1\r\n\r\n")
	n := 0
	for !r.Held() {
		if _, used, err := r.Rewrite(nil, request); used != len(request) || err != nil {
			t.Fatal(used, err)
		}
		n++
	}
	if n != maxOutstanding {
		t.Errorf("held after %d", n)
	}
	r.Answer([]byte("HTTP/1.1 204 No Content\r\n\r\n"))
	if r.Held() {
		t.Error("still held")
	}
}

// What is written in one call is bounded, however small the requests are.
func TestOutputBounded(t *testing.T) {
	big := []Field{{"A", strings.Repeat("a", 8<<10)}}
	r := New(Options{Fields: func() []Field { return big }})
	in := []byte(strings.Repeat("G / HTTP/1.1\n\n", 4000))
	out, used, err := r.Rewrite(nil, in)
	if err != nil || len(out) > maxOutput+9<<10 || used == len(in) {
		t.Errorf("%d bytes from %d of %d, %v", len(out), used, len(in), err)
	}
}

func TestParseField(t *testing.T) {
	for text, want := range map[string]Field{"key:value": {"key", "value"}, "key: value ": {"key", "value"}, "key:value:extra": {"key", "value:extra"}} {
		if f, err := ParseField(text); f != want || err != nil {
			t.Errorf("%q: %v, %v", text, f, err)
		}
	}
	for _, text := range []string{"key", "key:", "key: ", ":value", "  XXX  :value", "key:value\n", "key: a\r\nX: b", "Content-Length: 5", "transfer_encoding:x", "Upgrade: a"} {
		if f, err := ParseField(text); err == nil {
			t.Errorf("%q: %v", text, f)
		}
	}
}

// FuzzRewrite: what comes out does not depend on how the input is cut, and another parser finds in it the same requests, each with
// the fields that were set and no others of their names.
func FuzzRewrite(f *testing.F) {
	for _, c := range accepted {
		f.Add([]byte(c.in), uint8(3))
	}
	f.Add([]byte("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n"), uint8(1))
	f.Fuzz(func(t *testing.T, in []byte, step uint8) {
		heads := 0
		o := Options{NoUpgrade: true, Fields: fields}
		counting := Options{NoUpgrade: true, Fields: func() []Field { heads++; return set }}
		whole, err := rewrite(counting, string(in))
		var pieces []string
		for rest := string(in); rest != ""; {
			n := min(int(step)+1, len(rest))
			pieces, rest = append(pieces, rest[:n]), rest[n:]
		}
		cut, cutErr := rewrite(o, pieces...)
		if whole != cut || (err == nil) != (cutErr == nil) {
			t.Fatalf("whole %q, %v\ncut   %q, %v", whole, err, cut, cutErr)
		}
		r := bufio.NewReader(strings.NewReader(whole))
		for n := 0; ; n++ {
			req, err := http.ReadRequest(r)
			if err != nil {
				return // the end, or stricter than ours
			}
			if user := req.Header["X-User"]; len(user) != 1 || user[0] != "alice" || n >= heads {
				t.Fatalf("request %d of %d has X-User %q in %q", n, heads, user, whole)
			}
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				return
			}
			if user := req.Trailer["X-User"]; len(user) > 0 {
				t.Fatalf("trailer X-User %q in %q", user, whole)
			}
		}
	})
}

// FuzzAnswers: nothing a server sends makes the tracker fail.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabHTTP/1.1 101 S\r\n\r\n"), uint8(2))
	f.Fuzz(func(t *testing.T, in []byte, step uint8) {
		run := func(step int) answers {
			var a answers
			for _, k := range []kind{plain, noBody, plain, upgrade} {
				a.expect(k)
			}
			for b := in; len(b) > 0; {
				n := min(step, len(b))
				a.read(b[:n])
				b = b[n:]
			}
			return a
		}
		a, b := run(len(in)+1), run(int(step)+1)
		if a.lost != b.lost || a.accepted != b.accepted || len(a.queue) != len(b.queue) {
			t.Fatalf("%+v\n%+v", a, b)
		}
	})
}
