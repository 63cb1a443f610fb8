// Package acme gets the certificates of listeners from an authority that speaks ACME (RFC 8555), such as Let's Encrypt, and renews them. Names are proven
// over TLS at the listener's own port (TLS-ALPN-01, RFC 8737). The protocol is golang.org/x/crypto/acme/autocert's.
package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"
)

// Protocol is what the authority names in TLS when it looks whether a name is ours. Such a connection carries nothing.
const Protocol = acme.ALPNProto

const (
	// lookEvery is how often it is seen whether a certificate was renewed.
	lookEvery = time.Second
	// Authorities count failures: Let's Encrypt takes five of a name in an hour.
	firstRetry, lastRetry = 2 * time.Minute, time.Hour
	requestTime           = 30 * time.Second
)

// Options say who gives certificates, and for which names.
type Options struct {
	// Domains are the names, each of which gets a certificate of its own.
	Domains []string
	// Directory is the authority's URL, https; empty is Let's Encrypt's. Email may be empty.
	Directory, Email string
	// Roots are whose certificates are believed of the authority itself; nil: the system's.
	Roots *x509.CertPool
	// Cache is a directory for keys and certificates. It is made, for its owner alone.
	Cache string
	// Dial connects to the authority; nil: directly.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	Log  *slog.Logger
}

// Issuer has the certificates. By asking for them the operator has accepted the terms of the authority.
type Issuer struct {
	opts    Options
	manager *autocert.Manager
	client  *http.Client
	ctx     context.Context // of Run, for requests
	running sync.Once

	mu    sync.RWMutex
	certs map[string]*tls.Certificate
}

// ErrNone reports a name for which there is no certificate, or none yet.
var ErrNone = errors.New("acme: no certificate")

// New checks the options and makes the directory. Nothing is asked for before Run.
func New(o Options) (*Issuer, error) {
	if len(o.Domains) == 0 {
		return nil, errors.New("acme: there is no domain to get a certificate for")
	}
	o.Domains = slices.Clone(o.Domains)
	for i, name := range o.Domains {
		name = strings.ToLower(strings.TrimSuffix(name, "."))
		if net.ParseIP(name) != nil || !strings.Contains(name, ".") || strings.ContainsAny(name, "*:/ ") {
			return nil, fmt.Errorf("acme: the domain %q must be a whole name in the DNS, such as relay.example.com", o.Domains[i])
		}
		o.Domains[i] = name
	}
	if o.Directory == "" {
		o.Directory = autocert.DefaultACMEDirectory
	}
	if u, err := url.Parse(o.Directory); err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("acme: the directory %q must be an https:// URL", o.Directory)
	}
	if err := os.MkdirAll(o.Cache, 0o700); err != nil {
		return nil, fmt.Errorf("acme: %w", err)
	}
	if err := os.Chmod(o.Cache, 0o700); err != nil { // it may have been there
		return nil, fmt.Errorf("acme: %w", err)
	}
	is := &Issuer{opts: o, certs: map[string]*tls.Certificate{}}
	is.client = &http.Client{Timeout: requestTime, Transport: &ended{is, &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: o.Roots, MinVersion: tls.VersionTLS12}, DialContext: o.Dial, DisableKeepAlives: true,
	}}}
	is.manager = &autocert.Manager{
		Prompt: autocert.AcceptTOS, Cache: autocert.DirCache(o.Cache), HostPolicy: autocert.HostWhitelist(o.Domains...), Email: o.Email,
		Client: &acme.Client{DirectoryURL: o.Directory, HTTPClient: is.client, UserAgent: "sallyport"},
	}
	return is, nil
}

// ended is a transport that asks for nothing once the issuer's Run has ended.
type ended struct {
	is   *Issuer
	next http.RoundTripper
}

func (e *ended) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := e.is.ctx.Err(); err != nil {
		return nil, err
	}
	return e.next.RoundTrip(r)
}

// Certificate answers a client; see tls.Config.GetCertificate. It does not wait: while there is no certificate yet it returns ErrNone.
func (is *Issuer) Certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == Protocol {
		return is.manager.GetCertificate(hello) // looks into memory and the cache
	}
	is.mu.RLock()
	defer is.mu.RUnlock()
	name := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	if name == "" { // a client that has only an address
		name = is.opts.Domains[0]
	}
	if cert := is.certs[name]; cert != nil {
		return cert, nil
	}
	return nil, fmt.Errorf("%w for %.100q", ErrNone, name)
}

// Run gets the certificates and has them renewed, when a third of their life is left, until ctx ends. It is called once, when the listeners are open.
func (is *Issuer) Run(ctx context.Context) {
	is.running.Do(func() {
		is.ctx = ctx
		var all sync.WaitGroup
		for _, name := range is.opts.Domains {
			all.Go(func() { is.keep(ctx, name) })
		}
		all.Wait()
	})
}

// keep has one certificate.
func (is *Issuer) keep(ctx context.Context, name string) {
	hello := &tls.ClientHelloInfo{ServerName: name, SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256},
		SupportedCurves: []tls.CurveID{tls.CurveP256}, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}}
	retry, warned := firstRetry, time.Time{}
	for ctx.Err() == nil {
		cert, err := is.manager.GetCertificate(hello)
		wait := lookEvery
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			wait, retry = retry, min(2*retry, lastRetry)
			is.opts.Log.Warn("no certificate from the ACME server", "domain", name, "server", is.opts.Directory, "err", fmt.Sprintf("%.300v", err), "again", wait)
		default:
			retry = firstRetry
			is.take(name, cert)
			// Renewal began when a third of the life was left, and says nothing of its failures.
			left := time.Until(cert.Leaf.NotAfter)
			if left < cert.Leaf.NotAfter.Sub(cert.Leaf.NotBefore)/6 && time.Since(warned) > lastRetry {
				warned = time.Now()
				is.opts.Log.Warn("the certificate is not renewed by the ACME server", "domain", name, "server", is.opts.Directory, "left", left.Round(time.Second))
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// take uses a certificate if it is another one.
func (is *Issuer) take(name string, cert *tls.Certificate) {
	is.mu.Lock()
	defer is.mu.Unlock()
	if had := is.certs[name]; had == nil || !slices.Equal(had.Certificate[0], cert.Certificate[0]) {
		is.certs[name] = cert
		is.opts.Log.Info("certificate of the ACME server", "domain", name, "until", cert.Leaf.NotAfter.UTC().Format(time.RFC3339))
	}
}
