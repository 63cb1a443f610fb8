package resource

import (
	"encoding/json"
	"time"
)

// State says how a resource is.
type State string

// The states. A resource is opening until its first attempt has ended; it is degraded when it serves, but not as it was asked to.
const (
	Opening  State = "opening"
	Up       State = "up"
	Degraded State = "degraded"
	Down     State = "down"
)

// Status is a resource's state, since when, why, and when more is tried.
type Status struct {
	State State     `json:"state"`
	Since time.Time `json:"since,omitzero"`
	// Reason is why it is not up; with Up what is not known of it.
	Reason string `json:"reason,omitempty"`
	// Refused tells that the reason is a definite no of the other end, not that it could not be asked.
	Refused bool `json:"refused,omitempty"`
	// Denied tells that it is a policy that said no: what asked is there, for others.
	Denied bool `json:"denied,omitempty"`
	// NextTry is when it is tried again; zero if nothing is planned.
	NextTry time.Time `json:"next_try,omitzero"`
}

// Stored is a resource as it is written down.
type Stored struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
	// FromFile tells that a configuration asked for it; otherwise a command did.
	FromFile bool `json:"from_file,omitempty"`
	// Request is the JSON of the kind's request type.
	Request json.RawMessage `json:"request"`
}
