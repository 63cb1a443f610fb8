package influxdb

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/portal/httpheader"
)

// Times of a lease that is kept for an inlet: it is renewed at half its time, but not more often than every 5 s.
const (
	minRefresh  = 5 * time.Second
	maxRetry    = 15 * time.Second
	firstRetry  = 500 * time.Millisecond
	callTimeout = 30 * time.Second
)

// Refresher keeps a lease for the clients of an inlet.
type Refresher struct {
	client Client
	log    *slog.Logger
	after  func(time.Duration) <-chan time.Time

	fields  atomic.Pointer[held]
	ready   chan struct{}
	readyOf sync.Once
}

type held struct {
	fields  []httpheader.Field
	expires time.Time
}

// NewRefresher makes a Refresher; Run must run too.
func NewRefresher(c Client, log *slog.Logger) *Refresher {
	return &Refresher{client: c, log: log, after: time.After, ready: make(chan struct{})}
}

// Fields is what to set in requests: the token's header, or nothing while there is no lease.
func (r *Refresher) Fields() []httpheader.Field {
	h := r.fields.Load()
	if h == nil || !time.Now().Before(h.expires) {
		return nil
	}
	return h.fields
}

// First waits for the first lease.
func (r *Refresher) First(ctx context.Context) {
	select {
	case <-r.ready:
	case <-ctx.Done():
	}
}

// Run keeps a lease until ctx ends.
func (r *Refresher) Run(ctx context.Context) {
	retry := firstRetry
	for {
		attempt, cancel := context.WithTimeout(ctx, callTimeout)
		l, err := r.client.Create(attempt)
		cancel()
		if ctx.Err() != nil {
			return
		}
		var field httpheader.Field
		if err == nil {
			field, err = TokenField(l.Token)
		}
		wait := retry
		if err != nil {
			r.log.Warn("no lease of an InfluxDB token", "err", err.Error())
			retry = min(2*retry, maxRetry)
		} else {
			expires := time.Unix(l.ExpiresAt, 0)
			r.fields.Store(&held{fields: []httpheader.Field{field}, expires: expires})
			r.readyOf.Do(func() { close(r.ready) })
			wait, retry = max(time.Until(expires)/2, minRefresh), firstRetry
		}
		select {
		case <-ctx.Done():
			return
		case <-r.after(wait):
		}
	}
}

// TokenField is the header by which InfluxDB knows a client.
func TokenField(token string) (httpheader.Field, error) {
	return httpheader.ParseField("Authorization: Token " + token)
}
