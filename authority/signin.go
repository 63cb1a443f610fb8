package authority

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/fxamacker/cbor/v2"

	"sallyport/authority/oidc"
	"sallyport/crypto/identity"
	"sallyport/routing/rpc"
)

// SignIn is the address of what signs people in with a provider of OpenID Connect. The reference has none.
const SignIn = "sallyport_sign_in"

// What a member that signed in has beside the attributes that the provider's claims give it.
const (
	SubjectAttribute = "oidc-subject" // who it is, as the provider says
	UntilAttribute   = "oidc-until"   // until when it is a member, Unix seconds
)

// Bounds of sign-ins.
const (
	maxSignIns = 256              // under way at once
	signInRest = 10 * time.Second // from one to the next of an identity, and of a source
	signInRate = 100 * time.Millisecond
	// DefaultSignIn is how long who signed in is a member.
	DefaultSignIn = 12 * time.Hour
)

// SignInOptions say who may become a member by signing in.
type SignInOptions struct {
	Provider *oidc.Provider
	// Lifetime is how long who signed in is a member; 0 is DefaultSignIn.
	Lifetime time.Duration
}

// CheckSignInAttribute refuses attributes that a provider's claims must not give: those that the authority decides by itself.
func CheckSignInAttribute(name string) error {
	switch name {
	case RoleAttribute, RelayAttribute, TLSAttribute, TrustContextAttribute, SubjectAttribute, UntilAttribute, "":
		return fmt.Errorf("the attribute %q is not for claims of a provider", name)
	}
	return nil
}

// SignInCode is what a person needs in order to sign in.
type SignInCode struct {
	UserCode string `cbor:"1,keyasint"`
	Address  string `cbor:"2,keyasint"`
	Complete string `cbor:"3,keyasint"` // an address with the code in it, or empty
	Expires  int64  `cbor:"4,keyasint"` // Unix seconds
}

// signInState is the answer to who asks whether it is done.
type signInState struct {
	Pending bool `cbor:"1,keyasint"`
}

// signIn is one under way.
type signIn struct {
	cancel  context.CancelFunc
	done    chan struct{}
	expires time.Time
	person  *oidc.Person // when done is closed
	err     error
}

// signIns are all under way, at most one of an identity.
type signIns struct {
	mu    sync.Mutex
	all   map[identity.Identifier]*signIn
	last  map[string]time.Time // when an identity or a source began one
	began time.Time            // when anybody did
}

// begin takes a place, and removes those that are over. It returns why not.
func (s *signIns) begin(who identity.Identifier, source string, now time.Time) (*signIn, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all, s.last = map[identity.Identifier]*signIn{}, map[string]time.Time{}
	}
	for id, one := range s.all {
		if now.After(one.expires) {
			one.cancel()
			delete(s.all, id)
		}
	}
	for key, at := range s.last {
		if now.Sub(at) >= signInRest {
			delete(s.last, key)
		}
	}
	for _, key := range []string{who.String(), source} {
		if _, soon := s.last[key]; soon && key != "" {
			return nil, "Too many sign-ins: wait a few seconds"
		}
	}
	if old := s.all[who]; old != nil {
		old.cancel()
		delete(s.all, who)
	}
	if len(s.all) >= maxSignIns || now.Sub(s.began) < signInRate {
		return nil, "Too many people sign in: try again"
	}
	one := &signIn{cancel: func() {}, done: make(chan struct{}), expires: now.Add(10 * time.Minute)}
	s.began, s.last[who.String()], s.last[source], s.all[who] = now, now, now, one
	return one, ""
}

func (s *signIns) get(who identity.Identifier) *signIn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[who]
}

// end removes one, if it is still there.
func (s *signIns) end(who identity.Identifier, one *signIn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all[who] == one {
		delete(s.all, who)
	}
	one.cancel()
}

type signInService struct{ *Authority }

// Serve begins a sign-in for who asks, POST /begin, or says whether it is done, POST /poll, and then makes it a member. See rpc.Server.
func (s signInService) Serve(ctx context.Context, who *identity.Identifier, req *rpc.Request) *rpc.Response {
	if who == nil {
		return rpc.ErrorResponse(nil, rpc.BadRequest, textNoChannel)
	}
	ctx = s.origin(ctx, who)
	switch {
	case isPost(req, "/begin"):
		return s.begin(ctx, *who, req)
	case isPost(req, "/poll"):
		return s.poll(ctx, *who, req)
	}
	return rpc.ErrorResponse(req, rpc.BadRequest, textUnknownPath)
}

// refuse answers a sign-in that made nobody a member.
func (s signInService) refuse(ctx context.Context, req *rpc.Request, reason, text string) *rpc.Response {
	s.o.Events.SignIn(reason)
	s.deny(ctx, EventSignInRefused, reason)
	return forbidden(req, text)
}

func (s signInService) begin(ctx context.Context, who identity.Identifier, req *rpc.Request) *rpc.Response {
	one, why := s.signIns.begin(who, rpc.Source(ctx), s.o.Now())
	if one == nil {
		return s.refuse(ctx, req, ReasonSlowed, why)
	}
	flow, err := s.o.SignIn.Provider.Begin(ctx)
	if err != nil {
		s.signIns.end(who, one)
		s.o.Log.WarnContext(ctx, "no sign-in", "error", err)
		return s.refuse(ctx, req, ReasonError, err.Error())
	}
	waiting, cancel := context.WithDeadline(context.Background(), flow.Expires)
	s.signIns.mu.Lock()
	one.cancel, one.expires = cancel, flow.Expires.Add(time.Minute)
	s.signIns.mu.Unlock()
	go func() {
		defer cancel()
		person, err := s.o.SignIn.Provider.Wait(waiting, flow)
		s.signIns.mu.Lock()
		one.person, one.err = person, err
		s.signIns.mu.Unlock()
		close(one.done)
	}()
	body, err := cbor.Marshal(SignInCode{flow.UserCode, flow.Address, flow.Complete, flow.Expires.Unix()})
	if err != nil {
		return s.failed(ctx, req, "the sign-in failed", err)
	}
	return rpc.NewResponse(req, rpc.OK, body)
}

func (s signInService) poll(ctx context.Context, who identity.Identifier, req *rpc.Request) *rpc.Response {
	one := s.signIns.get(who)
	if one == nil {
		return forbidden(req, "No sign-in is under way")
	}
	select {
	case <-one.done:
	default:
		body, _ := cbor.Marshal(signInState{Pending: true}) // such a structure always encodes
		return rpc.NewResponse(req, rpc.OK, body)
	}
	s.signIns.end(who, one)
	switch {
	case errors.Is(one.err, oidc.ErrClaims):
		return s.refuse(ctx, req, ReasonClaims, one.err.Error())
	case one.err != nil:
		s.o.Log.WarnContext(ctx, "no sign-in", "identity", who.String(), "error", one.err)
		return s.refuse(ctx, req, ReasonError, one.err.Error())
	}
	lifetime := s.o.SignIn.Lifetime
	if lifetime == 0 {
		lifetime = DefaultSignIn
	}
	attributes := Attributes{}
	maps.Copy(attributes, one.person.Attributes)
	attributes[SubjectAttribute] = one.person.Subject
	attributes[UntilAttribute] = strconv.FormatInt(s.o.Now().Add(lifetime).Unix(), 10)
	all, err := s.o.Store.Members(ctx)
	if err != nil {
		return s.failed(ctx, req, textStore, err)
	}
	for _, m := range all { // a person that is blocked does not come back with another identity
		if m.Blocked && m.Attributes[SubjectAttribute] == one.person.Subject {
			return s.refuse(ctx, req, ReasonBlocked, "This person is blocked")
		}
	}
	err = s.o.Store.PutMember(ctx, Member{ID: who, Attributes: attributes, AddedBy: s.o.Self, AddedAt: s.o.Now()}, func(old *Member) error {
		switch {
		case old == nil:
			return nil
		case old.Blocked:
			return refusal("This person is blocked")
		case old.PreTrusted || old.Attributes[SubjectAttribute] == "":
			return refusal("This identity is a member without signing in")
		case old.Attributes[SubjectAttribute] != one.person.Subject:
			return refusal("This identity is another person's")
		}
		return nil
	})
	var refused refusal
	switch {
	case errors.As(err, &refused):
		return s.refuse(ctx, req, ReasonMember, string(refused))
	case err != nil:
		return s.failed(ctx, req, textStore, err)
	}
	s.o.Events.SignIn("")
	s.announce() // who had been deleted has come back
	s.record(ctx, AuditEntry{Time: s.o.Now(), Event: EventSignedIn, Actor: who, Subject: who, Source: rpc.Source(ctx), Attributes: attributes})
	s.o.Log.InfoContext(ctx, "signed in", "identity", who.String())
	body, _ := cbor.Marshal(signInState{}) // such a structure always encodes
	return rpc.NewResponse(req, rpc.OK, body)
}

// signedInUntil is until when a row makes a member: for ever unless it comes from a sign-in.
func (m *Member) signedInUntil() (until time.Time, limited bool) {
	text, limited := m.Attributes[UntilAttribute]
	if !limited || m.Attributes[SubjectAttribute] == "" {
		return time.Time{}, false
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}, true // over
	}
	return time.Unix(seconds, 0), true
}

// BeginSignIn asks the authority to begin a sign-in for the caller.
func (c *Client) BeginSignIn(ctx context.Context) (code SignInCode, err error) {
	body, err := c.call(ctx, SignIn, rpc.Post, "/begin", nil, true)
	if err == nil {
		err = decodeMap(body, &code)
	}
	return code, err
}

// PollSignIn asks whether the caller has signed in, and is a member now.
func (c *Client) PollSignIn(ctx context.Context) (done bool, err error) {
	body, err := c.call(ctx, SignIn, rpc.Post, "/poll", nil, true)
	var state signInState
	if err == nil {
		err = decodeMap(body, &state)
	}
	return err == nil && !state.Pending, err
}
