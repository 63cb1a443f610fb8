package ws

import (
	"bytes"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// Protocol is the subprotocol that both sides name: the transport's messages, in their version 1.
const Protocol = "sallyport.1"

// MaxHeader bounds the request and the answer of a handshake, in bytes.
const MaxHeader = 8 << 10

// maxInterim bounds the answers before the last one.
const maxInterim = 10

// maxLines bounds the lines of a header.
const maxLines = 100

var (
	// ErrHandshake reports an answer that does not begin a WebSocket connection.
	ErrHandshake = errors.New("websocket: handshake failed")
	// ErrRequest reports a request that is not for the transport; it was answered.
	ErrRequest = errors.New("websocket: the request was not for the transport")
	// ErrHeader reports a header that is no HTTP, or too long.
	ErrHeader = errors.New("websocket: malformed header")
	// ErrRefused reports a request that was the transport's, of a client that is not admitted; it was answered.
	ErrRefused = errors.New("websocket: the client that the proxy names is not admitted")
)

// header is the beginning of an HTTP/1.1 message: its first line and its fields.
type header struct {
	first  string
	fields []field
}

type field struct{ name, value string } // the name in lower case

// get returns the values of a field, joined as one list (RFC 9110 section 5.3).
func (h *header) get(name string) string {
	var list []string
	for _, f := range h.fields {
		if f.name == name {
			list = append(list, f.value)
		}
	}
	return strings.Join(list, ", ")
}

// has reports whether a field that is a list has an element, without regard to case.
func (h *header) has(name, element string) bool {
	for e := range strings.SplitSeq(h.get(name), ",") {
		if strings.EqualFold(strings.TrimSpace(e), element) {
			return true
		}
	}
	return false
}

// once reports whether a field is there exactly once.
func (h *header) once(name string) bool {
	n := 0
	for _, f := range h.fields {
		if f.name == name {
			n++
		}
	}
	return n == 1
}

// parseHeader reads a header that ends in an empty line. used is 0 when b has no end of it yet.
func parseHeader(b []byte) (h header, used int, err error) {
	end := bytes.Index(b[:min(len(b), MaxHeader)], []byte("\r\n\r\n"))
	if end < 0 {
		if len(b) >= MaxHeader {
			return h, 0, fmt.Errorf("%w: longer than %d bytes", ErrHeader, MaxHeader)
		}
		return h, 0, nil
	}
	lines := strings.Split(string(b[:end]), "\r\n")
	if len(lines) > maxLines {
		return h, 0, fmt.Errorf("%w: more than %d lines", ErrHeader, maxLines)
	}
	for _, line := range lines {
		if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			return h, 0, fmt.Errorf("%w: a control character", ErrHeader)
		}
	}
	h.first = lines[0]
	for _, line := range lines[1:] {
		name, value, ok := strings.Cut(line, ":")
		if !ok || name == "" || strings.ContainsAny(name, " \t") {
			return h, 0, fmt.Errorf("%w: a line is no field", ErrHeader)
		}
		h.fields = append(h.fields, field{strings.ToLower(name), strings.Trim(value, " \t")})
	}
	return h, end + 4, nil
}

// acceptKey is what a server answers to a client's key (RFC 6455 section 1.3).
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// Request is what a client asks for.
type Request struct {
	// Host is the Host field, Path begins with a slash and is not encoded.
	Host, Path string
	key        string
}

// NewRequest makes a request with a random key. It fails for what is no host.
func NewRequest(host, path string) (*Request, error) {
	if host == "" || strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune("/?#@", r) }) {
		return nil, fmt.Errorf("%w: %q is no host", ErrHandshake, host)
	}
	var key [16]byte
	_, _ = rand.Read(key[:]) // never fails (crypto/rand)
	return &Request{Host: host, Path: path, key: base64.StdEncoding.EncodeToString(key[:])}, nil
}

// Bytes returns what is sent.
func (r *Request) Bytes() []byte {
	target := (&url.URL{Path: r.Path}).EscapedPath()
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: %s\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: %s\r\nUser-Agent: sallyport\r\n\r\n", target, r.Host, r.key, Protocol)
}

// Answer reads the server's answer, and those before it that say that it takes time (RFC 9110 section 15.2). used is 0 when b has no end of it yet; what
// follows it in b are frames. All of it must be within MaxHeader bytes.
func (r *Request) Answer(b []byte) (used int, err error) {
	for range maxInterim + 1 {
		h, n, err := parseHeader(b[used:])
		if err == nil && n == 0 && len(b) >= MaxHeader {
			err = fmt.Errorf("%w: longer than %d bytes", ErrHeader, MaxHeader)
		}
		if err != nil {
			return 0, fmt.Errorf("%w: %w", ErrHandshake, err)
		}
		if n == 0 {
			return 0, nil
		}
		used += n
		if version, status, _ := strings.Cut(h.first, " "); strings.HasPrefix(version, "HTTP/1.") && len(status) >= 3 && status[0] == '1' && status[:3] != "101" {
			continue
		}
		if err := r.check(&h); err != nil {
			return 0, err
		}
		return used, nil
	}
	return 0, fmt.Errorf("%w: more than %d answers before the last from %s", ErrHandshake, maxInterim, r.Host)
}

// check says what is wrong with the last answer.
func (r *Request) check(h *header) error {
	version, status, _ := strings.Cut(h.first, " ")
	switch {
	case !strings.HasPrefix(version, "HTTP/1."):
		return fmt.Errorf("%w: the server does not speak HTTP", ErrHandshake)
	case !strings.HasPrefix(status, "101 ") && status != "101":
		return fmt.Errorf("%w: the server answered %q at %s%s", ErrHandshake, status, r.Host, r.Path)
	case !h.has("upgrade", "websocket") || !h.has("connection", "upgrade") || h.get("sec-websocket-accept") != acceptKey(r.key):
		return fmt.Errorf("%w: the answer at %s%s is not to this request", ErrHandshake, r.Host, r.Path)
	case h.get("sec-websocket-protocol") != Protocol:
		return fmt.Errorf("%w: the server at %s%s is none of this transport", ErrHandshake, r.Host, r.Path)
	case h.get("sec-websocket-extensions") != "":
		return fmt.Errorf("%w: the server wants an extension", ErrHandshake)
	}
	return nil
}

// Accepts says which requests a server takes for the transport's.
type Accepts struct {
	// Path is what is asked for, not encoded; empty takes every path.
	Path string
	// Host is the name in the Host field, without a port; empty takes every name.
	Host string
}

// answer reads a request and returns the answer to it. used is 0 when b has no end of the request yet. With an error the connection
// ends after the answer. What a stranger sent is not repeated in the error.
func (a *Accepts) answer(b []byte) (h header, used int, reply []byte, err error) {
	h, used, err = parseHeader(b)
	if err != nil {
		return h, 0, refusal("400 Bad Request", "", ""), err
	}
	if used == 0 {
		return h, 0, nil, nil
	}
	method, rest, _ := strings.Cut(h.first, " ")
	target, version, ok := strings.Cut(rest, " ")
	host, path, terr := requested(target, h.get("host"))
	if !ok || version != "HTTP/1.1" && version != "HTTP/1.0" || terr != nil {
		return h, 0, refusal("400 Bad Request", "", ""), ErrHeader
	}
	no := func(status, fields, why string) (header, int, []byte, error) {
		return h, used, refusal(status, fields, method), fmt.Errorf("%w: %s", ErrRequest, why)
	}
	if a.Path != "" && path != a.Path || a.Host != "" && !strings.EqualFold(hostname(host), strings.TrimSuffix(a.Host, ".")) {
		return no("404 Not Found", "", "another page")
	}
	if method != "GET" {
		return no("405 Method Not Allowed", "Allow: GET\r\n", "another method")
	}
	if !h.has("upgrade", "websocket") || !h.has("connection", "upgrade") {
		return no("426 Upgrade Required", "Upgrade: websocket\r\nConnection: Upgrade\r\n", "no upgrade")
	}
	key, kerr := base64.StdEncoding.DecodeString(h.get("sec-websocket-key"))
	switch {
	case version != "HTTP/1.1" || !h.once("host") || kerr != nil || len(key) != 16:
		return no("400 Bad Request", "", "not a WebSocket handshake")
	case h.get("sec-websocket-version") != "13":
		return no("426 Upgrade Required", "Sec-WebSocket-Version: 13\r\n", "another version")
	case !h.has("sec-websocket-protocol", Protocol):
		return no("400 Bad Request", "", "another protocol")
	}
	return h, used, fmt.Appendf(nil, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Accept: %s\r\nSec-WebSocket-Protocol: %s\r\n\r\n", acceptKey(h.get("sec-websocket-key")), Protocol), nil
}

// requested reads the target of a request: the host, with a port if it has one, and the path that is meant. A target in absolute form, as proxies send it,
// names the host in place of the Host field (RFC 9112 section 3.2.2).
func requested(target, field string) (host, path string, err error) {
	u, err := url.ParseRequestURI(target)
	switch {
	case err != nil:
		return "", "", ErrHeader
	case u.Scheme == "" && strings.HasPrefix(u.Path, "/"):
		return field, u.Path, nil
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil:
		return "", "", ErrHeader
	case u.Path == "":
		u.Path = "/"
	}
	return u.Host, u.Path, nil
}

// hostname takes the port off a Host field, and the dot off the end of a name.
func hostname(host string) string {
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		host = host[:i]
	}
	return strings.TrimSuffix(host, ".")
}

// refusal is an answer after which the connection ends.
func refusal(status, fields, method string) []byte {
	body := status + "\n"
	length := len(body)
	if method == "HEAD" {
		body = ""
	}
	return fmt.Appendf(nil, "HTTP/1.1 %s\r\n%sContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", status, fields, length, body)
}
