package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

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
	for _, bad := range [][]string{{"http://a", "http://b"}, {"ftp://a"}, {"http://u:secret@h:port"}, {"=http://a"}, {"a,b=http://c"}, {"http://"}, {"http://u:secret@a/path"}, {"https://a"}} {
		if _, err := Parse(bad, nil); !errors.Is(err, ErrRule) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%v: %v", bad, err)
		}
	}
	if _, err := Parse(nil, func(string) string { return "gopher://secret@x" }); !errors.Is(err, ErrRule) || strings.Contains(err.Error(), "secret") {
		t.Error(err)
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
	closed := "127.0.0.1:" + servers.FreePort(t)
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
		"danted":         {func(t testing.TB) string { return "socks5://" + servers.Danted(t).Address }, map[string]string{closed: "connection refused"}},
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

// TestSilentProxy: the context bounds the conversation with the proxy.
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
	refused := "http://127.0.0.1:" + servers.FreePort(t)
	p, _ := ParseURL(refused)
	if _, _, err := p.Dial(t.Context(), "relay.example:1"); !errors.Is(err, ErrProxy) || !strings.Contains(err.Error(), refused) || !strings.Contains(err.Error(), "refused") {
		t.Error(err)
	}
}
