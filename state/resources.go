package state

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Resources are what a node starts again when it comes back (docs/protocol/03 §7.2 for the options). Routes and addresses are text as
// the user gave it, after defaults were filled in; listeners hold the address that was actually bound, so that clients find it again.
type Resources struct {
	// Version is set when the resources are stored.
	Version                int                     `json:"version"`
	TCPListeners           []TCPListener           `json:"tcp_listeners,omitempty"`
	SecureChannelListeners []SecureChannelListener `json:"secure_channel_listeners,omitempty"`
	HopServices            []HopService            `json:"hop_services,omitempty"`
	CertificateProviders   []CertificateProvider   `json:"tls_certificate_providers,omitempty"`
	Policies               []Policy                `json:"policies,omitempty"`
	Outlets                []Outlet                `json:"tcp_outlets,omitempty"`
	Inlets                 []Inlet                 `json:"tcp_inlets,omitempty"`
	Relays                 []Relay                 `json:"relays,omitempty"`
	KafkaOutlets           []KafkaOutlet           `json:"kafka_outlets,omitempty"`
	KafkaInlets            []KafkaInlet            `json:"kafka_inlets,omitempty"`
}

// TCPListener is a further listener of the node.
type TCPListener struct {
	// Address is host:port.
	Address string `json:"address"`
}

// SecureChannelListener accepts secure channels at a worker address.
type SecureChannelListener struct {
	Address string `json:"address"`
	// Identity is the name of the identity it uses; empty for the node's.
	Identity string `json:"identity,omitempty"`
	// Authorized are the identifiers of the only peers it accepts; empty for all.
	Authorized []string `json:"authorized,omitempty"`
}

// HopService forwards messages to the next address of their route.
type HopService struct {
	Address string `json:"address"`
}

// CertificateProvider gives the certificate of two files to TLS inlets.
type CertificateProvider struct {
	Address string `json:"address"`
	// Certificate and Key are absolute paths.
	Certificate string `json:"certificate"`
	Key         string `json:"key"`
}

// Policy belongs to one resource or to all of a type: exactly one of Resource and ResourceType is set.
type Policy struct {
	Resource     string `json:"resource,omitempty"`
	ResourceType string `json:"resource_type,omitempty"`
	Action       string `json:"action"`
	// Expression is the full form, such as (= subject.component "web").
	Expression string `json:"expression"`
}

// Outlet is the exit of a portal.
type Outlet struct {
	// Name is the worker address.
	Name string `json:"name"`
	// To is host:port of the service.
	To         string `json:"to"`
	TLS        bool   `json:"tls,omitempty"`
	Allow      string `json:"allow,omitempty"`
	Privileged bool   `json:"privileged,omitempty"`

	SkipHandshake bool `json:"skip_handshake,omitempty"`
	EnableNagle   bool `json:"enable_nagle,omitempty"`

	InfluxDB *InfluxOutlet `json:"influxdb,omitempty"`
}

// InfluxOutlet is how an outlet's InfluxDB knows its clients: by one token for all, or by leased ones.
type InfluxOutlet struct {
	FixedToken string `json:"fixed_token,omitempty"`
	// The others are for leases.
	OrgID          string `json:"org_id,omitempty"`
	AllAccessToken string `json:"all_access_token,omitempty"`
	// Permissions is JSON, as InfluxDB takes it.
	Permissions      string `json:"leased_token_permissions,omitempty"`
	ExpiresInSeconds int64  `json:"leased_token_expires_in_seconds,omitempty"`
}

// Inlet is the entrance of a portal.
type Inlet struct {
	// Name is the alias.
	Name string `json:"name"`
	// From is the listening address, host:port.
	From string `json:"from"`
	// To is the expanded multi-part address of the outlet.
	To         string   `json:"to"`
	Identity   string   `json:"identity,omitempty"`
	Authorized string   `json:"authorized,omitempty"`
	Allow      string   `json:"allow,omitempty"`
	Headers    []string `json:"http_headers,omitempty"`

	ConnectionWait   Duration `json:"connection_wait,omitempty"`
	RetryWait        Duration `json:"retry_wait,omitempty"`
	Timeout          Duration `json:"timeout,omitempty"`
	NoConnectionWait bool     `json:"no_connection_wait,omitempty"`

	TLS                    bool   `json:"tls,omitempty"`
	TLSCertificateProvider string `json:"tls_certificate_provider,omitempty"`
	UDP                    bool   `json:"udp,omitempty"`
	NoTCPFallback          bool   `json:"no_tcp_fallback,omitempty"`
	Privileged             bool   `json:"privileged,omitempty"`
	SkipHandshake          bool   `json:"skip_handshake,omitempty"`
	EnableNagle            bool   `json:"enable_nagle,omitempty"`

	InfluxDB *InfluxInlet `json:"influxdb,omitempty"`
}

// InfluxInlet is where the token of an inlet's clients is put into their requests.
type InfluxInlet struct {
	// Shared leaves that to the outlet.
	Shared bool `json:"shared,omitempty"`
	// LeaseManager is the multi-part address of the service that leases tokens; empty for the outlet's.
	LeaseManager string `json:"lease_manager_route,omitempty"`
}

// Relay makes the node reachable under a name at another node.
type Relay struct {
	// Name is the local name of the relay.
	Name string `json:"name"`
	// At is the multi-part address of the node that relays.
	At string `json:"at"`
	// RelayAddress is the name asked for there, if it is not Name.
	RelayAddress     string `json:"relay_address,omitempty"`
	Authorized       string `json:"authorized,omitempty"`
	NoConnectionWait bool   `json:"no_connection_wait,omitempty"`
}

// Duration is a time.Duration that is text such as "5s" in JSON.
type Duration time.Duration

// MarshalText writes the form of time.Duration.String.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads the form of time.ParseDuration.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = Duration(v)
	return err
}

// Resources returns what a node starts again; the zero value if nothing was stored. A file that cannot be understood is a
// BrokenFileError, and stays.
func (d *Dir) Resources(node string) (r Resources, err error) {
	if err := CheckName("node", node); err != nil {
		return r, err
	}
	err = d.readJSON(d.file("nodes", node, "resources.json"), &r)
	return r, err
}

// UpdateResources changes the resources of a node, under the lock. It fails if the stored ones are broken, and leaves them alone.
func (d *Dir) UpdateResources(ctx context.Context, node string, change func(*Resources) error) error {
	return d.locked(ctx, func() error {
		r, err := d.Resources(node)
		if err != nil {
			return err
		}
		if err := change(&r); err != nil {
			return err
		}
		return d.writeResources(node, r)
	})
}

// SaveResources replaces the resources of a node. If the stored ones are broken, a copy of them is kept first.
func (d *Dir) SaveResources(ctx context.Context, node string, r Resources) error {
	return d.locked(ctx, func() error {
		var broken *BrokenFileError
		if _, err := d.Resources(node); err != nil && (!errors.As(err, &broken) || broken.Copy == "") {
			return err
		}
		return d.writeResources(node, r)
	})
}

func (d *Dir) writeResources(node string, r Resources) error {
	// A node that was deleted meanwhile must not get its directory back.
	if _, err := d.readNode(node); err != nil {
		return err
	}
	for i, p := range r.Policies {
		if (p.Resource == "") == (p.ResourceType == "") {
			return fmt.Errorf("policy %d of node %q: it needs either a resource or a resource type", i+1, node)
		}
	}
	r.Version = fileVersion
	return d.writeJSON(d.file("nodes", node, "resources.json"), r)
}
