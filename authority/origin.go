package authority

import (
	"context"
	"time"

	"sallyport/crypto/identity"
)

// Origin says who does something, from where and when, for the audit trail.
type Origin struct {
	Actor  identity.Identifier
	Source string
	Time   time.Time
}

type originKey struct{}

// WithOrigin has a Store know who does what it is asked for.
func WithOrigin(ctx context.Context, o Origin) context.Context {
	return context.WithValue(ctx, originKey{}, o)
}

func originOf(ctx context.Context) Origin {
	o, ok := ctx.Value(originKey{}).(Origin)
	if !ok {
		o.Time = time.Now()
	}
	return o
}
