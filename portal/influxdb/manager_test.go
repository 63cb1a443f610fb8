package influxdb

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"sallyport/crypto/identity"
	"sallyport/portal/influxdb/influxtest"
	"sallyport/routing/rpc"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

const permissions = `[{"action":"read","resource":{"type":"buckets"}}]`

func newManager(t testing.TB, f *influxtest.Server, ttl time.Duration) *Manager {
	t.Helper()
	m, err := New(Options{URL: f.URL, OrgID: "org", Token: influxtest.AdminToken, Permissions: permissions, TTL: ttl, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// as is a Client of m for one member, over the encoding of the wire.
func as(m *Manager, id identity.Identifier) *Client {
	return &Client{Call: func(ctx context.Context, req *rpc.Request) (*rpc.Response, error) {
		decoded, err := rpc.DecodeRequest(req.Encode())
		if err != nil {
			return nil, err
		}
		res, err := rpc.DecodeResponse(m.Serve(ctx, &id, decoded).Encode())
		if err != nil {
			return nil, err
		}
		return res, res.Err()
	}}
}

func refused(t *testing.T, err error, want rpc.Status) {
	t.Helper()
	var e *rpc.StatusError
	if !errors.As(err, &e) || e.Status != want {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestLeases(t *testing.T) {
	f := influxtest.New(t, "")
	m := newManager(t, f, time.Hour)
	ctx := t.Context()
	alice, bob := as(m, identity.Identifier{1}), as(m, identity.Identifier{2})
	f.Put(influxtest.Authorization{ID: "manual", Description: "made by hand", Status: "active", CreatedAt: "2024-09-12T16:23:54Z"})

	l, err := alice.Create(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if l.IssuedFor != (identity.Identifier{1}) || l.Token != "token-"+l.ID || time.Until(time.Unix(l.ExpiresAt, 0)) < 59*time.Minute || l.Status != Active {
		t.Errorf("lease %+v", l)
	}
	var asked bytes.Buffer
	if err := json.Compact(&asked, f.Asked()[0]); err != nil {
		t.Fatal(err)
	}
	if want := `{"description":"` + describe(l.IssuedFor, time.Unix(l.ExpiresAt, 0)) + `","orgID":"org","permissions":` + permissions + `}`; asked.String() != want {
		t.Errorf("InfluxDB was asked for\n%s, want\n%s", asked.String(), want)
	}
	if _, err := bob.Create(ctx); err != nil {
		t.Fatal(err)
	}
	if list, err := alice.List(ctx); err != nil || len(list) != 1 || list[0] != l {
		t.Errorf("alice's leases: %+v, %v", list, err)
	}
	if shown, err := alice.Show(ctx, l.ID); err != nil || shown != l {
		t.Errorf("shown %+v, %v", shown, err)
	}
	_, err = bob.Show(ctx, l.ID)
	refused(t, err, rpc.Unauthorized)
	refused(t, bob.Revoke(ctx, l.ID), rpc.Unauthorized)
	for _, id := range []string{"manual", "nosuch"} {
		_, err = bob.Show(ctx, id)
		refused(t, err, rpc.NotFound)
		refused(t, bob.Revoke(ctx, id), rpc.NotFound)
	}
	refused(t, bob.Revoke(ctx, "../orgs"), rpc.BadRequest)
	refused(t, bob.Revoke(ctx, ""), rpc.BadRequest)
	if err := alice.Revoke(ctx, l.ID); err != nil {
		t.Error(err)
	}
	if list, err := alice.List(ctx); err != nil || len(list) != 0 {
		t.Errorf("after revocation: %+v, %v", list, err)
	}
	if m.Serve(ctx, nil, rpc.NewRequest(rpc.Post, "/", nil)) != nil {
		t.Error("answered without a caller")
	}
	f.Break(true)
	_, err = alice.Create(ctx)
	refused(t, err, rpc.InternalServerError)
}

// Expired leases are revoked, also those that another run made and those whose revocation fails at first; tokens made by hand stay.
func TestExpiry(t *testing.T) {
	f := influxtest.New(t, "")
	f.Put(influxtest.Authorization{ID: "manual", Description: "made by hand", Status: "active", CreatedAt: "2024-09-12T16:23:54Z"})
	f.Put(influxtest.Authorization{ID: "old", Description: describe(identity.Identifier{1}, time.Now().Add(-time.Hour)), Status: "active", CreatedAt: "2024-09-12T16:23:54Z"})
	m := newManager(t, f, time.Second)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { m.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	f.Await(t, 1)
	if _, err := as(m, identity.Identifier{1}).Create(ctx); err != nil {
		t.Fatal(err)
	}
	f.Await(t, 2)
	f.Await(t, 1)
	if !f.Has("manual") {
		t.Error("a token made by hand was revoked")
	}
}

func TestOptions(t *testing.T) {
	good := Options{URL: "http://127.0.0.1:1", OrgID: "o", Token: "t", Permissions: "[]", TTL: time.Minute, Log: quiet}
	if _, err := New(good); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Options){
		"permissions": func(o *Options) { o.Permissions = "[" }, "organization": func(o *Options) { o.OrgID = "" },
		"token": func(o *Options) { o.Token = "" }, "time": func(o *Options) { o.TTL = 0 },
	} {
		o := good
		change(&o)
		if _, err := New(o); err == nil {
			t.Errorf("accepted without %s", name)
		}
	}
}

func TestRefresher(t *testing.T) {
	f := influxtest.New(t, "")
	m := newManager(t, f, time.Hour)
	f.Break(true)
	r := NewRefresher(*as(m, identity.Identifier{1}), quiet)
	waits, next := make(chan time.Duration), make(chan time.Time)
	r.after = func(d time.Duration) <-chan time.Time {
		waits <- d
		return next
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { r.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	if d := <-waits; d != firstRetry || r.Fields() != nil {
		t.Errorf("after a failure: %v, %v", d, r.Fields())
	}
	f.Break(false)
	next <- time.Time{}
	if d := <-waits; d < 29*time.Minute || d > 30*time.Minute {
		t.Errorf("renewed after %v", d)
	}
	r.First(ctx)
	if got := r.Fields(); len(got) != 1 || got[0].Name != "Authorization" || !strings.HasPrefix(got[0].Value, "Token token-") {
		t.Errorf("%v", got)
	}
	r.fields.Load().expires = time.Now()
	if r.Fields() != nil {
		t.Error("an expired lease is used")
	}
}

// The encoding is that of docs/protocol/03 §5.
func TestEncoding(t *testing.T) {
	l := Lease{ID: "ab", IssuedFor: identity.Identifier{0xff}, CreatedAt: 1, ExpiresAt: 1726158234, Token: "t", Status: Revoked}
	want := "a6" + "01626162" + "025820ff" + strings.Repeat("00", 31) + "0301" + "041a66e3159a" + "056174" + "0601"
	b, err := encodeLease(l)
	if err != nil || hex.EncodeToString(b) != want {
		t.Errorf("%x, %v\nwant %s", b, err, want)
	}
	if got, err := decodeLease(b); err != nil || got != l {
		t.Errorf("%+v, %v", got, err)
	}
	list, err := encodeLeases([]Lease{l})
	if err != nil || hex.EncodeToString(list) != "81"+want {
		t.Errorf("%x, %v", list, err)
	}
	text, err := json.Marshal(l)
	if err != nil || string(text) != `{"id":"ab","issued_for":"`+l.IssuedFor.String()+`","created_at":1,"expires_at":1726158234,"token":"t","status":"Revoked"}` {
		t.Errorf("%s, %v", text, err)
	}
}

func FuzzDecode(f *testing.F) {
	b, _ := encodeLease(Lease{ID: "ab", Token: "t"})
	f.Add(b)
	f.Add(append([]byte{0x81}, b...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, err := decodeLease(b); err == nil {
			again, err := encodeLease(l)
			if err != nil {
				t.Fatal(err)
			}
			if back, err := decodeLease(again); err != nil || back != l {
				t.Fatalf("%+v, %v", back, err)
			}
		}
		_, _ = decodeLeases(b)
	})
}
