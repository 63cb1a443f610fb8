package ws

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"sallyport/dataplane"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestVectors: the examples of RFC 6455 sections 1.3 and 5.7.
func TestVectors(t *testing.T) {
	if got := acceptKey("dGhlIHNhbXBsZSBub25jZQ=="); got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Error(got)
	}
	for _, c := range []struct {
		frame  string
		masked bool
		fin    bool
		op     byte
		text   string
	}{
		{"81 05 48 65 6c 6c 6f", false, true, opText, "Hello"},
		{"81 85 37 fa 21 3d 7f 9f 4d 51 58", true, true, opText, "Hello"},
		{"01 03 48 65 6c", false, false, opText, "Hel"},
		{"80 02 6c 6f", false, true, opContinuation, "lo"},
		{"89 05 48 65 6c 6c 6f", false, true, opPing, "Hello"},
		{"8a 85 37 fa 21 3d 7f 9f 4d 51 58", true, true, opPong, "Hello"},
	} {
		b := unhex(t, c.frame)
		h, need := parseHead(b)
		if need != 0 || h.masked != c.masked || h.fin() != c.fin || h.opcode() != c.op || h.length+int(h.size) != len(b) {
			t.Errorf("%s: %+v, need %d", c.frame, h, need)
		}
		payload := b[h.length:]
		if h.masked {
			mask(payload, h.key)
		}
		if string(payload) != c.text {
			t.Errorf("%s: %q", c.frame, payload)
		}
		for i := range h.length {
			if _, need := parseHead(unhex(t, c.frame)[:i]); need <= i || need > h.length {
				t.Errorf("%s cut at %d: need %d", c.frame, i, need)
			}
		}
	}
	for size, want := range map[int]string{256: "82 7e 01 00", 65536: "82 7f 00 00 00 00 00 01 00 00", 125: "82 7d", 126: "82 7e 00 7e", 65535: "82 7e ff ff"} {
		b := make([]byte, headLen(size, false))
		putHead(b, opBinary, size, false)
		if !bytes.Equal(b, unhex(t, want)) {
			t.Errorf("%d bytes: %x", size, b)
		}
	}
}

// TestMask: masking is what the RFC says byte by byte, at every length and alignment.
func TestMask(t *testing.T) {
	key := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	data := make([]byte, 300)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	for at := range 9 {
		for n := range 280 {
			got := bytes.Clone(data)
			mask(got[at:at+n], key)
			for i := range got {
				want := data[i]
				if i >= at && i < at+n {
					want ^= key[(i-at)%4]
				}
				if got[i] != want {
					t.Fatalf("byte %d of %d from %d", i-at, n, at)
				}
			}
		}
	}
}

func BenchmarkMask(b *testing.B) {
	for _, size := range []int{64, 1 << 10, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			p := make([]byte, size)
			b.SetBytes(int64(size))
			for i := range b.N {
				mask(p, [4]byte{byte(i), 1, 2, 3})
			}
		})
	}
}

// request is a handshake as a browser sends it.
const request = "GET /portal?x=1 HTTP/1.1\r\nHost: relay.example.com:8443\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat, sallyport.1\r\n\r\n"

func TestServerHandshake(t *testing.T) {
	a := Accepts{Path: "/portal", Host: "relay.example.com"}
	_, used, reply, err := a.answer([]byte(request + "rest"))
	if err != nil || used != len(request) || !strings.HasPrefix(string(reply), "HTTP/1.1 101 ") ||
		!strings.Contains(string(reply), "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: sallyport.1\r\n\r\n") {
		t.Errorf("%d, %q, %v", used, reply, err)
	}
	for i := range len(request) {
		if _, used, reply, err := a.answer([]byte(request[:i])); used != 0 || reply != nil || err != nil {
			t.Fatalf("cut at %d: %d, %q, %v", i, used, reply, err)
		}
	}
	for _, c := range []struct{ old, new, status string }{
		{"GET /portal?x=1 ", "GET / ", "404"},
		{"GET /portal?x=1 ", "GET /portals ", "404"},
		{"relay.example.com:8443", "other.example.com", "404"},
		{"GET ", "POST ", "405"},
		{"Upgrade: WebSocket\r\n", "", "426"},
		{"keep-alive, Upgrade", "keep-alive", "426"},
		{"-Version: 13", "-Version: 8", "426"},
		{"sallyport.1", "sallyport.2", "400"},
		{"dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZQ==", "400"},
		{"dGhlIHNhbXBsZSBub25jZQ==", "no base64", "400"},
		{"HTTP/1.1\r\n", "HTTP/1.0\r\n", "400"},
		{"HTTP/1.1\r\n", "HTTP/2.0\r\n", "400"},
		{"GET /", "GET http://", "404"},
		{"GET /", "GET http:///", "400"},
		{"GET /", "GET ftp://relay.example.com/", "400"},
		{"GET /", "GET http://user@relay.example.com/", "400"},
		{"GET /", "GET //", "404"},
		{"GET /portal", "GET http://other.example.com/portal", "404"}, // the field does not count there
		{"GET /portal", "GET relay.example.com/portal", "400"},
		{"GET /portal", "GET http:/portal", "400"},
		{"relay.example.com:8443", "other.example.com.", "404"},
		{"GET /portal", "\x16\x03\x01/portal", "400"},
		{"Host:", "Host :", "400"},
		{"keep-alive", "keep\x00alive", "400"},
		{"\r\nHost", "\r\n Host", "400"},
		{"Host: ", "Host: relay.example.com\r\nHost: ", "404"},
	} {
		_, _, reply, err := a.answer([]byte(strings.Replace(request, c.old, c.new, 1)))
		if err == nil || !strings.HasPrefix(string(reply), "HTTP/1.1 "+c.status+" ") || !strings.Contains(string(reply), "Connection: close\r\n") &&
			!strings.Contains(string(reply), "Connection: Upgrade\r\n") {
			t.Errorf("%q for %q: %q, %v", c.new, c.old, reply, err)
		}
	}
	for _, long := range []string{"GET /" + strings.Repeat("x", MaxHeader), request[:len(request)-2] + strings.Repeat("A: b\r\n", maxLines) + "\r\n"} {
		if _, _, reply, err := a.answer([]byte(long)); !errors.Is(err, ErrHeader) || !strings.HasPrefix(string(reply), "HTTP/1.1 400 ") {
			t.Errorf("%d bytes: %q, %v", len(long), reply, err)
		}
	}
	if _, _, _, err := (&Accepts{}).answer([]byte(strings.Replace(request, "/portal", "/any", 1))); err != nil {
		t.Error(err)
	}
}

// TestRequestOfAProxy: a target in absolute form names the host in place of the field (RFC 9112 section 3.2.2), and a name with a dot at its end is the same.
func TestRequestOfAProxy(t *testing.T) {
	for _, a := range []Accepts{{Path: "/portal", Host: "relay.example.com"}, {Path: "/portal", Host: "relay.example.com."}} {
		for _, c := range []struct{ old, new string }{
			{"GET /portal", "GET http://relay.example.com/portal"},
			{"GET /portal", "GET HTTPS://Relay.example.com.:443/%70ortal"},
			{"relay.example.com:8443", "relay.example.com."},
			{"relay.example.com:8443", "relay.example.com.:8443"},
		} {
			if _, _, reply, err := a.answer([]byte(strings.Replace(request, c.old, c.new, 1))); err != nil {
				t.Errorf("%q at %q: %q, %v", c.new, a.Host, reply, err)
			}
		}
		other := strings.Replace(strings.Replace(request, "GET /", "GET http://relay.example.com:8443/", 1), "Host: relay.", "Host: other.", 1)
		if _, _, reply, err := a.answer([]byte(other)); err != nil {
			t.Errorf("with another field: %q, %v", reply, err)
		}
	}
	if _, _, reply, err := (&Accepts{Path: "/"}).answer([]byte(strings.Replace(request, "/portal?x=1", "http://relay.example.com?x=1", 1))); err != nil {
		t.Errorf("without a path: %q, %v", reply, err)
	}
}

// TestRequestTarget: what is asked for is the path that both sides mean, however it is written, and nothing of it is more than a path or a host.
func TestRequestTarget(t *testing.T) {
	for path, target := range map[string]string{"/portal": "/portal", "/my path": "/my%20path", "/q?x": "/q%3Fx", "/ü": "/%C3%BC", "/a%b": "/a%25b", "/#": "/%23", "//a": "//a",
		"/p\r\nX-Evil: 1": "/p%0D%0AX-Evil:%201"} {
		r, err := NewRequest("relay.example.com:81", path)
		if err != nil {
			t.Fatal(err)
		}
		if line, _, _ := strings.Cut(string(r.Bytes()), "\r\n"); line != "GET "+target+" HTTP/1.1" {
			t.Errorf("%q: %q", path, line)
		}
		if _, _, reply, err := (&Accepts{Path: path, Host: "relay.example.com"}).answer(r.Bytes()); err != nil {
			t.Errorf("%q: %q, %v", path, reply, err)
		}
	}
	for _, host := range []string{"", "a b", "a\r\nX-Evil: 1", "a\x00", "a\x7f", "a/b", "user@a"} {
		if r, err := NewRequest(host, "/"); !errors.Is(err, ErrHandshake) || !strings.Contains(err.Error(), "host") {
			t.Errorf("%q: %v, %v", host, r, err)
		}
	}
	for _, c := range []struct{ path, target, status string }{
		{"/portal", "/%70ortal", "101"},
		{"/portal", "/portal%20", "404"},
		{"/portal", "/%zz", "400"},
		{"/portal", "/por%00tal", "404"},
		{"/a/b", "/a%2Fb", "101"},
		{"/my path", "/my+path", "404"},
	} {
		_, _, reply, _ := (&Accepts{Path: c.path}).answer([]byte(strings.Replace(request, "/portal?x=1", c.target, 1)))
		if !strings.HasPrefix(string(reply), "HTTP/1.1 "+c.status+" ") {
			t.Errorf("%s at %s: %q", c.target, c.path, reply)
		}
	}
}

func TestClientHandshake(t *testing.T) {
	r, err := NewRequest("relay.example.com", "/portal")
	if err != nil {
		t.Fatal(err)
	}
	_, used, answer, err := (&Accepts{Path: "/portal", Host: "Relay.example.com"}).answer(r.Bytes())
	if err != nil || used != len(r.Bytes()) {
		t.Fatal(used, err)
	}
	if used, err := r.Answer(append(bytes.Clone(answer), 0x82)); err != nil || used != len(answer) {
		t.Errorf("%d of %d, %v", used, len(answer), err)
	}
	for i := range answer {
		if used, err := r.Answer(answer[:i]); used != 0 || err != nil {
			t.Fatalf("cut at %d: %d, %v", i, used, err)
		}
	}
	// Answers before the last one (RFC 9110 section 15.2) are passed over.
	early := []byte("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + string(answer))
	if used, err := r.Answer(append(bytes.Clone(early), 0x82)); err != nil || used != len(early) {
		t.Errorf("%d of %d, %v", used, len(early), err)
	}
	for i := range early {
		if used, err := r.Answer(early[:i]); used != 0 || err != nil {
			t.Fatalf("cut at %d: %d, %v", i, used, err)
		}
	}
	endless := "HTTP/1.1 100 Continue\r\nA: " + strings.Repeat("x", MaxHeader/3) + "\r\n\r\n"
	for name, long := range map[string]string{"many": strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", maxInterim+1), "long": strings.Repeat(endless, 3)[:MaxHeader]} {
		if used, err := r.Answer([]byte(long)); used != 0 || !errors.Is(err, ErrHandshake) {
			t.Errorf("%s: %d, %v", name, used, err)
		}
	}
	for _, c := range []struct{ old, new, says string }{
		{"HTTP/1.1 101", "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 503 Busy\r\nA: 101", "503 Busy"},
		{"101 Switching Protocols", "404 Not Found", "404 Not Found"},
		{"101 Switching Protocols", "200 OK", "200 OK"},
		{"HTTP/1.1", "SSH-2.0", "HTTP"},
		{"Accept: ", "Accept: x", "not to this request"},
		{"Upgrade: websocket", "Upgrade: h2c", "not to this request"},
		{"sallyport.1", "sallyport.2", "transport"},
		{"\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n", "extension"},
	} {
		if _, err := r.Answer([]byte(strings.Replace(string(answer), c.old, c.new, 1))); !errors.Is(err, ErrHandshake) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q for %q: %v", c.new, c.old, err)
		}
	}
}

// both are the framings of the two ends after their handshake.
func both(max int) (client, server *Framing) {
	server = NewServer(Accepts{}, max)
	server.accepts = nil
	return NewClient(max), server
}

// sealed is a frame with a message.
func sealed(f *Framing, body []byte) []byte {
	head := f.Head(len(body))
	frame := append(make([]byte, head), body...)
	f.Seal(frame, head)
	return frame
}

// raw is a frame as a client or a server sends it.
func raw(from *Framing, first byte, payload []byte) []byte {
	b := from.control(opPing, payload)
	b[0] = first
	return b
}

// take hands b to a framing as a connection does, and returns the messages and replies.
func take(f *Framing, b []byte) (messages, replies [][]byte, err error) {
	for len(b) > 0 {
		before := bytes.Clone(b)
		p, err := f.Next(b)
		if p.Reply != nil {
			replies = append(replies, bytes.Clone(p.Reply))
		}
		if err != nil {
			return messages, replies, err
		}
		if p.Used == 0 {
			if p.Need <= len(b) || !bytes.Equal(b, before) {
				return messages, replies, fmt.Errorf("%d of %d bytes needed, or input changed", p.Need, len(b))
			}
			return messages, replies, io.ErrUnexpectedEOF
		}
		from := b
		if p.Buf != nil {
			from = p.Buf
		}
		if p.End > 0 {
			if p.Low > p.Start || p.Start > p.End || p.End > len(from) {
				return messages, replies, fmt.Errorf("bounds %d %d %d of %d", p.Low, p.Start, p.End, len(from))
			}
			messages = append(messages, bytes.Clone(from[p.Start:p.End]))
		}
		b = b[p.Used:]
	}
	return messages, replies, nil
}

func TestMessages(t *testing.T) {
	for _, toServer := range []bool{true, false} {
		from, to := both(1 << 20)
		if !toServer {
			from, to = to, from
		}
		for _, size := range []int{1, 2, 125, 126, 127, 1000, 65535, 65536, 70_000, 1 << 20} {
			body := bytes.Repeat([]byte{byte(size), 7, 9}, size/3+1)[:size]
			frame := sealed(from, body)
			if got, _, err := take(to, bytes.Clone(frame)); err != nil || len(got) != 1 || !bytes.Equal(got[0], body) {
				t.Fatalf("%d bytes: %v", size, err)
			}
			if _, _, err := take(to, bytes.Clone(frame[:len(frame)-1])); err != io.ErrUnexpectedEOF {
				t.Errorf("%d bytes, cut: %v", size, err)
			}
			if toServer && bytes.Contains(frame, body) && size > 8 {
				t.Errorf("%d bytes are not masked", size)
			}
		}
		// In pieces, with a ping in between.
		var stream []byte
		stream = append(stream, raw(from, opBinary, []byte("one "))...)
		stream = append(stream, raw(from, finBit|opPing, []byte("there?"))...)
		stream = append(stream, raw(from, opContinuation, nil)...)
		stream = append(stream, raw(from, opContinuation, []byte("two "))...)
		if _, _, err := take(to, bytes.Clone(stream)); err != nil {
			t.Fatal(err)
		}
		if n, memory := to.Kept(); n != uint64(len(stream)-len(raw(from, opPing, []byte("there?")))) || memory < 8 {
			t.Errorf("%d bytes of the stream, %d of memory are kept", n, memory)
		}
		got, _, err := take(to, raw(from, finBit|opContinuation, []byte("three")))
		if err != nil || len(got) != 1 || string(got[0]) != "one two three" {
			t.Errorf("%q, %v", got, err)
		}
		if n, memory := to.Kept(); n != 0 || memory != 0 {
			t.Errorf("%d, %d are kept", n, memory)
		}
		_, replies, err := take(to, raw(from, finBit|opPing, []byte("there?")))
		if err != nil || len(replies) != 1 {
			t.Fatal(replies, err)
		}
		h, _ := parseHead(replies[0])
		payload := replies[0][h.length:]
		if h.masked {
			mask(payload, h.key)
		}
		if h.first != finBit|opPong || h.masked == toServer || string(payload) != "there?" {
			t.Errorf("pong %x", replies[0])
		}
	}
}

func TestViolations(t *testing.T) {
	const max = 1000
	frame := func(f *Framing, first byte, n int) []byte { return raw(f, first, make([]byte, n)) }
	for name, c := range map[string]struct {
		make   func(client, server *Framing) []byte
		status uint16
		is     error
	}{
		"reserved bit":       {func(c, _ *Framing) []byte { return frame(c, finBit|0x40|opBinary, 5) }, statusProtocol, ErrProtocol},
		"not masked":         {func(_, s *Framing) []byte { return sealed(s, []byte("x")) }, statusProtocol, ErrProtocol},
		"ping in pieces":     {func(c, _ *Framing) []byte { return frame(c, opPing, 5) }, statusProtocol, ErrProtocol},
		"long ping":          {func(c, _ *Framing) []byte { return frame(c, finBit|opPing, 126) }, statusProtocol, ErrProtocol},
		"unknown":            {func(c, _ *Framing) []byte { return frame(c, finBit|3, 5) }, statusProtocol, ErrProtocol},
		"unknown control":    {func(c, _ *Framing) []byte { return frame(c, finBit|0xb, 5) }, statusProtocol, ErrProtocol},
		"text":               {func(c, _ *Framing) []byte { return frame(c, finBit|opText, 5) }, statusUnsupported, ErrProtocol},
		"goes on":            {func(c, _ *Framing) []byte { return frame(c, finBit|opContinuation, 5) }, statusProtocol, ErrProtocol},
		"within another":     {func(c, _ *Framing) []byte { return append(frame(c, opBinary, 5), frame(c, finBit|opBinary, 5)...) }, statusProtocol, ErrProtocol},
		"too long":           {func(c, _ *Framing) []byte { return frame(c, finBit|opBinary, max+1)[:8] }, statusTooLarge, dataplane.ErrFrameSize},
		"too long in pieces": {func(c, _ *Framing) []byte { return append(frame(c, opBinary, max), frame(c, opContinuation, 1)...) }, statusTooLarge, dataplane.ErrFrameSize},
		"empty":              {func(c, _ *Framing) []byte { return frame(c, finBit|opBinary, 0) }, statusUnsupported, dataplane.ErrFrameSize},
		"empty in pieces": {func(c, _ *Framing) []byte {
			return append(frame(c, opBinary, 0), frame(c, finBit|opContinuation, 0)...)
		}, statusUnsupported, dataplane.ErrFrameSize},
		"endless length":       {func(c, _ *Framing) []byte { return unhex(t, "82 ff ff ff ff ff ff ff ff ff 00 00 00 00") }, statusTooLarge, dataplane.ErrFrameSize},
		"close":                {func(c, _ *Framing) []byte { return c.bye(statusNormal) }, statusNormal, io.EOF},
		"close without":        {func(c, _ *Framing) []byte { return frame(c, finBit|opClose, 0) }, statusNormal, io.EOF},
		"close of its own":     {func(c, _ *Framing) []byte { return raw(c, finBit|opClose, []byte("\x0f\xa0why")) }, 4000, io.EOF},
		"close, half a status": {func(c, _ *Framing) []byte { return frame(c, finBit|opClose, 1) }, statusProtocol, ErrProtocol},
		"close, no UTF-8":      {func(c, _ *Framing) []byte { return raw(c, finBit|opClose, []byte("\x03\xe8\xff")) }, statusInvalid, ErrProtocol},
	} {
		client, server := both(max)
		_, replies, err := take(server, c.make(client, server))
		if !errors.Is(err, c.is) || len(replies) != 1 {
			t.Errorf("%s: %v, %x", name, err, replies)
			continue
		}
		if r := replies[0]; r[0] != finBit|opClose || binary.BigEndian.Uint16(r[2:]) != c.status {
			t.Errorf("%s: %x", name, r)
		}
		if server.End(nil) != nil || server.End(io.EOF) != nil {
			t.Errorf("%s: closed twice", name)
		}
	}
	// A status that must not be sent is not sent back (RFC 6455 section 7.4.1).
	for status, valid := range map[uint16]bool{0: false, 999: false, 1000: true, 1001: true, 1003: true, 1004: false, 1005: false, 1006: false, 1007: true, 1011: true, 1012: true, 1014: true, 1015: false,
		1016: false, 2999: false, 3000: true, 4999: true, 5000: false, 65535: false} {
		client, server := both(max)
		_, replies, err := take(server, raw(client, finBit|opClose, binary.BigEndian.AppendUint16(nil, status)))
		want, is := status, io.EOF
		if !valid {
			want, is = statusProtocol, ErrProtocol
		}
		if len(replies) != 1 || binary.BigEndian.Uint16(replies[0][2:]) != want || !errors.Is(err, is) {
			t.Errorf("status %d: %x, %v", status, replies, err)
		}
	}
	// Nothing is sent after the Close frame.
	for name, after := range map[string]byte{"a Close": finBit | opClose, "a reserved bit": finBit | reserved | opBinary, "a ping": finBit | opPing} {
		client, server := both(max)
		if b := server.End(nil); binary.BigEndian.Uint16(b[2:]) != statusNormal {
			t.Errorf("%x", b)
		}
		if _, replies, _ := take(server, raw(client, after, []byte{3, 0xe8})); len(replies) > 0 {
			t.Errorf("%s after the end: %x", name, replies)
		}
	}
	_, server := both(max)
	if b := server.End(io.ErrUnexpectedEOF); len(b) != 4 || binary.BigEndian.Uint16(b[2:]) != statusProtocol || server.End(nil) != nil {
		t.Errorf("an end for what was in a frame: %x", b)
	}
	client, _ := both(max)
	if _, _, err := take(client, sealed(NewClient(max), []byte("x"))); !errors.Is(err, ErrProtocol) {
		t.Errorf("a masked frame of a server: %v", err)
	}
}

// FuzzFraming: whatever comes, nothing is taken beyond the limit, and input cut anywhere means the same as in one piece.
func FuzzFraming(f *testing.F) {
	client, server := both(300)
	f.Add([]byte(request), uint8(3), false)
	f.Add(sealed(client, []byte("message")), uint8(1), true)
	f.Add(sealed(server, []byte("message")), uint8(1), true)
	f.Add(append(raw(client, opBinary, []byte("a")), raw(client, finBit|opContinuation, []byte("b"))...), uint8(2), true)
	f.Fuzz(func(t *testing.T, in []byte, step uint8, open bool) {
		make := func() *Framing {
			s := NewServer(Accepts{}, 300)
			if open {
				s.accepts = nil
			}
			return s
		}
		whole := make()
		want, _, wantErr := take(whole, bytes.Clone(in))
		cut := make()
		var got [][]byte
		var part []byte
		var gotErr error
		for at := 0; at < len(in) && gotErr == nil; {
			n := min(len(in)-at, 1+int(step))
			part = append(part, in[at:at+n]...)
			at += n
			for gotErr == nil && len(part) > 0 {
				p, err := cut.Next(part)
				if err != nil {
					gotErr = err
					break
				}
				if p.Used == 0 {
					break
				}
				from := part
				if p.Buf != nil {
					from = p.Buf
				}
				if p.End > 0 {
					if p.End-p.Start > 300 {
						t.Fatalf("a message of %d bytes", p.End-p.Start)
					}
					got = append(got, bytes.Clone(from[p.Start:p.End]))
				}
				part = part[p.Used:]
			}
			if _, memory := cut.Kept(); memory > 1024 {
				t.Fatalf("%d bytes of memory", memory)
			}
		}
		if wantErr == io.ErrUnexpectedEOF {
			wantErr = nil
		}
		if len(got) != len(want) || (gotErr == nil) != (wantErr == nil) && !errors.Is(wantErr, ErrHeader) {
			t.Fatalf("%d messages and %v in pieces, %d and %v whole", len(got), gotErr, len(want), wantErr)
		}
		for i := range want {
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("message %d differs", i)
			}
		}
	})
}
