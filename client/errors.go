package client

import (
	"errors"
	"fmt"
	"net"

	"sallyport/node"
	"sallyport/node/admin"
	"sallyport/portal"
)

// Errors of this package match one of these, or net.ErrClosed, os.ErrDeadlineExceeded or an error of a context.
var (
	// ErrTicket reports a ticket that cannot be read, was used up, has expired or is not of its project's authority.
	ErrTicket = errors.New("client: ticket refused")
	// ErrNotMember reports that there is neither a membership in the state directory nor a ticket.
	ErrNotMember = errors.New("client: not a member of a project")
	// ErrName reports a name that can be no service's.
	ErrName = errors.New("client: not a name of a service")
	// ErrExists reports a name that is taken at this Client.
	ErrExists = errors.New("client: the name is taken")
	// ErrDenied reports that a policy, here or at the other end, or a credential does not allow it.
	ErrDenied = errors.New("client: not allowed")
	// ErrUnavailable reports that the service is not there, its target does not answer, or it has as many connections as it may.
	ErrUnavailable = errors.New("client: service not available")
	// ErrBroken reports a connection that was broken off: what was read before is not all.
	ErrBroken = errors.New("client: connection broken off")
	// ErrTooLarge reports a message that is larger than MaxMessage.
	ErrTooLarge = errors.New("client: message too large")
)

// reasonError says why a portal connection has ended or was not opened.
type reasonError struct {
	kind error
	text string
}

func (e *reasonError) Error() string { return e.text }
func (e *reasonError) Unwrap() error { return e.kind }

// broken is the error of a connection that has ended for a reason.
func broken(r portal.Reason) error {
	if r == portal.ReasonPolicy {
		return &reasonError{ErrDenied, "connection broken off: " + r.String()}
	}
	return &reasonError{ErrBroken, "connection broken off: " + r.String()}
}

// notOpened turns an error of a node's dialer into one of this package.
func notOpened(err error) error {
	var s *node.StreamError
	if !errors.As(err, &s) {
		return err
	}
	switch s.Reason {
	case portal.ReasonPolicy:
		return &reasonError{ErrDenied, s.Error()}
	case portal.ReasonShutdown:
		return net.ErrClosed
	}
	return &reasonError{ErrUnavailable, s.Error()}
}

// ofNode turns what a node refuses into an error of this package.
func (c *Client) ofNode(err error) error {
	switch {
	case c.isClosed():
		return net.ErrClosed
	case errors.Is(err, admin.ErrExists):
		return fmt.Errorf("%w: %w", ErrExists, err)
	case errors.Is(err, admin.ErrInvalid):
		return fmt.Errorf("%w: %w", ErrName, err)
	}
	return err
}
