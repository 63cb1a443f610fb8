package fleet

import (
	"context"
	"errors"
	"time"

	"github.com/fxamacker/cbor/v2"

	"sallyport/crypto/identity"
	"sallyport/crypto/vault"
	"sallyport/project"
	"sallyport/routing/rpc"
)

// Texts of refusals.
const (
	textNoChannel = "secure channel required"
	textUnknown   = "Unknown ticket"
	textSlowed    = "Too many requests from your address: wait a few seconds"
	textNotListed = "This node is not on the list"
	textBody      = "the request cannot be read"
	textFailed    = "the keeper failed"
	textNotYet    = "this node has not asked its keeper yet"
)

// Serve answers one request of a node that is or becomes a delegate, or of a member that asks where the nodes are. See rpc.Server.
func (k *Keeper) Serve(ctx context.Context, caller *identity.Identifier, req *rpc.Request) *rpc.Response {
	if caller == nil {
		return rpc.ErrorResponse(nil, rpc.BadRequest, textNoChannel)
	}
	switch {
	case req.Method == rpc.Get && req.Path == pathNodes:
		return k.serveNodes(ctx, *caller, req)
	case req.Method == rpc.Post && req.Path == pathRedeem:
		return k.serveRedeem(ctx, *caller, req)
	case req.Method == rpc.Post && req.Path == pathAttest:
		return k.serveAttest(ctx, *caller, req)
	}
	return rpc.ErrorResponse(req, rpc.NotFound, "unknown path")
}

func (k *Keeper) serveRedeem(ctx context.Context, box identity.Identifier, req *rpc.Request) *rpc.Response {
	var r redeemRequest
	if cbor.Unmarshal(req.Body, &r) != nil || len(r.Code) != len(project.Code{}) {
		return rpc.ErrorResponse(req, rpc.BadRequest, textBody)
	}
	code := project.Code(r.Code)
	defer clear(code[:])
	clear(r.Code)
	source, now := rpc.Source(ctx), k.o.Now()
	if k.guesses.empty(source, now) {
		return rpc.ErrorResponse(req, rpc.Forbidden, textSlowed)
	}
	o, n, err := k.redeem(box, code, r.Name, r.Route, source)
	log := k.o.Log.With("box", box.String(), "source", source)
	switch {
	case err != nil:
		log.Error("a ticket for a node was not redeemed", "reason", err.Error())
		return rpc.ErrorResponse(req, rpc.InternalServerError, textFailed)
	case o == joined || o == alreadyThere:
		log.Info("a node acts as this identity from now on", "node_name", n.Name, "kind", string(n.Kind), "ticket", n.Ticket, "outcome", string(o))
		return reply(req, redeemed{Lifetime: n.Lifetime})
	case o == nameTaken:
		return rpc.ErrorResponse(req, rpc.Conflict, "Another node has this name")
	case o == badParameters:
		return rpc.ErrorResponse(req, rpc.BadRequest, "A name has letters, digits, dots and dashes; a route names a host and ends in /service/api")
	case o == tooManyNodes:
		return rpc.ErrorResponse(req, rpc.Conflict, "There are too many nodes")
	}
	k.guesses.take(source, now)
	log.Warn("an unknown ticket for a node was presented")
	return rpc.ErrorResponse(req, rpc.Forbidden, textUnknown)
}

func (k *Keeper) serveAttest(ctx context.Context, box identity.Identifier, req *rpc.Request) *rpc.Response {
	n, ok := k.onList(box)
	if !ok {
		return rpc.ErrorResponse(req, rpc.Forbidden, textNotListed)
	}
	if !k.asks.take(box.String(), k.o.Now()) {
		return rpc.ErrorResponse(req, rpc.Conflict, textSlowed)
	}
	var r attestRequest
	if cbor.Unmarshal(req.Body, &r) != nil {
		return rpc.ErrorResponse(req, rpc.BadRequest, textBody)
	}
	asked, err := r.request()
	if err != nil {
		return rpc.ErrorResponse(req, rpc.BadRequest, textBody)
	}
	attestation, history, err := k.attest(ctx, box, asked)
	switch {
	case errors.Is(err, identity.ErrNotDelegate):
		return rpc.ErrorResponse(req, rpc.Forbidden, textNotListed)
	case errors.Is(err, ErrInvalid), errors.Is(err, errKeyOfAnother):
		k.o.Log.Warn("a key is not attested", "node_name", n.Name, "reason", err.Error())
		return rpc.ErrorResponse(req, rpc.BadRequest, "This key is not attested for this node")
	case err != nil:
		k.o.Log.Error("a key is not attested", "node_name", n.Name, "reason", err.Error())
		return rpc.ErrorResponse(req, rpc.InternalServerError, textFailed)
	}
	k.o.Log.Info("a key was attested", "node_name", n.Name, "purpose", asked.Purpose.String())
	return reply(req, attested{Attestation: attestation, History: history})
}

// request takes a request from the wire.
func (r *attestRequest) request() (identity.AttestationRequest, error) {
	out := identity.AttestationRequest{Purpose: identity.Purpose(r.Purpose), Lifetime: time.Duration(min(max(r.Lifetime, 0), int64(MaxLifetime/time.Second))) * time.Second}
	switch out.Purpose {
	case identity.SecureChannel:
		if len(r.Key) != len(out.X25519) {
			return out, ErrInvalid
		}
		copy(out.X25519[:], r.Key)
	case identity.CredentialSigning:
		out.Key = vault.VerifyingKey{Algorithm: vault.KeyAlgorithm(r.Algorithm), Bytes: r.Key}
		if a := out.Key.Algorithm; a == vault.Ed25519 && len(r.Key) != 32 || a == vault.P256 && len(r.Key) != 65 || a != vault.Ed25519 && a != vault.P256 {
			return out, ErrInvalid
		}
	default:
		return out, ErrInvalid
	}
	return out, nil
}

func (k *Keeper) serveNodes(ctx context.Context, caller identity.Identifier, req *rpc.Request) *rpc.Response {
	asked, ok := ask(req)
	if !ok {
		return rpc.ErrorResponse(req, rpc.BadRequest, textBody)
	}
	if later := k.board.awaits(ctx, caller, req, asked); later != nil {
		return later
	}
	r := nodesReply{Keeper: true}
	r.Routes, r.Version = k.board.list()
	if _, r.Listed = k.onList(caller); r.Listed {
		var err error
		if r.History, err = k.o.History(ctx); err != nil {
			return rpc.ErrorResponse(req, rpc.InternalServerError, textFailed)
		}
	}
	return reply(req, r)
}

// Routes are where the delegates are, in the order of their names.
func (k *Keeper) Routes() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.list.routes()
}

func reply(req *rpc.Request, v any) *rpc.Response {
	body, err := cbor.Marshal(v)
	if err != nil {
		return rpc.ErrorResponse(req, rpc.InternalServerError, textFailed)
	}
	return rpc.NewResponse(req, rpc.OK, body)
}
