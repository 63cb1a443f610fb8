package resource

// UDPOutlet is the end beside a server of a portal for datagrams.
type UDPOutlet struct {
	Name  string `json:"name" flag:"-"` // empty: "outlet", or a random name if that is taken
	To    string `json:"to" flag:"to"`  // host:port
	Allow string `json:"allow,omitempty" flag:"allow"`
	// Idle is after how long without a datagram a flow ends, as "60s"; empty: a minute.
	Idle string `json:"idle,omitempty" flag:"idle"`
	// MaxFlows is how many flows it has at most; 0: 1000.
	MaxFlows int `json:"max_flows,omitempty" flag:"max-flows"`
	// MaxFlowsPerMember is how many of them one member has at most; 0: four in five.
	MaxFlowsPerMember int `json:"max_flows_per_member,omitempty" flag:"max-flows-per-member"`
	// Rate is how much it carries in each direction at most, as "20mbit"; members get equal shares, and what is beyond is dropped. Empty: as much as goes.
	Rate string `json:"rate,omitempty" flag:"rate"`
}

// UDPInlet is the end beside clients of a portal for datagrams.
type UDPInlet struct {
	Name             string `json:"name" flag:"-"`                        // empty: a random name
	From             string `json:"from" flag:"from"`                     // host:port; port 0: the node chooses one and keeps it
	Bound            string `json:"bound,omitempty" flag:"-" memo:"kept"` // what the node chose
	To               string `json:"to" flag:"to"`                         // multiaddr, /node/NAME already replaced
	Authorized       string `json:"authorized,omitempty" flag:"authorized"`
	Identity         string `json:"identity,omitempty" flag:"identity"` // name
	Allow            string `json:"allow,omitempty" flag:"allow"`       // policy expression
	ConnectionWaitMS int64  `json:"connection_wait_ms,omitempty" flag:"connection-wait" memo:"ignored"`
	NoConnectionWait bool   `json:"no_connection_wait,omitempty" flag:"no-connection-wait" memo:"ignored"`
	Idle             string `json:"idle,omitempty" flag:"idle"`           // as of a UDPOutlet
	MaxFlows         int    `json:"max_flows,omitempty" flag:"max-flows"` // how many clients it has at most; 0: 1000
	Rate             string `json:"rate,omitempty" flag:"rate"`           // as of a UDPOutlet
	// UDP prefers a direct path through a UDP puncture; with NoTCPFallback clients never use the main path.
	UDP           bool `json:"udp,omitempty" flag:"udp"`
	NoTCPFallback bool `json:"no_tcp_fallback,omitempty" flag:"no-tcp-fallback"`
}
