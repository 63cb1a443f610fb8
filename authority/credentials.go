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
	if !isPost(req, "/", PathRenewing) {
		return rpc.ErrorResponse(req, rpc.BadRequest, textUnknownPath)
	}
	ctx = s.origin(ctx, who)
	c, err := s.roles(ctx, *who)
	if err != nil {
		s.o.Events.CredentialRefused(ReasonError)
		return s.failed(ctx, req, textStore, err)
	}
	if !c.isMember && !c.accountAdmin {
		reason := ReasonNotMember
		if c.blocked {
			reason = ReasonBlocked
		}
		s.o.Events.CredentialRefused(reason)
		s.deny(ctx, EventCredentialDenied, reason)
		return forbidden(req, "unauthorized member")
	}
	now, ttl, attributes := s.o.Now(), s.ttl(req), s.attributes(c)
	if until, limited := c.row.signedInUntil(); limited {
		ttl = min(ttl, max(until.Sub(now).Truncate(time.Second), time.Second))
	}
	key, err := s.keyName(ctx)
	if err != nil {
		s.o.Events.CredentialRefused(ReasonError)
		return s.failed(ctx, req, "the credential could not be issued", err)
	}
	if raw := s.recent.get(*who, attributes, ttl, key, now); raw != nil {
		return rpc.NewResponse(req, rpc.OK, raw) // whoever asks without pause gets the same one
	}
	if err := s.afterRevocation(ctx, *who); err != nil {
		s.o.Events.CredentialRefused(ReasonError)
		return s.failed(ctx, req, textStore, err)
	}
	raw, err := s.o.Identities.IssueCredential(ctx, s.o.Self, *who, attributes, ttl)
	if err != nil {
		s.o.Events.CredentialRefused(ReasonError)
		return s.failed(ctx, req, "the credential could not be issued", err)
	}
	if err := s.o.Store.Issued(ctx, *who, attributes, s.o.Now().Add(ttl)); err != nil {
		s.o.Log.ErrorContext(ctx, "credential not noted", "identity", who.String(), "error", err) // a full disk ends no paths
	}
	s.recent.put(*who, attributes, ttl, key, now, raw)
	s.o.Events.CredentialIssued()
	s.o.Log.InfoContext(ctx, "credential issued", "identity", who.String(), "ttl", ttl)
	return rpc.NewResponse(req, rpc.OK, raw)
}

// PathRenewing is where a member asks that renews its credential in time and presents the new one to its peers. The reference knows the
// path as another name of "/", and its members ask there.
const PathRenewing = "/credential"

// ttl is how long the credential is valid that a member asks for.
func (s credentialService) ttl(req *rpc.Request) time.Duration {
	switch {
	case s.o.CredentialTTL != 0:
		return s.o.CredentialTTL
	case req.Path == PathRenewing:
		return DefaultCredentialTTL
	}
	return ReferenceTTL
}

// afterRevocation waits until a credential made now is newer than the revocation of a member that was deleted and has come back: both
// have their time in seconds.
func (s credentialService) afterRevocation(ctx context.Context, id identity.Identifier) error {
	r, ok, err := s.o.Store.RevocationOf(ctx, id)
	if err != nil || !ok {
		return err
	}
	if left := r.Time.Add(time.Second).Sub(s.o.Now()); left > 0 {
		select {
		case <-time.After(min(left, time.Second)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
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
