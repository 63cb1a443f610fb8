package admin

// FleetTicketRequest asks for a ticket for nodes that act as the node's identity.
type FleetTicketRequest struct {
	// LifetimeMS is for how long their keys are attested at most, 0 for the default; ExpiresMS for how long the ticket is good. Milliseconds.
	LifetimeMS int64 `json:"lifetime_ms,omitempty"`
	ExpiresMS  int64 `json:"expires_ms"`
	// Uses is how many nodes may use it.
	Uses int `json:"uses"`
}

// FleetTicket is a ticket. Its code is a secret.
type FleetTicket struct {
	Code      string `json:"code"`
	Reference string `json:"reference"`
}

// FleetNode is a node that acts as the identity of the node that lists it. Moments are Unix seconds, 0 for never.
type FleetNode struct {
	Name string `json:"name"`
	// Kind is relay or authority.
	Kind string `json:"kind"`
	// Identifier is of the node's own identity, by which the keeper knows it.
	Identifier string `json:"identifier"`
	// Route is where members reach it.
	Route string `json:"route"`
	// LifetimeSeconds is for how long its keys are attested at most, ValidUntil when the last attestation ends.
	LifetimeSeconds int64  `json:"lifetime_seconds"`
	Ticket          string `json:"ticket"`
	AddedAt         int64  `json:"added_at"`
	Seen            int64  `json:"seen"`
	ValidUntil      int64  `json:"valid_until"`
	// Deleted is when it was taken from the list: it is shown until ValidUntil.
	Deleted int64 `json:"deleted"`
}
