package resource

// Outlet is a portal's end beside a server.
type Outlet struct {
	Name string `json:"name" flag:"-"` // empty: "outlet", or a random name if that is taken
	To   string `json:"to" flag:"to"`  // host:port
	TLS  bool   `json:"tls,omitempty" flag:"tls"`
	// ALPN are the application protocols offered to the server with TLS, in this order; empty: what the client turns out to speak.
	ALPN          []string `json:"alpn,omitempty" flag:"alpn"`
	Allow         string   `json:"allow,omitempty" flag:"allow"` // policy expression
	SkipHandshake bool     `json:"skip_handshake,omitempty" flag:"skip-handshake"`
	// Hold is how long a connection waits for another path when its own is gone, as "60s", "0s" for not at all; empty: a minute.
	Hold string `json:"hold,omitempty" flag:"hold"`
	// Check is how an outlet looks at its target from time to time: "tcp" whether it takes connections, "pg" whether a PostgreSQL server does, "http" or "http:/PATH"
	// whether a request is answered without an error of the server. Empty or "none" for one that learns it from its clients.
	Check string `json:"check,omitempty" flag:"check"`
	// CheckInterval is the time between two looks, as "10s"; empty: ten seconds.
	CheckInterval string `json:"check_interval,omitempty" flag:"check-interval"`
	// MaxConnections is how many connections it has at most; 0: the limit outlet-connections of the node.
	MaxConnections int `json:"max_connections,omitempty" flag:"max-connections"`
	// MaxConnectionsPerMember is how many of them one member has at most; 0: four in five.
	MaxConnectionsPerMember int `json:"max_connections_per_member,omitempty" flag:"max-connections-per-member"`
	// Rate is how much it carries in each direction at most, as "20mbit"; members get equal shares. Empty: as much as goes.
	Rate string `json:"rate,omitempty" flag:"rate"`
	// ProxyProtocol is "v1" or "v2" for a target that is told whose connections it gets, in that version of the PROXY protocol; empty: it is not.
	ProxyProtocol string `json:"proxy_protocol,omitempty" flag:"proxy-protocol"`
	// InfluxDB is set for an outlet to an InfluxDB.
	InfluxDB *InfluxOutlet `json:"influxdb,omitempty" flag:"influxdb"`
}

// InfluxOutlet is how an outlet's InfluxDB knows its clients: by FixedToken for all, or else by leased tokens.
type InfluxOutlet struct {
	FixedToken       string `json:"fixed_token,omitempty"`
	OrgID            string `json:"org_id,omitempty"`
	AllAccessToken   string `json:"all_access_token,omitempty"`
	Permissions      string `json:"leased_token_permissions,omitempty"` // JSON, as InfluxDB takes it
	ExpiresInSeconds int64  `json:"leased_token_expires_in_seconds,omitempty"`
}

// Inlet is a portal's end beside clients.
type Inlet struct {
	Alias            string `json:"alias" flag:"-"`                       // empty: a random name
	From             string `json:"from" flag:"from"`                     // host:port, or unix:PATH; port 0: the node chooses one and keeps it
	Bound            string `json:"bound,omitempty" flag:"-" memo:"kept"` // what the node chose
	To               string `json:"to" flag:"to"`                         // multiaddr, /node/NAME already replaced
	Authorized       string `json:"authorized,omitempty" flag:"authorized"`
	Identity         string `json:"identity,omitempty" flag:"identity"` // name
	Allow            string `json:"allow,omitempty" flag:"allow"`       // policy expression
	ConnectionWaitMS int64  `json:"connection_wait_ms,omitempty" flag:"connection-wait" memo:"ignored"`
	NoConnectionWait bool   `json:"no_connection_wait,omitempty" flag:"no-connection-wait" memo:"ignored"`
	SkipHandshake    bool   `json:"skip_handshake,omitempty" flag:"skip-handshake"`
	Hold             string `json:"hold,omitempty" flag:"hold"` // as of an Outlet
	// Rate is how much it carries in each direction at most, as "20mbit"; empty: as much as goes.
	Rate string `json:"rate,omitempty" flag:"rate"`
	// MaxConnections is how many clients it has at most, those that wait for a path among them; 0: any number.
	MaxConnections int `json:"max_connections,omitempty" flag:"max-connections"`
	// TellClient has the outlet told who each client is, for its records and for its target (ProxyProtocol).
	TellClient bool `json:"tell_client,omitempty" flag:"tell-client"`
	Nagle      bool `json:"enable_nagle,omitempty" flag:"enable-nagle"`
	// HTTPHeaders are NAME:VALUE, set in each request of a client.
	HTTPHeaders []string `json:"http_headers,omitempty" flag:"http-header"`
	// TLSProvider is the multiaddr of the service that has the certificate; empty: no TLS.
	TLSProvider string `json:"tls_certificate_provider,omitempty" flag:"tls-certificate-provider"`
	// ALPN are the application protocols that clients with TLS may choose from, the best first; empty: see docs/portals.md.
	ALPN []string `json:"alpn,omitempty" flag:"alpn"`
	// AcceptProxyProtocol are the networks, as 10.0.0.0/8, from which clients begin with a header of the PROXY protocol; with any, all clients of a Unix socket do.
	AcceptProxyProtocol []string `json:"accept_proxy_protocol,omitempty" flag:"accept-proxy-protocol"`
	// SocketMode, in octal, and SocketOwner, USER or USER:GROUP, are of a Unix socket (From unix:PATH); empty: 0600, and those of the process.
	SocketMode  string `json:"socket_mode,omitempty" flag:"socket-mode"`
	SocketOwner string `json:"socket_owner,omitempty" flag:"socket-owner"`
	// InfluxDB is set for an inlet to an InfluxDB.
	InfluxDB *InfluxInlet `json:"influxdb,omitempty" flag:"influxdb"`
	// UDP prefers a direct path through a UDP puncture; with NoTCPFallback clients never use the main path.
	UDP           bool `json:"udp,omitempty" flag:"udp"`
	NoTCPFallback bool `json:"no_tcp_fallback,omitempty" flag:"no-tcp-fallback"`
}

// InfluxInlet is where the token of an inlet's clients is put into their requests: with Shared at the outlet, else at the inlet, which
// leases one from LeaseManager.
type InfluxInlet struct {
	Shared       bool   `json:"shared,omitempty"`
	LeaseManager string `json:"lease_manager_route,omitempty"` // multiaddr; empty: beside the outlet
}

// Relay is a name under which another node passes messages on to this one.
type Relay struct {
	Name         string `json:"name" flag:"-"`
	At           string `json:"at" flag:"at"` // multiaddr, /node/NAME already replaced
	Authorized   string `json:"authorized,omitempty" flag:"authorized"`
	RelayAddress string `json:"relay_address,omitempty" flag:"relay-address"`
	// Rule, "failover" or "spread", and Share, a policy expression, are how and with whom the name is shared, if this node's identity is the first to register it. Priority is
	// from 0 to 1000; with failover the lower is taken first. With none of them the name is registered for this identity alone.
	Rule             string `json:"rule,omitempty" flag:"rule"`
	Share            string `json:"share,omitempty" flag:"share"`
	Priority         int    `json:"priority,omitempty" flag:"priority"`
	NoConnectionWait bool   `json:"no_connection_wait,omitempty" flag:"no-connection-wait" memo:"ignored"`
}
