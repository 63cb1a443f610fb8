package authority

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"sallyport/crypto/identity"
	"sallyport/routing/rpc"
)

// credentialService is credential_issuer: members fetch their credential here.
type credentialService struct{ *Authority }

// Serve answers one request. See rpc.Server.
func (s credentialService) Serve(ctx context.Context, who *identity.Identifier, req *rpc.Request) *rpc.Response {
	if who == nil {
		s.o.Events.CredentialRefused(ReasonNoChannel)
		return rpc.ErrorResponse(nil, rpc.BadRequest, textNoChannel)
	}
	if !isPost(req, "/", "/credential") {
		return rpc.ErrorResponse(req, rpc.BadRequest, textUnknownPath)
	}
	c, err := s.roles(ctx, *who)
	if err != nil {
		s.o.Events.CredentialRefused(ReasonError)
		return s.failed(ctx, req, textStore, err)
	}
	if !c.isMember && !c.accountAdmin {
		s.o.Events.CredentialRefused(ReasonNotMember)
		s.o.Log.InfoContext(ctx, "credential refused", "identity", who.String(), "reason", ReasonNotMember)
		return forbidden(req, "unauthorized member")
	}
	raw, err := s.o.Identities.IssueCredential(ctx, s.o.Self, *who, s.attributes(c), s.o.CredentialTTL)
	if err != nil {
		s.o.Events.CredentialRefused(ReasonError)
		return s.failed(ctx, req, "the credential could not be issued", err)
	}
	s.o.Events.CredentialIssued()
	s.o.Log.InfoContext(ctx, "credential issued", "identity", who.String(), "ttl", s.o.CredentialTTL)
	return rpc.NewResponse(req, rpc.OK, raw)
}

// attributes returns what the credential of c says: a member's own attributes may replace trust_context_id, an account admin's row
// is not looked at (docs/protocol/02 §5.4).
func (s credentialService) attributes(c caller) Attributes {
	all := Attributes{}
	if !s.o.DisableTrustContextID {
		all[TrustContextAttribute] = s.o.ProjectID
	}
	if c.accountAdmin {
		all[RelayAttribute], all[TLSAttribute] = "*", "true"
	} else {
		maps.Copy(all, c.row.Attributes)
	}
	return all
}

// ErrTTL reports a lifetime that cannot be read.
var ErrTTL = errors.New("authority: invalid lifetime")

// ParseTTL reads a credential lifetime as CREDENTIAL_TTL_SECS gives it: a number and a unit among ms, s, m, h, d, seconds without a
// unit (docs/protocol/02 §5.4). It must be more than 0 and at most a hundred years.
func ParseTTL(text string) (time.Duration, error) {
	digits := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyz")
	units := map[string]time.Duration{
		"": time.Second, "ms": time.Millisecond, "s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour,
	}
	unit, known := units[text[len(digits):]]
	n, err := strconv.ParseUint(digits, 10, 62)
	if err != nil || !known || n == 0 || n > uint64(maxTokenTTL/unit) {
		return 0, fmt.Errorf("%w: %q: a number followed by ms, s, m, h, d or nothing is expected", ErrTTL, text)
	}
	return time.Duration(n) * unit, nil
}
