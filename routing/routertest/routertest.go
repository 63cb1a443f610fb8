// Package routertest makes routers for tests.
package routertest

import (
	"log/slog"
	"testing"

	"sallyport/dataplane"
	"sallyport/routing"
)

// New makes a router of so many shards, whose loops end with the test.
func New(t testing.TB, shards int, log *slog.Logger) *routing.Router {
	t.Helper()
	g, err := dataplane.NewGroup(shards, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Stop)
	r, err := routing.NewRouter(g, log)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
