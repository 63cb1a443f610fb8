package multiaddr

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestStream(t *testing.T) {
	for _, c := range []struct {
		text string
		want Stream
		rest string
	}{
		{"/dnsaddr/relay.example/tcp/4000/service/api", Stream{Layer: "tcp", HostPort: "relay.example:4000"}, "/service/api"},
		{"/dnsaddr/relay.example/tcp/443/wss/service/api", Stream{Layer: "wss", HostPort: "relay.example:443"}, "/service/api"},
		{"/dnsaddr/relay.example/tcp/443/tls/ws/http-path/a%2fb%20c/secure/api", Stream{Layer: "wss", HostPort: "relay.example:443", Path: "/a/b c"}, "/secure/api"},
		{"/ip6/2001:db8::1/tcp/80/ws", Stream{Layer: "ws", HostPort: "[2001:db8::1]:80"}, ""},
		{"/ip4/10.0.0.1/tcp/443/tls/sni/relay.example/ws/http-path/portal", Stream{Layer: "wss", HostPort: "10.0.0.1:443", Name: "relay.example", Path: "/portal"}, ""},
		{"/ip4/10.0.0.1/tcp/443/wss/sni/relay.example/service/api", Stream{Layer: "wss", HostPort: "10.0.0.1:443", Name: "relay.example"}, "/service/api"},
		{"/ip4/10.0.0.1/tcp/443/tls", Stream{Layer: "tls", HostPort: "10.0.0.1:443"}, ""},
		{"/ip4/10.0.0.1/tcp/443/http-path/portal", Stream{Layer: "tcp", HostPort: "10.0.0.1:443"}, "/http-path/portal"},
		{"/ip4/10.0.0.1/tcp/443/ws/ws", Stream{Layer: "ws", HostPort: "10.0.0.1:443"}, "/ws"},
	} {
		a, err := Parse(c.text)
		if err != nil {
			t.Fatal(err)
		}
		s, n := a.Stream()
		if s != c.want || a[n:].String() != c.rest {
			t.Errorf("%s: %+v, then %s", c.text, s, a[n:])
		}
		raw, err := a.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		if back, err := FromBytes(raw); err != nil || !slices.Equal(back, a) {
			t.Errorf("%s: %x became %s, %v", c.text, raw, back, err)
		}
		if back, err := Parse(a.String()); err != nil || !slices.Equal(back, a) {
			t.Errorf("%s: %s became %s, %v", c.text, a, back, err)
		}
	}
	for _, text := range []string{"/ip4/10.0.0.1/udp/1/ws", "/service/a", "/ip4/10.0.0.1", "/service/a/ip4/10.0.0.1/tcp/1"} {
		if a, err := Parse(text); err != nil {
			t.Fatal(err)
		} else if _, n := a.Stream(); n != 0 {
			t.Errorf("%s: %d parts", text, n)
		}
	}
	// The codes are those of the multiformats table.
	if raw, err := (Addr{{Protocol: TLS}, {SNI, "a"}, {Protocol: WS}, {Protocol: WSS}, {HTTPPath, "b"}}).Bytes(); err != nil || string(raw) != "\xc0\x03\xc1\x03\x01a\xdd\x03\xde\x03\xe1\x03\x01b" {
		t.Errorf("%x, %v", raw, err)
	}
	for _, bad := range []string{"/http-path/%zz", "/http-path/%ff", "/ws/", "/ws//tls", "/wss/4/service"} {
		if _, err := Parse(bad); err == nil {
			t.Error(bad)
		}
	}
}

func TestStreamURL(t *testing.T) {
	for text, want := range map[string]string{
		"wss://relay.example.com/portal":     "/dnsaddr/relay.example.com/tcp/443/wss/http-path/portal",
		"wss://relay.example.com:8443/a/b/":  "/dnsaddr/relay.example.com/tcp/8443/wss/http-path/a%2Fb%2F",
		"ws://10.0.0.1/":                     "/ip4/10.0.0.1/tcp/80/ws",
		"ws://[2001:db8::1]:81":              "/ip6/2001:db8::1/tcp/81/ws",
		"wss://10.0.0.1/p?host=r.example":    "/ip4/10.0.0.1/tcp/443/wss/sni/r.example/http-path/p",
		"tls://relay.example.com:443":        "/dnsaddr/relay.example.com/tcp/443/tls",
		"tcp://relay.example.com:4000":       "/dnsaddr/relay.example.com/tcp/4000",
		"wss://relay.example.com/with%20two": "/dnsaddr/relay.example.com/tcp/443/wss/http-path/with%20two",
	} {
		s, err := ParseStream(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		a, err := s.Addr()
		if err != nil || a.String() != want {
			t.Errorf("%s: %s, %v", text, a, err)
		}
		if back, err := ParseStream(s.String()); err != nil || back != s {
			t.Errorf("%s: %s became %+v, %v", text, s, back, err)
		}
		if back, n := a.Stream(); back != s || n != len(a) {
			t.Errorf("%s: %+v became %+v", text, s, back)
		}
	}
	for _, bad := range []string{"relay.example.com:443", "https://a", "tls://a", "tcp://a:1/path", "wss://u:secret@a", "wss://a?x", "wss://", "wss:a", "ws://a:port"} {
		if _, err := ParseStream(bad); !errors.Is(err, ErrURL) && !strings.Contains(bad, "port") {
			t.Errorf("%s: %v", bad, err)
		}
	}
	// What may not stand in a request says so.
	for bad, says := range map[string]string{"ws://a/p%0d%0aX-Evil:%201": "control character", "ws://a/p%7f": "control character", "ws://a/p?host=b%0d%0aX-Evil:%201": "host",
		"wss://a?host=b%20c": "host", "tls://a:1?host=b%00": "host", "ws://a\"b": "host"} {
		if _, err := ParseStream(bad); !errors.Is(err, ErrURL) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	for _, bad := range []Stream{{Layer: "ws", HostPort: "a:1", Path: "/a\nb"}, {Layer: "ws", HostPort: "a:1", Name: "a\nb"}, {Layer: "ws", HostPort: "a\nb:1"}} {
		if a, err := bad.Addr(); err == nil {
			t.Errorf("%+v: %s", bad, a)
		}
	}
}
