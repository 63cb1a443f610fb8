package ws

import (
	"net/netip"
	"slices"
	"strings"
)

// front is what a server believes of a proxy in front from which its connection comes.
type front struct {
	trusted []netip.Prefix
	named   func(netip.AddrPort) bool
}

// Behind says that a server's connection comes from a proxy that is trusted, as all in the networks are, to say whose request it passes on. named is called once, before the request is answered, with the client that the request names (X-Forwarded-For, or Forwarded of RFC 7239), and reports
// whether that client is admitted; it is not called if none is named. Without a port the client's is 0.
func (f *Framing) Behind(trusted []netip.Prefix, named func(client netip.AddrPort) bool) {
	f.front = &front{trusted, named}
}

// admits reports whether whoever a request comes from may go on.
func (f *front) admits(h *header) bool {
	client := f.client(h)
	return !client.IsValid() || f.named(client)
}

// client is whose request it is; not valid where nobody is named. A proxy that sets one of the fields passes the other on as the client has sent it, so
// where both are there and do not name the same client nobody is believed.
func (f *front) client(h *header) netip.AddrPort {
	field, standard := h.get("x-forwarded-for"), h.get("forwarded")
	client, other := f.nearest(strings.Split(field, ",")), f.nearest(forwardedFor(standard))
	switch {
	case field == "":
		return other
	case standard == "" || client.Addr() == other.Addr():
		return client
	}
	return netip.AddrPort{}
}

// nearest walks a list of hops, the last of which is who connected to the proxy, from its end to the first that is not trusted itself. What stands before
// that is what a stranger said. It stops before what is no address.
func (f *front) nearest(hops []string) (client netip.AddrPort) {
	for _, hop := range slices.Backward(hops) {
		a, ok := parseHop(strings.Trim(hop, " \t"))
		if !ok {
			break
		}
		client = a
		if !f.trusts(a.Addr()) {
			break
		}
	}
	return client
}

func (f *front) trusts(a netip.Addr) bool {
	return slices.ContainsFunc(f.trusted, func(p netip.Prefix) bool { return p.Contains(a) })
}

// parseHop reads an address, with a port or without.
func parseHop(text string) (netip.AddrPort, bool) {
	at, err := netip.ParseAddrPort(text)
	if err != nil {
		if strings.HasPrefix(text, "[") && strings.HasSuffix(text, "]") {
			text = text[1 : len(text)-1]
		}
		a, err := netip.ParseAddr(text)
		if err != nil {
			return at, false
		}
		at = netip.AddrPortFrom(a, 0)
	}
	if at.Addr().Zone() != "" {
		return at, false
	}
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port()), true
}

// forwardedFor returns who each element of a Forwarded field was sent by (for=), empty where the element does not say; nothing where a quote is not closed,
// since it may be the client's and what the proxy has appended stand in it.
func forwardedFor(field string) (list []string) {
	elements, ok := splitQuoted(field, ',')
	if !ok {
		return nil
	}
	for _, element := range elements {
		who := ""
		pairs, _ := splitQuoted(element, ';')
		for _, pair := range pairs {
			if name, value, ok := strings.Cut(pair, "="); ok && strings.EqualFold(strings.Trim(name, " \t"), "for") {
				who = strings.Trim(value, " \t")
			}
		}
		if len(who) >= 2 && who[0] == '"' && who[len(who)-1] == '"' {
			who = who[1 : len(who)-1] // an address has nothing that is escaped
		}
		list = append(list, who)
	}
	return list
}

// splitQuoted splits text at a byte outside quoted strings (RFC 9110 section 5.6.4). It reports false if the last of these does not end.
func splitQuoted(text string, at byte) (parts []string, ok bool) {
	begin, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			quoted = !quoted
		case c == '\\' && quoted:
			i++
		case c == at && !quoted:
			parts = append(parts, text[begin:i])
			begin = i + 1
		}
	}
	return append(parts, text[begin:]), !quoted
}
