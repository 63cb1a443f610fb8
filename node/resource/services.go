package resource

// TCPListener is a further TCP listener of a node.
type TCPListener struct {
	// Address is host:port, or a URL for another layer between TCP and the messages: ws://HOST:PORT/PATH, wss://HOST:PORT/PATH, tls://HOST:PORT.
	Address string `json:"address" flag:"address"`
	// Certificate and Key are the absolute paths of PEM files, for wss and tls.
	Certificate string `json:"certificate,omitempty" flag:"tls-certificate"`
	Key         string `json:"key,omitempty" flag:"tls-key"`
	// AcceptProxyProtocol are the networks, as 10.0.0.0/8, from which connections begin with a header of the PROXY protocol; TrustedProxies are those from
	// which requests of WebSocket name their client (X-Forwarded-For, Forwarded).
	AcceptProxyProtocol []string `json:"accept_proxy_protocol,omitempty" flag:"accept-proxy-protocol"`
	TrustedProxies      []string `json:"trusted_proxies,omitempty" flag:"trusted-proxy"`
}

// Listener accepts secure channels at a worker's address.
type Listener struct {
	Address    string   `json:"address" flag:"-"`
	Authorized []string `json:"authorized,omitempty" flag:"authorized"` // identifiers; empty: everybody
	Identity   string   `json:"identity,omitempty" flag:"identity"`     // name; empty: the node's
}

// Hop passes messages on to the next address of their route.
type Hop struct {
	Address string `json:"address" flag:"-"`
}

// Certificate is a service that gives the certificate of two files to TLS inlets.
type Certificate struct {
	Address     string `json:"address" flag:"-"`               // empty: tls_certificate_provider
	Certificate string `json:"certificate" flag:"certificate"` // absolute path of the chain, PEM
	Key         string `json:"key" flag:"key"`                 // absolute path of the private key, PEM
}

// Policy says who may use a resource, or all of a type. Exactly one of Resource and ResourceType is given.
type Policy struct {
	Resource     string `json:"resource,omitempty" flag:"resource"`
	ResourceType string `json:"resource_type,omitempty" flag:"resource-type"`
	Expression   string `json:"expression" flag:"allow"`
}
