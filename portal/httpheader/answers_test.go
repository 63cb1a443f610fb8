package httpheader

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestRefusalIsAnAnswer: a client that waits for nothing else is told why, in a whole HTTP answer; one that is in the middle of another answer is not.
func TestRefusalIsAnAnswer(t *testing.T) {
	const request = "GET / HTTP/1.1\r\n\r\n"
	refused := refuse(431, "the header is too long")
	for name, c := range map[string]struct {
		opts     Options
		requests int
		answer   string
		told     bool
	}{
		"at once":                    {told: true},
		"before the answer":          {requests: 1},
		"in the head of the answer":  {requests: 1, answer: "HTTP/1.1 200 OK\r\nA: "},
		"in its body":                {requests: 1, answer: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhal"},
		"behind it":                  {requests: 1, answer: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole", told: true},
		"behind the first of two":    {requests: 2, answer: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole"},
		"behind both":                {requests: 2, answer: strings.Repeat("HTTP/1.1 204 No Content\r\n\r\n", 2), told: true},
		"after one not understood":   {requests: 1, answer: "SSH-2.0\r\n\r\n"},
		"no answers seen, at once":   {opts: Options{NoUpgrade: true}, told: true},
		"no answers seen, some sent": {opts: Options{NoUpgrade: true}, requests: 1},
	} {
		c.opts.Fields = fields
		r := New(c.opts)
		for range c.requests {
			feed(t, r, request)
		}
		r.Answer([]byte(c.answer))
		text := r.Refusal(refused)
		if (text != nil) != c.told {
			t.Errorf("%s: %q", name, text)
		}
		if r.Refusal(errors.New("another error")) != nil || r.Refusal(io.EOF) != nil {
			t.Errorf("%s: what is no refusal is answered", name)
		}
		if !c.told {
			continue
		}
		resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(append(text, "more"...))), nil)
		if err != nil {
			t.Fatal(name, err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.Status != "431 Request Header Fields Too Large" || string(body) != "the header is too long\n" || !resp.Close {
			t.Errorf("%s: %s %q, %v", name, resp.Status, body, err)
		}
	}
}

// TestPass: what goes through unchanged is what is left of a body or of a chunk, and nothing of a head.
func TestPass(t *testing.T) {
	r := New(Options{Fields: fields})
	want := func(what string, n int64) {
		t.Helper()
		if got := r.Pass(); got != n {
			t.Errorf("%s: %d bytes, want %d", what, got, n)
		}
	}
	want("before a request", 0)
	feed(t, r, "POST / HTTP/1.1\r\nContent-Length: 5\r\n")
	want("in the head", 0)
	feed(t, r, "\r\n")
	want("a body", 5)
	r.Passed(2)
	want("the rest of a body", 3)
	r.Passed(3)
	want("behind a body", 0)
	feed(t, r, "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n")
	want("a chunk", 4)
	r.Passed(4)
	want("behind a chunk", 0)
	feed(t, r, "\r\n0\r\n\r\n"+upgradeRequest)
	want("before the answer to an upgrade", 0)
	r.Answer([]byte(strings.Repeat("HTTP/1.1 204 No Content\r\n\r\n", 2) + "HTTP/1.1 101 Switching Protocols\r\n\r\n"))
	want("a tunnel", 1<<60)
	r.Passed(1000)
	want("a tunnel", 1<<60)
	r = New(Options{Fields: fields})
	if _, _, err := r.Rewrite(nil, []byte("nonsense\r\n\r\n")); err == nil || r.Pass() != 0 {
		t.Errorf("%v, and %d bytes pass", err, r.Pass())
	}
}

// TestChunkSizes: digits of base 16 in either case, and nothing beside them.
func TestChunkSizes(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "9": 9, "a": 10, "f": 15, "A": 10, "F": 15, "10": 16, "fF": 255, "0a;x=y": 10, "fffffffffffffff": 1<<60 - 1} {
		if n, ok := chunkSize([]byte(text + "\r\n")); !ok || n != want {
			t.Errorf("%q: %d, %v", text, n, ok)
		}
	}
	for _, text := range []string{"", "g", "G", "`", "@", "/", ":", "-1", "+1", " 1", "0x1", "fg", "8000000000000000", "\x061"} {
		if n, ok := chunkSize([]byte(text + "\r\n")); ok {
			t.Errorf("%q is taken for %d", text, n)
		}
	}
}

// TestUpgradeInAChunk: what a server says in the body of an answer opens nothing, however the body is cut into chunks.
func TestUpgradeInAChunk(t *testing.T) {
	const accepted = "HTTP/1.1 101 Switching Protocols\r\n\r\n"
	for name, body := range map[string]string{
		"an empty line in a chunk": "4\r\n\r\n\r\n\r\n24\r\n" + accepted + "\r\n",
		"two chunks":               "1\r\nx\r\n24\r\n" + accepted + "\r\n",
		"the end in a chunk":       "5\r\n0\r\n\r\n\r\n24\r\n" + accepted + "\r\n",
	} {
		r := New(Options{Fields: fields})
		_, left := feed(t, r, "GET / HTTP/1.1\r\n\r\n"+upgradeRequest+"raw")
		r.Answer([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body))
		if out, _, err := r.Rewrite(nil, []byte(left)); len(out) > 0 || err != nil || !r.Held() {
			t.Errorf("%s: %q passed, %v", name, out, err)
		}
		r.Answer([]byte("0\r\n\r\n" + accepted))
		if out, _, err := r.Rewrite(nil, []byte(left)); string(out) != "raw" || err != nil {
			t.Errorf("%s: %q, %v", name, out, err)
		}
	}
}

// TestSecondUpgrade: an upgrade that was refused says nothing about the next.
func TestSecondUpgrade(t *testing.T) {
	r := New(Options{Fields: fields})
	_, left := feed(t, r, upgradeRequest+upgradeRequest+"raw")
	r.Answer([]byte("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"))
	if _, left = feed(t, r, left); left != "raw" || !r.Held() {
		t.Fatalf("%q left, held %v", left, r.Held())
	}
	r.Answer([]byte("HTTP/1.1 100 Continue\r\n\r\n"))
	if out, _ := feed(t, r, left); out != "" || !r.Held() {
		t.Errorf("%q passed before the answer", out)
	}
	r.Answer([]byte("HTTP/1.1 101 Switching Protocols\r\n\r\n"))
	if out, _ := feed(t, r, left); out != "raw" {
		t.Errorf("%q passed", out)
	}
}
