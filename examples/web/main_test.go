package main

import (
	"context"
	"io"
	"net/http"
	"testing"
	"time"

	"sallyport/client"
	"sallyport/internal/testproject"
)

// member opens a member of a project, whose identity is in memory.
func member(t *testing.T, p *testproject.Project, attributes map[string]string) *client.Client {
	t.Helper()
	ticket, err := p.Ticket(t.Context(), attributes, 1)
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.Open(t.Context(), client.Options{Ticket: ticket, InMemory: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestWeb(t *testing.T) {
	p, err := testproject.Start(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	server, from := member(t, p, map[string]string{"ockam-relay": "api"}), member(t, p, map[string]string{"company": "acme"})
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	served := make(chan error, 1)
	go func() { served <- serve(ctx, server) }()
	web := http.Client{Transport: &http.Transport{DialContext: from.DialContext, DisableKeepAlives: true}, Timeout: 30 * time.Second}
	res, err := web.Get("http://api/")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if want := "hello " + from.Identifier() + " of acme\n"; string(body) != want {
		t.Errorf("%q, want %q", body, want)
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
}
