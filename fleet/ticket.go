package fleet

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"sallyport/crypto/identity"
	"sallyport/project"
)

// Ticket makes a machine a delegate.
type Ticket struct {
	// Code is the secret.
	Code project.Code
	Kind Kind
	// Keeper is the route to the keeper, Identity the history that it must prove to have, verified.
	Keeper   string
	Identity *identity.Identity
	// Project is what the node is of. It has what is known where the ticket was made: of an authority node's perhaps no more than the id and the name.
	Project *project.Project
}

// wireTicket is a ticket's JSON. No field is called as in a ticket for members, so that neither is taken for the other.
type wireTicket struct {
	Kind     Kind            `json:"node_kind"`
	Code     string          `json:"node_code"`
	Keeper   string          `json:"keeper_route"`
	Identity string          `json:"keeper_change_history"`
	Project  json.RawMessage `json:"of_project"`
}

// Text returns the ticket as hex digits. It contains the secret.
func (t *Ticket) Text() (string, error) {
	described, err := json.Marshal(t.Project)
	if err != nil {
		return "", err
	}
	raw, err := json.Marshal(wireTicket{Kind: t.Kind, Code: t.Code.Reveal(), Keeper: t.Keeper, Identity: t.Identity.Hex(), Project: described})
	if err != nil {
		return "", err
	}
	if n := hex.EncodedLen(len(raw)); n > project.MaxSize {
		return "", fmt.Errorf("%w: a ticket of %d bytes, at most %d are read", ErrInvalid, n, project.MaxSize)
	}
	return hex.EncodeToString(raw), nil
}

// ParseTicket reads what Text returns; white space is ignored. The error, which does not contain the code, matches ErrInvalid.
func ParseTicket(text string) (*Ticket, error) {
	if len(text) > project.MaxSize {
		return nil, fmt.Errorf("%w: a ticket of %d bytes, at most %d are read", ErrInvalid, len(text), project.MaxSize)
	}
	raw, err := hex.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		return nil, fmt.Errorf("%w: a ticket for a node has hex digits alone; is it cut off?", ErrInvalid)
	}
	var w wireTicket
	if json.Unmarshal(raw, &w) != nil {
		return nil, fmt.Errorf("%w: this is no ticket for a node, or it is cut off", ErrInvalid)
	}
	if w.Kind != Relay && w.Kind != Authority {
		return nil, fmt.Errorf("%w: this is no ticket for a node: a ticket for a member is used with sallyport project enroll", ErrInvalid)
	}
	t := &Ticket{Kind: w.Kind, Keeper: w.Keeper}
	if t.Code, err = project.ParseCode(w.Code); err != nil {
		return nil, fmt.Errorf("%w: node_code must be 64 hex digits", ErrInvalid)
	}
	if err := checkRoute(t.Keeper); err != nil {
		return nil, fmt.Errorf("keeper_route: %w", err)
	}
	if t.Identity, err = identity.ImportHex(w.Identity, nil); err != nil {
		return nil, fmt.Errorf("%w: keeper_change_history: %w", ErrInvalid, err)
	}
	if t.Project, err = project.ParseProject(w.Project); err != nil {
		return nil, fmt.Errorf("%w: of_project: %w", ErrInvalid, err)
	}
	return t, nil
}
