package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/fxamacker/cbor/v2"

	"sallyport/routing/multiaddr"
)

// A certificate for a TLS inlet comes from a service (docs/protocol/03 §1.9): the request is an empty array, the answer says
// whether there is one, and holds the chain and the key in PEM.

// CertificateService is the usual address of such a service.
const CertificateService = "tls_certificate_provider"

// Kinds of answers.
const (
	certificateReady       = 0
	certificateNotReady    = 1
	certificateUnsupported = 2
)

// maxCertificate bounds an answer. maxPEM bounds each of the two files that a provider reads: together, with what is around them, they are an answer.
const (
	maxCertificate = 256 << 10
	maxPEM         = maxCertificate/2 - 64
)

type certificateAnswer struct {
	Kind        uint             `cbor:"1,keyasint"`
	Certificate *certificatePair `cbor:"2,keyasint,omitempty"`
}

type certificatePair struct {
	Chain []byte `cbor:"1,keyasint"`
	Key   []byte `cbor:"2,keyasint"`
}

// certificateRequest is the empty array.
var certificateRequest = []byte{0x80}

// decodeCertificate reads a provider's answer.
func decodeCertificate(b []byte) (*tls.Certificate, error) {
	if len(b) > maxCertificate {
		return nil, fmt.Errorf("an answer of %d bytes, more than %d", len(b), maxCertificate)
	}
	var a certificateAnswer
	if _, err := cbor.UnmarshalFirst(b, &a); err != nil {
		return nil, fmt.Errorf("the answer is no certificate: %w", err)
	}
	switch {
	case a.Kind == certificateNotReady:
		return nil, errors.New("the provider has no certificate yet")
	case a.Kind == certificateUnsupported:
		return nil, errors.New("the provider has no certificates")
	case a.Kind != certificateReady || a.Certificate == nil:
		return nil, fmt.Errorf("the provider gave an answer of kind %d", a.Kind)
	}
	c, err := tls.X509KeyPair(a.Certificate.Chain, a.Certificate.Key)
	if err != nil {
		return nil, fmt.Errorf("the provider's certificate: %w", err)
	}
	return &c, nil
}

// Times of a certificate: it is fetched anew twice a day, as one lasts a day in the reference's cache. What was fetched stays in use while
// the provider cannot be reached.
const (
	certificateRefresh = 12 * time.Hour
	certificateTimeout = 30 * time.Second
	firstRetry         = time.Second
	lastRetry          = time.Minute
	staleRetry         = 10 * time.Minute
)

// certificates keeps the certificate of one inlet.
type certificates struct {
	fetch func(context.Context) (*tls.Certificate, error)
	log   *slog.Logger
	after func(time.Duration) <-chan time.Time

	mu    sync.Mutex
	cert  *tls.Certificate
	fail  error
	ready chan struct{} // closed when there is one
}

func newCertificates(log *slog.Logger, fetch func(context.Context) (*tls.Certificate, error)) *certificates {
	return &certificates{fetch: fetch, log: log, after: time.After, ready: make(chan struct{})}
}

// get returns the certificate; when there is none yet it waits for the first.
func (c *certificates) get(ctx context.Context) (*tls.Certificate, error) {
	select {
	case <-c.ready:
	case <-ctx.Done():
		c.mu.Lock()
		defer c.mu.Unlock()
		return nil, fmt.Errorf("no certificate yet: %w", errors.Join(c.fail, ctx.Err()))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cert, nil
}

// run keeps the certificate fresh until ctx ends.
func (c *certificates) run(ctx context.Context) {
	retry := firstRetry
	for {
		attempt, cancel := context.WithTimeout(ctx, certificateTimeout)
		cert, err := c.fetch(attempt)
		cancel()
		if ctx.Err() != nil {
			return
		}
		c.mu.Lock()
		had := c.cert != nil
		c.fail = err
		if err == nil {
			c.cert = cert
		}
		c.mu.Unlock()
		wait := certificateRefresh
		switch {
		case err == nil && !had:
			close(c.ready)
			c.log.Info("certificate received", "expires", cert.Leaf.NotAfter)
		case err == nil:
			c.log.Info("certificate renewed", "expires", cert.Leaf.NotAfter)
		case had:
			wait = staleRetry
			c.log.Warn("certificate not renewed, the old one stays in use", "err", err.Error())
		default:
			wait, retry = retry, min(2*retry, lastRetry)
			c.log.Warn("no certificate, clients wait", "err", err.Error())
		}
		select {
		case <-ctx.Done():
			return
		case <-c.after(wait):
		}
	}
}

// fetchCertificate asks the provider at a route; one on this node is not asked by message.
func (n *Node) fetchCertificate(ctx context.Context, provider multiaddr.Addr) (*tls.Certificate, error) {
	if len(provider) == 1 && provider[0].Protocol == multiaddr.Service {
		i, here := n.certificates.Get(provider[0].Text)
		if !here {
			return nil, fmt.Errorf("this node has no certificate provider %s", provider)
		}
		pair, err := readPair(i.Request)
		if err != nil {
			return nil, err
		}
		c, err := tls.X509KeyPair(pair.Chain, pair.Key)
		return &c, err
	}
	c, err := n.connect(ctx, provider, connectOptions{self: n.opts.Self})
	if err != nil {
		return nil, err
	}
	defer c.close()
	reply, err := n.router.Request(ctx, c.route, certificateRequest)
	if err != nil {
		return nil, err
	}
	return decodeCertificate(reply.Payload)
}
