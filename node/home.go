package node

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"sallyport/crypto/identity"
	"sallyport/node/admin"
	"sallyport/project"
	"sallyport/routing/multiaddr"
	"sallyport/state"
)

// home is a state directory as a node's Store.
type home struct {
	dir  *state.Dir
	node string
	keep bool // write down what is created
}

// NewHome makes a Store of a state directory, for the node with a name. keep tells whether the node's resources outlive it.
func NewHome(dir *state.Dir, node string, keep bool) Store {
	return &home{dir: dir, node: node, keep: keep}
}

// ProjectOf takes from a stored project what a node needs.
func ProjectOf(p *project.Project) (*Project, error) {
	route, err := multiaddr.Parse(p.AccessRoute)
	if err != nil {
		return nil, fmt.Errorf("project %s: access route: %w", p.Name, err)
	}
	out := &Project{Route: route}
	if out.Identifier, err = identity.ParseIdentifier(p.Identity); err != nil {
		return nil, fmt.Errorf("project %s: %w", p.Name, err)
	}
	if p.AuthorityChangeHistory != "" {
		authority, err := identity.ImportHex(p.AuthorityChangeHistory, nil)
		if err != nil {
			return nil, fmt.Errorf("project %s: authority: %w", p.Name, err)
		}
		id := authority.Identifier()
		out.Authority = &id
	}
	return out, nil
}

func (h *home) Project(_ context.Context, name string) (*Project, error) {
	p, err := h.dir.Project(name)
	if err != nil {
		if errors.Is(err, state.ErrNotFound) {
			return nil, fmt.Errorf("%w: no project %q; `project list` shows those there are", admin.ErrNotFound, name)
		}
		return nil, err
	}
	return ProjectOf(p.Project)
}

func (h *home) Identity(_ context.Context, name string) (identity.Identifier, error) {
	named, err := h.dir.NamedIdentity(name)
	if err != nil {
		return identity.Identifier{}, fmt.Errorf("%w: %w", admin.ErrInvalid, err)
	}
	return identity.ParseIdentifier(named.Identifier)
}

func (h *home) Credential(_ context.Context, subject, issuer identity.Identifier, scope string) ([]byte, error) {
	c, err := h.dir.Credential(subject.String(), issuer.String(), scope)
	if errors.Is(err, state.ErrNotFound) {
		return nil, nil
	}
	return c.Raw, err
}

func (h *home) PutCredential(ctx context.Context, subject, issuer identity.Identifier, scope string, raw []byte, expires time.Time) error {
	return h.dir.PutCredential(ctx, state.Credential{Subject: subject.String(), Issuer: issuer.String(), Scope: scope, Raw: raw, ExpiresAt: expires})
}

func (h *home) Load() (Resources, error) {
	if !h.keep {
		return Resources{}, nil
	}
	stored, err := h.dir.Resources(h.node)
	if err != nil {
		return Resources{}, err
	}
	var r Resources
	for _, v := range stored.TCPListeners {
		r.TCP = append(r.TCP, admin.TransportRequest{Address: v.Address})
	}
	for _, v := range stored.SecureChannelListeners {
		r.Listeners = append(r.Listeners, admin.ListenerRequest{Address: v.Address, Authorized: v.Authorized, Identity: v.Identity})
	}
	for _, v := range stored.HopServices {
		r.Hops = append(r.Hops, admin.ServiceRequest{Address: v.Address})
	}
	for _, v := range stored.CertificateProviders {
		r.Certificates = append(r.Certificates, admin.CertificateRequest(v))
	}
	for _, v := range stored.Policies {
		r.Policies = append(r.Policies, admin.PolicyRequest{Resource: v.Resource, ResourceType: v.ResourceType, Expression: v.Expression})
	}
	for _, v := range stored.Outlets {
		r.Outlets = append(r.Outlets, admin.OutletRequest{Name: v.Name, To: v.To, TLS: v.TLS, Allow: v.Allow, SkipHandshake: v.SkipHandshake, InfluxDB: (*admin.InfluxOutlet)(v.InfluxDB)})
	}
	for _, v := range stored.Inlets {
		r.Inlets = append(r.Inlets, admin.InletRequest{
			Alias: v.Name, From: v.From, To: v.To, Authorized: v.Authorized, Identity: v.Identity, Allow: v.Allow,
			ConnectionWaitMS: time.Duration(v.ConnectionWait).Milliseconds(), NoConnectionWait: v.NoConnectionWait,
			SkipHandshake: v.SkipHandshake, Nagle: v.EnableNagle, UDP: v.UDP, NoTCPFallback: v.NoTCPFallback,
			HTTPHeaders: v.Headers, TLSProvider: v.TLSCertificateProvider, InfluxDB: (*admin.InfluxInlet)(v.InfluxDB),
		})
	}
	for _, v := range stored.Relays {
		r.Relays = append(r.Relays, admin.RelayRequest{
			Name: v.Name, At: v.At, Authorized: v.Authorized, RelayAddress: v.RelayAddress, NoConnectionWait: v.NoConnectionWait,
		})
	}
	for _, v := range stored.KafkaOutlets {
		r.KafkaOutlets = append(r.KafkaOutlets, admin.KafkaOutletRequest{Name: v.Name, Bootstrap: v.Bootstrap, TLS: v.TLS, Allow: v.Allow, Brokers: convert[admin.KafkaBroker](v.Brokers)})
	}
	for _, v := range stored.KafkaInlets {
		r.KafkaInlets = append(r.KafkaInlets, admin.KafkaInletRequest{
			Name: v.Name, From: v.From, FirstPort: v.FirstPort, LastPort: v.LastPort, To: v.To, Consumer: v.Consumer, ConsumerRelay: v.ConsumerRelay,
			PublishingRelay: v.PublishingRelay, NoContentEncryption: v.PlainContent, Fields: v.Fields, Allow: v.Allow, AllowConsumer: v.AllowConsumer,
			AllowProducer: v.AllowProducer, BindValues: v.BindValues, Advertise: v.Advertise, MaxMessageSize: v.MaxMessageSize,
			Brokers: convert[admin.KafkaBroker](v.Brokers),
		})
	}
	return r, nil
}

// convert changes the type of a list's elements to one with the same fields.
func convert[To, From admin.KafkaBroker | state.KafkaBroker](list []From) []To {
	var out []To
	for _, v := range list {
		out = append(out, To(v))
	}
	return out
}

func (h *home) Save(r Resources) error {
	if !h.keep {
		return nil
	}
	var out state.Resources
	for _, v := range r.TCP {
		out.TCPListeners = append(out.TCPListeners, state.TCPListener{Address: v.Address})
	}
	for _, v := range r.Listeners {
		out.SecureChannelListeners = append(out.SecureChannelListeners, state.SecureChannelListener{Address: v.Address, Authorized: v.Authorized, Identity: v.Identity})
	}
	for _, v := range r.Hops {
		out.HopServices = append(out.HopServices, state.HopService{Address: v.Address})
	}
	for _, v := range r.Certificates {
		out.CertificateProviders = append(out.CertificateProviders, state.CertificateProvider(v))
	}
	for _, v := range r.Policies {
		out.Policies = append(out.Policies, state.Policy{Resource: v.Resource, ResourceType: v.ResourceType, Action: "handle_message", Expression: v.Expression})
	}
	for _, v := range r.Outlets {
		out.Outlets = append(out.Outlets, state.Outlet{Name: v.Name, To: v.To, TLS: v.TLS, Allow: v.Allow, SkipHandshake: v.SkipHandshake, InfluxDB: (*state.InfluxOutlet)(v.InfluxDB)})
	}
	for _, v := range r.Inlets {
		out.Inlets = append(out.Inlets, state.Inlet{
			Name: v.Alias, From: v.From, To: v.To, Authorized: v.Authorized, Identity: v.Identity, Allow: v.Allow,
			ConnectionWait: state.Duration(v.ConnectionWaitMS) * state.Duration(time.Millisecond), NoConnectionWait: v.NoConnectionWait,
			SkipHandshake: v.SkipHandshake, EnableNagle: v.Nagle, UDP: v.UDP, NoTCPFallback: v.NoTCPFallback,
			Headers: v.HTTPHeaders, TLSCertificateProvider: v.TLSProvider, InfluxDB: (*state.InfluxInlet)(v.InfluxDB),
		})
	}
	for _, v := range r.Relays {
		out.Relays = append(out.Relays, state.Relay{
			Name: v.Name, At: v.At, Authorized: v.Authorized, RelayAddress: v.RelayAddress, NoConnectionWait: v.NoConnectionWait,
		})
	}
	for _, v := range r.KafkaOutlets {
		out.KafkaOutlets = append(out.KafkaOutlets, state.KafkaOutlet{Name: v.Name, Bootstrap: v.Bootstrap, TLS: v.TLS, Allow: v.Allow, Brokers: convert[state.KafkaBroker](v.Brokers)})
	}
	for _, v := range r.KafkaInlets {
		out.KafkaInlets = append(out.KafkaInlets, state.KafkaInlet{
			Name: v.Name, From: v.From, FirstPort: v.FirstPort, LastPort: v.LastPort, To: v.To, Consumer: v.Consumer, ConsumerRelay: v.ConsumerRelay,
			PublishingRelay: v.PublishingRelay, PlainContent: v.NoContentEncryption, Fields: v.Fields, Allow: v.Allow, AllowConsumer: v.AllowConsumer,
			AllowProducer: v.AllowProducer, BindValues: v.BindValues, Advertise: v.Advertise, MaxMessageSize: v.MaxMessageSize,
			Brokers: convert[state.KafkaBroker](v.Brokers),
		})
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return h.dir.SaveResources(ctx, h.node, out)
}

// TrustOf makes a Trust of a project: its authority, and how to get a member's credential from it.
func TrustOf(p *project.Project) (Trust, error) {
	parsed, err := ProjectOf(p)
	if err != nil {
		return Trust{}, err
	}
	t := Trust{Authority: parsed.Authority}
	if t.Authority == nil {
		return t, nil
	}
	t.Scope = p.CredentialScope()
	if t.Route, err = multiaddr.Parse(p.AuthorityAccessRoute); err != nil {
		return t, fmt.Errorf("project %s: authority access route: %w", p.Name, err)
	}
	return t, nil
}

// AuthorityHistory decodes an authority's history given as hex and makes sure that it is known.
func AuthorityHistory(ctx context.Context, m *identity.Manager, text string) (identity.Identifier, error) {
	raw, err := hex.DecodeString(text)
	if err != nil {
		return identity.Identifier{}, fmt.Errorf("%w: the authority's identity must be a change history in hex: %w", admin.ErrInvalid, err)
	}
	i, err := m.ImportIgnoreOlder(ctx, raw)
	if err != nil {
		return identity.Identifier{}, err
	}
	return i.Identifier(), nil
}

func (h *home) PutExchangedKey(ctx context.Context, k ExchangedKey) error {
	if !h.keep {
		return nil
	}
	stored := state.KafkaKey{
		Address: k.Address, Self: k.Self.String(), Peer: k.Peer.String(), Key: k.Key[:], Attributes: k.Attributes, ExpiresAt: k.Expires.UTC(), CreatedAt: time.Now().UTC(),
	}
	if k.AttestedBy != nil {
		stored.AttestedBy = k.AttestedBy.String()
	}
	return h.dir.PutKafkaKey(ctx, h.node, stored)
}

func (h *home) ExchangedKey(_ context.Context, address string) (*ExchangedKey, error) {
	if !h.keep {
		return nil, nil
	}
	stored, err := h.dir.KafkaKey(h.node, address)
	if errors.Is(err, state.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	k := &ExchangedKey{Address: stored.Address, Attributes: stored.Attributes, Expires: stored.ExpiresAt}
	if copy(k.Key[:], stored.Key) != len(k.Key) || len(stored.Key) != len(k.Key) {
		return nil, fmt.Errorf("key %s: %d bytes, not %d", address, len(stored.Key), len(k.Key))
	}
	if k.Self, err = identity.ParseIdentifier(stored.Self); err != nil {
		return nil, fmt.Errorf("key %s: %w", address, err)
	}
	if k.Peer, err = identity.ParseIdentifier(stored.Peer); err != nil {
		return nil, fmt.Errorf("key %s: %w", address, err)
	}
	if stored.AttestedBy != "" {
		by, err := identity.ParseIdentifier(stored.AttestedBy)
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", address, err)
		}
		k.AttestedBy = &by
	}
	return k, nil
}
