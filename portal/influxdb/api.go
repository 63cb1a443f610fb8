package influxdb

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"sallyport/crypto/identity"
	"sallyport/routing/rpc"
)

const (
	// maxAnswer bounds what InfluxDB answers, a list of all its tokens among it.
	maxAnswer = 16 << 20
	// apiTimeout bounds one request to InfluxDB.
	apiTimeout = 10 * time.Second
	// mark begins the description of a leased token. It is the reference's, so that either kind of manager knows the other's.
	mark = "OCKAM"
)

// APIError is a refusal by InfluxDB.
type APIError struct {
	HTTPStatus    int
	Code, Message string
}

func (e *APIError) Error() string {
	return fmt.Sprintf("InfluxDB answers %d %s: %s", e.HTTPStatus, e.Code, e.Message)
}

// status is what a member is told.
func (e *APIError) status() rpc.Status {
	switch e.Code {
	case "invalid":
		return rpc.BadRequest
	case "unauthorized":
		return rpc.Unauthorized
	case "forbidden":
		return rpc.Forbidden
	case "not found":
		return rpc.NotFound
	case "conflict":
		return rpc.Conflict
	}
	return rpc.InternalServerError
}

// api speaks InfluxDB 2's HTTP interface for authorizations.
type api struct {
	base  string // http://host:port
	token string
	http  http.Client
}

// authorization is a token as InfluxDB describes it.
type authorization struct {
	ID          string `json:"id"`
	Description string `json:"description"`
	Token       string `json:"token"`
	Status      string `json:"status"`
	CreatedAt   string `json:"createdAt"`
}

const authorizations = "/api/v2/authorizations"

// do sends a request and reads the answer into out, unless that is nil.
func (a *api) do(ctx context.Context, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, a.base+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Token "+a.token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := a.http.Do(req)
	if err != nil {
		return fmt.Errorf("ask InfluxDB: %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return fmt.Errorf("read InfluxDB's answer: %w", err)
	}
	if len(b) > maxAnswer {
		return fmt.Errorf("InfluxDB's answer has more than %d bytes", maxAnswer)
	}
	if resp.StatusCode/100 != 2 {
		e := &APIError{HTTPStatus: resp.StatusCode, Message: http.StatusText(resp.StatusCode)}
		_ = json.Unmarshal(b, &struct{ Code, Message *string }{&e.Code, &e.Message})
		return e
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("InfluxDB's answer is not understood: %w", err)
	}
	return nil
}

func (a *api) create(ctx context.Context, org string, permissions json.RawMessage, description string) (authorization, error) {
	var out authorization
	err := a.do(ctx, http.MethodPost, authorizations, map[string]any{"description": description, "orgID": org, "permissions": permissions}, &out)
	return out, err
}

func (a *api) get(ctx context.Context, id string) (authorization, error) {
	var out authorization
	err := a.do(ctx, http.MethodGet, authorizations+"/"+id, nil, &out)
	return out, err
}

func (a *api) revoke(ctx context.Context, id string) error {
	return a.do(ctx, http.MethodDelete, authorizations+"/"+id, nil, nil)
}

func (a *api) list(ctx context.Context) ([]authorization, error) {
	var out struct {
		Authorizations []authorization `json:"authorizations"`
	}
	err := a.do(ctx, http.MethodGet, authorizations, nil, &out)
	return out.Authorizations, err
}

// describe is the description of a leased token.
func describe(id identity.Identifier, expires time.Time) string {
	return fmt.Sprintf("%s:%s:%d", mark, id, expires.Unix())
}

var errNotLeased = errors.New("the token was not leased")

// lease reads an authorization; errNotLeased if its description is another.
func (a authorization) lease() (Lease, error) {
	parts := strings.Split(a.Description, ":")
	if len(parts) != 3 || parts[0] != mark {
		return Lease{}, errNotLeased
	}
	l := Lease{ID: a.ID, Token: a.Token}
	var err error
	if l.IssuedFor, err = identity.ParseIdentifier(parts[1]); err != nil {
		return Lease{}, errNotLeased
	}
	if l.ExpiresAt, err = strconv.ParseInt(parts[2], 10, 64); err != nil || !validID(a.ID) {
		return Lease{}, errNotLeased
	}
	created, err := time.Parse(time.RFC3339, a.CreatedAt)
	if err != nil {
		return Lease{}, fmt.Errorf("InfluxDB's createdAt: %w", err)
	}
	l.CreatedAt = created.Unix()
	switch a.Status {
	case "active":
	case "inactive":
		l.Status = Revoked
	default:
		return Lease{}, fmt.Errorf("InfluxDB's status %q is not known", a.Status)
	}
	return l, nil
}

// validID reports whether text may be the number of a token: it becomes part of a path.
func validID(text string) bool {
	for _, c := range text {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '_' && c != '-' {
			return false
		}
	}
	return text != "" && len(text) <= 64
}
