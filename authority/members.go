package authority

import (
	"context"
	"errors"

	"sallyport/crypto/identity"
	"sallyport/routing/rpc"
)

// memberService is direct_authenticator: the member list (docs/protocol/02 §5.4).
type memberService struct{ *Authority }

const (
	pathMembers     = "members"
	pathMemberIDs   = "member_ids"
	memberSegments  = 5
	textNotEnroller = "Non-enroller is trying to "
)

// Serve answers one request. See rpc.Server.
func (s memberService) Serve(ctx context.Context, who *identity.Identifier, req *rpc.Request) *rpc.Response {
	if who == nil {
		return rpc.ErrorResponse(nil, rpc.BadRequest, textNoChannel)
	}
	ctx = s.origin(ctx, who)
	path := rpc.Segments(req.Path, memberSegments)
	collection := len(path) == 1 && (path[0] == "" || path[0] == pathMembers)
	switch {
	case req.Method == rpc.Post && collection:
		return s.add(ctx, *who, req)
	case req.Method == rpc.Get && collection:
		return s.list(ctx, *who, req, encodeMembers)
	case req.Method == rpc.Get && len(path) == 1 && path[0] == pathMemberIDs:
		return s.list(ctx, *who, req, encodeMemberIDs)
	case req.Method == rpc.Delete && len(path) == 1 && path[0] == pathMembers:
		return s.remove(ctx, *who, req, nil)
	case req.Method != rpc.Get && req.Method != rpc.Delete, len(path) > 2, len(path) == 2 && path[0] != pathMembers:
		return rpc.ErrorResponse(req, rpc.BadRequest, textUnknownPath)
	}
	id, err := identity.ParseIdentifier(path[len(path)-1])
	if err != nil {
		return nil // as the reference: no answer to a malformed identifier
	}
	if req.Method == rpc.Delete {
		return s.remove(ctx, *who, req, &id)
	}
	return s.show(ctx, *who, req, id)
}

func (s memberService) add(ctx context.Context, who identity.Identifier, req *rpc.Request) *rpc.Response {
	id, attributes, err := decodeAddMember(req.Body)
	if err != nil {
		return nil
	}
	c, err := s.roles(ctx, who)
	switch {
	case err != nil:
		return s.failed(ctx, req, textStore, err)
	case !c.enroller:
		s.deny(ctx, EventRoleDenied, ReasonNotEnroller)
		return forbidden(req, "Non-enroller "+who.String()+" is trying to add a member "+id.String())
	case givesEnroller(attributes) && !c.admin:
		s.deny(ctx, EventRoleDenied, ReasonNotAdmin)
		return forbidden(req, "Not pre trusted enroller is trying to create an enroller")
	}
	m := Member{ID: id, Attributes: attributes, AddedBy: who, AddedAt: s.o.Now()}
	err = s.o.Store.PutMember(ctx, m, c.mayReplace)
	if r := refusal(""); errors.As(err, &r) {
		s.deny(ctx, EventRoleDenied, ReasonNotAdmin)
		return forbidden(req, string(r))
	}
	s.announce() // who had been deleted may come back
	if err != nil {
		s.o.Log.ErrorContext(ctx, "adding a member failed", "member", id.String(), "error", err)
		if errors.Is(err, ErrStoreAway) {
			return forbidden(req, "Error adding member: "+textStoreAway)
		}
		return forbidden(req, "Error adding member")
	}
	s.o.Log.InfoContext(ctx, "member written", "member", id.String(), "by", who.String(), "enroller", givesEnroller(attributes))
	return rpc.NewResponse(req, rpc.OK, nil)
}

func (s memberService) list(ctx context.Context, who identity.Identifier, req *rpc.Request, encode func([]Member) []byte) *rpc.Response {
	c, err := s.roles(ctx, who)
	if err != nil {
		return s.failed(ctx, req, textStore, err)
	}
	if !c.enroller {
		s.deny(ctx, EventRoleDenied, ReasonNotEnroller)
		return forbidden(req, textNotEnroller+"list members")
	}
	s.deny(ctx, EventRoleUsed, "list")
	all, err := s.o.Store.Members(ctx)
	if err != nil {
		return s.failed(ctx, req, textStore, err)
	}
	return rpc.NewResponse(req, rpc.OK, encode(all))
}

func (s memberService) show(ctx context.Context, who identity.Identifier, req *rpc.Request, id identity.Identifier) *rpc.Response {
	c, err := s.roles(ctx, who)
	if err != nil {
		return s.failed(ctx, req, textStore, err)
	}
	if !c.enroller {
		s.deny(ctx, EventRoleDenied, ReasonNotEnroller)
		return forbidden(req, textNotEnroller+"retrieve a member")
	}
	m, ok, err := s.o.Store.Member(ctx, id)
	if err != nil {
		return s.failed(ctx, req, textStore, err)
	}
	if !ok {
		return forbidden(req, "Member "+id.String()+" not found")
	}
	return rpc.NewResponse(req, rpc.OK, appendEntry(nil, m))
}

// remove deletes one member, or all but the caller if id is nil; then refusals of single members are not reported.
func (s memberService) remove(ctx context.Context, who identity.Identifier, req *rpc.Request, id *identity.Identifier) *rpc.Response {
	c, err := s.roles(ctx, who)
	if err != nil {
		return s.failed(ctx, req, textStore, err)
	}
	if !c.enroller {
		s.deny(ctx, EventRoleDenied, ReasonNotEnroller)
		return forbidden(req, textNotEnroller+"delete a member")
	}
	var target string
	if id != nil {
		target = id.String()
		err = s.o.Store.DeleteMembers(ctx, []identity.Identifier{*id}, c.mayDelete)
	} else {
		target = "all but the caller"
		err = s.o.Store.DeleteMembers(ctx, nil, func(m *Member) error {
			if m.ID == who {
				return refusal("")
			}
			return c.mayDelete(m)
		})
	}
	s.announce()
	r := refusal("")
	switch refused := errors.As(err, &r); {
	case refused && id != nil:
		s.deny(ctx, EventRoleDenied, ReasonNotAdmin)
		return forbidden(req, string(r))
	case err != nil && !refused:
		return s.failed(ctx, req, textStore, err)
	}
	s.o.Log.InfoContext(ctx, "member deleted", "member", target, "by", who.String())
	return rpc.NewResponse(req, rpc.OK, nil)
}
