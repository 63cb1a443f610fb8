package influxdb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"sallyport/crypto/identity"
	"sallyport/names"
	"sallyport/routing/rpc"
)

// Options configure a Manager. All are required.
type Options struct {
	// URL is InfluxDB's, http://host:port.
	URL string
	// OrgID is the organization that leased tokens belong to.
	OrgID string
	// Token is one that may make and delete tokens.
	Token string
	// Permissions of leased tokens, JSON as InfluxDB takes it.
	Permissions string
	// TTL is how long a lease lasts.
	TTL time.Duration
	Log *slog.Logger
}

// Manager leases tokens. It implements rpc.Server: POST / leases one, GET / lists the caller's, GET /ID and DELETE /ID show and end one.
type Manager struct {
	opts Options
	api  api
	now  func() time.Time

	mu     sync.Mutex
	leased map[string]time.Time // when each expires, by ID
	wake   chan struct{}
}

// New makes a Manager. Run must run too.
func New(o Options) (*Manager, error) {
	if !json.Valid([]byte(o.Permissions)) {
		return nil, errors.New("the permissions of leased tokens are not JSON")
	}
	if o.OrgID == "" || o.Token == "" {
		return nil, errors.New("leases need InfluxDB's organization and a token that may make others")
	}
	if o.TTL < time.Second {
		return nil, errors.New("leases must last for a second at least")
	}
	m := &Manager{opts: o, now: time.Now, leased: map[string]time.Time{}, wake: make(chan struct{}, 1)}
	m.api = api{base: o.URL, token: o.Token, http: http.Client{Transport: &http.Transport{DialContext: names.Dial, MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Minute}}}
	return m, nil
}

// Serve implements rpc.Server. Without a caller nothing is answered: nobody can be leased to.
func (m *Manager) Serve(ctx context.Context, caller *identity.Identifier, req *rpc.Request) *rpc.Response {
	if caller == nil {
		return nil
	}
	body, err := m.serve(ctx, *caller, req)
	if err == nil {
		return rpc.NewResponse(req, rpc.OK, body)
	}
	var refusal *refusal
	var fromAPI *APIError
	switch {
	case errors.As(err, &refusal):
		return rpc.ErrorResponse(req, refusal.status, refusal.text)
	case errors.As(err, &fromAPI):
		m.opts.Log.Warn("lease refused by InfluxDB", "peer", caller.String(), "err", err.Error())
		return rpc.ErrorResponse(req, fromAPI.status(), fromAPI.Message)
	}
	m.opts.Log.Warn("lease failed", "peer", caller.String(), "err", err.Error())
	return rpc.ErrorResponse(req, rpc.InternalServerError, "InfluxDB could not be asked")
}

type refusal struct {
	status rpc.Status
	text   string
}

func (r *refusal) Error() string { return r.text }

func (m *Manager) serve(ctx context.Context, caller identity.Identifier, req *rpc.Request) ([]byte, error) {
	id := rpc.Segments(req.Path, 1)[0]
	if id != "" && !validID(id) {
		return nil, &refusal{rpc.BadRequest, "this is no token's id"}
	}
	switch {
	case req.Method == rpc.Post && id == "":
		l, err := m.create(ctx, caller)
		if err != nil {
			return nil, err
		}
		return encodeLease(l)
	case req.Method == rpc.Get && id == "":
		list, err := m.list(ctx, &caller)
		if err != nil {
			return nil, err
		}
		return encodeLeases(list)
	case req.Method == rpc.Get:
		l, err := m.get(ctx, caller, id)
		if err != nil {
			return nil, err
		}
		return encodeLease(l)
	case req.Method == rpc.Delete && id != "":
		if _, err := m.get(ctx, caller, id); err != nil {
			return nil, err
		}
		if err := m.api.revoke(ctx, id); err != nil {
			return nil, err
		}
		m.forget(id)
		m.opts.Log.Info("lease revoked", "peer", caller.String(), "id", id)
		return nil, nil
	}
	return nil, &refusal{rpc.BadRequest, fmt.Sprintf("invalid endpoint: %s %s", req.Method, req.Path)}
}

func (m *Manager) create(ctx context.Context, caller identity.Identifier) (Lease, error) {
	expires := m.now().Add(m.opts.TTL)
	a, err := m.api.create(ctx, m.opts.OrgID, json.RawMessage(m.opts.Permissions), describe(caller, expires))
	if err != nil {
		return Lease{}, err
	}
	l, err := a.lease()
	if err != nil {
		return Lease{}, err
	}
	m.remember(l)
	m.opts.Log.Info("lease created", "peer", caller.String(), "id", l.ID, "expires", time.Unix(l.ExpiresAt, 0).UTC())
	return l, nil
}

func (m *Manager) get(ctx context.Context, caller identity.Identifier, id string) (Lease, error) {
	a, err := m.api.get(ctx, id)
	if err != nil {
		return Lease{}, err
	}
	l, err := a.lease()
	if errors.Is(err, errNotLeased) {
		return Lease{}, &refusal{rpc.NotFound, "there is no such lease"}
	}
	if err == nil && l.IssuedFor != caller {
		m.opts.Log.Warn("lease of another asked for", "peer", caller.String(), "id", id)
		err = &refusal{rpc.Unauthorized, "the lease is another member's"}
	}
	return l, err
}

// list returns the leases of caller, or all of them.
func (m *Manager) list(ctx context.Context, caller *identity.Identifier) ([]Lease, error) {
	all, err := m.api.list(ctx)
	if err != nil {
		return nil, err
	}
	var list []Lease
	for _, a := range all {
		if l, err := a.lease(); err == nil && (caller == nil || l.IssuedFor == *caller) {
			list = append(list, l)
		}
	}
	return list, nil
}

func (m *Manager) remember(l Lease) {
	m.mu.Lock()
	m.leased[l.ID] = time.Unix(l.ExpiresAt, 0)
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

func (m *Manager) forget(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.leased, id)
}

// revokeRetry is how long after a failure InfluxDB is asked again.
const revokeRetry = 5 * time.Second

// Run revokes leases when they expire, those of an earlier run too, until ctx ends.
func (m *Manager) Run(ctx context.Context) {
	for known := false; ; {
		wait := time.Hour
		if !known {
			list, err := m.list(ctx, nil)
			if known = err == nil; !known {
				m.opts.Log.Warn("earlier leases are not known yet", "err", err.Error())
				wait = revokeRetry
			}
			for _, l := range list {
				m.remember(l)
			}
		}
		wait = min(wait, m.revokeExpired(ctx))
		select {
		case <-ctx.Done():
			return
		case <-m.wake:
		case <-time.After(wait):
		}
	}
}

// revokeExpired revokes what has expired and returns when to look again.
func (m *Manager) revokeExpired(ctx context.Context) time.Duration {
	now, next := m.now(), time.Hour
	var expired []string
	m.mu.Lock()
	for id, at := range m.leased {
		if left := at.Sub(now); left <= 0 {
			expired = append(expired, id)
		} else {
			next = min(next, left)
		}
	}
	m.mu.Unlock()
	for _, id := range expired {
		err := m.api.revoke(ctx, id)
		var refused *APIError
		if err != nil && !(errors.As(err, &refused) && refused.HTTPStatus == 404) {
			m.opts.Log.Warn("expired lease not revoked yet", "id", id, "err", err.Error())
			next = min(next, revokeRetry)
			continue
		}
		m.forget(id)
		m.opts.Log.Info("expired lease revoked", "id", id)
	}
	return max(next, 10*time.Millisecond)
}
