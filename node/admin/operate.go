package admin

import "time"

// Paths for who looks after a node.
const (
	PathProbing  = "/probe"
	PathCounts   = "/stats"
	PathHappened = "/events" // []Event
)

// ProbeRequest asks a node to go a way and say how it was: that of an inlet, or a route.
type ProbeRequest struct {
	Inlet string `json:"inlet,omitempty"`
	To    string `json:"to,omitempty"` // multiaddr
	// Count is how many round trips are measured at each hop; 0 is 3.
	Count int `json:"count,omitempty"`
	// Bulk is how long data is sent to each node and back, in milliseconds; 0 is not at all.
	BulkMS int64 `json:"bulk_ms,omitempty"`
}

// Probe is how the way was, hop by hop. It ends with the hop that fails, if one does.
type Probe struct {
	To   string `json:"to"`
	Hops []Hop  `json:"hops"`
}

// OK reports whether every hop answers.
func (p *Probe) OK() bool {
	for _, h := range p.Hops {
		if h.Error != "" {
			return false
		}
	}
	return len(p.Hops) > 0
}

// Hop is one step of a way. Times are in milliseconds.
type Hop struct {
	// Kind is tcp, udp, channel, relay or outlet; Name says which.
	Kind string `json:"kind"`
	Name string `json:"name"`
	// Peer is who answers there.
	Peer string `json:"peer,omitempty"`
	// TookMS is how long it took to open.
	TookMS float64 `json:"took_ms"`
	// RoundTripsMS are those to the node there and back.
	RoundTripsMS []float64 `json:"round_trips_ms,omitempty"`
	Lost         int       `json:"lost,omitempty"`
	// BytesPerSecond is how much came back of what was sent there.
	BytesPerSecond float64 `json:"bytes_per_second,omitempty"`
	// State says more, such as the state of an outlet.
	State string `json:"state,omitempty"`
	Error string `json:"error,omitempty"`
}

// Stats is what a node counts, for who looks at it again and again.
type Stats struct {
	At      time.Time          `json:"at"`
	Uptime  float64            `json:"uptime_seconds"`
	Portals []PortalStats      `json:"portals"`
	Paths   []PathStats        `json:"paths"`
	Loops   []LoopStats        `json:"loops"`
	Left    map[string]float64 `json:"headroom"`
	// CredentialSeconds is for how long the node's credential is valid; nil where it needs none.
	CredentialSeconds *float64 `json:"credential_seconds,omitempty"`
	// CredentialAheadSeconds is by how much the authority's clock was ahead of this machine's when it issued the credential, as far as that shows.
	CredentialAheadSeconds float64        `json:"credential_ahead_seconds,omitempty"`
	Records                *RecordsCounts `json:"records,omitempty"`
	LogDropped             uint64         `json:"log_dropped"`
}

// RecordsCounts says what became of records of connections.
type RecordsCounts struct {
	Written uint64 `json:"written"`
	Dropped uint64 `json:"dropped"`
	LeftOut uint64 `json:"left_out"`
}

// PortalStats is what one portal counts; of one for UDP flows for connections, and datagrams that were dropped for those refused. Seconds are medians and such of histograms, as far as their buckets tell.
type PortalStats struct {
	End      string  `json:"end"`
	Name     string  `json:"name"`
	Open     int64   `json:"open"`
	Opened   uint64  `json:"opened"`
	Refused  uint64  `json:"refused"`
	BytesIn  uint64  `json:"bytes_in"`
	BytesOut uint64  `json:"bytes_out"`
	Setup50  float64 `json:"setup_p50_seconds"`
	Setup99  float64 `json:"setup_p99_seconds"`
	Dial99   float64 `json:"dial_p99_seconds,omitempty"`
}

// PathStats is how one path is.
type PathStats struct {
	Kind       string  `json:"kind"`
	Name       string  `json:"name"`
	Up         bool    `json:"up"`
	RoundTrip  float64 `json:"round_trip_seconds"`
	Reconnects uint64  `json:"reconnects"`
	Failed     uint64  `json:"attempts_failed"`
}

// LoopStats is how one event loop is.
type LoopStats struct {
	Busy    float64 `json:"busy_seconds"`
	Lag     float64 `json:"lag_seconds"`
	Longest float64 `json:"longest_turn_seconds"`
}

// Event is something that happened: a record of the log. Alike ones that followed each other are one.
type Event struct {
	Time  time.Time         `json:"time"`
	Level string            `json:"level"`
	Text  string            `json:"text"`
	With  map[string]string `json:"with,omitempty"`
	Times int               `json:"times"`
}
