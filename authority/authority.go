package authority

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"sallyport/crypto/identity"
	"sallyport/routing/rpc"
)

// Worker addresses of the services (docs/protocol/02 §5.1).
const (
	DirectAuthenticator     = "direct_authenticator"
	EnrollmentTokenIssuer   = "enrollment_token_issuer"
	EnrollmentTokenAcceptor = "enrollment_token_acceptor"
	CredentialIssuer        = "credential_issuer"
)

// How long a credential is valid unless Options or the store says otherwise: one of a member that renews it while it is used, as nodes of
// ours do, and one of a member that does not, as those of the reference, which present a new one with a new channel only.
const (
	DefaultCredentialTTL = time.Hour
	ReferenceTTL         = 30 * 24 * time.Hour
)

// Issuer makes credentials: what the authority needs of an identity manager.
type Issuer interface {
	// IssueCredential returns the encoded credential of issuer about subject, with the attestation of the key that signed it. A
	// manager must have seen subject's history before, as it has when subject came through a secure channel.
	IssueCredential(ctx context.Context, issuer, subject identity.Identifier, attributes identity.Attributes, ttl time.Duration) ([]byte, error)
}

var _ Issuer = (*identity.Manager)(nil)

// Options says what an authority is made of.
type Options struct {
	// Store keeps everything. The caller closes it. Required.
	Store Store
	// Identities issues credentials in the name of Self. Required.
	Identities Issuer
	// Self is the authority's identifier. Required.
	Self identity.Identifier
	// ProjectID is what trust_context_id says in credentials.
	ProjectID string
	// TrustedIdentities are the members that exist from the start, with their attributes; nil leaves those that the store has.
	TrustedIdentities map[identity.Identifier]map[string]string
	// CredentialTTL is the lifetime of all credentials, which the store then keeps for the next start; 0 is what the store has, else
	// DefaultCredentialTTL or ReferenceTTL, as the member asks.
	CredentialTTL time.Duration
	// NoDirectAuthentication leaves out the member service, NoTokenEnrollment both code services.
	NoDirectAuthentication, NoTokenEnrollment bool
	// DisableTrustContextID leaves trust_context_id out of credentials.
	DisableTrustContextID bool
	// AccountAdmin tells whether an identity presented a valid credential of the account authority. nil: there is no account
	// authority, and every enroller is an admin.
	AccountAdmin func(ctx context.Context, id identity.Identifier) bool
	// EnforceAdminChecks takes the admin role from enrollers that AccountAdmin does not know. Without AccountAdmin it does nothing.
	EnforceAdminChecks bool
	// SignIn lets people become members by signing in elsewhere; nil: nobody.
	SignIn *SignInOptions
	// Events is told what happens, for counters. nil: nobody.
	Events Events
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// Log gets one record for every code issued or tried, every credential and every change to the members; nil discards.
	Log *slog.Logger
}

// Reasons given to Events.
const (
	ReasonNoChannel   = "no_channel"   // the request did not come through a secure channel
	ReasonNotMember   = "not_member"   // a credential was asked for by a stranger
	ReasonNotEnroller = "not_enroller" // a code was asked for by someone who may not
	ReasonNotAdmin    = "not_admin"    // an enroller's code was asked for by a plain enroller
	ReasonError       = "error"        // the store or the issuer failed
	ReasonUsed        = "used"         // all uses of the code are spent
	ReasonExpired     = "expired"      // the code's time is over
	ReasonUnknown     = "unknown"      // no such code
	ReasonMember      = "already_member"
	ReasonBlocked     = "blocked" // of a member that was blocked
	ReasonRevoked     = "revoked" // the ticket was revoked
	ReasonClaims      = "claims"  // what a provider says of a person is not enough
	ReasonSlowed      = "slowed"  // unknown codes came too fast from one source: not looked at
)

// Events is told what an authority does. Its methods are called from many goroutines and must not block. A reason is one of the
// Reason constants.
type Events interface {
	TicketIssued()
	TicketRedeemed()
	TicketRefused(reason string)
	CredentialIssued()
	CredentialRefused(reason string)
	// SignIn is a sign-in with a provider of OpenID Connect, that made a member if there is no reason against it.
	SignIn(reason string)
}

type noEvents struct{}

func (noEvents) TicketIssued()            {}
func (noEvents) TicketRedeemed()          {}
func (noEvents) TicketRefused(string)     {}
func (noEvents) CredentialIssued()        {}
func (noEvents) CredentialRefused(string) {}
func (noEvents) SignIn(string)            {}

// Authority answers the requests of members and enrollers.
type Authority struct {
	o       Options
	denials denials
	guesses guesses
	feed    feed
	signIns signIns
	recent  recent
}

// New makes an authority and writes its pre-trusted members into the store, in place of those of the last start, unless it is given none.
func New(ctx context.Context, o Options) (*Authority, error) {
	switch {
	case o.Store == nil:
		return nil, errors.New("authority: no store")
	case o.Identities == nil:
		return nil, errors.New("authority: no issuer of credentials")
	case o.Self == identity.Identifier{}:
		return nil, errors.New("authority: no identifier")
	case o.CredentialTTL < 0:
		return nil, fmt.Errorf("authority: credential lifetime %v", o.CredentialTTL)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Events == nil {
		o.Events = noEvents{}
	}
	members := make([]Member, 0, len(o.TrustedIdentities))
	for id, attributes := range o.TrustedIdentities {
		members = append(members, Member{ID: id, Attributes: attributes, AddedBy: o.Self, AddedAt: o.Now(), PreTrusted: true})
	}
	ctx = WithOrigin(ctx, Origin{Actor: o.Self, Time: o.Now()})
	if o.TrustedIdentities == nil { // the store is another authority's too, which was told
	} else if err := o.Store.ReplacePreTrusted(ctx, members); err != nil {
		return nil, fmt.Errorf("authority: writing pre-trusted members: %w", err)
	}
	var err error
	if o.CredentialTTL != 0 {
		err = o.Store.SetCredentialTTL(ctx, o.CredentialTTL)
	} else {
		o.CredentialTTL, err = o.Store.CredentialTTL(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("authority: the lifetime of credentials: %w", err)
	}
	a := &Authority{o: o}
	a.record(ctx, AuditEntry{Time: o.Now(), Event: EventStarted, Actor: o.Self})
	return a, nil
}

// Services returns the handlers by worker address. They need a caller, that is a secure channel.
func (a *Authority) Services() map[string]rpc.Server {
	services := map[string]rpc.Server{CredentialIssuer: credentialService{a}, Administration: administration{a}}
	if !a.o.NoDirectAuthentication {
		services[DirectAuthenticator] = memberService{a}
	}
	if !a.o.NoTokenEnrollment {
		services[EnrollmentTokenIssuer] = tokenIssuer{a}
		services[EnrollmentTokenAcceptor] = tokenAcceptor{a}
	}
	if a.o.SignIn != nil {
		services[SignIn] = signInService{a}
	}
	return services
}

// caller is who asks, with its roles.
type caller struct {
	id           identity.Identifier
	row          Member // empty if not isMember
	isMember     bool
	blocked      bool
	accountAdmin bool
	enroller     bool
	admin        bool
}

// roles finds out what an identity may do (docs/protocol/02 §5.3).
func (a *Authority) roles(ctx context.Context, id identity.Identifier) (caller, error) {
	row, ok, err := a.o.Store.Member(ctx, id)
	if err != nil {
		return caller{}, err
	}
	if row.Blocked {
		return caller{id: id, blocked: true}, nil
	}
	if until, limited := row.signedInUntil(); limited && !a.o.Now().Before(until) {
		row, ok = Member{}, false // it has to sign in again
	}
	c := caller{id: id, row: row, isMember: ok}
	c.accountAdmin = a.o.AccountAdmin != nil && a.o.AccountAdmin(ctx, id)
	c.enroller = c.accountAdmin || givesEnroller(row.Attributes)
	c.admin = c.accountAdmin || c.enroller && (a.o.AccountAdmin == nil || !a.o.EnforceAdminChecks)
	return c, nil
}

// refusal is an answer 403 on its way out of a store's transaction.
type refusal string

func (r refusal) Error() string { return string(r) }

// mayReplace decides whether c may write over old. The reference always allows it; here a row that the operator configured, or that
// gives someone else the enroller role, does not change at the hand of just any enroller (docs/protocol/02 §9, "Authority").
func (c caller) mayReplace(old *Member) error {
	switch {
	case old == nil || c.accountAdmin:
		return nil
	case old.PreTrusted && !c.row.PreTrusted:
		return refusal("Enroller is trying to change a pre trusted identity")
	case givesEnroller(old.Attributes) && old.ID != c.id && !c.admin:
		return refusal("Not admin is trying to change an enroller")
	}
	return nil
}

// mayDelete decides whether c may remove old.
func (c caller) mayDelete(old *Member) error {
	switch {
	case old.PreTrusted:
		return refusal("Enroller is trying to delete a pre trusted identity")
	case givesEnroller(old.Attributes) && !c.admin:
		return refusal("Not admin is trying to delete an enroller")
	}
	return nil
}

// Texts shared by the services.
const (
	textNoChannel   = "secure channel required"
	textUnknownPath = "unknown path"
	textStore       = "the authority's store failed"
	textStoreAway   = "the authority's store is away at the moment: nothing was changed, try again"
)

// origin notes who asks, from where and when.
func (a *Authority) origin(ctx context.Context, who *identity.Identifier) context.Context {
	o := Origin{Source: rpc.Source(ctx), Time: a.o.Now()}
	if who != nil {
		o.Actor = *who
	}
	return WithOrigin(ctx, o)
}

func forbidden(req *rpc.Request, text string) *rpc.Response {
	return rpc.ErrorResponse(req, rpc.Forbidden, text)
}

// failed answers a request that the authority itself could not handle. The cause goes to the log alone.
func (a *Authority) failed(ctx context.Context, req *rpc.Request, text string, err error) *rpc.Response {
	a.o.Log.ErrorContext(ctx, "authority request failed", "method", req.Method.String(), "error", err)
	if errors.Is(err, ErrStoreAway) {
		text = textStoreAway
	}
	return rpc.ErrorResponse(req, rpc.InternalServerError, text)
}

// isPost reports whether req is a POST to one of the paths, which are compared exactly.
func isPost(req *rpc.Request, paths ...string) bool {
	return req.Method == rpc.Post && slices.Contains(paths, req.Path)
}
