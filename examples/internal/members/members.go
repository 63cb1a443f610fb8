// Package members makes members of a project for the tests of the examples.
package members

import (
	"context"
	"testing"

	"sallyport/client"
	"sallyport/internal/testproject"
)

// Open opens a member of a project with attributes, whose identity is in memory. It is closed when the test ends.
func Open(ctx context.Context, t *testing.T, p *testproject.Project, attributes map[string]string) *client.Client {
	t.Helper()
	ticket, err := p.Ticket(ctx, attributes, 1)
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.Open(ctx, client.Options{Ticket: ticket, InMemory: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
