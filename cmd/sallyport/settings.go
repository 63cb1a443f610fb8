package main

import (
	"fmt"
	"slices"
	"strings"

	"sallyport/limits"
	"sallyport/proxy"
	"sallyport/state"
)

// setting is an option of a node itself that a configuration can set.
type setting struct {
	flag string
	copy func(from, to *state.NodeOptions)
	show func(o *state.NodeOptions) string
	live bool                              // it can be changed while the node runs
	say  func(o *state.NodeOptions) string // in place of show for people; nil: show
}

// settings are the options of a node itself.
var settings = []setting{
	text1("tcp-listener-address", func(o *state.NodeOptions) *string { return &o.TCPListenerAddress }),
	text1("udp-listener-address", func(o *state.NodeOptions) *string { return &o.UDPListenerAddress }),
	many("listener", func(o *state.NodeOptions) *[]string { return &o.Listeners }),
	text1("tls-certificate", func(o *state.NodeOptions) *string { return &o.TLSCertificate }),
	text1("tls-key", func(o *state.NodeOptions) *string { return &o.TLSKey }),
	{
		flag: "acme",
		copy: func(from, to *state.NodeOptions) { to.ACME = from.ACME },
		show: func(o *state.NodeOptions) string { return acmeText(o.ACME) },
	},
	many("accept-proxy-protocol", func(o *state.NodeOptions) *[]string { return &o.AcceptProxyProtocol }),
	many("trusted-proxy", func(o *state.NodeOptions) *[]string { return &o.TrustedProxies }),
	text1("tls-ca", func(o *state.NodeOptions) *string { return &o.TLSCA }),
	many("tls-pin", func(o *state.NodeOptions) *[]string { return &o.TLSPins }),
	said(many("proxy", func(o *state.NodeOptions) *[]string { return &o.Proxies }), func(o *state.NodeOptions) string {
		var list []string
		for _, rule := range o.Proxies {
			list = append(list, proxy.Redacted(rule))
		}
		return strings.Join(list, " ")
	}),
	switch1("udp", func(o *state.NodeOptions) *bool { return &o.UDP }),
	text1("identity", func(o *state.NodeOptions) *string { return &o.Identity }),
	text1("project", func(o *state.NodeOptions) *string { return &o.Project }),
	text1("authority-identity", func(o *state.NodeOptions) *string { return &o.AuthorityIdentity }),
	text1("authority-route", func(o *state.NodeOptions) *string { return &o.AuthorityRoute }),
	text1("credential-scope", func(o *state.NodeOptions) *string { return &o.CredentialScope }),
	text1("authority-grace", func(o *state.NodeOptions) *string { return &o.AuthorityGrace }),
	text1("status-endpoint", func(o *state.NodeOptions) *string { return &o.StatusEndpoint }),
	text1("status-token", func(o *state.NodeOptions) *string { return &o.StatusToken }),
	switch1("no-status-endpoint", func(o *state.NodeOptions) *bool { return &o.NoStatusEndpoint }),
	switch1("no-sandbox", func(o *state.NodeOptions) *bool { return &o.NoSandbox }),
	text1("services", func(o *state.NodeOptions) *string { return &o.Services }),
	live(text1("log-level", func(o *state.NodeOptions) *string { return &o.LogLevel })),
	text1("records", func(o *state.NodeOptions) *string { return &o.Records }),
	switch1("receipts", func(o *state.NodeOptions) *bool { return &o.Receipts }),
	text1("log-format", func(o *state.NodeOptions) *string { return &o.LogFormat }),
	switch1("small", func(o *state.NodeOptions) *bool { return &o.Small }),
	{
		flag: "limits",
		copy: func(from, to *state.NodeOptions) {
			memory := to.Limits.Memory
			to.Limits = from.Limits
			to.Limits.Memory = memory
		},
		show: func(o *state.NodeOptions) string {
			l := o.Limits
			l.Memory = 0
			return strings.Join(limitArgs(state.NodeOptions{Limits: l}), " ")
		},
	},
	{
		flag: "memory-limit",
		copy: func(from, to *state.NodeOptions) { to.Limits.Memory = from.Limits.Memory },
		show: func(o *state.NodeOptions) string { return limits.Bytes(o.Limits.Memory).String() },
	},
}

func text1(flag string, field func(*state.NodeOptions) *string) setting {
	return setting{
		flag: flag,
		copy: func(from, to *state.NodeOptions) { *field(to) = *field(from) },
		show: func(o *state.NodeOptions) string { return *field(o) },
	}
}

func many(flag string, field func(*state.NodeOptions) *[]string) setting {
	return setting{
		flag: flag,
		copy: func(from, to *state.NodeOptions) { *field(to) = *field(from) },
		show: func(o *state.NodeOptions) string { return strings.Join(*field(o), " ") },
	}
}

func switch1(flag string, field func(*state.NodeOptions) *bool) setting {
	return setting{
		flag: flag,
		copy: func(from, to *state.NodeOptions) { *field(to) = *field(from) },
		show: func(o *state.NodeOptions) string { return fmt.Sprint(*field(o)) },
	}
}

// said shows a setting to people in another way, without what is secret in it.
func said(s setting, say func(*state.NodeOptions) string) setting { s.say = say; return s }

// text is the setting for people.
func (s setting) text(o *state.NodeOptions) string {
	if s.say != nil {
		return s.say(o)
	}
	return s.show(o)
}

func live(s setting) setting { s.live = true; return s }

// merge returns a node's options as a configuration wants them, and the flags that differ. What neither this configuration nor the last
// one sets stays as it is; what only the last one set goes back to its default.
func (w *wish) merge(old state.NodeOptions, last *state.Configuration) (merged state.NodeOptions, differ []setting) {
	merged = old
	var defaults state.NodeOptions
	for _, s := range settings {
		from := &w.options
		if !w.given[s.flag] {
			if last == nil || !slices.Contains(last.Settings, s.flag) {
				continue
			}
			if from = &defaults; s.flag == "tcp-listener-address" || s.flag == "udp-listener-address" {
				defaults.TCPListenerAddress, defaults.UDPListenerAddress = "127.0.0.1:0", "127.0.0.1:0"
			}
		}
		if s.show(&merged) != s.show(from) {
			differ = append(differ, s)
			s.copy(from, &merged)
		}
	}
	return merged, differ
}

// settingNames are the flags that a wish sets, to be remembered.
func (w *wish) settingNames() []string {
	var names []string
	for _, s := range settings {
		if w.given[s.flag] {
			names = append(names, s.flag)
		}
	}
	return names
}
