package resource

// KafkaInlet is the clients' end of Kafka portals. Routes are multiaddrs, /node/NAME already replaced.
type KafkaInlet struct {
	Name string `json:"name" flag:"-"`
	From string `json:"from" flag:"from"` // host:port, of the bootstrap server that clients see
	// Bound is the port that the node chose where that was left to it.
	Bound string `json:"bound,omitempty" flag:"-" memo:"kept"`
	// FirstPort to LastPort are for the brokers.
	FirstPort int64  `json:"first_port" flag:"brokers-port-range"`
	LastPort  int64  `json:"last_port" flag:"brokers-port-range"`
	To        string `json:"to" flag:"to"` // leads to the outlet's node
	// Consumer leads to the one consumer; else ConsumerRelay to the relay where consumers are found.
	Consumer      string `json:"consumer,omitempty" flag:"consumer"`
	ConsumerRelay string `json:"consumer_relay,omitempty" flag:"consumer-relay"`
	// PublishingRelay is where consumers behind the inlet are published; empty: nowhere.
	PublishingRelay     string   `json:"publishing_relay,omitempty" flag:"publishing-relay"`
	NoContentEncryption bool     `json:"no_content_encryption,omitempty" flag:"no-content-encryption"`
	Fields              []string `json:"encrypted_fields,omitempty" flag:"encrypted-field"` // of JSON objects; empty: whole values
	// BindValues binds values to topic, partition and key; consumers then refuse values that are not bound.
	BindValues bool `json:"bind_values,omitempty" flag:"bind-values"`
	// Advertise is the host that clients are told to connect to, without a port; empty: the one of From, or the address that the client
	// has reached where From is for all addresses.
	Advertise string `json:"advertise,omitempty" flag:"advertise"`
	// TLSProvider is the multiaddr of the service that has the certificate that clients see; empty: no TLS.
	TLSProvider string `json:"tls_certificate_provider,omitempty" flag:"tls-certificate-provider"`
	// MaxMessageSize is how long a message may be after encryption, in bytes; 0: kafka.DefaultMaxMessage.
	MaxMessageSize int64 `json:"max_message_size,omitempty" flag:"max-message-size"`

	Allow         string `json:"allow,omitempty" flag:"allow"`
	AllowConsumer string `json:"allow_consumer,omitempty" flag:"allow-consumer"`
	AllowProducer string `json:"allow_producer,omitempty" flag:"allow-producer"`
	// Brokers are those known from before, with the addresses that clients have for them.
	Brokers []KafkaBroker `json:"brokers,omitempty" flag:"-" memo:"kept"`
}

// KafkaOutlet is the brokers' end of Kafka portals.
type KafkaOutlet struct {
	Name      string `json:"name" flag:"-"`
	Bootstrap string `json:"bootstrap_server" flag:"bootstrap-server"` // host:port
	TLS       bool   `json:"tls,omitempty" flag:"tls"`
	Allow     string `json:"allow,omitempty" flag:"allow"`
	// MaxConnections is how many connections go to the bootstrap server, and to each broker, at most; as of an Outlet.
	MaxConnections          int `json:"max_connections,omitempty" flag:"max-connections"`
	MaxConnectionsPerMember int `json:"max_connections_per_member,omitempty" flag:"max-connections-per-member"`
	// Brokers are those known from before, where they say they are.
	Brokers []KafkaBroker `json:"brokers,omitempty" flag:"-" memo:"kept"`
}

// KafkaBroker is a broker's number and an address, host:port.
type KafkaBroker struct {
	ID      int64  `json:"id"`
	Address string `json:"address"`
}
