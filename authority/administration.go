package authority

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/fxamacker/cbor/v2"

	"sallyport/crypto/identity"
	"sallyport/routing/rpc"
)

// Administration is the address of what only authorities of ours have: tickets after they were made, blocked members, the audit trail.
const Administration = "sallyport_authority"

// Paths of it.
const (
	pathTickets   = "tickets"
	pathBlock     = "block"
	pathAudit     = "audit"
	maxAuditReply = 500 // entries in one answer
)

// TicketInfo is what an authority tells about a ticket that can still be used. The code is known to nobody but who made the ticket.
type TicketInfo struct {
	Reference  string     `cbor:"1,keyasint"`
	Attributes Attributes `cbor:"2,keyasint"`
	IssuedBy   []byte     `cbor:"3,keyasint"`
	IssuedAt   int64      `cbor:"4,keyasint"` // Unix seconds; 0 if an earlier version made it
	ExpiresAt  int64      `cbor:"5,keyasint"`
	Left       uint64     `cbor:"6,keyasint"` // uses
	Used       uint64     `cbor:"7,keyasint"`
	// Hash is SHA-256 of the code, by which who has the ticket finds it here.
	Hash []byte `cbor:"8,keyasint"`
}

// MemberInfo is what an authority of ours tells about a member beside its Entry.
type MemberInfo struct {
	Blocked           bool   `cbor:"1,keyasint"`
	PreTrusted        bool   `cbor:"2,keyasint"`
	Ticket            string `cbor:"3,keyasint"` // its reference; empty if the member was added without one
	LastSeen          int64  `cbor:"4,keyasint"` // Unix seconds; 0 if never
	CredentialExpires int64  `cbor:"5,keyasint"` // Unix seconds; 0 if it has none
	AddedBy           []byte `cbor:"6,keyasint"`
	AddedAt           int64  `cbor:"7,keyasint"`
}

// auditQuery asks for entries after a sequence number.
type auditQuery struct {
	After uint64 `cbor:"1,keyasint"`
	Limit int    `cbor:"2,keyasint"`
}

// sentEntry is an entry of the trail on its way: as it is stored, so that who reads it can check the chain.
type sentEntry struct {
	Seq      uint64 `cbor:"1,keyasint"`
	Previous []byte `cbor:"2,keyasint"`
	Content  []byte `cbor:"3,keyasint"`
}

type administration struct{ *Authority }

// Serve answers one request of an enroller; the trail is for admins. See rpc.Server.
func (s administration) Serve(ctx context.Context, who *identity.Identifier, req *rpc.Request) *rpc.Response {
	if who == nil {
		return rpc.ErrorResponse(nil, rpc.BadRequest, textNoChannel)
	}
	ctx = s.origin(ctx, who)
	c, err := s.roles(ctx, *who)
	if err != nil {
		return s.failed(ctx, req, textStore, err)
	}
	if !c.enroller {
		s.deny(ctx, EventRoleDenied, ReasonNotEnroller)
		return forbidden(req, textNotEnroller+"administer the authority")
	}
	path := rpc.Segments(req.Path, memberSegments)
	switch {
	case path[0] == pathMembers && s.o.NoDirectAuthentication, path[0] == pathTickets && s.o.NoTokenEnrollment:
		return rpc.ErrorResponse(req, rpc.BadRequest, textUnknownPath)
	case req.Method == rpc.Get && len(path) == 1 && path[0] == pathTickets:
		return s.tickets(ctx, req)
	case req.Method == rpc.Delete && len(path) == 2 && path[0] == pathTickets:
		return s.revokeTicket(ctx, c, req, path[1])
	case req.Method == rpc.Get && len(path) == 2 && path[0] == pathMembers:
		return s.member(ctx, req, path[1])
	case (req.Method == rpc.Put || req.Method == rpc.Delete) && len(path) == 3 && path[0] == pathMembers && path[2] == pathBlock:
		return s.block(ctx, c, req, path[1], req.Method == rpc.Put)
	case req.Method == rpc.Get && len(path) == 1 && path[0] == pathAudit:
		return s.audit(ctx, c, req)
	}
	return rpc.ErrorResponse(req, rpc.BadRequest, textUnknownPath)
}

func ok(req *rpc.Request, v any) *rpc.Response {
	body, err := cbor.Marshal(v)
	if err != nil {
		return rpc.ErrorResponse(req, rpc.InternalServerError, err.Error())
	}
	return rpc.NewResponse(req, rpc.OK, body)
}

func (s administration) tickets(ctx context.Context, req *rpc.Request) *rpc.Response {
	all, err := s.o.Store.Tokens(ctx, s.o.Now())
	if err != nil {
		return s.failed(ctx, req, textStore, err)
	}
	list := make([]TicketInfo, 0, len(all))
	for _, t := range all {
		info := TicketInfo{
			Reference: t.Reference, Attributes: t.Attributes, IssuedBy: t.IssuedBy[:], ExpiresAt: t.ExpiresAt.Unix(), Left: t.Uses,
			Used: t.Used, Hash: t.Hash[:],
		}
		if !t.IssuedAt.IsZero() {
			info.IssuedAt = t.IssuedAt.Unix()
		}
		list = append(list, info)
	}
	return ok(req, list)
}

func (s administration) revokeTicket(ctx context.Context, c caller, req *rpc.Request, reference string) *rpc.Response {
	all, err := s.o.Store.Tokens(ctx, s.o.Now())
	if err != nil {
		return s.failed(ctx, req, textStore, err)
	}
	for _, t := range all {
		if t.Reference == reference && givesEnroller(t.Attributes) && !c.admin {
			s.deny(ctx, EventRoleDenied, ReasonNotAdmin)
			return forbidden(req, "Not admin is trying to revoke an enrollment token for an enroller")
		}
	}
	switch err := s.o.Store.RevokeToken(ctx, reference); {
	case errors.Is(err, ErrNoTicket):
		return rpc.ErrorResponse(req, rpc.NotFound, "no ticket "+strconv.Quote(reference)+" that can still be used")
	case err != nil:
		return s.failed(ctx, req, textStore, err)
	}
	s.o.Log.InfoContext(ctx, "enrollment ticket revoked", "ticket", reference, "by", c.id.String())
	return rpc.NewResponse(req, rpc.OK, nil)
}

func (s administration) member(ctx context.Context, req *rpc.Request, text string) *rpc.Response {
	id, err := identity.ParseIdentifier(text)
	if err != nil {
		return rpc.ErrorResponse(req, rpc.BadRequest, err.Error())
	}
	m, found, err := s.o.Store.Member(ctx, id)
	if err != nil {
		return s.failed(ctx, req, textStore, err)
	}
	if !found {
		return rpc.ErrorResponse(req, rpc.NotFound, "Member "+id.String()+" not found")
	}
	unixOf := func(t time.Time) int64 {
		if t.IsZero() {
			return 0
		}
		return t.Unix()
	}
	return ok(req, MemberInfo{
		Blocked: m.Blocked, PreTrusted: m.PreTrusted, Ticket: m.Ticket, LastSeen: unixOf(m.LastSeen), CredentialExpires: unixOf(m.CredentialExpires),
		AddedBy: m.AddedBy[:], AddedAt: m.AddedAt.Unix(),
	})
}

func (s administration) block(ctx context.Context, c caller, req *rpc.Request, text string, blocked bool) *rpc.Response {
	id, err := identity.ParseIdentifier(text)
	if err != nil {
		return rpc.ErrorResponse(req, rpc.BadRequest, err.Error())
	}
	if id == c.id {
		return forbidden(req, "An enroller is trying to block itself")
	}
	err = s.o.Store.Block(ctx, id, blocked, c.mayDelete)
	s.recent.forget(id)
	s.announce()
	r := refusal("")
	switch {
	case errors.As(err, &r):
		s.deny(ctx, EventRoleDenied, ReasonNotAdmin)
		return forbidden(req, string(r))
	case errors.Is(err, ErrNoMember):
		return rpc.ErrorResponse(req, rpc.NotFound, "Member "+id.String()+" not found")
	case err != nil:
		return s.failed(ctx, req, textStore, err)
	}
	s.o.Log.InfoContext(ctx, "member blocked or unblocked", "member", id.String(), "blocked", blocked, "by", c.id.String())
	return rpc.NewResponse(req, rpc.OK, nil)
}

func (s administration) audit(ctx context.Context, c caller, req *rpc.Request) *rpc.Response {
	if !c.admin {
		s.deny(ctx, EventRoleDenied, ReasonNotAdmin)
		return forbidden(req, "Not admin is trying to read the audit trail")
	}
	var q auditQuery
	if len(req.Body) > 0 {
		if err := decodeMap(req.Body, &q); err != nil {
			return rpc.ErrorResponse(req, rpc.BadRequest, err.Error())
		}
	}
	s.deny(ctx, EventRoleUsed, pathAudit)
	for _, e := range s.denials.flush(s.o.Now()) {
		s.record(ctx, e)
	}
	if q.Limit <= 0 || q.Limit > maxAuditReply {
		q.Limit = maxAuditReply
	}
	entries, err := s.o.Store.Audit(ctx, q.After, q.Limit)
	if err != nil {
		return s.failed(ctx, req, err.Error(), err)
	}
	list := make([]sentEntry, 0, len(entries))
	for _, e := range entries {
		list = append(list, sentEntry{e.Seq, e.Previous[:], e.content})
	}
	return ok(req, list)
}
