package authority

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"sallyport/crypto/identity"
	"sallyport/routing/rpc"
)

// Client asks an authority.
type Client struct {
	// Call sends a request to a service through a secure channel to the authority and returns its answer.
	Call func(ctx context.Context, service string, req *rpc.Request) (*rpc.Response, error)
}

// ErrNoBody reports a successful answer without what was asked for.
var ErrNoBody = errors.New("authority: the answer has no body")

// call returns the body of a successful answer. A refusal is a *rpc.StatusError.
func (c *Client) call(ctx context.Context, service string, method rpc.Method, path string, body []byte, wantBody bool) ([]byte, error) {
	res, err := c.Call(ctx, service, rpc.NewRequest(method, path, body))
	if err != nil {
		return nil, fmt.Errorf("authority: asking %s: %w", service, err)
	}
	if err := res.Err(); err != nil {
		return nil, fmt.Errorf("authority: %s refused: %w", service, err)
	}
	if wantBody && !res.HasBody {
		return nil, fmt.Errorf("%w: %s", ErrNoBody, service)
	}
	return res.Body, nil
}

// CreateToken asks for a one-time code that makes whoever redeems it a member with the given attributes. ttl is rounded up to
// seconds; a ttl or uses of 0 leaves it to the authority, which takes DefaultTokenTTL and DefaultTokenUses.
func (c *Client) CreateToken(ctx context.Context, attributes Attributes, ttl time.Duration, uses uint64) (Code, error) {
	if ttl < 0 {
		return Code{}, fmt.Errorf("%w: %v", ErrTTL, ttl)
	}
	seconds := uint64(ttl / time.Second)
	if ttl%time.Second != 0 {
		seconds++
	}
	body, err := c.call(ctx, EnrollmentTokenIssuer, rpc.Post, "/", encodeCreateToken(attributes, seconds, uses), true)
	if err != nil {
		return Code{}, err
	}
	return decodeCode(body)
}

// Redeem presents a one-time code. already reports that the caller was a member before, which counts as success and spends nothing.
func (c *Client) Redeem(ctx context.Context, code Code) (already bool, err error) {
	_, err = c.call(ctx, EnrollmentTokenAcceptor, rpc.Post, "/", encodeCode(code), false)
	var status *rpc.StatusError
	if errors.As(err, &status) && status.Status == rpc.Forbidden &&
		strings.Contains(strings.ToLower(status.Body.Message), "already a member") {
		return true, nil
	}
	return false, err
}

// Credential asks for the caller's credential, encoded and not yet verified, as the reference does, for one that is not renewed; see
// PathRenewing.
func (c *Client) Credential(ctx context.Context) ([]byte, error) {
	return c.call(ctx, CredentialIssuer, rpc.Post, "/", nil, true)
}

// RenewingCredential is Credential for a member that renews it while it uses it.
func (c *Client) RenewingCredential(ctx context.Context) ([]byte, error) {
	return c.call(ctx, CredentialIssuer, rpc.Post, PathRenewing, nil, true)
}

// AddMember adds a member or replaces its attributes.
func (c *Client) AddMember(ctx context.Context, id identity.Identifier, attributes Attributes) error {
	_, err := c.call(ctx, DirectAuthenticator, rpc.Post, "/", encodeAddMember(id, attributes), false)
	return err
}

// Members lists all members in the order of their identifiers.
func (c *Client) Members(ctx context.Context) ([]Entry, error) {
	body, err := c.call(ctx, DirectAuthenticator, rpc.Get, "/", nil, true)
	if err != nil {
		return nil, err
	}
	return decodeMembers(body)
}

// MemberIDs lists the identifiers of all members, in the authority's order.
func (c *Client) MemberIDs(ctx context.Context) ([]identity.Identifier, error) {
	body, err := c.call(ctx, DirectAuthenticator, rpc.Get, "/"+pathMemberIDs, nil, true)
	if err != nil {
		return nil, err
	}
	return decodeMemberIDs(body)
}

// Member returns what the authority knows about one member. An unknown one is a refusal with status rpc.Forbidden.
func (c *Client) Member(ctx context.Context, id identity.Identifier) (Entry, error) {
	body, err := c.call(ctx, DirectAuthenticator, rpc.Get, "/"+id.String(), nil, true)
	if err != nil {
		return Entry{}, err
	}
	return decodeEntry(id, body)
}

// DeleteMember removes a member; one that does not exist is removed already.
func (c *Client) DeleteMember(ctx context.Context, id identity.Identifier) error {
	_, err := c.call(ctx, DirectAuthenticator, rpc.Delete, "/"+id.String(), nil, false)
	return err
}

// DeleteMembers removes all members except the caller and those it may not remove.
func (c *Client) DeleteMembers(ctx context.Context) error {
	_, err := c.call(ctx, DirectAuthenticator, rpc.Delete, "/"+pathMembers, nil, false)
	return err
}
