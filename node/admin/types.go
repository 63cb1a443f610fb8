// Package admin is the administration interface of a running node: HTTP with JSON over a Unix socket that only the node's owner
// may open. The types carry the JSON keys that scripts made for the reference expect (docs/protocol/03 §7.3).
package admin

import (
	"encoding/json"
	"time"

	"sallyport/node/resource"
)

// State is a resource's state, since when, why, and when it is tried next.
type State = resource.Status

// Requests are the resource itself, as it is asked for.
type (
	OutletRequest      = resource.Outlet
	InletRequest       = resource.Inlet
	RelayRequest       = resource.Relay
	ListenerRequest    = resource.Listener
	ServiceRequest     = resource.Hop
	CertificateRequest = resource.Certificate
	PolicyRequest      = resource.Policy
	KafkaInletRequest  = resource.KafkaInlet
	KafkaOutletRequest = resource.KafkaOutlet
	KafkaBroker        = resource.KafkaBroker
	InfluxOutlet       = resource.InfluxOutlet
	InfluxInlet        = resource.InfluxInlet
)

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

// StopRequest asks a node to end.
type StopRequest struct {
	// Drain is how long its connections may take to end; empty is not at all.
	Drain string `json:"drain,omitempty"`
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
	UDPInlets      []UDPInlet        `json:"udp_inlets,omitempty"`
	UDPOutlets     []UDPOutlet       `json:"udp_outlets,omitempty"`
	Services       []Service         `json:"services"`
	Keys           *Keys             `json:"keys,omitempty"`
	Authority      *Authority        `json:"authority,omitempty"` // nil for a node without a route to one
	Store          *Store            `json:"store,omitempty"`     // of an authority
	Registry       *Registry         `json:"registry,omitempty"`  // of a relay that is one of several
}

// Keys tells how the key stands with which a node opens secure channels. It is in the node's memory, attested by the identity's primary key.
type Keys struct {
	// Home is the vault with the primary key, if that may be away.
	Home string `json:"home,omitempty"`
	// MadeAt is when the key was made, Unix seconds.
	MadeAt int64 `json:"made_at"`
	// ValidUntil is how long the node opens channels without its primary key, RenewAt when it next asks for it; both Unix seconds.
	ValidUntil int64 `json:"valid_until"`
	RenewAt    int64 `json:"renew_at"`
	// Reason is why the primary key does not attest a new one since Since, Unix seconds; empty if nothing is wrong.
	Reason string `json:"reason,omitempty"`
	Since  int64  `json:"since,omitempty"`
}

// Authority says how a node stands with the authority whose credentials it believes.
type Authority struct {
	Identifier string     `json:"identifier"`
	State      string     `json:"state"`           // up, unreachable, or silent: it does not tell of revocations
	Heard      *time.Time `json:"heard,omitempty"` // when it last answered
	Silence    float64    `json:"silence_seconds"` // since then, or since the node started
	Grace      float64    `json:"grace_seconds"`   // how long that may be
	Late       bool       `json:"late"`            // it is longer
	Revoked    int        `json:"revoked"`         // members that are known to be revoked
}

// Store says where the store of an authority is, and whether it is there.
type Store struct {
	Name   string    `json:"name"`  // a file, or a URL without user and password
	State  string    `json:"state"` // up or away
	Since  time.Time `json:"since"`
	Reason string    `json:"reason,omitempty"`
}

// Registry says how the registry is by which a relay is one of several.
type Registry struct {
	Store Store `json:"store"`
	// Relay is where this relay is found, a multiaddr; Relays is how many others are alive, and Linked to how many of them there is a way.
	Relay  string `json:"relay"`
	Relays int    `json:"relays"`
	Linked int    `json:"linked"`
	// Here is how many relay names somebody has at this relay, Elsewhere how many others alone have.
	Here      int `json:"names_here"`
	Elsewhere int `json:"names_elsewhere"`
	// PassedOn and Taken are messages that went by a name to another relay, and came from one.
	PassedOn uint64 `json:"messages_passed_on"`
	Taken    uint64 `json:"messages_taken"`
}

// RelayName is a name that a relay service knows, with who is registered under it at which relay of its fleet.
type RelayName struct {
	Name    string        `json:"name"`
	Owner   string        `json:"owner,omitempty"`
	Rule    string        `json:"rule,omitempty"`
	Share   string        `json:"share,omitempty"`
	Members []RelayMember `json:"members"`
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
	*State           // nil for the node's own, and for connections
}

// ChannelListener is a secure channel listener.
type ChannelListener struct {
	Address         Address `json:"address"`
	Flow            string  `json:"flow_control_id"`
	KeyExchangeOnly bool    `json:"is_key_exchange_only"`
	*State                  // nil for those that every node has
}

// Service is a started service.
type Service struct {
	Address string `json:"addr"`
	Type    string `json:"type"`
	*State         // nil for those that every node has
}

// KafkaInlet is a Kafka inlet. Bind is where clients find the bootstrap server, host:port.
type KafkaInlet struct {
	Service
	Bind string `json:"bind_addr"`
}

// Outlet is a TCP outlet.
type Outlet struct {
	To         string  `json:"to"`
	Worker     Address `json:"worker_addr"`
	Payload    *string `json:"payload"`
	Privileged bool    `json:"privileged"`
	// What it was created with; 0 for the default.
	MaxConnections          int `json:"max_connections,omitempty"`
	MaxConnectionsPerMember int `json:"max_connections_per_member,omitempty"`
	State
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
	// MaxConnections is what it was created with; 0 for any number.
	MaxConnections int `json:"max_connections,omitempty"`
	State
}

// UDPOutlet is an outlet for UDP.
type UDPOutlet struct {
	Name  string `json:"name"`
	To    string `json:"to"`
	Flows int64  `json:"flows"`
	State
}

// UDPInlet is an inlet for UDP.
type UDPInlet struct {
	Name  string `json:"name"`
	Bind  string `json:"bind_addr"`
	To    string `json:"to"`
	Route string `json:"outlet_route,omitempty"` // while there is a path
	Flows int64  `json:"flows"`
	State
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
	Rule             string  `json:"rule,omitempty"`
	Share            string  `json:"share,omitempty"`
	Priority         int     `json:"priority,omitempty"`
	// Members are those who share the name, as the relay says; of `show` only.
	Members []RelayMember `json:"members,omitempty"`
	State
}

// RelayMember is one of those who share a relay name. State is "up", "target down" or "away".
type RelayMember struct {
	Identifier  string `json:"identifier"`
	Self        bool   `json:"self"` // it is the node that was asked
	Priority    uint64 `json:"priority"`
	State       string `json:"state"`
	Chosen      bool   `json:"chosen"` // new connections go to it, with failover
	Connections uint64 `json:"connections"`
	Relay       string `json:"relay,omitempty"` // where it is registered, if not at the relay asked
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

// TransportRequest opens a TCP connection.
type TransportRequest struct {
	Address string `json:"address"` // host:port
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

// Accepted answers that an inlet goes on with another node at the end of its route.
type Accepted struct {
	Name   string `json:"name"`
	Before string `json:"before"`        // who was expected
	Now    string `json:"now,omitempty"` // who is; empty: whoever answers next
}
