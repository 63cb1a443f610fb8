// Package admin is the administration interface of a running node: HTTP with JSON over a Unix socket that only the node's owner
// may open. The types carry the JSON keys that scripts made for the reference expect (docs/protocol/03 §7.3).
package admin

import "encoding/json"

// Address is a worker's address. Its JSON is the reference's: {"tt": 0, "inner": [bytes]}.
type Address string

// MarshalJSON implements json.Marshaler.
func (a Address) MarshalJSON() ([]byte, error) {
	inner := make([]int, len(a))
	for i := range len(a) {
		inner[i] = int(a[i])
	}
	return json.Marshal(map[string]any{"tt": 0, "inner": inner})
}

// UnmarshalJSON implements json.Unmarshaler.
func (a *Address) UnmarshalJSON(b []byte) error {
	var v struct{ Inner []int }
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	text := make([]byte, len(v.Inner))
	for i, c := range v.Inner {
		text[i] = byte(c)
	}
	*a = Address(text)
	return nil
}

// Node is what a node says of itself.
type Node struct {
	Name           string            `json:"name"`
	IdentityName   string            `json:"identity_name"`
	IsDefault      bool              `json:"is_default"`
	Status         string            `json:"status"` // running, zombie, stopped
	PID            int               `json:"pid,omitempty"`
	Route          NodeRoute         `json:"route"`
	StatusEndpoint *string           `json:"status_endpoint_address"`
	Transports     []Transport       `json:"transports"`
	Listeners      []ChannelListener `json:"secure_channel_listeners"`
	Inlets         []Inlet           `json:"inlets"`
	Outlets        []Outlet          `json:"outlets"`
	Services       []Service         `json:"services"`
}

// NodeRoute says how a node is reached.
type NodeRoute struct {
	Short   string  `json:"short"`
	Verbose *string `json:"verbose,omitempty"`
}

// Transport is a TCP listener or connection, or a UDP socket. Mode is "Listen", "Incoming" or "Outgoing".
type Transport struct {
	Type      string `json:"type"` // Tcp, Udp
	Mode      string `json:"mode"`
	Socket    string `json:"socket_addr"`
	Worker    string `json:"worker_addr"`       // 0#address, or <none>
	Processor string `json:"processor_address"` // 0#address
	Flow      string `json:"flow_control_id"`
}

// ChannelListener is a secure channel listener.
type ChannelListener struct {
	Address         Address `json:"address"`
	Flow            string  `json:"flow_control_id"`
	KeyExchangeOnly bool    `json:"is_key_exchange_only"`
}

// Service is a started service.
type Service struct {
	Address string `json:"addr"`
	Type    string `json:"type"`
}

// Outlet is a TCP outlet.
type Outlet struct {
	To         string  `json:"to"`
	Worker     Address `json:"worker_addr"`
	Payload    *string `json:"payload"`
	Privileged bool    `json:"privileged"`
}

// OutletRequest creates an outlet.
type OutletRequest struct {
	Name          string `json:"name"` // empty: "outlet", or a random name if that is taken
	To            string `json:"to"`   // host:port
	TLS           bool   `json:"tls,omitempty"`
	Allow         string `json:"allow,omitempty"` // policy expression
	SkipHandshake bool   `json:"skip_handshake,omitempty"`
	// InfluxDB is set for an outlet to an InfluxDB.
	InfluxDB *InfluxOutlet `json:"influxdb,omitempty"`
}

// InfluxOutlet is how an outlet's InfluxDB knows its clients: by FixedToken for all, or else by leased tokens.
type InfluxOutlet struct {
	FixedToken       string `json:"fixed_token,omitempty"`
	OrgID            string `json:"org_id,omitempty"`
	AllAccessToken   string `json:"all_access_token,omitempty"`
	Permissions      string `json:"leased_token_permissions,omitempty"` // JSON, as InfluxDB takes it
	ExpiresInSeconds int64  `json:"leased_token_expires_in_seconds,omitempty"`
}

// InfluxInlet is where the token of an inlet's clients is put into their requests: with Shared at the outlet, else at the inlet, which leases
// one from LeaseManager.
type InfluxInlet struct {
	Shared       bool   `json:"shared,omitempty"`
	LeaseManager string `json:"lease_manager_route,omitempty"` // multiaddr; empty: beside the outlet
}

// Inlet is a TCP inlet. Status is "Up" or "Down".
type Inlet struct {
	Bind        string  `json:"bind_addr"`
	Worker      *string `json:"worker_addr"`
	Alias       string  `json:"alias"`
	Payload     *string `json:"payload"`
	OutletRoute *string `json:"outlet_route"`
	Status      string  `json:"status"`
	OutletAddr  string  `json:"outlet_addr"`
	Privileged  bool    `json:"privileged"`
}

// InletRequest creates an inlet.
type InletRequest struct {
	Alias            string `json:"alias"` // empty: a random name
	From             string `json:"from"`  // host:port
	To               string `json:"to"`    // multiaddr, /node/NAME already replaced
	Authorized       string `json:"authorized,omitempty"`
	Identity         string `json:"identity,omitempty"` // name
	Allow            string `json:"allow,omitempty"`
	ConnectionWaitMS int64  `json:"connection_wait_ms,omitempty"`
	NoConnectionWait bool   `json:"no_connection_wait,omitempty"`
	SkipHandshake    bool   `json:"skip_handshake,omitempty"`
	Nagle            bool   `json:"enable_nagle,omitempty"`
	// HTTPHeaders are NAME:VALUE, set in each request of a client.
	HTTPHeaders []string `json:"http_headers,omitempty"`
	// TLSProvider is the multiaddr of the service that has the certificate; empty: no TLS.
	TLSProvider string `json:"tls_certificate_provider,omitempty"`
	// InfluxDB is set for an inlet to an InfluxDB.
	InfluxDB      *InfluxInlet `json:"influxdb,omitempty"`
	UDP           bool         `json:"udp,omitempty"`             // prefer a direct path through a UDP puncture
	NoTCPFallback bool         `json:"no_tcp_fallback,omitempty"` // with UDP: never use the main path for clients
}

// Relay is a relay registered by a node. ConnectionStatus is "Up" or "Down".
type Relay struct {
	ForwardingRoute  *string `json:"forwarding_route"`
	RemoteAddress    *string `json:"remote_address"`
	WorkerAddress    *string `json:"worker_address"`
	Flow             *string `json:"flow_control_id"`
	ConnectionStatus string  `json:"connection_status"`
	Destination      string  `json:"destination_address"`
	Name             string  `json:"name"`
	LastFailure      *string `json:"last_failure"`
}

// RelayRequest creates a relay.
type RelayRequest struct {
	Name             string `json:"name"`
	At               string `json:"at"` // multiaddr, /node/NAME already replaced
	Authorized       string `json:"authorized,omitempty"`
	RelayAddress     string `json:"relay_address,omitempty"`
	NoConnectionWait bool   `json:"no_connection_wait,omitempty"`
}

// KafkaInletRequest creates a Kafka inlet. Routes are multiaddrs, /node/NAME already replaced.
type KafkaInletRequest struct {
	Name string `json:"name"`
	From string `json:"from"` // host:port, of the bootstrap server that clients see
	// FirstPort to LastPort are for the brokers.
	FirstPort int64  `json:"first_port"`
	LastPort  int64  `json:"last_port"`
	To        string `json:"to"` // leads to the outlet's node
	// Consumer leads to the one consumer; else ConsumerRelay to the relay where consumers are found.
	Consumer            string   `json:"consumer,omitempty"`
	ConsumerRelay       string   `json:"consumer_relay,omitempty"`
	PublishingRelay     string   `json:"publishing_relay,omitempty"` // empty: consumers behind the inlet are not published
	NoContentEncryption bool     `json:"no_content_encryption,omitempty"`
	Fields              []string `json:"encrypted_fields,omitempty"` // of JSON objects; empty: whole values
	// BindValues binds values to topic, partition and key; consumers then refuse values that are not bound.
	BindValues bool `json:"bind_values,omitempty"`
	// Advertise is the host that clients are told to connect to, without a port; empty: the one of From, or the address that the client has
	// reached where From is for all addresses.
	Advertise string `json:"advertise,omitempty"`
	// MaxMessageSize is how long a message may be after encryption, in bytes; 0: kafka.DefaultMaxMessage.
	MaxMessageSize int64  `json:"max_message_size,omitempty"`
	Allow          string `json:"allow,omitempty"`
	AllowConsumer  string `json:"allow_consumer,omitempty"`
	AllowProducer  string `json:"allow_producer,omitempty"`
	// Brokers are those known from before, with the addresses that clients have for them.
	Brokers []KafkaBroker `json:"brokers,omitempty"`
}

// KafkaOutletRequest creates a Kafka outlet.
type KafkaOutletRequest struct {
	Name      string `json:"name"`
	Bootstrap string `json:"bootstrap_server"` // host:port
	TLS       bool   `json:"tls,omitempty"`
	Allow     string `json:"allow,omitempty"`
	// Brokers are those known from before, where they say they are.
	Brokers []KafkaBroker `json:"brokers,omitempty"`
}

// KafkaBroker is a broker's number and an address, host:port.
type KafkaBroker struct {
	ID      int64  `json:"id"`
	Address string `json:"address"`
}

// Channel is a secure channel opened by this node. Address and Route are multiaddrs.
type Channel struct {
	Address      string   `json:"address"`
	Route        string   `json:"route"`
	Authorized   []string `json:"authorized_identifiers"`
	Flow         string   `json:"flow_control_id"`
	Their        string   `json:"their_identifier"`
	TheirHistory *string  `json:"their_change_history"`
	OpenedAt     string   `json:"-"`
}

// ChannelRequest opens a secure channel.
type ChannelRequest struct {
	To         string   `json:"to"` // multiaddr
	Authorized []string `json:"authorized,omitempty"`
	Identity   string   `json:"identity,omitempty"`
	Credential string   `json:"credential,omitempty"` // hex
	TimeoutMS  int64    `json:"timeout_ms,omitempty"`
}

// ListenerRequest starts a secure channel listener.
type ListenerRequest struct {
	Address    string   `json:"address"`
	Authorized []string `json:"authorized,omitempty"`
	Identity   string   `json:"identity,omitempty"`
}

// MessageRequest sends a message and waits for the answer. Payload is raw; text is BARE-encoded by the caller.
type MessageRequest struct {
	To        string `json:"to"` // multiaddr
	Payload   []byte `json:"payload"`
	Identity  string `json:"identity,omitempty"`
	TimeoutMS int64  `json:"timeout_ms,omitempty"`
}

// MessageReply is the answer's raw payload.
type MessageReply struct {
	Payload []byte `json:"payload"`
}

// Policy is an access control policy of a resource, by name or by type.
type Policy struct {
	Resource   string `json:"resource"`
	Action     string `json:"action"`
	Expression string `json:"expression"`
}

// PolicyRequest sets a policy. Exactly one of Resource and ResourceType is given.
type PolicyRequest struct {
	Resource     string `json:"resource,omitempty"`
	ResourceType string `json:"resource_type,omitempty"`
	Expression   string `json:"expression"`
}

// TransportRequest opens a TCP listener or connection.
type TransportRequest struct {
	Address string `json:"address"` // host:port
}

// ServiceRequest starts a service: hop, echo or uppercase.
type ServiceRequest struct {
	Address string `json:"address"`
}

// CertificateRequest starts a service that gives a certificate to TLS inlets.
type CertificateRequest struct {
	Address     string `json:"address"`     // empty: tls_certificate_provider
	Certificate string `json:"certificate"` // absolute path of the chain, PEM
	Key         string `json:"key"`         // absolute path of the private key, PEM
}

// ConsumerRequest makes a worker a consumer of a flow.
type ConsumerRequest struct {
	Flow    string `json:"flow_control_id"`
	Address string `json:"address"` // worker address
}

// Deleted answers a deletion.
type Deleted struct {
	Name string `json:"name"`
}

// Error is the body of an answer other than 2xx.
type Error struct {
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}
