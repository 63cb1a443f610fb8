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
	"sallyport/routing"
)

// maxProviding bounds the requests that one provider answers at the same time.
const maxProviding = 16

// StartCertificateProvider starts a service that gives the certificate and the private key of two files to TLS inlets. They are read anew for
// each request, so a renewed certificate needs no restart. Who may have them: inlets of this node, and members to whom the node's authority gave
// the attribute ockam-tls-certificate.
func (n *Node) StartCertificateProvider(ctx context.Context, r admin.CertificateRequest) (admin.Service, error) {
	if r.Address == "" {
		r.Address = CertificateService
	}
	if !filepath.IsAbs(r.Certificate) || !filepath.IsAbs(r.Key) {
		return admin.Service{}, fmt.Errorf("%w: the certificate and the key must be absolute paths", admin.ErrInvalid)
	}
	if !n.restoring {
		// Said now rather than by every inlet; later a file may be missing for a moment.
		if pair, err := readPair(r); err != nil {
			return admin.Service{}, fmt.Errorf("%w: %w", admin.ErrInvalid, err)
		} else if _, err := tls.X509KeyPair(pair.Chain, pair.Key); err != nil {
			return admin.Service{}, fmt.Errorf("%w: %s and %s: %w", admin.ErrInvalid, r.Certificate, r.Key, err)
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	var flows []*routing.Flow
	if n.authority() != nil {
		flows = append(flows, n.api.Flow) // without an authority nobody but this node can prove to be entitled
	}
	slots := make(chan struct{}, maxProviding)
	worker := routing.WorkerFunc(func(s *routing.Shard, m *routing.Message) { n.provideCertificate(s, m, r, slots) })
	if err := n.router.StartNamed(ctx, r.Address, func(*routing.Shard) routing.Worker { return worker }, flows...); err != nil {
		return admin.Service{}, existsError(err)
	}
	n.providers[r.Address] = r
	s := admin.Service{Address: r.Address, Type: CertificateService}
	n.services = append(n.services, s)
	return s, n.save()
}

// provideCertificate answers one request off the event loop.
func (n *Node) provideCertificate(s *routing.Shard, m *routing.Message, r admin.CertificateRequest, slots chan struct{}) {
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

func readPair(r admin.CertificateRequest) (p certificatePair, err error) {
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
	b, err := io.ReadAll(io.LimitReader(f, maxCertificate/2+1))
	if err == nil && len(b) > maxCertificate/2 {
		err = fmt.Errorf("%s: more than %d bytes", path, maxCertificate/2)
	}
	return b, err
}
