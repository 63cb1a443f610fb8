package state

import (
	"encoding/json"
	"fmt"
	"time"

	"sallyport/node/resource"
	"sallyport/policy"
)

// resourcesV1 is resources.json as it was before version 2: one list for each kind.
type resourcesV1 struct {
	TCPListeners           []resource.TCPListener `json:"tcp_listeners"`
	SecureChannelListeners []resource.Listener    `json:"secure_channel_listeners"`
	HopServices            []resource.Hop         `json:"hop_services"`
	CertificateProviders   []resource.Certificate `json:"tls_certificate_providers"`
	Policies               []resource.Policy      `json:"policies"`
	Outlets                []resource.Outlet      `json:"tcp_outlets"`
	Inlets                 []inletV1              `json:"tcp_inlets"`
	Relays                 []resource.Relay       `json:"relays"`
	KafkaOutlets           []resource.KafkaOutlet `json:"kafka_outlets"`
	KafkaInlets            []resource.KafkaInlet  `json:"kafka_inlets"`
}

// inletV1 has two keys that are others now.
type inletV1 struct {
	resource.Inlet
	Name           string     `json:"name"`
	ConnectionWait durationV1 `json:"connection_wait"`
}

// durationV1 is text such as "5s".
type durationV1 time.Duration

// UnmarshalText reads the form of time.ParseDuration.
func (d *durationV1) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = durationV1(v)
	return err
}

// resourcesOfVersion1 reads the older form. A policy that came with a portal goes back to it; the defaults of types are left out.
func resourcesOfVersion1(raw []byte) ([]resource.Stored, error) {
	var f resourcesV1
	if err := json.Unmarshal(raw, &f); err != nil {
		return nil, err
	}
	byName := map[string]string{}
	for _, p := range f.Policies {
		if p.Resource != "" {
			byName[p.Resource] = p.Expression
		}
	}
	allow := func(name string, given *string) {
		now, ok := byName[name]
		if *given == "" || !ok {
			return // the policy that is there, if any, is one of its own
		}
		delete(byName, name)
		if !sameExpression(now, *given) {
			*given = now // it was changed since
		}
	}
	var c collector
	for _, r := range f.TCPListeners {
		c.add(resource.KindTCPListener, r.Address, r)
	}
	for _, r := range f.SecureChannelListeners {
		c.add(resource.KindListener, r.Address, r)
	}
	for _, r := range f.HopServices {
		c.add(resource.KindHop, r.Address, r)
	}
	for _, r := range f.CertificateProviders {
		c.add(resource.KindCertificate, r.Address, r)
	}
	for _, r := range f.Outlets {
		allow(r.Name, &r.Allow)
		c.add(resource.KindOutlet, r.Name, r)
	}
	for _, r := range f.Relays {
		c.add(resource.KindRelay, r.Name, r)
	}
	for _, r := range f.Inlets {
		r.Inlet.Alias, r.Inlet.ConnectionWaitMS = r.Name, time.Duration(r.ConnectionWait).Milliseconds()
		allow(r.Name, &r.Inlet.Allow)
		c.add(resource.KindInlet, r.Name, r.Inlet)
	}
	for _, r := range f.KafkaOutlets {
		allow(r.Name, &r.Allow)
		c.add(resource.KindKafkaOutlet, r.Name, r)
	}
	for _, r := range f.KafkaInlets {
		allow(r.Name, &r.Allow)
		allow("kafka-consumer-"+r.Name, &r.AllowConsumer)
		allow("kafka-producer-"+r.Name, &r.AllowProducer)
		c.add(resource.KindKafkaInlet, r.Name, r)
	}
	for _, p := range f.Policies {
		switch _, own := byName[p.Resource]; {
		case p.Resource != "" && own:
			c.add(resource.KindPolicy, p.Resource, p)
		case p.ResourceType != "" && !sameExpression(p.Expression, policy.DefaultExpr().String()):
			c.add(resource.KindPolicy, p.ResourceType, p)
		}
	}
	return c.list, c.err
}

// collector makes the newer form. It notes the first error.
type collector struct {
	list []resource.Stored
	err  error
}

func (c *collector) add(kind, name string, request any) {
	raw, err := json.Marshal(request)
	if err != nil && c.err == nil {
		c.err = fmt.Errorf("%s %q: %w", kind, name, err)
	}
	c.list = append(c.list, resource.Stored{Kind: kind, Name: name, Request: raw})
}

// sameExpression tells whether two texts are the same policy.
func sameExpression(a, b string) bool {
	x, err := policy.Parse(a)
	y, err2 := policy.Parse(b)
	return err == nil && err2 == nil && policy.Equal(x, y)
}
