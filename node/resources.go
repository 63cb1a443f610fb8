package node

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"sallyport/node/admin"
)

// Resources is what a node was asked to create and creates again at its next start.
type Resources struct {
	Outlets   []admin.OutletRequest    `json:"outlets,omitempty"`
	Inlets    []admin.InletRequest     `json:"inlets,omitempty"`
	Relays    []admin.RelayRequest     `json:"relays,omitempty"`
	Listeners []admin.ListenerRequest  `json:"secure_channel_listeners,omitempty"`
	TCP       []admin.TransportRequest `json:"tcp_listeners,omitempty"`
	Hops      []admin.ServiceRequest   `json:"hop_services,omitempty"`
	// Certificates are services that give certificates to TLS inlets.
	Certificates []admin.CertificateRequest `json:"tls_certificate_providers,omitempty"`
	Policies     []admin.PolicyRequest      `json:"policies,omitempty"`

	KafkaOutlets []admin.KafkaOutletRequest `json:"kafka_outlets,omitempty"`
	KafkaInlets  []admin.KafkaInletRequest  `json:"kafka_inlets,omitempty"`
}

// save writes down what the node was asked to create. n.mu is held.
func (n *Node) save() error {
	if n.restoring || n.opts.Store == nil {
		return nil
	}
	var r Resources
	for _, k := range sortedKeys(n.outlets) {
		if n.outlets[k].owner == "" {
			r.Outlets = append(r.Outlets, n.outlets[k].request)
		}
	}
	for _, k := range sortedKeys(n.inlets) {
		if n.inlets[k].owner == "" {
			r.Inlets = append(r.Inlets, n.inlets[k].request)
		}
	}
	for _, k := range sortedKeys(n.relays) {
		if n.relays[k].owner == "" {
			r.Relays = append(r.Relays, n.relays[k].request)
		}
	}
	for _, k := range sortedKeys(n.listeners) {
		r.Listeners = append(r.Listeners, n.listeners[k])
	}
	for _, k := range sortedKeys(n.hops) {
		r.Hops = append(r.Hops, admin.ServiceRequest{Address: k})
	}
	for _, k := range sortedKeys(n.providers) {
		r.Certificates = append(r.Certificates, n.providers[k])
	}
	r.KafkaOutlets, r.KafkaInlets = n.kafka.requests()
	r.TCP = n.tcpExtra
	r.Policies = n.policyRequests()
	n.addLost(&r)
	if err := n.opts.Store.Save(r); err != nil {
		return fmt.Errorf("created, but not remembered for the next start: %w", err)
	}
	return nil
}

// addLost adds to r what could not be created again. What was created since then under the same name takes its place.
func (n *Node) addLost(r *Resources) {
	n.lost.Outlets = slices.DeleteFunc(n.lost.Outlets, func(o admin.OutletRequest) bool { return n.outlets[o.Name] != nil })
	n.lost.Inlets = slices.DeleteFunc(n.lost.Inlets, func(in admin.InletRequest) bool { return n.inlets[in.Alias] != nil })
	n.lost.Relays = slices.DeleteFunc(n.lost.Relays, func(rel admin.RelayRequest) bool { return n.relays[rel.Name] != nil })
	n.lost.Listeners = slices.DeleteFunc(n.lost.Listeners, func(l admin.ListenerRequest) bool {
		_, live := n.listeners[l.Address]
		return live
	})
	n.lost.TCP = slices.DeleteFunc(n.lost.TCP, func(l admin.TransportRequest) bool { return slices.Contains(r.TCP, l) })
	r.Outlets, r.Inlets = append(r.Outlets, n.lost.Outlets...), append(r.Inlets, n.lost.Inlets...)
	r.Relays, r.Listeners = append(r.Relays, n.lost.Relays...), append(r.Listeners, n.lost.Listeners...)
	r.TCP = append(slices.Clip(r.TCP), n.lost.TCP...)
	n.lost.KafkaOutlets = slices.DeleteFunc(n.lost.KafkaOutlets, func(o admin.KafkaOutletRequest) bool { return n.kafka.outlet != nil })
	n.lost.KafkaInlets = slices.DeleteFunc(n.lost.KafkaInlets, func(in admin.KafkaInletRequest) bool { return n.kafka.inlets[in.Name] != nil })
	r.KafkaOutlets, r.KafkaInlets = append(r.KafkaOutlets, n.lost.KafkaOutlets...), append(r.KafkaInlets, n.lost.KafkaInlets...)
}

// restore creates again what the node had. What cannot be created is logged and stays written down.
func (n *Node) restore(ctx context.Context) error {
	r, err := n.opts.Store.Load()
	if err != nil {
		return err
	}
	n.restoring = true
	defer func() { n.restoring = false }()
	var failed []error
	try := func(what string, err error) bool {
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", what, err))
		}
		return err != nil
	}
	for _, p := range r.Policies {
		try("policy of "+p.Resource+p.ResourceType, n.SetPolicy(ctx, p))
	}
	for _, l := range r.TCP {
		_, err := n.CreateTCPListener(ctx, l)
		if try("TCP listener "+l.Address, err) {
			n.lost.TCP = append(n.lost.TCP, l)
		}
	}
	for _, l := range r.Listeners {
		_, err := n.CreateListener(ctx, l)
		if try("secure channel listener "+l.Address, err) {
			n.lost.Listeners = append(n.lost.Listeners, l)
		}
	}
	for _, h := range r.Hops {
		_, err := n.StartHop(ctx, h)
		try("hop service "+h.Address, err)
	}
	for _, c := range r.Certificates {
		_, err := n.StartCertificateProvider(ctx, c)
		try("certificate provider "+c.Address, err)
	}
	for _, o := range r.Outlets {
		_, err := n.CreateOutlet(ctx, o)
		if try("outlet "+o.Name, err) {
			n.lost.Outlets = append(n.lost.Outlets, o)
		}
	}
	for _, rel := range r.Relays {
		_, err := n.startRelay(ctx, rel)
		if try("relay "+rel.Name, err) {
			n.lost.Relays = append(n.lost.Relays, rel)
		}
	}
	for _, in := range r.Inlets {
		_, err := n.startInlet(ctx, &in)
		if try("inlet "+in.Alias, err) {
			n.lost.Inlets = append(n.lost.Inlets, in)
		}
	}
	for _, o := range r.KafkaOutlets {
		_, err := n.CreateKafkaOutlet(ctx, o)
		if try("Kafka outlet "+o.Name, err) {
			n.lost.KafkaOutlets = append(n.lost.KafkaOutlets, o)
		}
	}
	for _, in := range r.KafkaInlets {
		_, err := n.CreateKafkaInlet(ctx, in)
		if try("Kafka inlet "+in.Name, err) {
			n.lost.KafkaInlets = append(n.lost.KafkaInlets, in)
		}
	}
	if err := errors.Join(failed...); err != nil {
		n.log.Error("not everything the node had could be created again", "err", err.Error())
	}
	return nil
}

// forget drops from a list what is matched and reports whether it was there.
func forget[T any](list *[]T, matches func(T) bool) bool {
	before := len(*list)
	*list = slices.DeleteFunc(*list, matches)
	return len(*list) < before
}

// The following drop what could not be created again, so that it can be deleted like what could. n.mu is held.

func (r *Resources) forgetOutlet(name string) bool {
	return forget(&r.Outlets, func(o admin.OutletRequest) bool { return o.Name == name })
}

func (r *Resources) forgetInlet(alias string) bool {
	return forget(&r.Inlets, func(in admin.InletRequest) bool { return in.Alias == alias })
}

func (r *Resources) forgetRelay(name string) bool {
	return forget(&r.Relays, func(rel admin.RelayRequest) bool { return rel.Name == name })
}

func (r *Resources) forgetListener(address string) bool {
	return forget(&r.Listeners, func(l admin.ListenerRequest) bool { return l.Address == address })
}

func (r *Resources) forgetKafkaOutlet(name string) bool {
	return forget(&r.KafkaOutlets, func(o admin.KafkaOutletRequest) bool { return o.Name == name })
}

func (r *Resources) forgetKafkaInlet(name string) bool {
	return forget(&r.KafkaInlets, func(in admin.KafkaInletRequest) bool { return in.Name == name })
}

func (r *Resources) forgetTCP(address string) bool {
	return forget(&r.TCP, func(l admin.TransportRequest) bool { return l.Address == address })
}
