package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"sallyport/internal/servers"
)

// socksServer is a SOCKS5 server (RFC 1928) that asks for a user and a password (RFC 1929), or for nothing where user is empty, and connects whoever
// has them to the target, whatever they ask for. asked gets the destinations.
func socksServer(t *testing.T, user, password, target string, asked chan<- string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	serve := func(c net.Conn) error {
		defer c.Close()
		read := func(n int) []byte {
			b := make([]byte, n)
			if _, err := io.ReadFull(c, b); err != nil {
				return make([]byte, n)
			}
			return b
		}
		greeting := read(2)
		methods := read(int(greeting[1]))
		method := byte(0)
		if user != "" {
			method = 2
		}
		if greeting[0] != 5 || !bytes.Contains(methods, []byte{method}) {
			_, err := c.Write([]byte{5, 0xff})
			return err
		}
		if _, err := c.Write([]byte{5, method}); err != nil {
			return err
		}
		if user != "" {
			head := read(2)
			name := read(int(head[1]))
			word := read(int(read(1)[0]))
			if head[0] != 1 || string(name) != user || string(word) != password {
				_, err := c.Write([]byte{1, 1})
				return err
			}
			if _, err := c.Write([]byte{1, 0}); err != nil {
				return err
			}
		}
		request := read(4)
		var host string
		switch request[3] {
		case 1:
			host = net.IP(read(4)).String()
		case 3:
			host = string(read(int(read(1)[0])))
		case 4:
			host = net.IP(read(16)).String()
		}
		port := read(2)
		asked <- net.JoinHostPort(host, fmt.Sprint(int(port[0])<<8|int(port[1])))
		to, err := net.Dial("tcp", target)
		if err != nil {
			return err
		}
		defer to.Close()
		if _, err := c.Write([]byte{5, 0, 0, 1, 127, 0, 0, 1, 0, 1}); err != nil {
			return err
		}
		go func() {
			io.Copy(to, c)
			to.Close()
		}()
		_, err = io.Copy(c, to)
		return err
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	return ln.Addr().String()
}

// TestSOCKSUser: user and password are what the URL has, with what is escaped in it, and who has no right ones is told by the proxy's name alone.
func TestSOCKSUser(t *testing.T) {
	target := greeter(t)
	for _, c := range []struct{ user, password, credentials string }{
		{"u", "secret", "u:secret@"},
		{"a b", "s:e@c/t%", "a%20b:s%3Ae%40c%2Ft%25@"},
		{strings.Repeat("u", 255), strings.Repeat("p", 255), strings.Repeat("u", 255) + ":" + strings.Repeat("p", 255) + "@"},
		{"", "", "u:secret@"}, // the server asks for nothing
	} {
		asked := make(chan string, 10)
		at := socksServer(t, c.user, c.password, target, asked)
		for _, to := range []string{"192.0.2.7:443", "[2001:db8::7]:443", "relay.invalid:65535"} { // names are the proxy's to resolve
			if got, err := through(t, "socks5://"+c.credentials+at, to); got != "hello again" {
				t.Fatalf("%.20q: %s: %q, %v", c.user, to, got, err)
			}
			if got := <-asked; got != to {
				t.Errorf("%s was asked for as %s", to, got)
			}
		}
	}
	at := socksServer(t, "u", "secret", target, make(chan string, 10))
	for _, credentials := range []string{"u:wrong@", "other:secret@", "u:@", ""} {
		got, err := through(t, "socks5://"+credentials+at, "192.0.2.7:443")
		if !errors.Is(err, ErrProxy) || !strings.Contains(fmt.Sprint(err), at) || strings.Contains(fmt.Sprint(err), "secret") || strings.Contains(fmt.Sprint(err), "wrong") {
			t.Errorf("%q: %q, %v", credentials, got, err)
		}
	}
}

// TestSOCKSRefusal: what a SOCKS proxy answers is said to be its answer.
func TestSOCKSRefusal(t *testing.T) {
	for answer, says := range map[string]string{
		"\x05\x00\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00": `it answered "connection refused"`,
		"\x05\x00\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00": `it answered "connection not allowed by ruleset"`,
		"\x05\x00\x05\x2a\x00\x01\x00\x00\x00\x00\x00\x00": `it answered "unknown code: 42"`,
		"\x05\xff":          "no acceptable authentication methods",
		"HTTP/1.1 400 \r\n": "unexpected protocol version",
	} {
		at := servers.Listen(t, func(c net.Conn) {
			if _, err := io.WriteString(c, answer); err == nil {
				_, _ = io.Copy(io.Discard, c)
			}
		})
		p, err := ParseURL("socks5://" + at)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = p.Dial(t.Context(), "relay.example:443")
		if !errors.Is(err, ErrProxy) || !strings.HasPrefix(err.Error(), "proxy socks5://"+at+" to relay.example:443: ") || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "unknown error") {
			t.Errorf("%q: %v", answer, err)
		}
	}
}
