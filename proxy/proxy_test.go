package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"sallyport/internal/freeport"
	"sallyport/internal/servers"
)

func TestRules(t *testing.T) {
	env := map[string]string{"HTTPS_PROXY": "http://u:secret@env.example:3128", "ALL_PROXY": "socks5://all.example", "NO_PROXY": "inside.example,10.0.0.0/8"}
	for _, c := range []struct {
		rules []string
		env   map[string]string
		want  map[string]string // by destination
	}{
		{nil, nil, map[string]string{"relay.example:443": "direct"}},
		{nil, env, map[string]string{"relay.example:443": "http://env.example:3128", "a.inside.example:1": "direct", "10.1.2.3:4": "direct",
			"[2001:db8::1]:4": "http://env.example:3128", "127.0.0.1:4": "direct", "localhost:4": "direct", "[::1]:4": "direct"}},
		{nil, map[string]string{"all_proxy": "socks5h://all.example"}, map[string]string{"relay.example:443": "socks5://all.example:1080"}},
		{nil, map[string]string{"HTTP_PROXY": "http://h.example"}, map[string]string{"relay.example:443": "direct"}},
		{[]string{"http://p.example"}, env, map[string]string{"relay.example:443": "http://p.example:80", "10.1.2.3:4": "http://p.example:80", "localhost:4": "direct"}},
		{[]string{"http://p.example:8", "inside.example=direct", "10.0.0.0/8=socks5://u:p@[2001:db8::9]:99", "127.0.0.1=q.example:3", "x.example:5=direct"}, nil, map[string]string{
			"relay.example:443": "http://p.example:8", "inside.example:1": "direct", "a.inside.example:1": "direct", "10.9.9.9:1": "socks5://[2001:db8::9]:99",
			"127.0.0.1:5": "http://q.example:3", "127.0.0.2:5": "direct", "x.example:5": "direct", "x.example:6": "http://p.example:8"}},
		{[]string{"relay.example=http://p.example"}, env, map[string]string{"relay.example:1": "http://p.example:80", "other.example:1": "http://env.example:3128"}},
		{[]string{"direct"}, env, map[string]string{"relay.example:1": "direct"}},
		// A dot at the end is the same name.
		{nil, env, map[string]string{"inside.example.:1": "direct", "a.inside.example.:1": "direct", "relay.example.:1": "http://env.example:3128"}},
		{nil, map[string]string{"HTTPS_PROXY": "http://h.example", "NO_PROXY": "a.example., b.example.:5,.c.example.,[2001:db8::1]:4"}, map[string]string{"a.example:1": "direct", "x.a.example.:1": "direct",
			"b.example:5": "direct", "b.example:6": "http://h.example:80", "x.c.example:1": "direct", "[2001:db8::1]:4": "direct", "[2001:db8::1]:5": "http://h.example:80"}},
		{[]string{"a.example.=direct", "b.example=direct", "localhost.=q.example:3", "http://p.example"}, nil, map[string]string{"a.example:1": "direct", "b.example.:1": "direct", "localhost:1": "http://q.example:3",
			"localhost.:1": "http://q.example:3", "c.example.:1": "http://p.example:80"}},
		{nil, map[string]string{"HTTPS_PROXY": "https://u:secret@h.example"}, map[string]string{"relay.example:443": "https://h.example:443", "127.0.0.1:1": "direct"}},
		{[]string{"https://p.example:8443"}, nil, map[string]string{"relay.example:1": "https://p.example:8443"}},
		{[]string{"http://u:a=b@p.example"}, nil, map[string]string{"relay.example:1": "http://p.example:80"}},
	} {
		r, err := Parse(c.rules, func(name string) string { return c.env[name] })
		if err != nil {
			t.Errorf("%v: %v", c.rules, err)
			continue
		}
		for to, want := range c.want {
			if p, err := r.For(to); err != nil || p.String() != want {
				t.Errorf("%v: %s through %s, %v", c.rules, to, p, err)
			}
		}
	}
	for _, bad := range [][]string{{"http://a", "http://b"}, {"ftp://a"}, {"http://u:secret@h:port"}, {"=http://a"}, {"a,b=http://c"}, {"http://"}, {"http://u:secret@a/path"}, {"https://u:secret@a?x"}} {
		if _, err := Parse(bad, nil); !errors.Is(err, ErrRule) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%v: %v", bad, err)
		}
	}
	// What the environment has wrong matters where it would be used, and only there.
	for _, c := range []struct {
		name, value, noProxy string
		rules                []string
		direct               []string
		fails                bool
	}{
		{"ALL_PROXY", "gopher://secret@x", "", nil, []string{"127.0.0.1:1", "localhost:1"}, true},
		{"HTTPS_PROXY", "socks4://secret@x", "*", nil, []string{"relay.example:1", "10.0.0.1:1"}, false},
		{"https_proxy", "http://u:secret@h:port", "other.example", nil, []string{"other.example:1"}, true},
		{"all_proxy", "socks4://secret@x", "", []string{"direct"}, []string{"relay.example:1"}, false},
		{"all_proxy", "socks4://secret@x", "", []string{"10.0.0.0/8=direct"}, []string{"10.0.0.1:1"}, true},
	} {
		r, err := Parse(c.rules, func(name string) string { return map[string]string{c.name: c.value, "NO_PROXY": c.noProxy}[name] })
		if err != nil {
			t.Errorf("%s=%s: %v", c.name, c.value, err)
			continue
		}
		for _, to := range c.direct {
			if p, err := r.For(to); p != nil || err != nil {
				t.Errorf("%s=%s: %s through %s, %v", c.name, c.value, to, p, err)
			}
		}
		if p, err := r.For("relay.example:1"); (err != nil) != c.fails || err != nil && (p != nil || !errors.Is(err, ErrRule) || !strings.Contains(err.Error(), c.name) || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%s=%s: through %s, %v", c.name, c.value, p, err)
		}
	}
	for rule, want := range map[string]string{"a.example=http://u:secret@p:8": "a.example=http://p:8", "socks5://u:secret@p": "socks5://p:1080", "direct": "direct",
		"http://u:secret@p:port": "…"} {
		if got := Redacted(rule); got != want {
			t.Errorf("%s: %s", rule, got)
		}
	}
	if p, err := (*Rules)(nil).For("a:1"); p != nil || err != nil {
		t.Error(p, err)
	}
}

// greeter is a server that speaks first and then repeats.
func greeter(t *testing.T) string {
	t.Helper()
	return servers.Listen(t, func(c net.Conn) {
		_, _ = io.WriteString(c, "hello")
		_, _ = io.Copy(c, c)
	})
}

// through connects, and returns what was said first.
func through(t *testing.T, proxy, to string) (string, error) {
	t.Helper()
	p, err := ParseURL(proxy)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	c, early, err := p.Dial(ctx, to)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, ok := c.(*net.TCPConn); !ok {
		t.Errorf("%T is no socket", c)
	}
	if _, err := io.WriteString(c, " again"); err != nil {
		t.Fatal(err)
	}
	got := append([]byte{}, early...)
	buf := make([]byte, 64)
	for len(got) < len("hello again") {
		n, err := c.Read(buf)
		if got = append(got, buf[:n]...); err != nil {
			t.Fatal(err)
		}
	}
	return string(got), nil
}

func TestProxies(t *testing.T) {
	to := greeter(t)
	_, port, _ := net.SplitHostPort(to)
	closed := "127.0.0.1:" + freeport.For(t)
	for name, c := range map[string]struct {
		start func(testing.TB) string
		fails map[string]string // what the error says, by destination
	}{
		"tinyproxy":      {func(t testing.TB) string { return "http://" + servers.Tinyproxy(t, "", "").Address }, map[string]string{closed: "500 Unable to connect"}},
		"with a user":    {func(t testing.TB) string { return "http://u:p%61ss@" + servers.Tinyproxy(t, "u", "pass").Address }, nil},
		"another user":   {func(t testing.TB) string { return "http://u:wrong@" + servers.Tinyproxy(t, "u", "pass").Address }, map[string]string{to: "401 Unauthorized"}},
		"without a user": {func(t testing.TB) string { return "http://" + servers.Tinyproxy(t, "u", "pass").Address }, map[string]string{to: "407 Proxy Authentication Required"}},
		"squid":          {func(t testing.TB) string { return "http://" + servers.Squid(t, "1-65535").Address }, map[string]string{closed: "503 Service Unavailable"}},
		"squid, no port": {func(t testing.TB) string { return servers.Squid(t, "443").Address }, map[string]string{to: "403 Forbidden"}},
		"danted":         {func(t testing.TB) string { return "socks5://" + servers.Danted(t).Address }, map[string]string{closed: `it answered "connection refused"`}},
	} {
		t.Run(name, func(t *testing.T) {
			proxy := c.start(t)
			for _, host := range []string{"127.0.0.1", "localhost"} { // localhost is the proxy's to resolve
				if _, fails := c.fails[to]; fails {
					break
				}
				if got, err := through(t, proxy, net.JoinHostPort(host, port)); err != nil || got != "hello again" {
					t.Errorf("%s: %q, %v", host, got, err)
				}
			}
			if _, fails := c.fails[to]; !fails { // the proxy has two addresses, and listens at the second
				_, at, _ := strings.Cut(proxy[strings.LastIndexAny(proxy, "@/")+1:], ":")
				named := proxy[:strings.LastIndexAny(proxy, "@/")+1] + "localhost:" + at
				if got, err := through(t, named, to); err != nil || got != "hello again" {
					t.Errorf("%q, %v", got, err)
				}
			}
			for to, says := range c.fails {
				_, err := through(t, proxy, to)
				if !errors.Is(err, ErrProxy) || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), proxy[strings.LastIndexAny(proxy, "@/")+1:]) ||
					strings.Contains(err.Error(), "wrong") {
					t.Errorf("%s: %v", to, err)
				}
			}
		})
	}
}

// TestAnswers: the last answer to CONNECT counts, by its status alone; nothing in its header says that a body follows (RFC 9110 sections 9.3.6 and 15.2).
func TestAnswers(t *testing.T) {
	for answer, says := range map[string]string{ // nothing for a connection
		"HTTP/1.1 200 OK\r\n\r\n":                                                                         "",
		"HTTP/1.0 200\r\n\r\n":                                                                            "",
		"HTTP/1.1 200 OK\r\nContent-Length: 0, 0\r\n\r\n":                                                 "",
		"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nContent-Length: 9\r\n\r\n":                               "",
		"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked, gzip\r\n\r\n":                             "",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n": "",
		"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 403 Forbidden\r\n\r\n":                                   `answered "403 Forbidden"`,
		"HTTP/1.1 101 Switching Protocols\r\n\r\n":                                                        `answered "101 Switching Protocols"`,
		"HTTP/1.1 302 Found\r\nLocation: x\r\n\r\n":                                                       `answered "302 Found"`,
		"SSH-2.0-OpenSSH_9.2\r\n\r\n":                                                                     "no HTTP",
		"HTTP/1.1 2000 OK\r\n\r\n":                                                                        "no HTTP",
		"HTTP/1.1 +20 OK\r\n\r\n":                                                                         "no HTTP",
		"HTTP/1.1 200 OK\r\nno field\r\n\r\n":                                                             "its answer",
		strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", maxInterim+1) + "HTTP/1.1 200 OK\r\n\r\n":         "more than",
		strings.Repeat("HTTP/1.1 100 Continue\r\nA: "+strings.Repeat("x", maxAnswer/2)+"\r\n\r\n", 3):     "its answer",
	} {
		at := servers.Listen(t, func(c net.Conn) {
			buf := make([]byte, 1024)
			if _, err := c.Read(buf); err == nil {
				_, _ = io.WriteString(c, answer+"hello")
				_, _ = io.Copy(c, c)
			}
		})
		if says == "" {
			if got, err := through(t, "http://"+at, "relay.example:1"); err != nil || got != "hello again" {
				t.Errorf("%q: %q, %v", answer, got, err)
			}
			continue
		}
		p, err := ParseURL("http://" + at)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		if _, _, err := p.Dial(ctx, "relay.example:1"); !errors.Is(err, ErrProxy) || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), at) {
			t.Errorf("%.80q: %v", answer, err)
		}
		cancel()
	}
}

// TestProxyOverTLS: a proxy over TLS is believed where its certificate is for its name and of a root of the system, and what it is asked for goes inside.
func TestProxyOverTLS(t *testing.T) {
	other, err := servers.Certificate("localhost")
	if err != nil {
		t.Fatal(err)
	}
	wrong, port := "https://localhost:"+tlsProxy(t, other), tlsProxy(t, believed)
	p, err := ParseURL("https://u:secret@localhost:" + port)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	c, early, err := p.Dial(ctx, "relay.example:443")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, ok := c.(*tls.Conn); !ok {
		t.Errorf("%T is no TLS", c)
	}
	rest, err := io.ReadAll(io.LimitReader(c, int64(len("CONNECT relay.example:443")-len(early))))
	if got := string(early) + string(rest); err != nil || got != "CONNECT relay.example:443" {
		t.Errorf("%q, %v", got, err)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for url, says := range map[string]string{wrong: "certificate", "https://127.0.0.1:" + port: "certificate", "https://" + silent.Addr().String(): "deadline", "https://" + greeter(t): "TLS"} {
		p, err := ParseURL(url)
		if err != nil {
			t.Fatal(err)
		}
		patience := 90 * time.Second
		if says == "deadline" {
			patience = 200 * time.Millisecond
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if _, _, err := p.Dial(ctx, "relay.example:443"); !errors.Is(err, ErrProxy) || !strings.Contains(err.Error(), url+" to relay.example:443: ") || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", url, err)
		}
		cancel()
	}
}

// tlsProxy is a proxy over TLS that answers 200, then what was asked for. It returns its port.
func tlsProxy(t *testing.T, cert tls.Certificate) string {
	t.Helper()
	at := servers.Listen(t, func(c net.Conn) {
		s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}})
		request, err := http.ReadRequest(bufio.NewReader(s))
		if err != nil {
			return
		}
		_, _ = io.WriteString(s, "HTTP/1.1 200 OK\r\n\r\n"+request.Method+" "+request.Host)
		_, _ = io.Copy(io.Discard, s)
	})
	_, port, _ := net.SplitHostPort(at)
	return port
}

// TestSilentProxy: the context bounds the conversation with the proxy; it is asked for nothing but a host and port.
func TestSilentProxy(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, scheme := range []string{"http", "socks5"} {
		p, err := ParseURL(scheme + "://" + ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if _, _, err := p.Dial(ctx, "relay.example:1"); !errors.Is(err, ErrProxy) || !errors.Is(err, context.DeadlineExceeded) && !strings.Contains(err.Error(), "timeout") {
			t.Errorf("%s: %v", scheme, err)
		}
		cancel()
	}
	for _, to := range []string{"a b:1", "a\r\nX-Evil: 1:1", "a\x00:1", "a\x7f:1", "user@a:1", "a/b:1"} {
		p, err := ParseURL("http://" + ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		if _, _, err := p.Dial(ctx, to); !errors.Is(err, ErrProxy) || !strings.Contains(err.Error(), "no host and port") {
			t.Errorf("%q: %v", to, err)
		}
		cancel()
	}
	refused := "http://127.0.0.1:" + freeport.For(t)
	p, _ := ParseURL(refused)
	if _, _, err := p.Dial(t.Context(), "relay.example:1"); !errors.Is(err, ErrProxy) || !strings.Contains(err.Error(), refused) || !strings.Contains(err.Error(), "refused") {
		t.Error(err)
	}
}
