package admin

// PathUpgrade has the node's program replaced (POST), or says how that went (GET).
const PathUpgrade = "/upgrade"

// States of an upgrade.
const (
	UpgradeChecked  = "checked"  // the new program can go on
	UpgradeDraining = "draining" // what cannot be carried is waited for
	UpgradeServing  = "serving"  // the new program serves; connections look for their paths
	UpgradeDone     = "done"     // all that was carried goes on
	UpgradeFailed   = "failed"   // the program before goes on
)

// UpgradeRequest asks for another program in the place of the one that runs.
type UpgradeRequest struct {
	// Program is its absolute path; empty is the one that the node was started with.
	Program string `json:"program,omitempty"`
	// Drain is how long what cannot be carried may take to end; empty is 10s.
	Drain string `json:"drain,omitempty"`
}

// Upgrade is how an upgrade goes.
type Upgrade struct {
	ID      string `json:"id" cbor:"1,keyasint"`
	State   string `json:"state" cbor:"2,keyasint"`
	Error   string `json:"error,omitempty" cbor:"3,keyasint,omitempty"`
	Program string `json:"program" cbor:"4,keyasint"`
	From    string `json:"from" cbor:"5,keyasint"` // version
	To      string `json:"to" cbor:"6,keyasint"`
	// Sockets listen or take datagrams, Connections are open, Clients wait for their outlet's answer: all these are carried.
	Sockets     int `json:"sockets" cbor:"7,keyasint"`
	Connections int `json:"connections" cbor:"8,keyasint"`
	Clients     int `json:"clients" cbor:"9,keyasint"`
	// Left counts connections that are not carried, by reason, and Lost those whose portal could not be opened again.
	Left map[string]int `json:"left,omitempty" cbor:"10,keyasint,omitempty"`
	Lost int            `json:"lost,omitempty" cbor:"11,keyasint,omitempty"`
	// PauseMS is the time in milliseconds from the stop of the old program's loops until the new one serves all sockets, BackMS until the last
	// connection had a path again, and Away how many had none when that was waited for long enough.
	PauseMS float64 `json:"pause_ms,omitempty" cbor:"12,keyasint,omitempty"`
	BackMS  float64 `json:"back_ms,omitempty" cbor:"13,keyasint,omitempty"`
	Away    int     `json:"away,omitempty" cbor:"14,keyasint,omitempty"`
	// Reset counts connections that were carried and found no path again, by reason; Connections is without them when the upgrade is done.
	Reset map[string]int `json:"reset,omitempty" cbor:"15,keyasint,omitempty"`
}
