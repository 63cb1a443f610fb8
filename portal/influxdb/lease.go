package influxdb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"

	"github.com/fxamacker/cbor/v2"

	"sallyport/crypto/identity"
	"sallyport/routing/rpc"
)

// Status tells whether InfluxDB takes a token.
type Status uint8

// The statuses, with their numbers on the wire.
const (
	Active  Status = 0
	Revoked Status = 1
)

func (s Status) String() string {
	if s == Active {
		return "Active"
	}
	return "Revoked"
}

// Lease is a token of InfluxDB that belongs to one member for a time. Times are seconds since 1970.
type Lease struct {
	ID        string
	IssuedFor identity.Identifier
	CreatedAt int64
	ExpiresAt int64
	Token     string
	Status    Status
}

// MarshalJSON has the reference's shape.
func (l Lease) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		ID        string `json:"id"`
		IssuedFor string `json:"issued_for"`
		CreatedAt int64  `json:"created_at"`
		ExpiresAt int64  `json:"expires_at"`
		Token     string `json:"token"`
		Status    string `json:"status"`
	}{l.ID, l.IssuedFor.String(), l.CreatedAt, l.ExpiresAt, l.Token, l.Status.String()})
}

// wireLease is the CBOR form.
type wireLease struct {
	ID        string `cbor:"1,keyasint"`
	IssuedFor []byte `cbor:"2,keyasint"`
	CreatedAt int64  `cbor:"3,keyasint"`
	ExpiresAt int64  `cbor:"4,keyasint"`
	Token     string `cbor:"5,keyasint"`
	Status    uint8  `cbor:"6,keyasint"`
}

func (l Lease) wire() wireLease {
	return wireLease{l.ID, l.IssuedFor[:], l.CreatedAt, l.ExpiresAt, l.Token, uint8(l.Status)}
}

func (w wireLease) lease() (Lease, error) {
	l := Lease{ID: w.ID, CreatedAt: w.CreatedAt, ExpiresAt: w.ExpiresAt, Token: w.Token, Status: Status(w.Status)}
	if len(w.IssuedFor) != len(l.IssuedFor) || l.Status > Revoked || w.ID == "" {
		return Lease{}, errors.New("influxdb: malformed lease")
	}
	copy(l.IssuedFor[:], w.IssuedFor)
	return l, nil
}

func encodeLease(l Lease) ([]byte, error) { return cbor.Marshal(l.wire()) }

func decodeLease(b []byte) (Lease, error) {
	var w wireLease
	if err := rpc.DecodeBody(b, &w); err != nil {
		return Lease{}, fmt.Errorf("influxdb: malformed lease: %w", err)
	}
	return w.lease()
}

func encodeLeases(list []Lease) ([]byte, error) {
	out := make([]wireLease, len(list))
	for i, l := range list {
		out[i] = l.wire()
	}
	return cbor.Marshal(out)
}

func decodeLeases(b []byte) ([]Lease, error) {
	var list []wireLease
	if err := rpc.DecodeBody(b, &list); err != nil {
		return nil, fmt.Errorf("influxdb: malformed list of leases: %w", err)
	}
	out := make([]Lease, len(list))
	for i, w := range list {
		var err error
		if out[i], err = w.lease(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Client asks a lease manager.
type Client struct {
	// Call sends a request to the manager and returns its answer; an answer that is not OK is an error.
	Call func(ctx context.Context, req *rpc.Request) (*rpc.Response, error)
}

func (c *Client) ask(ctx context.Context, method rpc.Method, path string) ([]byte, error) {
	res, err := c.Call(ctx, rpc.NewRequest(method, path, nil))
	if err != nil {
		return nil, err
	}
	return res.Body, nil
}

// Create leases a token to the caller.
func (c *Client) Create(ctx context.Context) (Lease, error) {
	b, err := c.ask(ctx, rpc.Post, "/")
	if err != nil {
		return Lease{}, err
	}
	return decodeLease(b)
}

// List returns the caller's leases.
func (c *Client) List(ctx context.Context) ([]Lease, error) {
	b, err := c.ask(ctx, rpc.Get, "/")
	if err != nil {
		return nil, err
	}
	return decodeLeases(b)
}

// Show returns one of the caller's leases.
func (c *Client) Show(ctx context.Context, id string) (Lease, error) {
	b, err := c.ask(ctx, rpc.Get, "/"+url.PathEscape(id))
	if err != nil {
		return Lease{}, err
	}
	return decodeLease(b)
}

// Revoke ends one of the caller's leases before its time.
func (c *Client) Revoke(ctx context.Context, id string) error {
	_, err := c.ask(ctx, rpc.Delete, "/"+url.PathEscape(id))
	return err
}
