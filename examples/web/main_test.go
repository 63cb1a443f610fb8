package main

import (
	"context"
	"io"
	"net/http"
	"testing"
	"time"

	"sallyport/examples/internal/members"
	"sallyport/internal/testproject"
)

func TestWeb(t *testing.T) {
	p, err := testproject.Start(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	server, from := members.Open(t.Context(), t, p, map[string]string{"ockam-relay": "api"}), members.Open(t.Context(), t, p, map[string]string{"company": "acme"})
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	served := make(chan error, 1)
	go func() { served <- serve(ctx, server) }()
	web := http.Client{Transport: &http.Transport{DialContext: from.DialContext, DisableKeepAlives: true}, Timeout: 90 * time.Second}
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
