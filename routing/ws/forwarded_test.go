package ws

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

var inFront = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8:ffff::/48")}

// TestForwarded: the client is the nearest hop that is no proxy of ours; what stands before that, and what a proxy may only have passed on, is not believed.
func TestForwarded(t *testing.T) {
	for _, c := range []struct{ fields, want string }{
		{"", ""},
		{"X-Forwarded-For: 192.0.2.7", "192.0.2.7:0"},
		{"X-Forwarded-For: 192.0.2.7:4711", "192.0.2.7:4711"},
		{"X-Forwarded-For: 2001:db8::1", "[2001:db8::1]:0"},
		{"X-Forwarded-For: [2001:db8::1]:4711", "[2001:db8::1]:4711"},
		{"X-Forwarded-For: [2001:db8::1]", "[2001:db8::1]:0"},
		{"X-Forwarded-For: ::ffff:192.0.2.7", "192.0.2.7:0"},
		{"X-Forwarded-For: 198.51.100.1, 192.0.2.7", "192.0.2.7:0"},
		{"X-Forwarded-For: 198.51.100.1\r\nX-Forwarded-For: 192.0.2.7, 10.1.2.3", "192.0.2.7:0"},
		{"X-Forwarded-For: 192.0.2.7,10.1.2.3,2001:db8:ffff::9", "192.0.2.7:0"},
		{"X-Forwarded-For: 10.9.9.9, 10.1.2.3", "10.9.9.9:0"},
		{"X-Forwarded-For: unknown, 10.1.2.3", "10.1.2.3:0"},
		{"X-Forwarded-For: nonsense", ""},
		{"X-Forwarded-For: fe80::1%eth0", ""},
		{"X-Forwarded-For: 192.0.2.7, ", ""},
		{`Forwarded: for=192.0.2.7`, "192.0.2.7:0"},
		{`Forwarded: by=10.0.0.1;For="192.0.2.7:4711";proto=https`, "192.0.2.7:4711"},
		{`Forwarded: for=198.51.100.1, for="[2001:db8::1]:4711";by="[::1]"`, "[2001:db8::1]:4711"},
		{`Forwarded: for="192.0.2.7", for=10.1.2.3`, "192.0.2.7:0"},
		{`Forwarded: for=_hidden`, ""},
		{`Forwarded: proto=https`, ""},
		// A client that begins a quote would have what the proxy appends stand in it.
		{`Forwarded: for=198.51.100.1;x=", for=192.0.2.7`, ""},
		{`Forwarded: for=198.51.100.1;x=", for="[2001:db8::1]"`, ""},
		{`Forwarded: for=198.51.100.1;x="\, for="[2001:db8::1]"`, ""},
		{"Forwarded: for=198.51.100.1;x=\"\r\nForwarded: for=192.0.2.7", ""},
		{`Forwarded: for=198.51.100.1;x="a\"b,c", for=192.0.2.7`, "192.0.2.7:0"},
		// Who sets one of the fields passes on the other.
		{"X-Forwarded-For: 192.0.2.7\r\nForwarded: for=\"192.0.2.7:1\"", "192.0.2.7:0"},
		{"X-Forwarded-For: 192.0.2.7\r\nForwarded: for=198.51.100.1", ""},
		{"X-Forwarded-For: 198.51.100.1\r\nForwarded: for=192.0.2.7", ""},
		{"X-Forwarded-For: 198.51.100.1\r\nForwarded: for=\"", ""},
		{"X-Forwarded-For: nonsense\r\nForwarded: for=192.0.2.7", ""},
	} {
		if c.fields != "" {
			c.fields += "\r\n"
		}
		var got []string
		f := NewServer(Accepts{Path: "/portal"}, 1<<20)
		f.Behind(inFront, func(client netip.AddrPort) bool { got = append(got, client.String()); return true })
		text := strings.Replace(request, "\r\n\r\n", "\r\n"+c.fields+"\r\n", 1)
		p, err := f.Next([]byte(text))
		if err != nil || p.Used != len(text) || !strings.HasPrefix(string(p.Reply), "HTTP/1.1 101 ") {
			t.Fatalf("%q: %+v, %v", c.fields, p, err)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%q: %q, want %q", c.fields, got, c.want)
		}
	}
}

// TestForwardedRefused: a client who is not admitted is told so, and nobody is asked about a request that is not the transport's.
func TestForwardedRefused(t *testing.T) {
	for path, want := range map[string]string{"/portal": "503", "/": "404"} {
		asked := 0
		f := NewServer(Accepts{Path: "/portal"}, 1<<20)
		f.Behind(inFront, func(netip.AddrPort) bool { asked++; return false })
		p, err := f.Next([]byte("GET " + path + strings.TrimPrefix(strings.Replace(request, "\r\n\r\n", "\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n", 1), "GET /portal?x=1")))
		if !strings.HasPrefix(string(p.Reply), "HTTP/1.1 "+want) || errors.Is(err, ErrRefused) != (want == "503") || asked > 0 != (want == "503") || f.Begun() {
			t.Errorf("%s: %q, %v, asked %d times", path, p.Reply, err, asked)
		}
	}
}

// FuzzForwarded: whatever the fields are, what a proxy appends names its client or nobody, and never another.
func FuzzForwarded(f *testing.F) {
	f.Add(`for=198.51.100.1;x="`, `198.51.100.1`)
	f.Fuzz(func(t *testing.T, forwarded, x string) {
		fr := &front{trusted: inFront}
		for _, appended := range []string{`for=192.0.2.7`, `for="192.0.2.7:80"`} {
			for _, h := range []header{
				{fields: []field{{"forwarded", forwarded}, {"forwarded", appended}}},
				{fields: []field{{"forwarded", forwarded + ", " + appended}, {"x-forwarded-for", x}}},
				{fields: []field{{"x-forwarded-for", x}, {"x-forwarded-for", "192.0.2.7"}, {"forwarded", forwarded}}},
			} {
				if c := fr.client(&h); c.IsValid() && c.Addr() != netip.MustParseAddr("192.0.2.7") {
					t.Errorf("%q: %s", h.fields, c)
				}
			}
		}
	})
}
