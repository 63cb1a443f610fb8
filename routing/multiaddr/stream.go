package multiaddr

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
)

// Stream is a stream transport's part of an address, as text: a host and a TCP port, and what is spoken there.
type Stream struct {
	// Layer is "tcp", "tls", "ws" or "wss".
	Layer string
	// HostPort is `host:port` or `[v6]:port` as package net takes it.
	HostPort string
	// Name is who the server is for (/sni); empty for the host.
	Name string
	// Path is what is asked for with WebSocket (/http-path), with its slash in front; empty for "/".
	Path string
}

// Stream reads the stream transport that begins at the first part of a: a host, /tcp, then nothing, /tls, /ws, /wss or /tls/ws, with
// /sni behind /tls, and /sni or /http-path at the end. n is how many parts that is; 0 if there is none.
func (a Addr) Stream() (s Stream, n int) {
	_, hostport, at, ok := a.HostPort()
	if !ok || at != 0 || a[1].Protocol != TCP {
		return s, 0
	}
	s.Layer, s.HostPort, n = "tcp", hostport, 2
	for ; n < len(a); n++ {
		switch p := a[n].Protocol; {
		case s.Layer == "tcp" && (p == TLS || p == WS || p == WSS):
			s.Layer = p.String()
		case s.Layer == "tls" && (p == WS || p == WSS):
			s.Layer = WSS.String()
		case p == SNI && s.Layer != "tcp" && s.Name == "":
			s.Name = a[n].Text
		case p == HTTPPath && (s.Layer == "ws" || s.Layer == "wss") && s.Path == "":
			path, err := url.PathUnescape(a[n].Text)
			if err != nil {
				return s, 0 // no address that was parsed
			}
			s.Path = "/" + strings.TrimPrefix(path, "/")
		default:
			return s, n
		}
	}
	return s, n
}

// ErrURL reports a URL that is no stream transport's.
var ErrURL = errors.New("must be ws://HOST:PORT/PATH, wss://HOST:PORT/PATH, tls://HOST:PORT or tcp://HOST:PORT")

// String returns the URL that ParseStream reads.
func (s Stream) String() string {
	u := url.URL{Scheme: s.Layer, Host: s.HostPort, Path: s.Path}
	if s.Name != "" {
		u.RawQuery = url.Values{"host": {s.Name}}.Encode()
	}
	return u.String()
}

// ParseStream reads a URL: ws, wss, tls or tcp, with a path for the first two. The port of ws is 80 and that of wss 443 if there is none.
// ?host=NAME is who the server is for.
func ParseStream(text string) (s Stream, err error) {
	u, err := url.Parse(text)
	if err != nil {
		return s, fmt.Errorf("%q %w", text, ErrURL)
	}
	port := map[string]string{"ws": "80", "wss": "443"}[u.Scheme]
	if u.Port() != "" {
		port = u.Port()
	}
	query, err := url.ParseQuery(u.RawQuery)
	name := query.Get("host")
	query.Del("host")
	webSocket := u.Scheme == "ws" || u.Scheme == "wss"
	if !slices.Contains([]string{"ws", "wss", "tls", "tcp"}, u.Scheme) || u.Hostname() == "" || port == "" || u.User != nil || err != nil || len(query) > 0 ||
		u.Fragment != "" || u.Opaque != "" || !webSocket && u.Path != "" || name != "" && u.Scheme == "tcp" {
		return s, fmt.Errorf("%q %w", text, ErrURL)
	}
	s = Stream{Layer: u.Scheme, HostPort: net.JoinHostPort(u.Hostname(), port), Name: name, Path: u.Path}
	if s.Path == "/" {
		s.Path = ""
	}
	for _, v := range []Value{{DNSAddr, u.Hostname()}, {SNI, name}, {HTTPPath, url.PathEscape(s.Path)}} {
		if _, err := canonical(v); err != nil {
			return Stream{}, fmt.Errorf("%q %w: %w: %q", text, ErrURL, err, v.Text)
		}
	}
	return s, nil
}

// Addr returns the stream transport as an address.
func (s Stream) Addr() (Addr, error) {
	a, err := FromHostPort("tcp", s.HostPort)
	if err != nil {
		return nil, err
	}
	if p, ok := protocolByName(s.Layer); ok && p.bare() {
		a = append(a, Value{Protocol: p})
	}
	if s.Name != "" {
		a = append(a, Value{SNI, s.Name})
	}
	if path := strings.TrimPrefix(s.Path, "/"); path != "" {
		a = append(a, Value{HTTPPath, url.PathEscape(path)})
	}
	for i := range a {
		if a[i], err = canonical(a[i]); err != nil {
			return nil, fmt.Errorf("multiaddr: %w: %q", err, a[i].Text)
		}
	}
	return a, nil
}
