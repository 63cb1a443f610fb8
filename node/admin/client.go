package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"syscall"
	"time"
)

// Paths of the interface. Lists and creation use the path itself, one item is at path/NAME.
const (
	PathNode        = "/node"
	PathStop        = "/node/stop"
	PathOutlets     = "/outlets"
	PathInlets      = "/inlets"
	PathUDPOutlets  = "/udp-outlets"
	PathUDPInlets   = "/udp-inlets"
	PathRelays      = "/relays"
	PathRelayNames  = "/relay-names" // []RelayName
	PathKafkaIn     = "/kafka-inlets"
	PathKafkaOut    = "/kafka-outlets"
	PathChannels    = "/secure-channels"
	PathListeners   = "/secure-channel-listeners"
	PathMessages    = "/messages"
	PathPolicies    = "/policies" // one: /policies/RESOURCE-OR-TYPE
	PathTCPListener = "/tcp-listeners"
	PathTCPConns    = "/tcp-connections"
	PathServices    = "/services" // start: POST /services/hop
	PathWorkers     = "/workers"  // []string
	PathConsumers   = "/flow-control/consumers"
	PathResources   = "/resources" // []Resource
	PathApply       = "/apply"
	PathStore       = "/authority/store" // GET: a copy of the file
	PathKeys        = "/keys/reread"     // POST: identities were rotated
	// PathFleet has the nodes that act as the same identity (GET; one: DELETE /fleet/NAME), PathFleetTickets makes tickets for more (POST).
	PathFleet        = "/fleet"
	PathFleetTickets = "/fleet/tickets"
)

// maxAnswer bounds an answer of a node.
const maxAnswer = 64 << 20

var (
	// ErrNotRunning reports that no node answers on the socket.
	ErrNotRunning = errors.New("the node is not running")
	// ErrNotFound matches an answer that what was asked for does not exist.
	ErrNotFound = errors.New("not found")
	// ErrExists matches an answer that what was to be created exists already.
	ErrExists = errors.New("already exists")
	// ErrInvalid matches an answer that the request was wrong.
	ErrInvalid = errors.New("invalid request")
)

// StatusError is an answer of a node that is not success.
type StatusError struct {
	Status int
	Body   Error
}

func (e *StatusError) Error() string { return e.Body.Message }

// Unwrap lets errors.Is match ErrNotFound, ErrExists and ErrInvalid.
func (e *StatusError) Unwrap() error {
	switch e.Status {
	case http.StatusNotFound:
		return ErrNotFound
	case http.StatusConflict:
		return ErrExists
	case http.StatusBadRequest:
		return ErrInvalid
	}
	return nil
}

// answerTimeout is how long a node may take to answer a request without a deadline of its own (docs/protocol/03 §7.4).
const answerTimeout = 120 * time.Second

// Client talks to one node.
type Client struct {
	http   http.Client
	socket string
}

// NewClient makes a client of the node whose admin socket is at path.
func NewClient(path string) *Client {
	c := &Client{socket: path}
	c.http.Transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "unix", path)
		},
		DisableKeepAlives: true,
	}
	return c
}

// Do sends one request. in is the JSON body or nil; out is filled from the answer's unless nil.
func (c *Client) Do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	if _, set := ctx.Deadline(); !set {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, answerTimeout)
		defer cancel()
	}
	resp, err := c.do(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read the node's answer: %w", err)
	}
	if resp.StatusCode/100 != 2 {
		return statusError(resp.StatusCode, b)
	}
	if out == nil || len(b) == 0 {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("decode the node's answer: %w", err)
	}
	return nil
}

// do sends one request. The caller closes the answer's body.
func (c *Client) do(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://node"+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
			return nil, fmt.Errorf("%w (no answer on %s)", ErrNotRunning, c.socket)
		}
		if urlErr := (*url.Error)(nil); errors.As(err, &urlErr) {
			err = urlErr.Err
		}
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("it does not answer in time: %w", err)
		}
		return nil, fmt.Errorf("ask the node: %w", err)
	}
	return resp, nil
}

// statusError is an answer that is not success.
func statusError(status int, body []byte) error {
	e := &StatusError{Status: status}
	if json.Unmarshal(body, &e.Body) != nil || e.Body.Message == "" {
		e.Body.Message = http.StatusText(status)
	}
	return e
}

// Fetch returns what is at path, which is not JSON, and its length. The caller closes it.
func (c *Client) Fetch(ctx context.Context, path string) (io.ReadCloser, int64, error) {
	resp, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, 0, err
	}
	if resp.StatusCode != http.StatusOK || resp.ContentLength < 0 {
		defer resp.Body.Close()
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		return nil, 0, statusError(resp.StatusCode, b)
	}
	return resp.Body, resp.ContentLength, nil
}

// Get fetches path into a value of type T.
func Get[T any](ctx context.Context, c *Client, path string) (T, error) {
	var v T
	err := c.Do(ctx, http.MethodGet, path, nil, &v)
	return v, err
}

// Post sends in to path and returns the answer.
func Post[T any](ctx context.Context, c *Client, path string, in any) (T, error) {
	var v T
	err := c.Do(ctx, http.MethodPost, path, in, &v)
	return v, err
}

// Delete deletes path/name.
func (c *Client) Delete(ctx context.Context, path, name string) error {
	return c.Do(ctx, http.MethodDelete, path+"/"+url.PathEscape(name), nil, nil)
}

// Item returns the path of one item.
func Item(path, name string) string { return path + "/" + url.PathEscape(name) }
