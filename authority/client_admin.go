package authority

import (
	"context"
	"fmt"

	"github.com/fxamacker/cbor/v2"

	"sallyport/crypto/identity"
	"sallyport/routing/rpc"
)

// admin asks what only authorities of ours answer; v, if not nil, is what the answer is read into.
func (c *Client) admin(ctx context.Context, method rpc.Method, path string, body []byte, v any) error {
	got, err := c.call(ctx, Administration, method, "/"+path, body, v != nil)
	if err != nil || v == nil {
		return err
	}
	if err := cbor.Unmarshal(got, v); err != nil {
		return fmt.Errorf("%w: %w", errBody, err)
	}
	return nil
}

// Tickets lists the tickets that can still be used.
func (c *Client) Tickets(ctx context.Context) (list []TicketInfo, err error) {
	return list, c.admin(ctx, rpc.Get, pathTickets, nil, &list)
}

// RevokeTicket makes the ticket with a reference useless. Members that came with it stay.
func (c *Client) RevokeTicket(ctx context.Context, reference string) error {
	return c.admin(ctx, rpc.Delete, pathTickets+"/"+reference, nil, nil)
}

// MemberInfo returns what an authority of ours knows of a member beside its Entry.
func (c *Client) MemberInfo(ctx context.Context, id identity.Identifier) (m MemberInfo, err error) {
	return m, c.admin(ctx, rpc.Get, pathMembers+"/"+id.String(), nil, &m)
}

// Block ends everything that a member has open and gives it nothing more, until Unblock. Its record stays.
func (c *Client) Block(ctx context.Context, id identity.Identifier) error {
	return c.admin(ctx, rpc.Put, pathMembers+"/"+id.String()+"/"+pathBlock, nil, nil)
}

// Unblock undoes Block.
func (c *Client) Unblock(ctx context.Context, id identity.Identifier) error {
	return c.admin(ctx, rpc.Delete, pathMembers+"/"+id.String()+"/"+pathBlock, nil, nil)
}

// Audit returns entries of the trail after a sequence number, oldest first; none if there are no more. Their hashes are computed here.
func (c *Client) Audit(ctx context.Context, after uint64) ([]AuditEntry, error) {
	body, err := cbor.Marshal(auditQuery{After: after})
	if err != nil {
		return nil, err
	}
	var sent []sentEntry
	if err := c.admin(ctx, rpc.Get, pathAudit, body, &sent); err != nil {
		return nil, err
	}
	entries := make([]AuditEntry, 0, len(sent))
	for _, s := range sent {
		e, err := ReadAuditEntry(s.Seq, s.Previous, s.Content)
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	return entries, nil
}
