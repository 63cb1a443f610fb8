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
type Rules struct{ list []rule }

type rule struct {
	matches func(hostport string) bool
	proxy   *Proxy // nil: none
	err     error  // in place of a proxy that cannot be used
}

// Parse reads rules: URL for all destinations, or PATTERN=URL for those that PATTERN names as an entry of NO_PROXY would, of which the first
// that fits counts; `direct` as the URL is for no proxy. Destinations on this machine go through a proxy only where a pattern names them.
// Where no rule fits, or there are none, getenv is asked for HTTPS_PROXY, else ALL_PROXY, and NO_PROXY; nil asks nothing. What is wrong with these is
// an error of For, where it matters: they are for all programs, and a node may go through none of them.
func Parse(list []string, getenv func(string) string) (*Rules, error) {
	r := &Rules{}
	var all *rule
	for _, text := range list {
		pattern, to, ok := cutRule(text)
		p, err := ParseURL(to)
		if err != nil {
			return nil, err
		}
		one := rule{proxy: p}
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
		either := func(names ...string) (name, value string) {
			for _, name := range names {
				if v := getenv(name); v != "" {
					return name, v
				}
			}
			return "", ""
		}
		if name, value := either("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"); value != "" {
			_, without := either("no_proxy", "NO_PROXY")
			excepted := listed(without)
			one := rule{matches: func(hostport string) bool { return !local(hostport) && !excepted(hostport) }}
			if one.proxy, one.err = ParseURL(value); one.err != nil {
				one.err = fmt.Errorf("%s: %w", name, one.err)
			}
			r.list = append(r.list, one)
		}
	}
	return r, nil
}

// listed reports whether a list such as NO_PROXY names a destination (golang.org/x/net/http/httpproxy). A name with a dot at its end is the same without.
func listed(list string) func(hostport string) bool {
	entries := strings.Split(list, ",")
	for i, e := range entries {
		entries[i] = undotted(strings.TrimSpace(e))
	}
	through := (&httpproxy.Config{HTTPSProxy: "http://proxy.invalid", NoProxy: strings.Join(entries, ",")}).ProxyFunc()
	return func(hostport string) bool {
		u, err := through(&url.URL{Scheme: "https", Host: undotted(hostport)})
		return err == nil && u == nil
	}
}

// undotted takes the dot off the end of a name, which may have a port.
func undotted(name string) string {
	host, port, err := net.SplitHostPort(name)
	if err != nil {
		return strings.TrimSuffix(name, ".")
	}
	return net.JoinHostPort(strings.TrimSuffix(host, "."), port)
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

// matcher is what an entry of NO_PROXY says, with the destinations on this machine, which that has apart.
func matcher(pattern string) (func(hostport string) bool, error) {
	if pattern == "" || strings.ContainsAny(pattern, ", \t") {
		return nil, fmt.Errorf("%w: %q is no pattern of destinations", ErrRule, pattern)
	}
	pattern = undotted(strings.ToLower(pattern))
	names := listed(pattern)
	prefix, perr := netip.ParsePrefix(pattern)
	return func(hostport string) bool {
		if !local(hostport) {
			return names(hostport)
		}
		hostport = undotted(strings.ToLower(hostport))
		host, _, _ := net.SplitHostPort(hostport)
		if ip, err := netip.ParseAddr(host); err == nil && perr == nil {
			return prefix.Contains(ip)
		}
		return pattern == host || pattern == hostport
	}, nil
}

// For returns the proxy to a destination, host:port; nil for none.
func (r *Rules) For(hostport string) (*Proxy, error) {
	if r == nil {
		return nil, nil
	}
	for _, one := range r.list {
		if one.matches(hostport) {
			return one.proxy, one.err
		}
	}
	return nil, nil
}

// Proxy is one proxy.
type Proxy struct {
	scheme, address string // socks5, http or https; host:port
	user            *url.Userinfo
}

// ParseURL reads http://USER:PASSWORD@HOST:PORT, https://… or socks5://…; `direct` is nil, and a HOST:PORT alone speaks HTTP. The port is 80, 443
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
	case "https":
		port = "443"
	case "socks5", "socks5h", "socks":
		p.scheme, port = "socks5", "1080"
	default:
		return nil, fmt.Errorf("%w: %q is not one of http, https and socks5", ErrRule, u.Scheme)
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
