package main

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sallyport/node"
	"sallyport/node/resource"
	"sallyport/proxy"
	"sallyport/routing/multiaddr"
	"sallyport/routing/tcp"
	"sallyport/state"
)

// Variables of the environment, for commands without the flags, and for what must not stand on a command line.
const (
	proxyVariable = "SALLYPORT_PROXY"
	caVariable    = "SALLYPORT_TLS_CA"
	pinVariable   = "SALLYPORT_TLS_PIN"
)

// networkFlags adds how a node is reached and reaches others through networks that let little through.
func networkFlags(cmd *cobra.Command, o *state.NodeOptions) {
	f := cmd.Flags()
	f.StringArrayVar(&o.Listeners, "listener", nil, "where nodes connect too: a `URL` with ws, wss or tls")
	f.StringVar(&o.TLSCertificate, "tls-certificate", "", "the certificate for wss and tls, a PEM `FILE`")
	f.StringVar(&o.TLSKey, "tls-key", "", "its private key, a PEM `FILE`")
	f.Var(acmeValue{&o.ACME}, "acme", "or by ACME: `JSON` or a file with it (docs/networks.md)")
	proxiedFlags(f, &o.AcceptProxyProtocol, &o.TrustedProxies)
	f.StringVar(&o.TLSCA, "tls-ca", "", "believe servers with certificates of this PEM `FILE` only")
	f.StringArrayVar(&o.TLSPins, "tls-pin", nil, "believe servers with this key only, `sha256/BASE64`")
	f.StringArrayVar(&o.Proxies, "proxy", nil, "connect through a proxy, `URL` or PATTERN=URL")
}

// proxiedFlags adds which proxies in front of listeners say whose connections they bring.
func proxiedFlags(f *pflag.FlagSet, header, forwarded *[]string) {
	f.StringSliceVar(header, "accept-proxy-protocol", nil, "listeners take the PROXY protocol from these `NETWORKS`")
	f.StringSliceVar(forwarded, "trusted-proxy", nil, "ws and wss take X-Forwarded-For from these `NETWORKS`")
}

// checkProxied refuses networks that are none.
func checkProxied(header, forwarded []string) error {
	for flag, list := range map[string][]string{"--accept-proxy-protocol": header, "--trusted-proxy": forwarded} {
		for _, text := range list {
			_, err := netip.ParsePrefix(text)
			if _, err2 := netip.ParseAddr(text); err != nil && err2 != nil {
				return usageError("invalid value '%s' for '%s': it must be a network, as 10.0.0.0/8, or an address", text, flag)
			}
		}
	}
	return nil
}

// checkNetwork refuses what cannot be right, and makes paths absolute.
func (a *app) checkNetwork(o *state.NodeOptions) error {
	for _, path := range []*string{&o.TLSCertificate, &o.TLSKey, &o.TLSCA, &o.ACME.CA} {
		if *path != "" {
			whole, err := a.abs(*path)
			if err != nil {
				return err
			}
			*path = whole
		}
	}
	secure := false
	for _, text := range o.Listeners {
		s, err := multiaddr.ParseStream(text)
		if err != nil {
			return usageError("invalid value for '--listener': %v", err)
		}
		secure = secure || s.Layer == "wss" || s.Layer == "tls"
	}
	acme := len(o.ACME.Domains) > 0
	if (o.TLSCertificate == "") != (o.TLSKey == "") || secure && o.TLSCertificate == "" && !acme {
		return usageError("a listener with wss or tls needs --tls-certificate and --tls-key, or --acme")
	}
	if acme && o.TLSCertificate != "" {
		return usageError("the argument '--acme' cannot be used with '--tls-certificate'")
	}
	if err := checkProxied(o.AcceptProxyProtocol, o.TrustedProxies); err != nil {
		return err
	}
	if _, err := proxy.Parse(proxiesOf(*o), nil); err != nil {
		return usageError("invalid value for '--proxy': %v", err)
	}
	for _, text := range o.TLSPins {
		if _, err := parsePin(text); err != nil {
			return err
		}
	}
	return nil
}

// networkArgs is the command line that networkFlags reads as o, without proxies, whose credentials others could see there: they go through
// the environment.
func networkArgs(o state.NodeOptions) (args []string) {
	for _, flag := range []struct {
		name   string
		values []string
	}{{"--listener", o.Listeners}, {"--tls-certificate", []string{o.TLSCertificate}}, {"--tls-key", []string{o.TLSKey}}, {"--tls-ca", []string{o.TLSCA}}, {"--tls-pin", o.TLSPins},
		{"--accept-proxy-protocol", o.AcceptProxyProtocol}, {"--trusted-proxy", o.TrustedProxies}} {
		for _, v := range flag.values {
			if v != "" {
				args = append(args, flag.name, v)
			}
		}
	}
	if len(o.ACME.Domains) > 0 {
		args = append(args, "--acme", acmeText(o.ACME))
	}
	return args
}

// proxiesOf returns the rules of a node, or those of the environment.
func proxiesOf(o state.NodeOptions) []string {
	if len(o.Proxies) > 0 {
		return o.Proxies
	}
	return strings.Fields(os.Getenv(proxyVariable))
}

// parsePin reads sha256/BASE64.
func parsePin(text string) ([sha256.Size]byte, error) {
	pin, err := tcp.ParsePin(text)
	if err != nil {
		err = usageError("invalid value '%s' for '--tls-pin': %v", text, err)
	}
	return pin, err
}

// applyNetwork sets how a node reaches others, and where it listens besides.
func applyNetwork(options *node.Options, o *state.NodeOptions) (err error) {
	o.Proxies = proxiesOf(*o)
	if options.Proxies, err = proxy.Parse(o.Proxies, os.Getenv); err != nil {
		return err
	}
	pins := o.TLSPins
	if len(pins) == 0 {
		pins = strings.Fields(os.Getenv(pinVariable))
	}
	for _, text := range pins {
		pin, err := parsePin(text)
		if err != nil {
			return err
		}
		options.TLS.Pins = append(options.TLS.Pins, pin)
	}
	ca := o.TLSCA
	if ca == "" {
		ca = os.Getenv(caVariable)
	}
	if ca != "" {
		if options.TLS.Roots, err = rootsIn(ca); err != nil {
			return err
		}
	}
	options.AcceptProxyProtocol, options.TrustedProxies = o.AcceptProxyProtocol, o.TrustedProxies
	for _, text := range o.Listeners {
		r := resource.TCPListener{Address: text, AcceptProxyProtocol: o.AcceptProxyProtocol, TrustedProxies: o.TrustedProxies}
		if s, err := multiaddr.ParseStream(text); err == nil && (s.Layer == "wss" || s.Layer == "tls") {
			r.Certificate, r.Key = o.TLSCertificate, o.TLSKey
		}
		options.Listeners = append(options.Listeners, r)
	}
	return nil
}

// rootsIn reads a file of certificates.
func rootsIn(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s has no certificate", file)
	}
	return roots, nil
}

// acmeValue is the flag --acme: an object as JSON, or the name of a file with one.
type acmeValue struct{ to *state.ACMEOptions }

func (v acmeValue) String() string { return "" }
func (v acmeValue) Type() string   { return "JSON" }

// Set reads the options.
func (v acmeValue) Set(text string) error {
	var o state.ACMEOptions
	if err := readObject(text, &o); err != nil {
		return err
	}
	if len(o.Domains) == 0 {
		return errors.New("domains must have a name to get a certificate for")
	}
	*v.to = o
	return nil
}

// acmeText is what acmeValue reads as o; empty for nothing.
func acmeText(o state.ACMEOptions) string {
	if len(o.Domains) == 0 {
		return ""
	}
	b, err := json.Marshal(o)
	if err != nil {
		panic(err) // texts only
	}
	return string(b)
}
