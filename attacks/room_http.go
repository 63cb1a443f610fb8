package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"strings"
	"sync"
	"time"
)

// httpRows are about what speaks HTTP: inlets that set headers, and the node's own status.
var httpRows = []row{
	{
		name: "smuggling", attack: "200 requests that hide a header of a set name or a second request, in pieces of 1 to all bytes, through an inlet with --http-header",
		promised: "no server, strict or lenient, sees another value, and the server sees no request that has not got it",
		run:      smuggle,
	},
	{
		name: "foreign-host", number: 20, attack: "GET /show and /metrics with the Host of a page elsewhere, in 12 spellings",
		promised: "refused; with an address or localhost answered",
		run:      foreignHost,
	},
}

// smuggled are requests; %s is what must not arrive: the name that is set, with a value of the client's.
var smuggled = []string{
	// A header of the name, as it is and as some server might still take it for one.
	"GET / HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n",
	"GET / HTTP/1.1\r\n%s\r\nHost: a\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\n %s\r\n\r\n",
	"GET / HTTP/1.1\r\n %s\r\nHost: a\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\t%s\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\n%s\n\n",
	"GET / HTTP/1.1\nHost: a\n%s\n\n",
	"GET / HTTP/1.1\r\nHost: a\r%s\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nX: y\r%s\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nX: y\x00\r\n%s\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\n\x00%s\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\n\x0b%s\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\n\xa0%s\r\n\r\n",
	"GET /\r\n%s HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET /?\n%s\n HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET / HTTP/1.0\r\n%s\r\n\r\n",
	"GET /\r\n%s\r\n\r\n", // 0.9
	"\r\n\r\nGET / HTTP/1.1\r\n%s\r\nHost: a\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Who\r\n%s\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nConnection: close, x-who\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: X_Who\r\n\r\n",
	// A second request in what one of two takes for the body of the first.
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 60\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60, 0\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +0\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x0\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 60\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nContent_Length: 60\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0;a\nb\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab0\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n00000000000000000\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000000\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n",
	// Trailers, pipelines, upgrades.
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Who\r\n\r\n0\r\n%s\r\n\r\n",
	"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n",
	"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n",
	"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n%s\r\n\r\n",
}

// spellings of the header that must not come through.
var spellings = []string{"X-Who: mallory", "x-who:mallory", "X_Who: mallory", "X-Who : mallory", "X-Who\t: mallory", "X-WHO:\tmallory"}

// httpTarget is a server that keeps all bytes it reads, and what it makes of them.
type httpTarget struct {
	ln net.Listener

	mu    sync.Mutex
	raw   strings.Builder
	wrong []string
	asked int
}

func newHTTPTarget() (*httpTarget, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	t := &httpTarget{ln: ln}
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		t.mu.Lock()
		defer t.mu.Unlock()
		t.asked++
		for name, values := range r.Header {
			if strings.ReplaceAll(textproto.CanonicalMIMEHeaderKey(name), "_", "-") == "X-Who" && (len(values) != 1 || values[0] != "alice") {
				t.wrong = append(t.wrong, fmt.Sprintf("%s %s: %s %q", r.Method, r.URL, name, values))
			}
		}
		if got := r.Header.Get("X-Who"); got != "alice" {
			t.wrong = append(t.wrong, fmt.Sprintf("%s %s: X-Who is %q", r.Method, r.URL, got))
		}
		for name := range r.Trailer {
			if name == "X-Who" && r.Trailer.Get(name) != "" {
				t.wrong = append(t.wrong, "trailer "+name)
			}
		}
	})}
	go func() { _ = server.Serve(tapped{ln, t}) }()
	return t, nil
}

// tapped is a listener whose connections are written down.
type tapped struct {
	net.Listener
	t *httpTarget
}

func (l tapped) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return tappedConn{c, l.t}, nil
}

type tappedConn struct {
	net.Conn
	t *httpTarget
}

func (c tappedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.t.mu.Lock()
	c.t.raw.Write(b[:n])
	c.t.mu.Unlock()
	return n, err
}

// lenient says what a server might see that takes every line, however ended, wherever it is in the head, for a header.
func lenient(raw string) string {
	for line := range strings.FieldsFuncSeq(raw, func(r rune) bool { return r == '\n' || r == '\r' || r == 0 }) {
		name, value, ok := strings.Cut(line, ":")
		name = strings.NewReplacer("_", "-", "\xa0", " ").Replace(name)
		if name = strings.Trim(strings.ToLower(name), " \t\v\f"); ok && name == "x-who" && strings.TrimSpace(value) != "alice" {
			return line
		}
	}
	return ""
}

func smuggle(ctx context.Context, s *stage) (string, error) {
	t, err := newHTTPTarget()
	if err != nil {
		return "", err
	}
	defer t.ln.Close()
	name := "web" + fmt.Sprint(t.ln.Addr().(*net.TCPAddr).Port)
	if _, err := s.cli(ctx, "bank", "tcp-outlet", "create", "--at", "bank", "--to", t.ln.Addr().String(), "--from", name); err != nil {
		return "", err
	}
	defer func() { _, _ = s.cli(ctx, "bank", "tcp-outlet", "delete", name, "--at", "bank", "--yes") }()
	at, err := s.newInlet(ctx, "shop", name, "--http-header", "X-Who: alice")
	if err != nil {
		return "", err
	}
	// One that is well formed tells that the way works.
	if err := s.await(ctx, "a request through the inlet", func() error {
		resp, err := http.Get("http://" + at + "/")
		if err == nil {
			resp.Body.Close()
		}
		return err
	}); err != nil {
		return "", err
	}
	sent, refused := 0, 0
	for i, form := range smuggled {
		for k, spelling := range spellings {
			text := form
			if strings.Contains(form, "%s") {
				text = strings.Replace(form, "%s", spelling, 1)
			} else if k > 0 {
				continue
			}
			if i%3 != 0 && k > 1 { // all spellings in every third, which is enough
				continue
			}
			t.mu.Lock()
			t.raw.Reset()
			asked := t.asked
			t.mu.Unlock()
			c, err := dial(at)
			if err != nil {
				return "", err
			}
			piece := []int{len(text), 1, 7}[sent%3]
			for b := text; b != ""; b = b[min(piece, len(b)):] {
				_, _ = io.WriteString(c, b[:min(piece, len(b))])
			}
			_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
			in := bufio.NewReader(c)
			for {
				resp, err := http.ReadResponse(in, nil)
				if err != nil {
					break
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = c.SetReadDeadline(time.Now().Add(30 * time.Millisecond))
			}
			c.Close()
			sent++
			t.mu.Lock()
			raw, wrong, reached := t.raw.String(), t.wrong, t.asked > asked
			t.mu.Unlock()
			if len(wrong) > 0 {
				return "", fmt.Errorf("%q: the server saw %s", text, wrong[0])
			}
			if line := lenient(raw); line != "" && !inBody(raw, line) {
				return "", fmt.Errorf("%q: the server was sent %q", text, raw)
			}
			if !reached {
				refused++
			}
		}
	}
	return fmt.Sprintf("%d streams, %d of them refused, none got another value through", sent, refused), nil
}

// inBody reports whether a line of raw is in the body of the requests in it, as net/http reads them: that is where a client may write what it
// likes.
func inBody(raw, line string) bool {
	in := bufio.NewReader(strings.NewReader(raw))
	for {
		req, err := http.ReadRequest(in)
		if err != nil {
			return false
		}
		body, err := io.ReadAll(req.Body)
		if strings.Contains(string(body), line) {
			return true
		}
		if err != nil {
			return false
		}
	}
}

func foreignHost(ctx context.Context, s *stage) (string, error) {
	r, err := s.record("relay")
	if err != nil {
		return "", err
	}
	_, port, _ := net.SplitHostPort(r.Status)
	ask := func(path, host string) (int, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.Status+path, nil)
		if err != nil {
			return 0, err
		}
		req.Host = host
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0, err
		}
		resp.Body.Close()
		return resp.StatusCode, nil
	}
	refused := 0
	for _, host := range []string{"evil.example", "evil.example:" + port, "localhost.evil.example", "127.0.0.1.evil.example:" + port, "evil.example.:80",
		"127.0.0.1.nip.io", "localhost.:x", "xn--localhost", "0x7f.evil", "127.0.0.1x", "a.localhost.example", "LOCALHOST.example"} {
		for _, path := range []string{"/show", "/metrics"} {
			code, err := ask(path, host)
			if err != nil {
				return "", err
			}
			if code < 400 {
				return "", fmt.Errorf("%s with the Host %s: %d", path, host, code)
			}
			refused++
		}
	}
	for _, host := range []string{"127.0.0.1:" + port, "localhost:" + port, "localhost", "[::1]:" + port} {
		if code, err := ask("/show", host); err != nil || code != http.StatusOK {
			return "", fmt.Errorf("/show with the Host %s: %d %w", host, code, err)
		}
	}
	return fmt.Sprintf("%d of %d refused", refused, refused), nil
}
