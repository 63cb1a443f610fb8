package rpc

import "context"

type sourceKey struct{}

// WithSource has a Server know where a request came from: the address of the machine at the other end of the connection, as text.
func WithSource(ctx context.Context, source string) context.Context {
	return context.WithValue(ctx, sourceKey{}, source)
}

// Source returns what WithSource said, "" if nothing.
func Source(ctx context.Context) string {
	s, _ := ctx.Value(sourceKey{}).(string)
	return s
}
