package node

import (
	"strings"
	"testing"

	"sallyport/routing/multiaddr"
)

// TestWaysAsTexts: the relay that a route leads through, the host that it begins with, and the outlet at its end, as pages and answers name them.
func TestWaysAsTexts(t *testing.T) {
	for route, want := range map[string][3]string{
		"/service/db":                          {"", "", "db"},
		"/secure/api":                          {},
		"/project/p/service/forward_to_bank":   {"bank", "project p", "forward_to_bank"},
		"/project/p/service/echo/secure/api":   {"", "project p", ""},
		"/ip4/127.0.0.1/tcp/4000/secure/api":   {"", "127.0.0.1:4000", ""},
		"/dnsaddr/one/tcp/1/service/hop":       {"", "one:1", "hop"},
		"/dnsaddr/one/tcp/1/dnsaddr/two/tcp/2": {"", "one:1", ""},
		"/dnsaddr/one/tcp/1/secure/api/service/forward_to_bank/secure/api/service/db": {"bank", "one:1", "db"},
	} {
		to, err := multiaddr.Parse(route)
		if err != nil {
			t.Errorf("%s: %v", route, err)
			continue
		}
		name, host := relayName(to)
		if got := [3]string{name, host, (&inlet{to: to}).outletName()}; got != want {
			t.Errorf("%s: %q, not %q", route, got, want)
		}
	}
}

// TestAttributesAsText: attributes are shown in the order of their keys, without the trust context, and not beyond a bound.
func TestAttributesAsText(t *testing.T) {
	long := strings.Repeat("x", viewText)
	for want, attributes := range map[string]map[string]string{
		"":                          {"trust_context_id": "t"},
		"a=1":                       {"a": "1", "trust_context_id": "t"},
		"a=1 b=2":                   {"b": "2", "a": "1"},
		"a=" + long[2:]:             {"a": long[2:]},
		"a=" + long[2:] + "…":       {"a": long},
		"a=" + long[3:] + " " + "…": {"a": long[3:], "b": "2"},
	} {
		if got := attributesText(attributes); got != want {
			t.Errorf("%v: %q, not %q", attributes, got, want)
		}
	}
}
