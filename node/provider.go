package node

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/fxamacker/cbor/v2"

	"sallyport/authority"
	"sallyport/crypto/identity"
	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/node/table"
	"sallyport/routing"
)

// maxProviding bounds the requests that one provider answers at the same time.
const maxProviding = 16

func addCertificates(n *Node) {
	describe := func(i table.Item[resource.Certificate, string]) admin.Service {
		return admin.Service{Address: i.Request.Address, Type: CertificateService, State: &i.Status}
	}
	n.certificates = table.Add(n.set, table.Kind[resource.Certificate, string]{
		Name: resource.KindCertificate, Noun: "certificate provider", Path: admin.PathServices + "/" + CertificateService,
		Key: func(r *resource.Certificate) *string { return &r.Address },
		Check: func(_ context.Context, r *resource.Certificate, _ func(string) bool) error {
			if r.Address == "" {
				r.Address = CertificateService
			}
			if !filepath.IsAbs(r.Certificate) || !filepath.IsAbs(r.Key) {
				return fmt.Errorf("%w: the certificate and the key must be absolute paths", admin.ErrInvalid)
			}
			return nil
		},
		Open:     n.openCertificates,
		Close:    n.stopNamed,
		Describe: func(i table.Item[resource.Certificate, string]) any { return describe(i) },
	})
	n.serviceLists = append(n.serviceLists, func() []admin.Service { return each(n.certificates.List(), describe) })
}

// openCertificates starts a service that gives the certificate and the private key of two files to TLS inlets. They are read anew for
// each request, so a renewed certificate needs no restart. Who may have them: inlets of this node, and members to whom the node's
// authority gave the attribute ockam-tls-certificate.
func (n *Node) openCertificates(ctx context.Context, o *table.Opening[resource.Certificate]) (string, error) {
	r := o.Request
	if !o.Again {
		// Said now rather than by every inlet; later a file may be missing for a moment.
		if pair, err := readPair(r); err != nil {
			return "", fmt.Errorf("%w: %w", admin.ErrInvalid, err)
		} else if _, err := tls.X509KeyPair(pair.Chain, pair.Key); err != nil {
			return "", fmt.Errorf("%w: %s and %s: %w", admin.ErrInvalid, r.Certificate, r.Key, err)
		}
	}
	var flows []*routing.Flow
	if n.authority() != nil {
		flows = append(flows, n.api.Flow) // without an authority nobody but this node can prove to be entitled
	}
	slots := make(chan struct{}, maxProviding)
	worker := routing.WorkerFunc(func(s *routing.Shard, m *routing.Message) { n.provideCertificate(s, m, r, slots) })
	return r.Address, existsError(n.router.StartNamed(ctx, r.Address, func(*routing.Shard) routing.Worker { return worker }, flows...))
}

// provideCertificate answers one request off the event loop.
func (n *Node) provideCertificate(s *routing.Shard, m *routing.Message, r resource.Certificate, slots chan struct{}) {
	if m.Return.Len() == 0 {
		s.Drops.Malformed.Add(1)
		return
	}
	// Without a peer nothing says where a message comes from: inlets of this node do not ask by message.
	if m.Peer == nil || !n.mayHaveCertificates(identity.Identifier(m.Peer.ID)) {
		n.log.Warn("certificate refused: the peer has not the attribute "+authority.TLSAttribute, "service", r.Address)
		return
	}
	select {
	case slots <- struct{}{}:
	default:
		s.Drops.Overflow.Add(1)
		return
	}
	back := m.Return.Clone()
	go func() {
		defer func() { <-slots }()
		answer := certificateAnswer{Kind: certificateReady}
		pair, err := readPair(r)
		if err != nil {
			n.log.Warn("no certificate to give", "err", err.Error())
			answer.Kind = certificateNotReady
		} else {
			answer.Certificate = &pair
		}
		b, err := cbor.Marshal(answer)
		if err != nil {
			n.log.Error("certificate not encoded", "err", err.Error())
			return
		}
		n.router.Inject(back, routing.LocalRoute(r.Address), b)
	}()
}

func (n *Node) mayHaveCertificates(id identity.Identifier) bool {
	issuer := n.authority()
	if issuer == nil {
		return false
	}
	attributes, ok := n.access.attributes(id, *issuer)
	return ok && attributes[authority.TLSAttribute] == "true"
}

func readPair(r resource.Certificate) (p certificatePair, err error) {
	if p.Chain, err = readBounded(r.Certificate); err == nil {
		p.Key, err = readBounded(r.Key)
	}
	return p, err
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	if err == nil && len(b) > maxPEM {
		err = fmt.Errorf("%s: more than %d bytes", path, maxPEM)
	}
	return b, err
}
