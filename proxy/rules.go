package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpproxy"
)

var (
	// ErrRule reports a rule that cannot be read.
	ErrRule = errors.New("not a proxy")
	// ErrProxy reports a proxy that did not make the connection.
	ErrProxy = errors.New("proxy")
)

// direct in place of a URL is for destinations that are reached without a proxy.
const direct = "direct"

// Rules say through which proxy a destination is reached. They do not change; nil has none.
type Rules struct {
	list []rule
	env  func(*url.URL) (*url.URL, error)
}

type rule struct {
	text    string
	matches func(hostport string) bool
	proxy   *Proxy // nil: none
}

// Parse reads rules: URL for all destinations, or PATTERN=URL for those that PATTERN names as an entry of NO_PROXY would, of which the first
// that fits counts; `direct` as the URL is for no proxy. Destinations on this machine go through a proxy only where a pattern names them.
// Where no rule fits, or there are none, getenv is asked for HTTPS_PROXY, else ALL_PROXY, and NO_PROXY; nil asks nothing.
func Parse(list []string, getenv func(string) string) (*Rules, error) {
	r := &Rules{}
	var all *rule
	for _, text := range list {
		pattern, to, ok := cutRule(text)
		p, err := ParseURL(to)
		if err != nil {
			return nil, err
		}
		one := rule{text: text, proxy: p}
		if !ok {
			if all != nil {
				return nil, fmt.Errorf("%w: two are for all destinations", ErrRule)
			}
			one.matches = func(hostport string) bool { return !local(hostport) }
			all = &one
			continue
		}
		if one.matches, err = matcher(pattern); err != nil {
			return nil, err
		}
		r.list = append(r.list, one)
	}
	if all != nil {
		r.list = append(r.list, *all)
	}
	if getenv != nil {
		either := func(names ...string) string {
			for _, n := range names {
				if v := getenv(n); v != "" {
					return v
				}
			}
			return ""
		}
		c := httpproxy.Config{HTTPSProxy: either("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"), NoProxy: either("no_proxy", "NO_PROXY")}
		if c.HTTPSProxy != "" {
			if _, err := ParseURL(c.HTTPSProxy); err != nil {
				return nil, fmt.Errorf("HTTPS_PROXY or ALL_PROXY: %w", err)
			}
			r.env = c.ProxyFunc()
		}
	}
	return r, nil
}

// cutRule takes PATTERN=URL apart. An = after :// belongs to the URL.
func cutRule(text string) (pattern, to string, ok bool) {
	i := strings.IndexByte(text, '=')
	if j := strings.Index(text, "://"); i < 0 || j >= 0 && j < i {
		return "", text, false
	}
	return text[:i], text[i+1:], true
}

// Redacted returns a rule without credentials.
func Redacted(text string) string {
	pattern, to, ok := cutRule(text)
	if ok {
		pattern += "="
	}
	p, err := ParseURL(to)
	if err != nil {
		return pattern + "…"
	}
	return pattern + p.String()
}

// local reports whether a destination is on this machine.
func local(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().IsLoopback()
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// matcher is what an entry of NO_PROXY says (golang.org/x/net/http/httpproxy), with the destinations on this machine, which that has apart.
func matcher(pattern string) (func(hostport string) bool, error) {
	if pattern == "" || strings.ContainsAny(pattern, ", \t") {
		return nil, fmt.Errorf("%w: %q is no pattern of destinations", ErrRule, pattern)
	}
	pattern = strings.ToLower(pattern)
	through := (&httpproxy.Config{HTTPSProxy: "http://proxy.invalid", NoProxy: pattern}).ProxyFunc()
	prefix, perr := netip.ParsePrefix(pattern)
	return func(hostport string) bool {
		if !local(hostport) {
			u, err := through(&url.URL{Scheme: "https", Host: hostport})
			return err == nil && u == nil
		}
		host, _, _ := net.SplitHostPort(strings.ToLower(hostport))
		if ip, err := netip.ParseAddr(host); err == nil && perr == nil {
			return prefix.Contains(ip)
		}
		return pattern == host || pattern == strings.ToLower(hostport)
	}, nil
}

// For returns the proxy to a destination, host:port; nil for none.
func (r *Rules) For(hostport string) (*Proxy, error) {
	if r == nil {
		return nil, nil
	}
	for _, one := range r.list {
		if one.matches(hostport) {
			return one.proxy, nil
		}
	}
	if r.env == nil || local(hostport) {
		return nil, nil
	}
	u, err := r.env(&url.URL{Scheme: "https", Host: hostport})
	if err != nil || u == nil {
		return nil, err
	}
	return fromURL(u)
}

// Proxy is one proxy.
type Proxy struct {
	scheme, address string // socks5 or http; host:port
	user            *url.Userinfo
}

// ParseURL reads http://USER:PASSWORD@HOST:PORT or socks5://…; `direct` is nil, and a HOST:PORT alone speaks HTTP. The port is 80
// or 1080 where there is none; the password may be left out.
func ParseURL(text string) (*Proxy, error) {
	if text == direct {
		return nil, nil
	}
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%w: the URL cannot be read", ErrRule) // the reason would repeat the credentials
	}
	return fromURL(u)
}

func fromURL(u *url.URL) (*Proxy, error) {
	p := &Proxy{scheme: u.Scheme, user: u.User}
	port := ""
	switch u.Scheme {
	case "http":
		port = "80"
	case "socks5", "socks5h", "socks":
		p.scheme, port = "socks5", "1080"
	default:
		return nil, fmt.Errorf("%w: %q is neither http nor socks5", ErrRule, u.Scheme)
	}
	if u.Hostname() == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%w: %s must be %s://HOST:PORT", ErrRule, u.Redacted(), u.Scheme)
	}
	if u.Port() != "" {
		port = u.Port()
	}
	p.address = net.JoinHostPort(u.Hostname(), port)
	return p, nil
}

// String returns the proxy without its credentials.
func (p *Proxy) String() string {
	if p == nil {
		return direct
	}
	return p.scheme + "://" + p.address
}
