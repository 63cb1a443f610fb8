package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestFetch(t *testing.T) {
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "plain") }))
	t.Cleanup(plain.Close)
	stop := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ticket":
			fmt.Fprint(w, "text")
		case "/moved":
			http.Redirect(w, r, "/ticket", http.StatusFound)
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case "/large":
			fmt.Fprint(w, strings.Repeat("a", 101))
		case "/slow":
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			<-stop
		case "/broken":
			w.Header().Set("Content-Length", "50")
			fmt.Fprint(w, "half")
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(stop) })
	for _, path := range []string{"/ticket", "/moved"} {
		if text, err := fetch(t.Context(), server.URL+path, 100); text != "text" || err != nil {
			t.Errorf("%s: %q, %v", path, text, err)
		}
	}
	for url, want := range map[string]string{
		server.URL + "/nosuch": "404 Not Found", server.URL + "/loop": "redirections", server.URL + "/large": "more than 100 bytes",
		"http://user:secret@127.0.0.1:1/x": "connection refused", "http://[": "invalid URL", "https://" + server.Listener.Addr().String() + "/": "download https://",
	} {
		text, err := fetch(t.Context(), url, 100)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %q, %v; want %q", url, text, err, want)
		}
	}
	secure := httptest.NewTLSServer(http.RedirectHandler(plain.URL, http.StatusFound))
	t.Cleanup(secure.Close)
	previous := http.DefaultTransport
	http.DefaultTransport = secure.Client().Transport
	t.Cleanup(func() { http.DefaultTransport = previous })
	if text, err := fetch(t.Context(), secure.URL, 100); err == nil || !strings.Contains(err.Error(), "from https to http:") {
		t.Errorf("downgraded: %q, %v", text, err)
	}
	for _, path := range []string{"/broken", "/slow"} {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if text, err := fetch(ctx, server.URL+path, 100); err == nil {
			t.Errorf("%s: %q", path, text)
		}
		cancel()
	}
}

// TestTicketFromURL: the word of a URL does for a ticket.
func TestTicketFromURL(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.must(fmt.Sprintf("sallyport project create partners --authority-port %s --relay-port %s", freePort(t), freePort(t)))
	ticket := s.must("sallyport project ticket")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/ticket" {
			fmt.Fprint(w, ticket+"\n")
			return
		}
		fmt.Fprint(w, "<html>not a ticket</html>")
	}))
	t.Cleanup(server.Close)
	s.must("mkdir member; export SALLYPORT_HOME=$HOME/member; sallyport project enroll " + server.URL + "/ticket; sallyport project show partners")
	if o := s.run("sallyport project enroll " + server.URL + "/other"); o.code != 70 || !strings.Contains(o.stderr, "not a ticket") {
		t.Errorf("exit code %d, %s", o.code, o.stderr)
	}
}
