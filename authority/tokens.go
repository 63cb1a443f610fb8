package authority

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"sallyport/crypto/identity"
	"sallyport/routing/rpc"
)

// What a ticket is if the request does not say (docs/protocol/02 §5.4).
const (
	DefaultTokenTTL  = 10 * time.Minute
	DefaultTokenUses = 1
)

// maxTokenTTL stands for any longer lifetime, so that no moment overflows. The reference has no bound.
const maxTokenTTL = 100 * 365 * 24 * time.Hour

// referenceSize is how many characters name a ticket in logs.
const referenceSize = 10

// Code is a one-time code: whoever has it becomes a member. It prints as a placeholder; use Hex where it must be shown.
type Code [32]byte

// ParseCode reads 64 hexadecimal digits.
func ParseCode(text string) (Code, error) {
	var c Code
	if len(text) != hex.EncodedLen(len(c)) {
		return Code{}, errors.New("authority: a one-time code has 64 hexadecimal digits")
	}
	if _, err := hex.Decode(c[:], []byte(text)); err != nil {
		return Code{}, errors.New("authority: a one-time code has 64 hexadecimal digits")
	}
	return c, nil
}

// Hex returns the code as it stands in a ticket: a secret.
func (c Code) Hex() string { return hex.EncodeToString(c[:]) }

// String returns a placeholder, so that a code does not end up in a log.
func (c Code) String() string { return "[one-time code]" }

// Format prints the placeholder whatever the verb.
func (c Code) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(c.String())) }

// Hash returns what the store knows the code by.
func (c Code) Hash() CodeHash { return sha256.Sum256(c[:]) }

// tokenIssuer is enrollment_token_issuer: it makes one-time codes.
type tokenIssuer struct{ *Authority }

// Serve answers one request. See rpc.Server.
func (s tokenIssuer) Serve(ctx context.Context, who *identity.Identifier, req *rpc.Request) *rpc.Response {
	ctx = s.origin(ctx, who)
	if who == nil {
		s.o.Events.TicketRefused(ReasonNoChannel)
		return rpc.ErrorResponse(nil, rpc.BadRequest, textNoChannel)
	}
	if !isPost(req, "/", "/tokens") {
		return rpc.ErrorResponse(req, rpc.BadRequest, textUnknownPath)
	}
	attributes, ttl, uses, err := decodeCreateToken(req.Body)
	if err != nil {
		return nil
	}
	c, err := s.roles(ctx, *who)
	switch {
	case err != nil:
		s.o.Events.TicketRefused(ReasonError)
		return s.failed(ctx, req, textStore, err)
	case !c.enroller:
		s.o.Events.TicketRefused(ReasonNotEnroller)
		s.deny(ctx, EventRoleDenied, ReasonNotEnroller)
		return forbidden(req, "Non-enroller is trying to issue an enrollment token")
	case givesEnroller(attributes) && !c.admin:
		s.o.Events.TicketRefused(ReasonNotAdmin)
		s.deny(ctx, EventRoleDenied, ReasonNotAdmin)
		return forbidden(req, "Not admin is trying to issue an enrollment token for an enroller")
	}
	var code Code
	defer clear(code[:])
	_, _ = rand.Read(code[:]) // never fails: it ends the program instead
	now := s.o.Now()
	t := Token{Hash: code.Hash(), Reference: newReference(), Attributes: attributes, IssuedBy: *who, ExpiresAt: now.Add(ttl), Uses: uses}
	if err := s.o.Store.AddToken(ctx, t, now); err != nil {
		s.o.Events.TicketRefused(ReasonError)
		return s.failed(ctx, req, textStore, err)
	}
	s.o.Events.TicketIssued()
	s.o.Log.InfoContext(ctx, "enrollment ticket issued", "ticket", t.Reference, "by", who.String(), "ttl", ttl, "uses", uses,
		"enroller", givesEnroller(attributes))
	return rpc.NewResponse(req, rpc.OK, encodeCode(code))
}

// newReference returns random letters and digits.
func newReference() string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	var out [referenceSize]byte
	var b [1]byte
	for i := 0; i < len(out); {
		_, _ = rand.Read(b[:])
		if n := int(b[0] & 63); n < len(alphabet) {
			out[i] = alphabet[n]
			i++
		}
	}
	return string(out[:])
}

// textSlowed is the answer to a code that was not looked at.
const textSlowed = "Too many unknown enrollment tokens from your address: wait a few seconds"

// tokenAcceptor is enrollment_token_acceptor: it takes one-time codes from anyone who came through a secure channel.
type tokenAcceptor struct{ *Authority }

// Serve answers one request. See rpc.Server.
func (s tokenAcceptor) Serve(ctx context.Context, who *identity.Identifier, req *rpc.Request) *rpc.Response {
	ctx = s.origin(ctx, who)
	if who == nil {
		s.o.Events.TicketRefused(ReasonNoChannel)
		return rpc.ErrorResponse(nil, rpc.BadRequest, textNoChannel)
	}
	if !isPost(req, "/", "/credential") {
		return rpc.ErrorResponse(req, rpc.BadRequest, textUnknownPath)
	}
	code, err := decodeCode(req.Body)
	if err != nil {
		return nil
	}
	defer clear(code[:])
	source := rpc.Source(ctx)
	if s.guesses.full(source) {
		s.o.Events.TicketRefused(ReasonSlowed)
		s.deny(ctx, EventTicketRefused, ReasonUnknown)
		return forbidden(req, textSlowed)
	}
	r, err := s.o.Store.Redeem(ctx, code.Hash(), *who, s.o.Now())
	if err != nil {
		s.o.Events.TicketRefused(ReasonError)
		s.o.Log.ErrorContext(ctx, "redeeming an enrollment ticket failed", "identity", who.String(), "error", err)
		text := textStore
		if errors.Is(err, ErrStoreAway) {
			text = textStoreAway
		}
		return forbidden(req, "Error using the enrollment token: "+text)
	}
	log := s.o.Log.With("identity", who.String(), "outcome", string(r.Outcome), "ticket", r.Reference)
	switch r.Outcome {
	case Redeemed:
		s.o.Events.TicketRedeemed()
		s.announce() // who had been deleted has come back
		log.InfoContext(ctx, "enrollment ticket redeemed", "uses_left", r.Left)
		return rpc.NewResponse(req, rpc.OK, nil)
	case AlreadyMember:
		s.o.Events.TicketRefused(ReasonMember)
		log.DebugContext(ctx, "a member presented an enrollment ticket again")
		return forbidden(req, "Already a member")
	}
	// The caller must not learn which of the three it was; the operator must.
	reasons := map[Outcome]string{CodeUsed: ReasonUsed, CodeExpired: ReasonExpired, CodeUnknown: ReasonUnknown, CodeRevoked: ReasonRevoked}
	s.o.Events.TicketRefused(reasons[r.Outcome])
	res := forbidden(req, "Unknown enrollment token")
	if r.Outcome != CodeUnknown {
		log.WarnContext(ctx, "enrollment ticket refused")
		return res
	}
	s.deny(ctx, EventTicketRefused, ReasonUnknown)
	res.Delay, res.Done = s.guesses.unknown(source, s.o.Now())
	return res
}
