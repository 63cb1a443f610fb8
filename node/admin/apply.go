package admin

import (
	"fmt"
	"strings"

	"sallyport/node/resource"
)

// Resource is any resource with its state.
type Resource struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
	// FromFile tells that a configuration asked for it. Owner names the resource that it is part of, if it is.
	FromFile bool   `json:"from_file,omitempty"`
	Owner    string `json:"owner,omitempty"`
	resource.Status
}

// ApplyRequest asks a node to have what a configuration describes, beside what was made by hand.
type ApplyRequest struct {
	Resources []resource.Stored `json:"resources"`
	// Check only says what would be done.
	Check bool `json:"check,omitempty"`
	// Prune removes what was made by hand too.
	Prune bool `json:"prune,omitempty"`
	// LogLevel is that of the node's log from now on; empty leaves it.
	LogLevel string `json:"log_level,omitempty"`
}

// Operation says what is done with a resource.
type Operation string

// The operations.
const (
	Add    Operation = "+"
	Change Operation = "~"
	Remove Operation = "-"
)

// Difference is one resource that is not as a configuration describes it.
type Difference struct {
	Operation Operation `json:"operation"`
	Kind      string    `json:"kind"`
	Noun      string    `json:"noun"`
	Name      string    `json:"name"`
	// Fields are those that differ, of a change. InPlace tells that they are changed without closing anything.
	Fields  []string `json:"fields,omitempty"`
	InPlace bool     `json:"in_place,omitempty"`
	// Error is why it was not done, or not all of it; the node tries again.
	Error string `json:"error,omitempty"`
}

// String is the difference as a person would write it: `~ inlet web: allow`.
func (d Difference) String() string {
	text := fmt.Sprintf("%s %s %s", d.Operation, d.Noun, d.Name)
	if len(d.Fields) > 0 {
		text += ": " + strings.Join(d.Fields, ", ")
		if !d.InPlace {
			text += " (closed and opened)"
		}
	}
	return text
}

// Applied answers an ApplyRequest.
type Applied struct {
	// Faults are why nothing was done: the request asks for what can never be.
	Faults []Fault `json:"faults,omitempty"`
	// Differences are in the order in which they are dealt with.
	Differences []Difference `json:"differences"`
	// ByHand are resources that commands made and that were left alone, as "NOUN NAME".
	ByHand []string `json:"by_hand,omitempty"`
}

// Fault is what is wrong with one of the resources of an ApplyRequest.
type Fault struct {
	Kind    string `json:"kind"`
	Name    string `json:"name"`
	Message string `json:"message"`
}

// Failed tells whether something was not done.
func (a Applied) Failed() bool {
	for _, d := range a.Differences {
		if d.Error != "" {
			return true
		}
	}
	return false
}
